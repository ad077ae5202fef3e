//! Every family against a forward pass in f64 (`common/family_oracle.rs`): logits at every position, in one piece, by single
//! tokens and by seven; and that the mistakes that are easily made would show.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::common::family_models::{Case, apart_and_fused, cases};
use crate::common::family_oracle::FamilyOracle;
use crate::common::gguf::Gguf;
use crate::common::oracle::Rows;
use crate::common::run::{backends, error, prompt, tiny, with_model, with_session};
use crate::common::untrusted::{self, Outcome};
use armlet::arch::{Kernels, KvType};
use armlet::engine::{Config, Pattern, Plan, Prefix, Session};
use armlet::host::memory;
use armlet::model::{FAMILIES, ModelError};
use armlet::storage::Serial;

/// The largest error of F32 weights and an F32 cache, relative to the largest logit.
const BOUND: f64 = 1e-5;
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/family_logits.jsonl");
/// Tokens of a text: more than any window and any original context.
const TOKENS: usize = 40;

/// llama.cpp has heads of windowed layers' own in families that are not here.
const NOT_IN_LLAMA_CPP: &str = " heads in ";

/// armlet's largest error at any position, when it reads the text in passes of `chunk`.
fn worst_error(case: &Case, kernels: Kernels, chunk: usize, tokens: &[u32], want: &Rows) -> f64 {
    let config = Config {
        context: case.context,
        chunk,
        logit_rows: chunk,
        kv: KvType::F32,
        pattern: Pattern::Full,
        ..Config::default()
    };
    with_model(&case.gguf, |model| {
        with_session(model, kernels, config, |reader| {
            let mut worst = 0.0f64;
            for (tokens, want) in tokens.chunks(chunk).zip(want.chunks(chunk)) {
                let logits = reader.score(&Serial, tokens).unwrap();
                for (got, want) in logits.chunks(want[0].len()).zip(want) {
                    worst = worst.max(error(got, want));
                }
            }
            worst
        })
    })
}

fn tokens() -> Vec<u32> {
    prompt(9, TOKENS, 67)
}

#[test]
fn every_family_matches_f64() {
    for case in cases() {
        let want = FamilyOracle::new(&case.gguf, case.context).logits(&tokens());
        for chunk in [TOKENS, 7, 1] {
            for kernels in backends() {
                let e = worst_error(&case, kernels, chunk, &tokens(), &want);
                assert!(e <= BOUND, "{} on {} by {chunk}: {e:.1e}", case.name, kernels.backend().name());
                println!("{} on {} by {chunk}: {e:.1e}", case.name, kernels.backend().name());
            }
        }
    }
}

/// Each mistake, made by the oracle, exceeds the bound by far: the comparison can fail.
#[test]
fn mistakes_in_families_show() {
    for case in cases() {
        for mistake in &case.mistakes {
            let mut oracle = FamilyOracle::new(&case.gguf, case.context);
            oracle.mistake = Some(*mistake);
            let e = worst_error(&case, Kernels::detect(), TOKENS, &tokens(), &oracle.logits(&tokens()));
            println!("{}, {mistake:?}: {e:.1e}", case.name);
            assert!(e > 50.0 * BOUND, "{}: {mistake:?} shows as only {e:.1e}", case.name);
        }
    }
}

/// A tensor of several matrices is cut where it is used, in rows and in panels: the bits are those of separate tensors.
#[test]
fn fused_tensors_give_the_same_bits() {
    let (apart, fused) = apart_and_fused(tiny("phi3", (4, 2, 16, 16), (64, 96), 4));
    let config = Config { context: 64, chunk: 40, kv: KvType::F16, pattern: Pattern::Full, ..Config::default() };
    let logits = |gguf: &Gguf| {
        with_model(gguf, |model| {
            with_session(model, Kernels::detect(), config, |r| r.eval(&Serial, &tokens()).unwrap().to_vec())
        })
    };
    let want = logits(&apart);
    for gguf in [&fused, &apart.packed(), &fused.packed()] {
        assert!(logits(gguf) == want);
    }
    // Panels of sixteen rows that belong to two matrices cannot be cut.
    let odd = apart_and_fused(tiny("phi3", (4, 1, 8, 8), (64, 96), 5)).1;
    let outcome = untrusted::digest(&odd.packed().build());
    assert!(matches!(outcome, Outcome::Unusable(ModelError::Panels(_))), "{outcome:?}");
    assert!(matches!(untrusted::digest(&odd.build()), Outcome::Ran(Ok(_))));
}

