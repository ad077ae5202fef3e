//! One test for each rule of a model's vocabulary (V), as `model_rules.rs` has them for its sizes and weights: each file
//! is well-formed GGUF whose claims are false.

use crate::common::gguf::{Gguf, Tiny, Val};
use crate::common::untrusted::{self, Outcome};
use armlet::gguf::File;
use armlet::model::{Model, ModelError};
use armlet::storage::Arena;
use armlet::tokenizer::{Detokenizer, EncodeOptions, TokenKind, Tokenizer, TokenizerError, TokenizerWarning};

/// A vocabulary alone, of (text, type, score).
fn sentence_piece(tokens: &[(&str, i32, f32)]) -> Gguf {
    let mut g = Gguf::default();
    g.set("tokenizer.ggml.model", Val::Str("llama".into()));
    g.set("tokenizer.ggml.tokens", Val::Strs(tokens.iter().map(|t| t.0.into()).collect()));
    g.set("tokenizer.ggml.token_type", Val::I32s(tokens.iter().map(|t| t.1).collect()));
    g.set("tokenizer.ggml.scores", Val::F32s(tokens.iter().map(|t| t.2).collect()));
    g
}

/// A byte-level vocabulary of text tokens.
fn bpe(tokens: &[&str], merges: &[&str]) -> Gguf {
    let mut g = Gguf::default();
    let strings = |x: &[&str]| Val::Strs(x.iter().map(|s| String::from(*s)).collect());
    g.set("tokenizer.ggml.model", Val::Str("gpt2".into())).set("tokenizer.ggml.pre", Val::Str("gpt-2".into()));
    g.set("tokenizer.ggml.tokens", strings(tokens)).set("tokenizer.ggml.merges", strings(merges));
    g
}

/// The error of a vocabulary, which is that of its plan too.
#[track_caller]
fn no_vocabulary(g: &Gguf) -> TokenizerError {
    let bytes = g.build();
    let file = File::new_checked(&bytes).unwrap();
    let planned = Tokenizer::new(&file, &mut Arena::dry_run()).unwrap_err();
    let mut memory = untrusted::Memory::new(1 << 20);
    assert_eq!(Tokenizer::new(&file, &mut Arena::new(memory.get()).unwrap()).unwrap_err(), planned);
    planned
}

fn tokens(g: &Gguf, text: &str) -> Vec<u32> {
    untrusted::with_tokenizer(&g.build(), |t| untrusted::text(t, text))
}

/// An id beyond the vocabulary is the default's, or none, and said.
#[test]
fn v1_special_ids_are_in_the_vocabulary() {
    let g = sentence_piece(&[("<unk>", 2, 0.0), ("<s>", 3, 0.0), ("</s>", 3, 0.0), ("a", 1, 0.0)]);
    let defaults = [("bos", Some(1)), ("eos", Some(2)), ("unknown", Some(0)), ("eot", None), ("padding", None)];
    for (name, instead) in defaults {
        let key = format!("tokenizer.ggml.{name}_token_id");
        for id in [4, 5, u64::from(u32::MAX), 1 << 32, (1 << 32) + 1, u64::MAX] {
            untrusted::with_tokenizer(&g.clone().set(&key, Val::U64(id)).build(), |t| {
                let warnings: Vec<TokenizerWarning> = t.warnings().collect();
                let [TokenizerWarning::SpecialToken { key: said, instead: used }] = warnings[..] else {
                    panic!("{warnings:?}")
                };
                assert_eq!((said, used), (key.as_str(), instead));
                assert!(warnings[0].to_string().contains(&key));
                assert_eq!((t.bos(), t.eos()), (Some(1), Some(2)));
                // The blank in front, and "é", are bytes without a token.
                assert_eq!(untrusted::text(t, "aé"), [0, 0, 0, 3, 0, 0]);
            });
        }
        for value in [Val::Raw(5, vec![1, 0, 0, 0]), Val::F32(1.0), Val::Str("1".into()), Val::I32s(vec![1])] {
            let error = no_vocabulary(g.clone().set(&key, value));
            assert!(matches!(error, TokenizerError::Key(k) if k == key), "{error}");
        }
        untrusted::with_tokenizer(&g.clone().set(&key, Val::U32(3)).build(), |t| {
            assert_eq!(t.warnings().count(), 0);
            drop(untrusted::text(t, "a"));
        });
    }
}

