//! A question and its answer, from a model in memory, without an operating system and without an allocator.
//!
//! `board` has all that is of the machine; this file is what any firmware does with armlet. What happens is logged
//! through `defmt`, armlet's own messages among the rest.

#![no_std]
#![no_main]

mod board;

use armlet::Error;
use armlet::arch::Kernels;
use armlet::engine::{Config, Engine, Plan, Session};
use armlet::generation::{Event, Generation, Limits, Run};
use armlet::gguf::File;
use armlet::model::Model;
use armlet::sample::{Rules, Sampler, SamplerConfig};
use armlet::storage::{Arena, Serial};
use armlet::tokenizer::{ChatFormat, EncodeOptions, Role, TokenizerError, Turn};
use defmt::{error, info, warn};
use heapless::String;

const QUESTION: &str = "What is the capital of France?";
/// Most tokens of the answer.
const ANSWER: usize = 32;

// 64 KiB of stack: 32 for armlet, 9 for the sampler, and some.
aarch64_rt::entry!(main, 16);
fn main(_: u64, _: u64, _: u64, _: u64) -> ! {
    match run(board::model(), board::memory()) {
        Ok(()) => semihosting::process::exit(0),
        Err(e) => {
            error!("{}", e);
            semihosting::process::exit(1)
        }
    }
}

fn run(model: &[u8], memory: &mut [u8]) -> Result<(), Error> {
    // Everything comes from one arena, in the order in which its size becomes known: the model's tables, then what the
    // plan says. One that is too small is an error that says what did not fit.
    let mut arena = Arena::new(memory)?;
    let file = File::new_checked(model)?;
    let model = Model::new(&file, arena.alloc("tables", &[Model::required_bytes(&file)?])?)?;

    let config = Config { context: 256, chunk: 32, ..Config::default() };
    // An error is a value, and says by itself what is wrong: here a context that the model was not trained for.
    let too_long = Config { context: model.hparams.context_length + 1, ..config };
    if let Err(e) = Plan::new(&model.hparams, &too_long) {
        warn!("refused: {}", Error::from(e));
    }
    let plan = Plan::new(&model.hparams, &config)?;
    info!("plan: engine {=usize} bytes, session {=usize} bytes", plan.engine_bytes(), plan.session_bytes());
    let mut engine = Engine::new(&model, Kernels::detect(), &plan, arena.alloc("engine", &[plan.engine_bytes()])?)?;
    let mut session = Session::new(&model, &plan, arena.alloc("session", &[plan.session_bytes()])?)?;

    let mut text = String::<256>::new();
    let question = [Turn { role: Role::User, text: QUESTION }];
    ChatFormat::ChatMl.write(&question, &mut text).map_err(|_| TokenizerError::TextTooLong)?;
    let tokenizer = &model.tokenizer;
    let scratch = arena.alloc("scratch", &[tokenizer.scratch_bytes(&text)?])?;
    let tokens = arena.alloc("tokens", &[tokenizer.max_tokens(text.len())])?;
    // Special tokens are parsed because all of the text is ours; for a user's, see `EncodeOptions::literal`.
    let options = EncodeOptions { add_special: true, parse_special: true, ..EncodeOptions::default() };
    let n = tokenizer.encode(&text, options, scratch, tokens)?;
    info!("prompt: {=usize} tokens, {=usize} bytes of memory in use", n, arena.used());

    let mut sampler = Sampler::new(SamplerConfig { temperature: 0.0, ..SamplerConfig::default() });
    let mut answer = String::<256>::new();
    engine.eval(&Serial, &mut session, &tokens[..n])?;
    let mut run =
        Run { engine: &mut engine, exec: &Serial, session: &mut session, sampler: &mut sampler, lookup: None };
    let (mut generation, limits) = (Generation::new(), Limits { tokens: ANSWER, stops: &[] });
    // What does not fit any more is not shown.
    let show = &mut |piece: &str| _ = answer.push_str(piece);
    while let Event::Token(_) = generation.step(&mut run, limits, Rules::NONE, show)? {}
    info!("answer: {=str}", answer);
    Ok(())
}
