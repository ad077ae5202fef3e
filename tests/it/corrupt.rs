//! Damage without a plan: a tiny model cut off at every byte, with every bit of its header flipped, and with random
//! bytes changed. Whatever comes, it is an error or a model that runs; `untrusted::digest` asserts the rest.

use crate::common::cases;
use crate::common::gguf::{Gguf, Tiny, Val};
use crate::common::untrusted::{self, Outcome};
use armlet::gguf::File;
use armlet::quant::DType;
use proptest::prelude::*;

/// The least model that has everything: both kinds of matrices' input, biases, and factors of the rotation.
fn byte_level() -> Gguf {
    let sizes = Tiny { vocab: 33, n_embd: 32, n_layers: 1, n_heads: 4, n_kv_heads: 2, head_dim: 8, ..Tiny::default() };
    Tiny { rope_dims: 8, n_ff: 32, context: 16, bias: true, rope_factors: true, dtype: DType::Q4_0, ..sizes }.gguf()
}

/// Another with SentencePiece's lists, of another family.
fn sentence_piece() -> Gguf {
    let sizes = Tiny { arch: "qwen2", vocab: 24, n_embd: 8, n_layers: 2, n_heads: 1, n_kv_heads: 1, ..Tiny::default() };
    let mut g = Tiny { head_dim: 8, rope_dims: 4, n_ff: 3, context: 16, tied: false, ..sizes }.gguf();
    let text = |i: usize| match i {
        0..3 => ["<unk>", "<s>", "</s>"][i].into(),
        3..13 => format!("<0x{i:02X}>"),
        13 => "▁".into(),
        _ => char::from(b'a' + i as u8 - 14).to_string(),
    };
    let kind = |i: usize| [2, 3, 3, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6].get(i).copied().unwrap_or(1);
    g.set("tokenizer.ggml.model", Val::Str("llama".into()));
    g.set("tokenizer.ggml.tokens", Val::Strs((0..24).map(text).collect()));
    g.set("tokenizer.ggml.token_type", Val::I32s((0..24).map(kind).collect()));
    g.set("tokenizer.ggml.scores", Val::F32s((0..24).map(|i| -(i as f32)).collect()));
    g.set("tokenizer.ggml.bos_token_id", Val::U32(1)).set("tokenizer.ggml.add_bos_token", Val::Bool(true));
    g.set("general.alignment", Val::U32(8));
    g.alignment = 8;
    g
}

/// Whole models of each kind; the last one with its matrices in panels.
fn models() -> [Vec<u8>; 3] {
    [byte_level().build(), sentence_piece().build(), byte_level().packed().build()]
}

/// Where the data start: all before it is header.
fn header_len(bytes: &[u8]) -> usize {
    let file = File::new_checked(bytes).unwrap();
    let first = file.tensors().next().unwrap();
    let at = bytes.windows(first.data.len()).position(|w| w.as_ptr() == first.data.as_ptr());
    at.expect("the data are in the file")
}

fn is_run(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Ran(_))
}

#[test]
fn the_models_run_unharmed() {
    for bytes in models() {
        assert!(matches!(untrusted::digest(&bytes), Outcome::Ran(Ok(_))));
        assert!((500..4000).contains(&header_len(&bytes)));
    }
}

#[test]
fn cut_off_at_every_byte() {
    for bytes in models() {
        for len in 0..bytes.len() {
            let outcome = untrusted::digest(&bytes[..len]);
            assert!(matches!(outcome, Outcome::Malformed(_)), "{len} of {} bytes: {outcome:?}", bytes.len());
        }
    }
}

/// Every bit alone, all bits of a byte, and the bytes that mean something: 0, 1, 0x7f, 0x80, 0xff.
#[test]
fn every_byte_of_the_header_changed() {
    for mut bytes in models() {
        let mut counts = [0; 3];
        for at in 0..header_len(&bytes) {
            let old = bytes[at];
            let flips = (0..8).map(|bit| old ^ (1 << bit)).chain([!old, 0, 1, 0x7f, 0x80, 0xff]);
            for new in flips.filter(|new| *new != old) {
                bytes[at] = new;
                match untrusted::digest(&bytes) {
                    Outcome::Malformed(_) => counts[0] += 1,
                    Outcome::Unusable(_) => counts[1] += 1,
                    Outcome::Ran(_) => counts[2] += 1,
                }
            }
            bytes[at] = old;
        }
        // The damage reaches every stage, or the test would not test them.
        assert!(counts.iter().all(|n| *n > 1000), "malformed, unusable, run: {counts:?}");
    }
}