/// llama.cpp's defaults are tokens 1 and 2; a vocabulary of one token has none.
#[test]
fn v1_defaults_are_in_the_vocabulary() {
    let with = |n: usize| sentence_piece(&[("a", 1, 0.0), ("b", 1, 0.0), ("c", 1, 0.0)][..n]).build();
    let ids = |n| untrusted::with_tokenizer(&with(n), |t| (t.bos(), t.eos(), t.adds_bos()));
    assert_eq!([1, 2, 3].map(ids), [(None, None, false), (Some(1), None, true), (Some(1), Some(2), true)]);
    // Those of BPE are token 11.
    for (n, id) in [(11, None), (12, Some(11))] {
        let tokens: Vec<String> = ('a'..).take(n).map(String::from).collect();
        let bytes = bpe(&tokens.iter().map(String::as_str).collect::<Vec<_>>(), &[]).build();
        untrusted::with_tokenizer(&bytes, |t| {
            assert_eq!((t.bos(), t.eos(), t.adds_bos(), t.is_end(11)), (id, id, false, id.is_some()));
        });
    }
    untrusted::with_tokenizer(&with(1), |t| {
        let options = EncodeOptions { add_special: true, parse_special: true, literal: &[] };
        assert!(untrusted::encode(t, "a a", options).iter().all(|t| *t == 0));
    });
}

#[test]
fn v2_byte_tokens_are_strict() {
    let rubbish =
        ["<0x-1>", "<0x+1>", "<0xG0>", "<0x>", "<0x001>", "<0x 1>", "<0xc3>x", "0xC3", "<0x", ">", "<0x\u{ff11}>"];
    let mut list = vec![("<unk>", 2, 0.0)];
    list.extend(rubbish.map(|t| (t, 6, 0.0)));
    let bytes = sentence_piece(&list).build();
    untrusted::with_tokenizer(&bytes, |t| {
        for id in 1..=rubbish.len() as u32 {
            assert_eq!((t.kind(id), t.piece(id, true).count()), (TokenKind::Byte, 0), "{}", rubbish[id as usize - 1]);
        }
        // No byte has a token, so each byte of the text and of the blank before it is the unknown one.
        assert_eq!(untrusted::text(t, "é"), [0; 5]);
    });
    let strict = sentence_piece(&[("<unk>", 2, 0.0), ("<0xC3>", 6, 0.0), ("<0xA9>", 6, 0.0), ("▁", 1, 0.0)]);
    assert_eq!(tokens(&strict, "é"), [3, 1, 2]);
    untrusted::with_tokenizer(&strict.build(), |t| assert_eq!(untrusted::decode(t, &[3, 1, 2]), " é"));
}

