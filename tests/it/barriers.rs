//! How often the threads wait at a barrier: once for each parallel region, and there are few.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::gguf::Tiny;
use armlet::arch::{Kernels, KvType};
use armlet::engine::{Config, Engine, Pattern, Plan, Session};
use armlet::gguf::File;
use armlet::host::memory;
use armlet::model::Model;
use armlet::quant::DType;
use armlet::storage::{Executor, Task};

/// One thread that says it is two, and counts how often they would have waited.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Executor for Counting {
    fn workers(&self) -> usize {
        2
    }

    fn run(&self, work: &Task<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        work(0);
    }
}

impl Counting {
    /// Barriers since the last call.
    fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// For one token, five in a layer: q, k and v | attention | its output | gate and up | down. The norms, int8
/// activations, rotations and the cache's rows are the caller's between them. One more gives the logits.
#[test]
fn five_barriers_a_layer() {
    const LAYERS: usize = 3;
    // A batch is few rows; where there are many, their norms, rotations and int8 activations are shared too.
    let few = 5 * LAYERS + 1;
    for (dtype, many) in [(DType::Q4_1, 10 * LAYERS + 1), (DType::F16, 8 * LAYERS + 1)] {
        let bytes = Tiny { dtype, n_layers: LAYERS, ..Tiny::default() }.gguf().build();
        let file = File::new_checked(&bytes).unwrap();
        let mut tables = memory(Model::required_bytes(&file).unwrap()).unwrap();
        let model = Model::new(&file, &mut tables).unwrap();
        let config = Config {
            context: 64,
            chunk: 16,
            logit_rows: 8,
            kv: KvType::F16,
            pattern: Pattern::Full,
            ..Config::default()
        };
        let plan = Plan::new(&model.hparams, &config).unwrap();
        let mut work = memory(plan.engine_bytes()).unwrap();
        let mut rooms = [(); 8].map(|()| memory(plan.session_bytes()).unwrap());
        let mut engine = Engine::new(&model, Kernels::detect(), &plan, &mut work).unwrap();
        let mut sessions = rooms.each_mut().map(|room| Session::new(&model, &plan, room).unwrap());

        let exec = Counting::default();
        engine.eval(&exec, &mut sessions[0], &[1]).unwrap();
        assert_eq!(exec.take(), few, "{dtype}, one token");
        engine.step(&exec, &mut sessions.each_mut(), &[1; 8]).unwrap();
        assert_eq!(exec.take(), few, "{dtype}, one token of each of eight sessions");
        engine.score(&exec, &mut sessions[0], &[1; 8]).unwrap();
        assert_eq!(exec.take(), few, "{dtype}, eight tokens of one");
        engine.eval(&exec, &mut sessions[0], &[1; 16]).unwrap();
        assert_eq!(exec.take(), many, "{dtype}, a chunk of a prompt");
        // Two passes, and the logits of the second only.
        engine.eval(&exec, &mut sessions[0], &[1; 32]).unwrap();
        assert_eq!(exec.take(), 2 * many - 1, "{dtype}, two chunks");
    }
}
