//! Memory is flat, however long a conversation goes on. On its own because other tests of a process share its memory.

#![cfg(target_os = "linux")]

mod common;

use armlet::arch::{Kernels, KvType};
use armlet::engine::{Config, Pattern};
use armlet::storage::Serial;
use common::gguf::Tiny;
use common::run::{tiny, with_model, with_session};

/// Bytes of this process that are resident.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<usize>().unwrap() * 1024
}

#[test]
fn a_hundred_thousand_tokens_take_no_more_than_a_thousand() {
    let gguf = Tiny { n_layers: 2, context: 256, ..tiny("llama", (4, 2, 16, 16), (32, 40), 3) }.gguf();
    with_model(&gguf, |model| {
        for (pattern, kv) in [(Pattern::Sinks, KvType::Int8), (Pattern::Strided { every: 2 }, KvType::F16)] {
            let config = Config { context: 128, pattern, kv, ..Config::default() };
            with_session(model, Kernels::detect(), config, |r| {
                let mut token = 1;
                let mut read = |n: usize| {
                    for _ in 0..n {
                        let logits = r.eval(&Serial, &[token]).unwrap();
                        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
                        token = best.0 as u32;
                    }
                };
                read(1_000);
                let before = resident();
                read(99_000);
                let after = resident();
                assert!(after.abs_diff(before) < 64 << 10, "{pattern:?}: {before} bytes, then {after}");
            });
        }
    });
}