#[test]
fn v3_merges_of_what_are_no_tokens_are_left_out() {
    let vocabulary = ["a", "b", "c", "ab", "abc", "bc"];
    let good = bpe(&vocabulary, &["a b", "ab c"]);
    assert_eq!(tokens(&good, "abc"), [4]);
    let rubbish = ["", " ", "  ", "a", "ab", "a ", " b", "a  b", "x y", "a x", "c a", "a b c", "é", "c c"];
    let among = bpe(&vocabulary, &[&rubbish[..], &["a b"], &rubbish, &["ab c"]].concat());
    assert_eq!(tokens(&among, "abc"), [4]);
    assert_eq!(tokens(&bpe(&vocabulary, &rubbish), "abc"), [0, 1, 2]);
    assert_eq!(tokens(&bpe(&vocabulary, &[]), "abc"), [0, 1, 2]);
    // The first of two merges of one pair counts.
    assert_eq!(tokens(&bpe(&vocabulary, &["a b", "b c", "a b"]), "abc"), [3, 2]);
    // The last of two tokens of one text counts, also where the first follows what the merge before gave.
    assert_eq!(tokens(&bpe(&["a", "b", "c", "ab", "bc", "bc"], &["a b", "b c"]), "bc"), [5]);
    let wrong = |v| no_vocabulary(good.clone().set("tokenizer.ggml.merges", v));
    assert_eq!(wrong(Val::I32s(vec![0; 6])), TokenizerError::Key("tokenizer.ggml.merges"));
    assert_eq!(
        no_vocabulary(good.clone().unset("tokenizer.ggml.merges")),
        TokenizerError::Key("tokenizer.ggml.merges")
    );
}

#[test]
fn v4_lists_are_as_long_as_the_tokens_and_of_their_type() {
    let g = sentence_piece(&[("a", 1, 0.0), ("b", 1, 0.0), ("c", 1, 0.0)]);
    let u32s = |n: usize| Val::Raw(9, [&4u32.to_le_bytes()[..], &(n as u64).to_le_bytes(), &vec![0; 4 * n]].concat());
    for (key, lists) in [
        (
            "tokenizer.ggml.scores",
            vec![Val::F32s(vec![]), Val::F32s(vec![0.0; 2]), Val::F32s(vec![0.0; 4]), Val::I32s(vec![0; 4]), u32s(3)],
        ),
        (
            "tokenizer.ggml.token_type",
            vec![Val::I32s(vec![]), Val::I32s(vec![1; 2]), Val::I32s(vec![1; 4]), Val::F32s(vec![1.0; 3]), u32s(3)],
        ),
        (
            "tokenizer.ggml.tokens",
            vec![Val::Strs(vec![]), Val::I32s(vec![0; 3]), Val::U32(3), Val::Strs(vec!["a".into(); 2])],
        ),
    ] {
        for list in lists {
            let error = no_vocabulary(g.clone().set(key, list));
            assert!(
                matches!(error, TokenizerError::Key(k) if k == key || key == "tokenizer.ggml.tokens"),
                "{key}: {error}"
            );
        }
    }
    // Types may be missing, and numbers that are no type are text; NaN scores order somehow.
    let mut odd = sentence_piece(&[("a", -7, f32::NAN), ("▁", i32::MAX, -f32::NAN), ("▁a", i32::MIN, f32::INFINITY)]);
    assert_eq!(tokens(&odd, "a"), [2]);
    assert_eq!(tokens(odd.unset("tokenizer.ggml.token_type"), "a"), [2]);
}

/// Scores may be integers, or missing: then all tokens count the same, and pairs are joined from left to right.
#[test]
fn v4_scores_may_be_integers_or_missing() {
    let g = |scores: [f32; 3]| {
        sentence_piece(&[("▁", 1, 0.0), ("a", 1, 0.0), ("▁a", 1, scores[0]), ("aa", 1, scores[1]), ("b", 1, scores[2])])
    };
    let said = |g: &Gguf| untrusted::with_tokenizer(&g.build(), |t| t.warnings().collect::<Vec<_>>());
    let floats = g([1.0, 2.0, 3.0]);
    assert_eq!((tokens(&floats, "aa"), said(&floats)), (vec![0, 3], vec![]));
    let mut whole = floats.clone();
    whole.set("tokenizer.ggml.scores", Val::I32s(vec![0, 0, -2, -1, 0]));
    assert_eq!((tokens(&whole, "aa"), said(&whole)), (vec![0, 3], vec![TokenizerWarning::WholeScores]));
    whole.set("tokenizer.ggml.scores", Val::I32s(vec![0, 0, -1, -2, 0]));
    assert_eq!(tokens(&whole, "aa"), [2, 1]);
    let mut none = floats;
    none.unset("tokenizer.ggml.scores");
    assert_eq!((tokens(&none, "aa"), said(&none)), (vec![2, 1], vec![TokenizerWarning::NoScores]));
}