/// What llama.cpp gives for the same files, with F32 keys and values; `tests/golden/NOTES.md` says how it was asked.
///
/// Its GELU goes through a table of binary16, which moves logits by more than anything else does.
#[test]
fn logits_are_those_of_llama_cpp() {
    if let Some(folder) = std::env::var_os("ARMLET_WRITE_FAMILIES") {
        for case in cases() {
            let name = format!("{}-{}.gguf", case.context, case.name);
            std::fs::write(Path::new(&folder).join(name), case.gguf.build()).unwrap();
        }
        return;
    }
    let text = std::fs::read_to_string(GOLDEN).unwrap();
    let mut golden: BTreeMap<String, serde_json::Value> = BTreeMap::new();
    for line in text.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        golden.insert(case["name"].as_str().unwrap().into(), case);
    }
    let ids: Vec<u32> = (0..TOKENS as u32).map(|i| 29 * i % 67).collect();
    for case in cases().into_iter().filter(|case| !case.name.contains(NOT_IN_LLAMA_CPP)) {
        let Some(golden) = golden.remove(case.name) else { panic!("{} has no golden logits", case.name) };
        assert_eq!(golden["context"], case.context);
        let config = Config {
            context: case.context,
            chunk: TOKENS,
            logit_rows: TOKENS,
            kv: KvType::F32,
            pattern: Pattern::Full,
            ..Config::default()
        };
        let got = with_model(&case.gguf, |model| {
            with_session(model, Kernels::detect(), config, |r| r.score(&Serial, &ids).unwrap().to_vec())
        });
        let gelu = ["gemma", "starcoder2", "phi2"].iter().any(|name| case.name.starts_with(name));
        let bound = if gelu { 2e-3 } else { 2e-5 };
        for want in golden["logits"].as_array().unwrap() {
            let position = want["position"].as_u64().unwrap() as usize;
            let want: Vec<f64> = want["values"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
            let e = error(&got[position * want.len()..][..want.len()], &want);
            println!("{} at {position}: {e:.1e}", case.name);
            assert!(e <= bound, "{} at {position}: {e:.1e}", case.name);
        }
    }
    assert!(golden.is_empty(), "{:?}", golden.keys());
}

/// A prefix has keys that were rotated for the context that it was made in. With LongRoPE that may be the wrong one.
#[test]
fn a_prefix_of_a_short_context_is_none_of_a_long_one() {
    let Some(case) = cases().into_iter().find(|c| c.name == "phi3, long") else { panic!() };
    with_model(&case.gguf, |model| {
        let config = |context| Config { context, sinks: 4, ..Config::default() };
        let saved = with_session(model, Kernels::detect(), config(16), |r| {
            r.eval(&Serial, &tokens()[..4]).unwrap();
            let mut saved = Vec::new();
            let sink = |part: &[u8]| {
                saved.extend(part);
                Ok::<_, ()>(())
            };
            r.session.save_prefix(&[], sink).unwrap().unwrap();
            saved
        });
        let mut bytes = memory(saved.len()).unwrap();
        bytes[..saved.len()].copy_from_slice(&saved);
        let prefix = Prefix::new_checked(&bytes[..saved.len()], model).unwrap();
        for (context, fits) in [(12, true), (16, true), (17, false), (64, false)] {
            let plan = Plan::new(&model.hparams, &prefix.config(config(context))).unwrap();
            let mut room = memory(plan.session_bytes()).unwrap();
            let result = Session::with_prefix(model, &plan, &prefix, &mut room);
            assert_eq!(result.is_ok(), fits, "{context}");
        }
    });
}

#[test]
fn every_family_has_a_model() {
    let tested: BTreeSet<_> = cases().iter().map(|c| c.name.split([',', ' ']).next().unwrap()).collect();
    assert_eq!(tested, FAMILIES.iter().map(|f| f.name).collect());
}