/// Weights may be anything.
#[test]
fn every_byte_of_the_data_changed() {
    for mut bytes in models() {
        for at in header_len(&bytes)..bytes.len() {
            let old = bytes[at];
            bytes[at] = if at % 2 == 0 { 0xff } else { 0x7c };
            assert!(is_run(&untrusted::digest(&bytes)));
            bytes[at] = old;
        }
    }
}

/// What the fuzzer starts from: whole models, and some that are broken at different stages.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let [byte_level, sentence_piece, packed] = models();
    let header = header_len(&sentence_piece);
    let mut big_endian = sentence_piece.clone();
    big_endian[4..8].reverse();
    let mut overlap = sentence_piece.clone();
    overlap[header - 16..header - 8].fill(0);
    let mut vocabulary = self::sentence_piece();
    vocabulary.tensors.clear();
    vec![
        ("big-endian", big_endian),
        ("byte-level", byte_level),
        ("cut-off", sentence_piece[..header + 100].to_vec()),
        ("empty", Gguf::default().build()),
        ("overlap", overlap),
        ("packed", packed),
        ("sentence-piece", sentence_piece),
        ("vocabulary", vocabulary.build()),
    ]
}

/// With `ARMLET_WRITE_SEEDS` set, writes them.
#[test]
fn the_seeds_of_the_fuzzer_are_current() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds/gguf");
    for (name, bytes) in seeds() {
        let path = folder.join(name);
        if std::env::var_os("ARMLET_WRITE_SEEDS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == bytes, "{} is not what it was", path.display());
        assert_eq!(
            is_run(&untrusted::digest(&bytes)),
            ["byte-level", "packed", "sentence-piece"].contains(&name),
            "{name}"
        );
    }
}

/// Numbers at which sizes, counts and offsets go wrong.
fn telling() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(u64::MAX),
        (0u32..64).prop_map(|bit| 1 << bit),
        (0u32..64).prop_map(|bit| (1 << bit) - 1),
        (0u64..40).prop_map(|n| u64::MAX - n),
        0u64..300,
        any::<u64>(),
    ]
}

/// One change: some bytes of a number put somewhere, or some bytes taken out or repeated.
#[derive(Clone, Debug)]
enum Change {
    Number { at: usize, value: u64, bytes: usize },
    Remove { at: usize, n: usize },
    Repeat { at: usize, n: usize },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (any::<usize>(), telling(), prop_oneof![Just(1), Just(4), Just(8)])
            .prop_map(|(at, value, bytes)| Change::Number { at, value, bytes }),
        1 => (any::<usize>(), 1usize..40).prop_map(|(at, n)| Change::Remove { at, n }),
        1 => (any::<usize>(), 1usize..40).prop_map(|(at, n)| Change::Repeat { at, n }),
    ]
}

/// Applies a change somewhere in the first `header` bytes.
fn apply(bytes: &mut Vec<u8>, header: usize, change: &Change) {
    let range = |at: usize, n: usize| {
        let start = at % header.min(bytes.len());
        start..(start + n).min(bytes.len())
    };
    match *change {
        Change::Number { at, value, bytes: n } => {
            let range = range(at, n);
            let value = &value.to_le_bytes()[..range.len()];
            bytes[range].copy_from_slice(value);
        }
        Change::Remove { at, n } => drop(bytes.drain(range(at, n))),
        Change::Repeat { at, n } => {
            let range = range(at, n);
            let twice = bytes[range.clone()].to_vec();
            bytes.splice(range.start..range.start, twice);
        }
    }
}

proptest! {
    #![proptest_config(cases(20_000, 2_000))]

    #[test]
    fn random_damage(model in 0usize..3, changes in prop::collection::vec(change(), 1..5)) {
        let mut bytes = models()[model].clone();
        let header = header_len(&bytes);
        changes.iter().for_each(|c| apply(&mut bytes, header, c));
        untrusted::digest(&bytes);
    }

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), n_tensors in 0u64..4, n_kv in 0u64..4) {
        let header = [&b"GGUF\x03\0\0\0"[..], &n_tensors.to_le_bytes(), &n_kv.to_le_bytes()].concat();
        prop_assert!(!is_run(&untrusted::digest(&[header, bytes].concat())));
    }
}