#[test]
fn v5_tokens_of_any_length() {
    // Nothing, as text and as what is cut out of a text: it must be found nowhere rather than everywhere.
    let g = sentence_piece(&[("", 3, 0.0), ("", 4, 0.0), ("", 1, 9.0), ("", 6, 0.0), ("a", 1, 0.0), ("▁", 1, 0.0)]);
    assert_eq!(tokens(&g, "aa"), [5, 4, 4]);
    let mut g = bpe(&["", "a", "", "aa"], &["a a", " "]);
    assert_eq!(tokens(&g, "aaa"), [3, 1]);
    assert_eq!(tokens(g.set("tokenizer.ggml.token_type", Val::I32s(vec![4, 1, 3, 1])), "aaa"), [3, 1]);
    // As long as a token may be, and longer: an error, which only the text shows.
    let long = "a".repeat(4096);
    for kind in [1, 3, 4] {
        let fits = sentence_piece(&[("a", 1, 0.0), ("▁", 1, 0.0), (&long, kind, 0.0)]);
        assert_eq!(tokens(&fits, &format!("{long}a"))[..3], if kind == 4 { [2, 1, 0] } else { [1, 0, 0] });
        let bytes = sentence_piece(&[("a", 1, 0.0), ("▁", 1, 0.0), (&format!("{long}a"), kind, 0.0)]).build();
        let file = File::new_checked(&bytes).unwrap();
        let mut dry = Arena::dry_run();
        Tokenizer::new(&file, &mut dry).unwrap();
        let mut memory = untrusted::Memory::new(dry.used());
        let error = Tokenizer::new(&file, &mut Arena::new(memory.get()).unwrap()).unwrap_err();
        assert_eq!(error, TokenizerError::TokenTooLong(2));
    }
    // The later of two tokens of one text counts, as in llama.cpp.
    assert_eq!(tokens(&bpe(&["a", "a", "a"], &[]), "aa"), [2, 2]);
    assert!(tokens(&bpe(&["Q"], &[]), "no byte of this is a token").is_empty());
}

#[test]
fn v6_text_from_tokens_is_bounded() {
    let special = [("<unk>", 2, 0.0), ("<s>", 3, 0.0), ("▁▁a\u{2581}", 1, 0.0), ("\u{2581}é", 5, 0.0), ("x", 4, 0.0)];
    untrusted::with_tokenizer(&sentence_piece(&special).build(), |t| {
        for id in [0, 1, 2, 3, 4, 5, 6, 1 << 31, u32::MAX] {
            let (all, plain) = (t.piece(id, true).count(), t.piece(id, false).count());
            assert!(plain <= all && all <= t.text(id).len(), "{id}");
        }
        assert_eq!((t.text(5), t.kind(5)), (&b""[..], TokenKind::Unused));
    });
    // Half characters, one byte at a time: never more than is pending, and as the standard library has it.
    let rubbish: Vec<u8> = crate::common::gguf::noise(3, 20_000).iter().map(|x| (x * 128.0) as i8 as u8).collect();
    let (mut shown, mut d) = (String::new(), Detokenizer::new());
    for byte in &rubbish {
        d.push([*byte].into_iter(), |s| {
            assert!(s.chars().count() == 1);
            shown.push_str(s);
        });
    }
    d.finish(|s| shown.push_str(s));
    assert_eq!(shown, String::from_utf8_lossy(&rubbish));
}

