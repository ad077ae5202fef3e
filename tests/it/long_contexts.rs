//! Contexts of several leaves of attention's tree, 2,048 positions each (`model/merge_tree.rs`).

use std::collections::BTreeMap;

use crate::common::deep;
use crate::common::gguf::{Gguf, Tiny};
use crate::common::oracle::{Oracle, View};
use crate::common::reference_bits::{Crowd, bits};
use crate::common::run::{Reader, error, prompt, tiny, with_model, with_session};
use armlet::arch::{Kernels, KvType};
use armlet::engine::{Config, Engine, Pattern, Plan};
use armlet::host::{Pool, memory};
use armlet::model::Model;
use armlet::quant::DType;
use armlet::storage::{Executor, Serial};

/// Tokens at the end that are read in several ways, with the first position of a leaf among what they attend to.
const TAIL: usize = 100;

/// Every row of weights is a block of 32, so that none is of floats, whose order of sums is another for many tokens.
fn model(dtype: DType) -> Gguf {
    Tiny { n_layers: 1, context: 8192, dtype, ..tiny("llama", (4, 1, 8, 8), (32, 32), 71) }.gguf()
}

/// How many tokens are read, and with which cache.
fn cases() -> [(usize, Config); 4] {
    let base = Config { chunk: 128, kv: KvType::Int8, slack: TAIL, ..Config::default() };
    let evicting = |context, sinks, pattern| Config { context, sinks, pattern, ..base };
    [
        (4096 + TAIL / 2, Config { context: 4300, pattern: Pattern::Full, slack: 0, ..base }),
        (4096 + TAIL / 2, evicting(1100, 4, Pattern::Sinks)),
        (2048 + 700 + TAIL / 2, evicting(700 + 600, 600, Pattern::Sinks)),
        (4096 + TAIL / 2, evicting(1300, 40, Pattern::Strided { every: 3 })),
    ]
}

/// Reads the last tokens again, in passes of `chunk`; the bits after each pass.
fn reread(reader: &mut Reader<'_>, exec: &dyn Executor, tokens: &[u32], chunk: usize) -> BTreeMap<usize, Vec<u32>> {
    reader.rewind(tokens.len() - TAIL);
    let mut after = BTreeMap::new();
    for pass in tokens[tokens.len() - TAIL..].chunks(chunk) {
        let logits = bits(reader.eval(exec, pass).unwrap());
        after.insert(reader.position(), logits);
    }
    after
}

/// Reads all tokens, and then the last ones in every way: on one thread and on more, one by one, which makes parts work
/// items, and in chunks, which makes rows these.
fn check(model: &Model<'_>, config: Config, tokens: &[u32], expected: &mut BTreeMap<usize, Vec<u32>>) {
    with_session(model, Kernels::detect(), config, |reader| {
        reader.eval(&Pool::new(2), tokens).unwrap();
        if expected.is_empty() {
            *expected = reread(reader, &Serial, tokens, 1);
        }
        let check = |reader: &mut Reader<'_>, exec: &dyn Executor, chunk, how| {
            for (position, got) in reread(reader, exec, tokens, chunk) {
                assert!(got == expected[&position], "{config:?}: {how}, {position}");
            }
        };
        check(reader, &Crowd, 1, "one by one, five threads");
        check(reader, &Pool::new(2), 37, "chunks of 37, two threads");
        check(reader, &Crowd, 128, "one chunk, five threads");
        // A session may be read by an engine that was planned for much less.
        let small =
            Plan::new(&model.hparams, &Config { context: 64, chunk: 2, sinks: 0, pattern: Pattern::Full, ..config })
                .unwrap();
        let mut work = memory(small.engine_bytes()).unwrap();
        let mut engine = Engine::new(model, Kernels::detect(), &small, &mut work).unwrap();
        reader.rewind(tokens.len() - TAIL);
        let logits = bits(engine.eval(&Serial, &mut reader.session, &tokens[tokens.len() - TAIL..]).unwrap());
        assert!(logits == expected[&tokens.len()], "{config:?}: an engine of a small plan");
    });
}

/// Chunks, threads, and in which slots of the ring positions are do not change a bit.
#[test]
fn same_bits_in_long_contexts() {
    with_model(&model(DType::Q8_0), |model| {
        for (n, config) in cases() {
            let tokens = prompt(9, n, model.hparams.vocab);
            let mut expected = BTreeMap::new();
            check(model, config, &tokens, &mut expected);
            if config.pattern != Pattern::Full {
                // More slots: another phase of the ring.
                check(model, Config { slack: TAIL + 333, ..config }, &tokens, &mut expected);
            }
        }
    });
}

/// And they are those of attention over all positions.
#[test]
fn long_contexts_match_f64() {
    let gguf = model(DType::F32);
    // In the gate the cheapest one, whose sinks are in one leaf and the window in another.
    for (n, config) in cases().into_iter().skip(deep(0, 2)).take(deep(4, 1)) {
        let tokens = prompt(10, n, 67);
        let view = match config.pattern {
            Pattern::Full => View::new(0, config.context),
            Pattern::Sinks => View::new(config.sinks, config.context - config.sinks),
            _ => continue,
        };
        let want = Oracle { view: Some(view), ..Oracle::new(&gguf) }.logits(&tokens);
        let config = Config { kv: KvType::F32, ..config };
        let got = with_model(&gguf, |model| {
            with_session(model, Kernels::detect(), config, |r| r.eval(&Serial, &tokens).unwrap().to_vec())
        });
        let e = error(&got, want.last().unwrap());
        assert!(e <= 1e-5, "{config:?}: {e:.1e}");
    }
}
