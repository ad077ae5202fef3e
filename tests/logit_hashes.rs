//! Bits are a contract: hashes of the logits of tiny models, for each backend, in `golden/logit_hashes.txt`.
//!
//! On their own because emulated cores run them too, for which the other tests need not be compiled.
//!
//! A refactoring leaves every hash as it is. A commit that means to change bits says why, and renews the file: run this test
//! with `ARMLET_RENEW_HASHES=1` on x86-64, then on aarch64 (QEMU's `max` has every backend); each renews the columns of the
//! backends that run there and keeps the others.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write;

use armlet::arch::{Backend, Kernels, KvType};
use armlet::engine::{Config, Engine, Pattern, Plan, Session};
use armlet::host::memory;
use armlet::model::Model;
use armlet::quant::DType;
use armlet::storage::Serial;
use common::gguf::{Gguf, Tiny, Val, small_formats};
use common::run::{backends, prompt, tiny, with_linear_scaling, with_model};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/logit_hashes.txt");

/// Sessions of a batch, more than the widest tile of tokens of any kernel but binary16's.
const SESSIONS: usize = 3;

/// FNV-1a (Fowler, Noll and Vo) of the bits of logits.
struct Hash(u64);

impl Hash {
    fn add(&mut self, logits: &[f32]) {
        assert!(logits.iter().all(|x| x.is_finite()));
        for byte in logits.iter().flat_map(|x| x.to_bits().to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// A prompt in chunks, with logits of its last tokens; single tokens; then a batch of sessions at different positions, which
/// evicts where the context is short.
fn hash(model: &Model<'_>, kernels: Kernels, config: Config) -> u64 {
    let plan = Plan::new(&model.hparams, &Config { chunk: 32, logit_rows: 16, ..config }).unwrap();
    let mut room = memory(plan.engine_bytes()).unwrap();
    let mut engine = Engine::new(model, kernels, &plan, &mut room).unwrap();
    let mut caches: Vec<_> = (0..SESSIONS).map(|_| memory(plan.session_bytes()).unwrap()).collect();
    let mut sessions: Vec<_> = caches.iter_mut().map(|m| Session::new(model, &plan, m).unwrap()).collect();
    let tokens = prompt(11, 60, model.hparams.vocab);

    let mut hash = Hash(0xcbf2_9ce4_8422_2325);
    for (i, session) in sessions.iter_mut().enumerate() {
        hash.add(engine.eval(&Serial, session, &tokens[i..37 - 9 * i]).unwrap());
        hash.add(engine.score(&Serial, session, &tokens[37..37 + 5 * i + 1]).unwrap());
        hash.add(engine.eval(&Serial, session, &tokens[50..51]).unwrap());
    }
    let mut all: Vec<_> = sessions.iter_mut().collect();
    for step in tokens[51..].chunks_exact(SESSIONS) {
        hash.add(engine.step(&Serial, &mut all, step).unwrap());
    }
    hash.0
}

/// Layers with a window of 24; every third sees all, and windowed ones have a rotary base of their own.
fn windowed(t: Tiny) -> Gguf {
    let mut gguf = t.gguf();
    gguf.set(&format!("{}.attention.sliding_window", t.arch), Val::U32(24));
    gguf.set(&format!("{}.attention.sliding_window_pattern", t.arch), Val::U32(3));
    gguf.set(&format!("{}.rope.freq_base_swa", t.arch), Val::F32(5e3));
    gguf
}

/// Name, model, and what is not the default of a session.
fn cases() -> Vec<(String, Gguf, Config)> {
    let full = Config { context: 128, pattern: Pattern::Full, kv: KvType::F16, ..Config::default() };
    let ring = Config { context: 40, pattern: Pattern::Sinks, ..full };
    let smol = |dtype| Tiny { dtype, ..tiny("llama", (9, 3, 64, 64), (96, 160), 4) };
    let q8_0 = smol(DType::Q8_0);
    let mut cases = Vec::new();
    let mut add = |name: &str, gguf: Gguf, config| cases.push((name.to_string(), gguf, config));

    for dtype in small_formats() {
        add(&format!("format-{}", dtype.name()), smol(dtype).gguf(), full);
        if dtype.packs() {
            add(&format!("packed-{}", dtype.name()), smol(dtype).gguf().packed(), full);
        }
    }
    for group in 1..=8 {
        let t = tiny("llama", (2 * group, 2, 16, 16), (64, 96), 20 + group as u64);
        add(&format!("group-{group}"), Tiny { dtype: DType::Q4_0, ..t }.gguf(), full);
    }
    let qwen2 = tiny("qwen2", (14, 2, 64, 48), (64, 96), 7);
    let biases = Tiny { bias: true, tied: false, rope_base: 1e6, dtype: DType::Q4_1, ..qwen2 };
    add("biases", biases.gguf(), full);
    add("linear-scaling", with_linear_scaling(biases.gguf(), "qwen2", 2.5), full);
    add("rope-factors", Tiny { rope_factors: true, ..q8_0.clone() }.gguf(), full);
    add("odd-widths", tiny("llama", (4, 1, 80, 80), (20, 33), 5).gguf(), full);
    add("windows", windowed(Tiny { n_layers: 4, ..q8_0.clone() }), full);
    add("windows-ring", windowed(Tiny { n_layers: 4, ..q8_0.clone() }), ring);
    for (name, kv, hadamard) in
        [("f32", KvType::F32, false), ("f16", KvType::F16, false), ("int8", KvType::Int8, false)].into_iter().chain([(
            "int8-hadamard",
            KvType::Int8,
            true,
        )])
    {
        add(&format!("ring-{name}"), q8_0.gguf(), Config { kv, hadamard, ..ring });
    }
    add("strided", q8_0.gguf(), Config { context: 96, pattern: Pattern::Strided { every: 2 }, ..ring });
    cases
}

/// (case, backend) to hash.
type Table = BTreeMap<(String, &'static str), String>;

fn read() -> Table {
    let text = std::fs::read_to_string(FILE).unwrap_or_default();
    let mut table = Table::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        for (backend, hash) in Backend::ALL.into_iter().zip(words) {
            table.insert((name.to_string(), backend.name()), hash.to_string());
        }
    }
    table
}

fn write(table: &Table) {
    let mut text = format!("# {:<22}", "case");
    Backend::ALL.iter().for_each(|b| write!(text, " {:<16}", b.name()).unwrap());
    for (name, _, _) in cases() {
        write!(text, "\n{name:<24}").unwrap();
        for backend in Backend::ALL {
            let hash = table.get(&(name.clone(), backend.name())).map_or("-", String::as_str);
            write!(text, " {hash:<16}").unwrap();
        }
    }
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    std::fs::write(FILE, lines.join("\n") + "\n").unwrap();
}

#[test]
fn the_bits_of_logits_are_those_on_record() {
    let mut table = read();
    let renew = std::env::var_os("ARMLET_RENEW_HASHES").is_some();
    let mut wrong = Vec::new();
    for (name, gguf, config) in cases() {
        for kernels in backends() {
            let backend = kernels.backend().name();
            let found = format!("{:016x}", with_model(&gguf, |model| hash(model, kernels, config)));
            let expected = table.insert((name.clone(), backend), found.clone());
            if expected.as_ref() != Some(&found) {
                wrong.push(format!("{name} on {backend}: {found}, on record {expected:?}"));
            }
        }
    }
    if renew {
        write(&table);
    } else {
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[test]
fn every_case_is_on_record_for_every_backend() {
    let table = read();
    for (name, _, _) in cases() {
        for backend in Backend::ALL {
            let hash = table.get(&(name.clone(), backend.name()));
            assert!(hash.is_some_and(|h| h.len() == 16), "{name} on {}: {hash:?}", backend.name());
        }
    }
}

/// The backends that run here: what `cargo xtask test qemu` compares with those that an emulated core is to have.
#[test]
fn backends_of_this_cpu() {
    let names: Vec<&str> = backends().iter().map(|k| k.backend().name()).collect();
    println!("backends: {}", names.join(" "));
    assert!(names.contains(&"scalar") && names.contains(&Kernels::detect().backend().name()));
}