/// A quarter of a million letters are one word: a step that is quadratic would show.
#[test]
fn v7_time_is_bounded() {
    let n = 1 << 18;
    let doubled: Vec<String> = (0..13).map(|i| "a".repeat(1 << i)).collect();
    let merges: Vec<String> = doubled.iter().map(|t| format!("{t} {t}")).collect();
    let texts: Vec<&str> = doubled.iter().map(String::as_str).collect();
    let merges: Vec<&str> = merges.iter().map(String::as_str).collect();
    assert_eq!(tokens(&bpe(&texts, &merges), &"a".repeat(n)), vec![12; n >> 12]);
    // Shortest first, so that every join is outdated many times over; and one letter at a time.
    for score in [-1.0, 1.0] {
        let list: Vec<(&str, i32, f32)> = (0..).zip(&texts).map(|(i, t)| (*t, 1, score * i as f32)).collect();
        let total: usize = tokens(&sentence_piece(&list), &"a".repeat(n)).iter().map(|t| 1 << t).sum();
        // The blank in front is three bytes that are no tokens: the unknown one, which is "a".
        assert_eq!(total, n + 3);
    }
    // A special token that almost matches everywhere.
    let near = format!("{}b", "a".repeat(1000));
    let g = sentence_piece(&[("a", 1, 0.0), ("▁", 1, 0.0), (&near, 4, 0.0)]);
    assert_eq!(tokens(&g, &"a".repeat(n)).len(), n + 1);
}

/// The workspace is at most 24 bytes for each byte of a text, and what it says suffices: for one word, for many, for
/// special tokens alone, with each kind of tokenizer and every way to split text.
#[test]
fn v7_memory_is_bounded() {
    let letters = ["a", "b", "▁", "Ġ", "Ċ", "aa", "aaaa", "<x>", "ab"];
    let mut vocabularies = vec![sentence_piece(&letters.map(|t| (t, if t == "<x>" { 4 } else { 1 }, 0.0)))];
    for pre in [
        "gpt-2",
        "llama-bpe",
        "qwen2",
        "tekken",
        "exaone-moe",
        "deepseek-coder",
        "deepseek-llm",
        "bloom",
        "viking",
        "laguna",
        "afmoe",
        "jais-2",
        "gemma4",
        "default",
    ] {
        let mut g = bpe(&letters, &["a a", "aa aa", "a b"]);
        g.set("tokenizer.ggml.pre", Val::Str(pre.into()));
        vocabularies.push(g.set("tokenizer.ggml.token_type", Val::I32s(vec![1, 1, 1, 1, 1, 1, 1, 4, 1])).clone());
    }
    let units = ["a", "ab", " ", "\n", "a b ", "\u{1} ", "( (", "<x>", "<x>a", "\u{3000}", "漢", "é a", "1", "'s"];
    for g in &vocabularies {
        untrusted::with_tokenizer(&g.build(), |t| {
            for unit in units {
                for n in [0, 1, 2, 63, 1000, 5000] {
                    let text = unit.repeat(n);
                    let (this, most) = (t.scratch_bytes(&text).unwrap(), t.most_scratch_bytes(text.len()).unwrap());
                    assert!(this <= most && most <= 24 * text.len() + 512, "{most} bytes for {n} times {unit:?}");
                    // In exactly so much memory.
                    untrusted::text(t, &text);
                }
            }
        });
    }
}

