//! How fast memory is read and a model decodes, by the number of threads.

use std::path::Path;
use std::time::{Duration, Instant};

use armlet::engine::{Config, Engine, Pattern, Plan, Session};
use armlet::host::Pool;
use armlet::model::Model;

use super::rate::Rate;
use crate::bandwidth::Buffer;
use crate::bench::bytes_per_token;
use crate::error::Failure;
use crate::model::{Loaded, kernels, session_memory};

/// How long each number of threads decodes, and how many tokens at least.
const DECODE: (Duration, usize) = (Duration::from_millis(700), 2);
/// Where there are more CPUs than this, only powers of two are tried.
const EACH: usize = 8;

/// Numbers of threads that are tried.
pub(crate) fn numbers(cpus: usize) -> Vec<usize> {
    let few = 1..=cpus.min(EACH);
    let powers = (0..usize::BITS).map(|i| 1 << i).filter(|n| (EACH + 1..cpus).contains(n));
    let last = Some(cpus).filter(|cpus| *cpus > EACH);
    few.chain(powers).chain(last).collect()
}

/// Bytes per second that so many threads read from memory; `None` if there is too little of it to measure.
pub(crate) fn bandwidth(cpus: usize, free_ram: Option<u64>, done: &dyn Fn()) -> Option<Vec<Rate>> {
    let buffer = Buffer::new(&Pool::new(cpus), free_ram)?;
    let rate = |threads| {
        let per_second = buffer.read(&Pool::new(threads));
        done();
        Rate { threads, per_second }
    };
    Some(numbers(cpus).into_iter().map(rate).collect())
}

/// What a model takes and reaches.
pub(crate) struct Decoding {
    /// Bytes of weights read for each token.
    pub(crate) token_bytes: usize,
    /// Tokens per second by threads; none if that was not to be measured.
    pub(crate) rates: Vec<Rate>,
}

/// Loads nothing but tables: the weights are read from the mapped file.
///
/// # Errors
/// The model cannot be run.
pub(crate) fn decoding(loaded: &Loaded<'_>, numbers: &[usize], done: &dyn Fn()) -> Result<Decoding, Failure> {
    let rates = numbers.iter().map(|threads| decode(&loaded.model, *threads, loaded.path, done));
    Ok(Decoding { token_bytes: bytes_per_token(&loaded.model), rates: rates.collect::<Result<_, _>>()? })
}

fn decode(model: &Model<'_>, threads: usize, path: &Path, done: &dyn Fn()) -> Result<Rate, Failure> {
    let plan =
        Plan::new(&model.hparams, &Config { context: 256, pattern: Pattern::Window, sinks: 0, ..Config::default() })?;
    let mut memory = session_memory(&plan)?;
    let (engine, session) = memory.split_at_mut(plan.engine_bytes());
    let mut engine = Engine::new(model, kernels()?, &plan, engine)?;
    let mut session = Session::new(model, &plan, session)?;
    let pool = Pool::new(threads);
    // The first pass reads the file.
    engine.eval(&pool, &mut session, &[0])?;
    let (start, mut tokens) = (Instant::now(), 0);
    while tokens < DECODE.1 || start.elapsed() < DECODE.0 {
        engine.eval(&pool, &mut session, &[0])?;
        tokens += 1;
    }
    log::debug!("{}: {tokens} tokens on {threads} threads", path.display());
    done();
    Ok(Rate { threads, per_second: tokens as f64 / start.elapsed().as_secs_f64().max(1e-9) })
}
