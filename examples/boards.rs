//! Several boards in one process: threads that share a model, and a network that is channels. To see what each board
//! computes; the program `armlet-mpi` is for boards with a network between them.
//!
//! ```text
//! cargo run --release --example boards -- MODEL layers 2 16 8   # on 2 boards, by layers: 16 tokens, then 8 of an answer
//! ```
//!
//! `cargo xtask board-insns` counts its instructions, thread by thread: a board that waits executes none.

#[path = "../tests/common/boards.rs"]
#[allow(dead_code, unreachable_pub, reason = "only the tests use all of it")]
mod boards;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use armlet::arch::Kernels;
use armlet::boards::Comm;
use armlet::engine::{Config, Engine, EngineError, Plan, Session};
use armlet::gguf::File;
use armlet::host::{MappedFile, memory};
use armlet::model::{Model, Share, Split};
use armlet::sample::{Sampler, SamplerConfig};
use armlet::storage::Serial;

/// Positions of the KV cache: enough for four boards that share them.
const CONTEXT: usize = 8192;
/// How long a board waits for another, which may be emulated.
const PATIENCE: Duration = Duration::from_secs(600);

/// What to run.
#[derive(Clone, Copy)]
struct Job {
    split: Split,
    boards: usize,
    /// Tokens that are read, whatever they are, and tokens of the answer.
    prompt: usize,
    answer: usize,
}

impl Job {
    fn parse(words: &[String]) -> Option<Self> {
        let [split, numbers @ ..] = words else { return None };
        let split = Split::ALL.into_iter().find(|known| known.name() == split)?;
        let numbers = numbers.iter().map(|n| n.parse().ok().filter(|n| *n > 0)).collect::<Option<Vec<usize>>>()?;
        let [boards, prompt, answer] = numbers[..] else { return None };
        Some(Job { split, boards, prompt, answer })
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((path, job)) = args.split_first().and_then(|(path, rest)| Some((path, Job::parse(rest)?))) else {
        eprintln!("usage: boards MODEL layers|rows|tokens BOARDS TOKENS ANSWER");
        return ExitCode::from(2);
    };
    match run(Path::new(path), job) {
        Ok(answer) => {
            println!("{answer:?}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("boards: {e}");
            ExitCode::FAILURE
        }
    }
}

/// The ids of the answer's tokens.
#[allow(unsafe_code, reason = "opening a map is unsafe: see below")]
fn run(path: &Path, job: Job) -> Result<Vec<u32>, Box<dyn std::error::Error>> {
    // SAFETY: nobody may change the file while it is mapped. Models are only read, and replaced by renaming.
    let bytes = unsafe { MappedFile::open(path)? };
    let file = File::new_checked(&bytes)?;
    let mut tables = memory(Model::required_bytes(&file)?)?;
    let model = Model::new(&file, &mut tables)?;
    let config = Config { context: CONTEXT, ..Config::default() };
    // Each board knows its share by its number.
    let head = model.weights.head_in_layers();
    let share = |rank| Share::new(&model.hparams, job.split, head, CONTEXT, rank, job.boards);
    let plans = (0..job.boards).map(|rank| Ok(Plan::shared(&model.hparams, &config, &share(rank)?)?));
    let plans: Vec<Plan> = plans.collect::<Result<_, Box<dyn std::error::Error>>>()?;
    let answers = boards::on_eager_boards(job.boards, PATIENCE, |board| on_board(&board, &model, &plans, job));
    // The first board's; what the others end with matters where they fail.
    let answers: Vec<Vec<u32>> = answers.into_iter().collect::<Result<_, _>>()?;
    Ok(answers.into_iter().next().unwrap_or_default())
}

/// What one board does: the first reads the tokens and chooses those of the answer, the others follow it.
fn on_board(board: &dyn Comm, model: &Model<'_>, plans: &[Plan], job: Job) -> Result<Vec<u32>, EngineError> {
    let plan = &plans[board.rank()];
    let mut room = memory(plan.bytes()).expect("memory for a board");
    let (work, cache) = room.split_at_mut(plan.engine_bytes());
    let mut engine = Engine::on_boards(model, Kernels::detect(), plan, work, board)?;
    let mut session = Session::new(model, plan, cache)?;
    if board.rank() > 0 {
        engine.follow(&Serial, &mut session)?;
        return Ok(Vec::new());
    }
    let vocab = model.hparams.vocab;
    let mut next: Vec<u32> = (0..job.prompt).map(|i| (7 + 31 * i % (vocab - 7)) as u32).collect();
    let mut sampler = Sampler::new(SamplerConfig { temperature: 0.0, ..SamplerConfig::default() });
    let mut answer = Vec::new();
    for _ in 0..job.answer {
        let logits = engine.eval(&Serial, &mut session, &next)?;
        next = vec![sampler.sample(logits).expect("logits of a model are numbers")];
        answer.extend(&next);
    }
    engine.dismiss()?;
    Ok(answer)
}