/// Gemma 4's: BPE of characters over whole lines, blanks as `▁`, bytes as `<0xHH>`; line feeds alone may be a token.
#[test]
fn v_gemma_4_merges_characters_of_lines() {
    let vocabulary = [
        "<bos>", "▁", "a", "b", "é", "a▁", "▁b", "a▁b", "\n", "\n\n", "<0xE6>", "<0xBC>", "<0xA2>", "<0x09>",
        "\n\n\n\n",
    ];
    let mut g = bpe(&vocabulary, &["a ▁", "▁ b", "a▁ b", "\n \n"]);
    g.set("tokenizer.ggml.model", Val::Str("gemma4".into())).unset("tokenizer.ggml.pre");
    let is_byte = |text: &str| if text.starts_with("<0x") { 6 } else { 1 };
    g.set("tokenizer.ggml.token_type", Val::I32s(vocabulary.map(is_byte).to_vec()));
    assert_eq!(tokens(&g, "a b"), [7]);
    assert_eq!(tokens(&g, " béa▁b"), [6, 4, 7]);
    // A character without a token is spelled in bytes; a byte without a token is dropped.
    assert_eq!(tokens(&g, "漢\ta\r"), [10, 11, 12, 13, 2]);
    // Four line feeds are a token as a whole, three are merged.
    assert_eq!(tokens(&g, "a\n\n\n\nb\n\n\nb"), [2, 14, 3, 9, 8, 3]);
    let said = |g: &Gguf| {
        untrusted::with_tokenizer(&g.build(), |t| (t.bos(), t.eos(), t.adds_bos(), t.warnings().collect::<Vec<_>>()))
    };
    assert_eq!(said(&g), (None, None, false, vec![]));
    g.set("tokenizer.ggml.bos_token_id", Val::U32(0));
    assert_eq!(said(&g), (Some(0), None, true, vec![]));
    g.set("tokenizer.ggml.add_bos_token", Val::Raw(7, vec![0]));
    assert_eq!(said(&g), (Some(0), None, true, vec![TokenizerWarning::BosForGemma4]));
    untrusted::with_tokenizer(&g.build(), |t| assert_eq!(untrusted::decode(t, &[7, 10, 11, 12, 5]), "a b漢a "));
}

#[test]
fn v_a_missing_pre_tokeniser_is_the_default() {
    let g = bpe(&["Ġ", "1", "2", "3", "4", "12"], &["1 2"]);
    for missing in [g.clone().unset("tokenizer.ggml.pre"), g.clone().set("tokenizer.ggml.pre", Val::Str(String::new()))]
    {
        untrusted::with_tokenizer(&missing.build(), |t| {
            assert_eq!(t.warnings().collect::<Vec<_>>(), [TokenizerWarning::NoPreTokenizer]);
            assert!(TokenizerWarning::NoPreTokenizer.to_string().contains("--override-kv"));
            // The default cuts threes of digits: of "4123", "3" stands alone.
            assert_eq!(untrusted::text(t, "4123"), [4, 5, 3]);
        });
    }
}

/// Every token that ends an answer, by key and by name, and what llama.cpp takes out again.
#[test]
fn v_ends_of_answers() {
    let ends = |names: &[&str], keys: &[(&str, u32)]| -> Vec<u32> {
        let mut g = bpe(names, &[]);
        for (key, id) in keys {
            g.set(&format!("tokenizer.ggml.{key}_token_id"), Val::U32(*id));
        }
        untrusted::with_tokenizer(&g.build(), |t| (0..names.len() as u32).filter(|id| t.is_end(*id)).collect())
    };
    let names = [
        "a",
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|flush|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "</s>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<｜end▁of▁sentence｜>",
        "[e~[",
        "<|fim_pad|>",
        "<|repo_name|>",
        "<|file_sep|>",
    ];
    assert_eq!(ends(&names, &[("eos", 1)]), (1..names.len() as u32).collect::<Vec<_>>());
    for key in ["eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"] {
        assert_eq!(ends(&["a", "b", "c"], &[(key, 1)]), [1], "{key}");
    }
    assert_eq!(ends(&["a", "b", "c"], &[("bos", 1), ("padding", 2), ("unknown", 0)]), [0; 0]);
    // In vocabularies with tokens for calls, <|end|> ends a part only; beside <|tool_response>, </s> is text; whatever a key says.
    assert_eq!(ends(&["<|end|>", "<|return|>", "<|call|>"], &[("eot", 0)]), [1, 2]);
    assert_eq!(ends(&["<|end|>", "<|flush|>", "<|calls|>"], &[]), [1, 2]);
    assert_eq!(ends(&["</s>", "<|tool_response>"], &[("eos", 0)]), [1]);
    untrusted::with_tokenizer(&bpe(&["</s>", "<|tool_response>"], &[]).build(), |t| {
        assert_eq!([t.kind(0), t.kind(1)], [TokenKind::Normal, TokenKind::Control]);
    });
}

