//! Every family with the caches that a session may have: evicted tokens, int8 keys and values, several threads. On the tiny
//! models of `common/family_models.rs`.

use crate::common::family_models::{Case, cases};
use crate::common::family_oracle::FamilyOracle;
use crate::common::oracle::Rows;
use crate::common::reference_bits::bits;
use crate::common::run::{error, prompt, with_model, with_session};
use armlet::arch::{Kernels, KvType};
use armlet::engine::Config;
use armlet::host::Pool;
use armlet::storage::{Executor, Serial};

const TOKENS: usize = 40;
/// Tokens of a context that a text of 40 exceeds twice, and how many of the first stay.
const CONTEXT: usize = 20;
const SINKS: usize = 4;

fn tokens() -> Vec<u32> {
    prompt(9, TOKENS, 67)
}

/// A session that evicts.
fn ring(chunk: usize, kv: KvType) -> Config {
    Config { context: CONTEXT, sinks: SINKS, chunk, logit_rows: chunk, kv, ..Config::default() }
}

/// Logits at each position, read in passes of a chunk.
fn logits(case: &Case, config: Config, exec: &dyn Executor) -> Vec<f32> {
    with_model(&case.gguf, |model| {
        with_session(model, Kernels::detect(), config, |reader| {
            let passes = tokens();
            passes.chunks(config.chunk).flat_map(|part| reader.score(exec, part).unwrap().to_vec()).collect()
        })
    })
}

/// The largest error at any position.
fn worst(got: &[f32], want: &Rows) -> f64 {
    got.chunks(want[0].len()).zip(want).map(|(got, want)| error(got, want)).fold(0.0, f64::max)
}

#[test]
fn evicted_tokens_are_gone_in_every_family() {
    for case in cases() {
        let mut oracle = FamilyOracle::new(&case.gguf, CONTEXT);
        let whole = oracle.logits(&tokens());
        oracle.sinks = Some(SINKS);
        let want = oracle.logits(&tokens());
        for chunk in [17, 7, 1] {
            let got = logits(&case, ring(chunk, KvType::F32), &Serial);
            let (e, other) = (worst(&got, &want), worst(&got, &whole));
            println!("{} by {chunk}: {e:.1e}, from a text that is whole {other:.1e}", case.name);
            assert!(e <= 5e-5 && other > 1e-3, "{} by {chunk}: {e:.1e}, {other:.1e}", case.name);
        }
    }
}

#[test]
fn threads_and_short_passes_do_not_show_in_any_family() {
    let pool = Pool::new(2);
    for case in cases() {
        for kv in [KvType::F16, KvType::Int8] {
            let want = bits(&logits(&case, ring(1, kv), &Serial));
            assert!(bits(&logits(&case, ring(7, kv), &pool)) == want, "{}, {kv:?}, by 7", case.name);
        }
        // Float weights have another order of sums in long passes.
        let long = |exec: &dyn Executor| bits(&logits(&case, ring(17, KvType::Int8), exec));
        assert!(long(&pool) == long(&Serial), "{}, by 17", case.name);
    }
}

/// Of queries, keys and values that are rounded in the same places. A number at the middle of two may round differently in f32
/// and f64, which one part in 127 of a head's largest shows; without any rounding, the difference is that of all numbers.
#[test]
fn int8_keys_and_values_are_as_rounded_in_every_family() {
    let mut all = Vec::new();
    for case in cases() {
        let mut oracle = FamilyOracle::new(&case.gguf, CONTEXT);
        oracle.sinks = Some(SINKS);
        let exact = oracle.logits(&tokens());
        oracle.int8 = true;
        let want = oracle.logits(&tokens());
        let got = logits(&case, ring(8, KvType::Int8), &Serial);
        let (e, unrounded) = (worst(&got, &want), worst(&got, &exact));
        println!("{}: {e:.1e}, from what is not rounded {unrounded:.1e}", case.name);
        assert!(e <= 0.1 && unrounded > 5e-3, "{}: {e:.1e}, from what is not rounded {unrounded:.1e}", case.name);
        all.push(e);
    }
    all.sort_by(f64::total_cmp);
    assert!(all[all.len() / 2] <= 3e-3, "{all:?}");
}
