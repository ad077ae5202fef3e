//! Tiny models, and sessions that read with them.

use armlet::arch::{Backend, Kernels};
use armlet::engine::{Config, Engine, EngineError, Plan, Session};
use armlet::gguf::File;
use armlet::host::memory;
use armlet::model::Model;
use armlet::storage::Executor;

use super::gguf::{Gguf, TensorSpec, Tiny, Val, noise};

/// The kernels of every backend that runs here.
pub fn backends() -> Vec<Kernels> {
    Backend::ALL.into_iter().filter_map(Kernels::for_backend).collect()
}

/// Whether the products of a few tokens with F16 weights are rounded to binary16 here.
pub fn uses_f16_products() -> bool {
    backends().iter().any(|k| k.uses_f16_products(1))
}

pub fn with_model<R>(gguf: &Gguf, f: impl FnOnce(&Model<'_>) -> R) -> R {
    let bytes = gguf.build();
    let file = File::new_checked(&bytes).unwrap();
    let mut tables = memory(Model::required_bytes(&file).unwrap()).unwrap();
    f(&Model::new(&file, &mut tables).unwrap())
}

/// A session and an engine of its own.
pub struct Reader<'s> {
    pub engine: Engine<'s>,
    pub session: Session<'s>,
}

impl Reader<'_> {
    pub fn eval(&mut self, exec: &dyn Executor, tokens: &[u32]) -> Result<&[f32], EngineError> {
        self.engine.eval(exec, &mut self.session, tokens)
    }

    pub fn score(&mut self, exec: &dyn Executor, tokens: &[u32]) -> Result<&[f32], EngineError> {
        self.engine.score(exec, &mut self.session, tokens)
    }

    pub fn rewind(&mut self, position: usize) {
        self.session.rewind(position as u64).unwrap();
    }

    pub fn position(&self) -> usize {
        self.session.position() as usize
    }
}

/// A session and its engine in memory full of NaNs, so that reading what has not been written shows.
pub fn with_session<R>(model: &Model<'_>, kernels: Kernels, config: Config, f: impl FnOnce(&mut Reader<'_>) -> R) -> R {
    let plan = Plan::new(&model.hparams, &config).unwrap();
    let mut room = memory(plan.bytes()).unwrap();
    room.fill(0xff);
    let (work, cache) = room.split_at_mut(plan.engine_bytes());
    let engine = Engine::new(model, kernels, &plan, work).unwrap();
    f(&mut Reader { engine, session: Session::new(model, &plan, cache).unwrap() })
}

/// Tokens without a pattern.
pub fn prompt(seed: u64, n: usize, vocab: usize) -> Vec<u32> {
    noise(seed, n).iter().map(|x| ((x + 1.0) / 2.0 * vocab as f32) as u32 % vocab as u32).collect()
}

/// The largest difference relative to the largest expected magnitude; infinite for anything that is no number.
pub fn error(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let difference = |(a, b): (&f32, &f64)| if a.is_finite() { (f64::from(*a) - b).abs() } else { f64::INFINITY };
    got.iter().zip(want).map(difference).fold(0.0, f64::max) / scale
}

pub fn with_linear_scaling(mut gguf: Gguf, arch: &str, factor: f32) -> Gguf {
    gguf.set(&format!("{arch}.rope.scaling.type"), Val::Str("linear".into()));
    gguf.set(&format!("{arch}.rope.scaling.factor"), Val::F32(factor));
    gguf
}

/// (n_heads, n_kv_heads, head_dim, rope_dims), (n_embd, n_ff).
pub fn tiny(arch: &'static str, heads: (usize, usize, usize, usize), widths: (usize, usize), seed: u64) -> Tiny {
    let (n_heads, n_kv_heads, head_dim, rope_dims) = heads;
    let (n_embd, n_ff) = widths;
    Tiny { arch, n_heads, n_kv_heads, head_dim, rope_dims, n_embd, n_ff, seed, ..Tiny::default() }
}

/// The model with a scale for each matrix that may have one: from 0.5 to 1.4, no two alike.
pub fn with_tensor_scales(mut gguf: Gguf) -> Gguf {
    let matrix = |t: &TensorSpec| t.dims.len() == 2 && t.name != "token_embd.weight";
    let names: Vec<_> = gguf.tensors.iter().filter(|t| matrix(t)).map(|t| t.name.clone()).collect();
    for (i, name) in names.iter().enumerate() {
        let scale = 0.5 + 0.9 * (i * 5 % names.len()) as f32 / names.len() as f32;
        gguf.tensor(&name.replace(".weight", ".scale"), &[1], 0, scale.to_le_bytes().to_vec());
    }
    gguf
}