#[test]
fn v_suppressed_tokens_are_listed() {
    let mut g = bpe(&["a", "b", "c"], &[]);
    let suppressed = |g: &Gguf| {
        untrusted::with_tokenizer(&g.build(), |t| {
            let listed: Vec<u32> = t.suppressed().collect();
            assert!((0..3).all(|id| listed.contains(&id) == t.is_suppressed(id)));
            listed
        })
    };
    assert_eq!(suppressed(&g), [0; 0]);
    g.set("tokenizer.ggml.suppress_tokens", Val::I32s(vec![2, -1, 3, i32::MAX, 0, i32::MIN]));
    assert_eq!(suppressed(&g), [2, 0]);
    let wrong = Val::Raw(9, [&4u32.to_le_bytes()[..], &1u64.to_le_bytes(), &[0; 4]].concat());
    let error = no_vocabulary(g.set("tokenizer.ggml.suppress_tokens", wrong));
    assert_eq!(error, TokenizerError::Key("tokenizer.ggml.suppress_tokens"));
    // So many that drawing a token could take hours.
    g.set("tokenizer.ggml.suppress_tokens", Val::I32s(vec![1; 1024]));
    assert_eq!(suppressed(&g).len(), 1024);
    let error = no_vocabulary(g.set("tokenizer.ggml.suppress_tokens", Val::I32s(vec![1; 1025])));
    assert_eq!(error, TokenizerError::Key("tokenizer.ggml.suppress_tokens"));
}

/// The parts of an answer of gpt-oss are shown, whatever the file says, and made by templates only.
#[test]
fn v_tokens_that_divide_an_answer_are_shown() {
    let names = ["<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|other|>"];
    let mut g = bpe(&names, &[]);
    g.set("tokenizer.ggml.token_type", Val::I32s(vec![3; 5]));
    untrusted::with_tokenizer(&g.build(), |t| {
        let shown = [TokenKind::UserDefined; 4];
        assert_eq!([0, 1, 2, 3].map(|id| t.kind(id)), shown);
        assert_eq!(t.kind(4), TokenKind::Control);
        assert!((0..5).all(|id| t.is_reserved(id)));
        let ids = |parse_special| {
            let options = EncodeOptions { add_special: false, parse_special, literal: &[] };
            untrusted::encode(t, &names.concat(), options)
        };
        assert_eq!(ids(true), [0, 1, 2, 3, 4]);
        assert_eq!(ids(false), [0; 0]);
    });
}

/// Phi-3's control tokens take the white space behind them, but for three.
#[test]
fn v_phi_3_strips_white_space_behind_control_tokens() {
    let mut g = sentence_piece(&[
        ("<unk>", 2, 0.0),
        ("<s>", 3, 0.0),
        ("</s>", 3, 0.0),
        ("a", 1, 0.0),
        ("▁", 1, 0.0),
        ("<|end|>", 3, 0.0),
        ("<|user|>", 3, 0.0),
    ]);
    g.set("tokenizer.ggml.add_space_prefix", Val::Raw(7, vec![0]));
    let special = |g: &Gguf, text: &str| {
        let options = EncodeOptions { add_special: false, parse_special: true, literal: &[] };
        untrusted::with_tokenizer(&g.build(), |t| untrusted::encode(t, text, options))
    };
    let text = "a a<|user|> \n\u{b} a<|end|> <s> a <|end|>";
    assert_eq!(special(&g, text)[..5], [3, 4, 3, 6, 4]);
    for name in ["Phi 3.5 mini", "Phi-3.5-mini", "my-PHI3"] {
        g.set("general.name", Val::Str(name.into()));
        let stripped = [3, 4, 3, 6, 3, 5, 1, 4, 3, 4, 5];
        assert_eq!(special(&g, text) == stripped, name != "Phi 3.5 mini", "{name}");
    }
}

