//! Asks a model one question and streams the answer: the whole way from a GGUF file to text, on one page.
//!
//! ```text
//! cargo run --release -- pull smollm2                  # fetches a model and prints its path
//! cargo run --release --example chat -- MODEL "What is the capital of France?"
//! ```
//!
//! It uses the library alone (feature `std`). The program `armlet chat` adds what this leaves out: the file's own chat
//! template, sampling options, a conversation of several turns, Ctrl-C.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use armlet::arch::Kernels;
use armlet::engine::{Config, Engine, Plan, Session};
use armlet::generation::{Event, Generation, Limits, Run};
use armlet::gguf::File;
use armlet::host::{MappedFile, Pool, memory};
use armlet::model::Model;
use armlet::sample::{Rules, Sampler, SamplerConfig};
use armlet::tokenizer::{ChatFormat, EncodeOptions, Role, Turn};

/// The most tokens of an answer.
const MAX_TOKENS: usize = 256;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, question] = args.as_slice() else {
        eprintln!("usage: chat MODEL QUESTION");
        return ExitCode::from(2);
    };
    match run(Path::new(path), question, &mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("chat: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Answers `question` with the model at `path`, and writes the answer to `out` token by token.
///
/// # Errors
/// The operating system's, and those of the library: each says by itself what is wrong.
#[allow(unsafe_code, reason = "opening a map is unsafe: see below")]
pub fn run(path: &Path, question: &str, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    // The file. A map copies nothing: the system reads a page of weights when it is first used.
    // SAFETY: nobody may change the file while it is mapped. Models are only read, and replaced by renaming.
    let bytes = unsafe { MappedFile::open(path)? };
    // The header is checked once, so that whatever follows may trust it.
    let file = File::new_checked(&bytes)?;

    // The model: hyper-parameters, and tables (an index of the vocabulary, a list of layers) in memory of ours. The
    // weights stay in the file.
    let mut tables = memory(Model::required_bytes(&file)?)?;
    let model = Model::new(&file, &mut tables)?;
    let tokenizer = &model.tokenizer;

    // The plan: every byte that is needed from here on, known before anything is allocated. With the default pattern,
    // attention sinks, `context` bounds the memory and not the length of the conversation.
    let context = model.hparams.context_length.min(2048);
    let plan = Plan::new(&model.hparams, &Config { context, ..Config::default() })?;

    // The engine holds the activations of a forward pass and can serve many sessions; a session holds the KV cache of
    // one conversation. The pool lends them threads.
    let (mut workspace, mut kv_cache) = (memory(plan.engine_bytes())?, memory(plan.session_bytes())?);
    let mut engine = Engine::new(&model, Kernels::detect(), &plan, &mut workspace)?;
    let mut session = Session::new(&model, &plan, &mut kv_cache)?;
    let pool = Pool::new(Pool::cpus());

    // The prompt: the question between the control tokens that this model was trained with.
    let format = ChatFormat::detect(tokenizer).ok_or("the model has the control tokens of no known chat format")?;
    let mut prompt = String::new();
    format.write(&[Turn { role: Role::User, text: question }], &mut prompt)?;

    // Text to tokens. Control tokens are parsed, except inside the question: what a user types stays text.
    let before = format.preamble(Role::User).into_iter().chain(format.opening(Role::User));
    let start = before.map(str::len).sum();
    let typed = start..start + format.text(Role::User, question).len();
    let options = EncodeOptions { add_special: true, parse_special: true, literal: std::slice::from_ref(&typed) };
    let mut scratch = memory(tokenizer.scratch_bytes(&prompt)?)?;
    let mut tokens = vec![0; tokenizer.max_tokens(prompt.len())];
    let n = tokenizer.encode(&prompt, options, &mut scratch, &mut tokens)?;

    // Prefill: all of the prompt, in passes of many tokens. The logits are those of the token to follow the last one.
    engine.eval(&pool, &mut session, &tokens[..n])?;

    // Decode: each step reads the last token, and chooses the next. At temperature 0 the choice is always the likeliest token.
    let mut sampler = Sampler::new(SamplerConfig { temperature: 0.0, ..SamplerConfig::default() });
    let (mut answer, limits) = (Generation::new(), Limits { tokens: MAX_TOKENS, stops: &[] });
    loop {
        let mut run =
            Run { engine: &mut engine, exec: &pool, session: &mut session, sampler: &mut sampler, lookup: None };
        // A token may end inside a character: whole characters only are shown.
        let mut text = String::new();
        let event = answer.step(&mut run, limits, Rules::NONE, &mut |piece| text.push_str(piece))?;
        write!(out, "{text}")?;
        out.flush()?;
        if let Event::End(_) = event {
            writeln!(out)?;
            return Ok(());
        }
    }
}
