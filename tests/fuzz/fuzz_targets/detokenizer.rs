//! Any bytes, cut anywhere, against the standard library's idea of their text; and any token ids as text.

#![no_main]

#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../common/untrusted.rs"]
mod untrusted;

use std::sync::LazyLock;

use armlet::tokenizer::{Detokenizer, Tokenizer};
use libfuzzer_sys::fuzz_target;

/// Made once: an index takes longer than an input.
static VOCABULARIES: LazyLock<[Tokenizer<'static>; 2]> = LazyLock::new(|| {
    [&include_bytes!("../../golden/bpe.gguf")[..], include_bytes!("../../golden/spm.gguf")].map(untrusted::leaked_tokenizer)
});

fuzz_target!(|input: &[u8]| {
    let Some((first, bytes)) = input.split_first() else { return };
    let (mut text, mut d) = (String::new(), Detokenizer::new());
    for part in bytes.chunks(usize::from(*first).max(1)) {
        d.push(part.iter().copied(), |s| {
            assert!(!s.is_empty());
            text.push_str(s);
        });
    }
    d.finish(|s| text.push_str(s));
    assert_eq!(text, String::from_utf8_lossy(bytes));

    // Ids near and far beyond the vocabulary too.
    let tokens: Vec<u32> = bytes.chunks(2).map(|b| b.iter().fold(0, |id, b| id << 8 | u32::from(*b))).collect();
    let tokens = [tokens, vec![u32::MAX, u32::MAX - u32::from(*first)]].concat();
    let t = &VOCABULARIES[usize::from(*first & 1)];
    let longest = tokens.iter().map(|id| t.text(*id).len()).sum::<usize>();
    // At worst each byte becomes a U+FFFD of three.
    assert!(untrusted::decode(t, &tokens).len() <= 3 * longest);
});