#[test]
fn v8_text_makes_no_control_tokens() {
    let g = sentence_piece(&[("<unk>", 2, 0.0), ("<end>", 3, 0.0), ("<tool>", 4, 0.0), ("x", 1, 0.0), ("▁", 1, 0.0)]);
    let text = "x<end>x<tool>x<unk>x";
    let with = |parse_special, literal: &[std::ops::Range<usize>]| {
        let options = EncodeOptions { add_special: false, parse_special, literal };
        let ids = untrusted::with_tokenizer(&g.build(), |t| untrusted::encode(t, text, options));
        [1, 2].map(|id| ids.iter().filter(|t| **t == id).count())
    };
    assert_eq!(with(false, &[]), [0, 1]);
    assert_eq!(with(true, &[]), [1, 1]);
    // What a user wrote inside a template stays text, however little of the token it covers.
    let all = 0..text.len();
    assert_eq!(with(true, std::slice::from_ref(&all)), [0, 1]);
    for byte in 1..6 {
        let one = byte..byte + 1;
        assert_eq!(with(true, std::slice::from_ref(&one)), [0, 1], "{byte}");
    }
    // Ranges beyond the text cover nothing, and break nothing.
    let odd = [0..0, 100..200, usize::MAX..usize::MAX];
    assert_eq!(with(true, &odd), [1, 1]);
    // A name that marks a control token does so whatever its type says.
    let named = sentence_piece(&[("<unk>", 2, 0.0), ("<|im_end|>", 1, 0.0), ("▁", 1, 0.0)]);
    assert!(!tokens(&named, "<|im_end|>").contains(&1));
    untrusted::with_tokenizer(&named.build(), |t| assert!(t.is_end(1) && t.kind(1) == TokenKind::Control));
}

#[test]
fn v_tokenizers_that_are_unknown_are_named() {
    let g = bpe(&["a"], &[]);
    for (key, name) in
        [("tokenizer.ggml.model", "bert"), ("tokenizer.ggml.pre", "whitespace"), ("tokenizer.ggml.pre", " ")]
    {
        let error = no_vocabulary(g.clone().set(key, Val::Str(name.into())));
        assert!(error.to_string().contains(&format!("\"{name}\"")), "{error}");
        assert_eq!(
            no_vocabulary(g.clone().set(key, Val::U32(1))),
            TokenizerError::Key(if key.ends_with("pre") { "tokenizer.ggml.pre" } else { "tokenizer.ggml.model" })
        );
    }
    let error = no_vocabulary(g.clone().set("tokenizer.ggml.add_bos_token", Val::U32(1)));
    assert_eq!(error, TokenizerError::Key("tokenizer.ggml.add_bos_token"));
}

/// The whole model's error is that of its vocabulary.
#[test]
fn v_a_broken_vocabulary_breaks_the_model() {
    let mut g = Tiny::default().gguf();
    g.set("tokenizer.ggml.bos_token_id", Val::F32(1.0));
    let error = ModelError::Tokenizer(TokenizerError::Key("tokenizer.ggml.bos_token_id"));
    assert_eq!(untrusted::digest(&g.build()), Outcome::Unusable(error));
    let bytes = g.set("tokenizer.ggml.bos_token_id", Val::U32(66)).build();
    let required = Model::required_bytes(&File::new_checked(&bytes).unwrap()).unwrap();
    let mut memory = untrusted::Memory::new(required - 64);
    let short = Model::new(&File::new_checked(&bytes).unwrap(), memory.get());
    assert!(matches!(short, Err(ModelError::Tokenizer(_) | ModelError::Arena(_))), "{short:?}");
}
