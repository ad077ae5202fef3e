//! Any text through the two vocabularies of the golden tests, with every setting, there and back.
//!
//! The first byte chooses the vocabulary and the settings, the second where what is literal starts.

#![no_main]

#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../common/untrusted.rs"]
mod untrusted;

use std::sync::LazyLock;

use armlet::tokenizer::{EncodeOptions, Tokenizer};
use libfuzzer_sys::fuzz_target;

/// Made once: an index takes longer than an input.
static VOCABULARIES: LazyLock<[Tokenizer<'static>; 2]> = LazyLock::new(|| {
    [&include_bytes!("../../golden/bpe.gguf")[..], include_bytes!("../../golden/spm.gguf")].map(untrusted::leaked_tokenizer)
});

fuzz_target!(|input: &[u8]| {
    let [choice, literal, text @ ..] = input else { return };
    let text = &*String::from_utf8_lossy(text);
    let is_bpe = choice & 1 == 0;
    let literal = [usize::from(*literal)..text.len()];
    let literal = if choice & 8 == 0 { &[] } else { &literal[..] };
    let options = EncodeOptions { add_special: choice & 2 != 0, parse_special: choice & 4 != 0, literal };
    let t = &VOCABULARIES[usize::from(!is_bpe)];
    let tokens = untrusted::encode(t, text, options);
    assert!(tokens.len() <= t.max_tokens(text.len()));
    assert!(tokens.iter().all(|id| (*id as usize) < t.len()));
    let back = untrusted::decode(t, &tokens);
    // Without tokens that were added, bytes come back as they were: all of them for a byte-level vocabulary; for
    // SentencePiece but for blanks, which it adds before a text and after each special token.
    if !options.add_special {
        let visible = |s: &str| s.chars().filter(|c| !matches!(c, ' ' | '▁')).collect::<String>();
        assert!(back == text || (!is_bpe && visible(&back) == visible(text)), "{text:?} came back as {back:?}");
    }
});
