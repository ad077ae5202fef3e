//! `armlet prefix`: prefills a system prompt and saves its KV cache.

use std::io::Write;
#[cfg(feature = "serve")]
use std::path::Path;

#[cfg(feature = "serve")]
use armlet::engine::Prefix;
use armlet::engine::{Config, EngineError, Pattern, Plan};
use armlet::tokenizer::Role;

use super::transcript::{Transcript, start};
use crate::args;
use crate::atomic_file::replace;
use crate::clock;
use crate::error::Failure;
use crate::generate::prefill;
use crate::interrupt;
#[cfg(feature = "serve")]
use crate::model::Loaded;
use crate::model::{Runner, one_stdin, session_memory, text, with_model};
use crate::template::{Message, Template};
use crate::visible;

/// The prefix in a file's bytes, and the tokens that it holds.
#[cfg(feature = "serve")]
pub(crate) fn shared<'p>(path: &Path, bytes: &'p [u8], loaded: &Loaded<'_>) -> Result<(Prefix<'p>, Vec<u32>), Failure> {
    super::begun(path, bytes, loaded).map(|(prefix, transcript)| (prefix, transcript.read))
}

pub(crate) fn run(args: &args::Prefix) -> Result<(), Failure> {
    if args.text.prompt.is_none() && args.text.file.as_deref().is_none_or(|file| file.as_os_str() == "-") {
        one_stdin(&args.template, "the system prompt", "-p or -f FILE")?;
    }
    let text = text(&args.text)?;
    with_model(&args.model, |loaded| {
        let template = Template::new(loaded.file, &loaded.model.tokenizer, &args.template)?;
        let system = Message::new(Role::System, text.trim_end_matches('\n').to_string());
        let began = clock::local();
        let read = start(loaded, &template, &system, began)?;
        let common = read.len();
        if read.is_empty() {
            return Err(Failure::Error("the model's chat template does not start with a system prompt".into()));
        }
        let h = &loaded.model.hparams;
        if h.window.is_some() {
            return Err(EngineError::PrefixAndWindows.into());
        }
        if common >= h.context_length {
            let most = h.context_length - 1;
            return Err(Failure::Error(format!(
                "the system prompt has {common} tokens, but at most {most} fit: shorten it"
            )));
        }
        let config = args.kv.config();
        let chunk = loaded.ahead.chunk(loaded.model.has_float_matrices(), common).unwrap_or(config.chunk);
        let config = Config { context: (common + 1).min(h.context_length), sinks: common, chunk, ..config };
        let plan = Plan::new(h, &Config { pattern: Pattern::Sinks, ..config })?;
        let mut memory = session_memory(&plan)?;
        let mut runner = Runner::new(loaded, &plan, &mut memory)?.with_usual(args.kv.config().chunk);
        interrupt::catch()?;
        prefill(&mut runner, &read, &mut Vec::new(), &mut |_| Ok(()))?;
        if interrupt::take() {
            return Err(Failure::Interrupted);
        }
        let extra = Transcript { messages: vec![system], read, began }.encode();
        replace(&args.output, |out| {
            let written = runner.session.save_prefix(&extra, |part| out.write_all(part));
            written.unwrap_or_else(|e| Err(std::io::Error::other(e)))
        })?;
        let output = args.output.display().to_string();
        let _ = writeln!(std::io::stderr(), "{common} tokens in {}", visible::line(&output));
        Ok(())
    })
}
