//! `armlet complete`: continues a text.

use armlet::tokenizer::EncodeOptions;

use crate::args::{Complete, Json};
use crate::error::{Failure, print, print_json};
use crate::generate::{End, Request, Said, ended, evicted, generate};
use crate::interrupt;
use crate::model::{Runner, encode_prompt, plan, prompt, session_memory, with_model};
use crate::sampling::sampler;
use crate::terminal::{print_text, tell};
use crate::token_rules::TokenRules;

pub(crate) fn run(args: &Complete) -> Result<(), Failure> {
    let prompt = prompt(&args.text)?;
    with_model(&args.model, |loaded| {
        let options = EncodeOptions { add_special: true, parse_special: args.parse_special, literal: &[] };
        let tokens = encode_prompt(&loaded.model.tokenizer, &prompt, options)?;
        if tokens.is_empty() && loaded.boards.comm().rank() == 0 {
            return Err(Failure::Error(
                "the prompt is empty, and the model has no BOS token to start from; give some text".into(),
            ));
        }
        let cache = args.cache.with_chunk(loaded.chunk(tokens.len()));
        let plan = plan(loaded, &cache, None)?;
        let mut memory = session_memory(&plan)?;
        let mut runner = Runner::new(loaded, &plan, &mut memory)?.with_usual(args.cache.config().chunk);
        interrupt::catch()?;
        let mut answer = String::new();
        let show = |said: Said<'_>| {
            if let Said::Text(text) = said {
                answer.push_str(text);
            }
            match (args.json, said) {
                (None, Said::Text(text)) => print_text(text),
                (Some(Json::Events), said) => print_json(&said.event(), false),
                _ => Ok(()),
            }
        };
        let limit = args.sampling.n_predict.unwrap_or(128);
        let mut sampler = sampler(&args.sampling, loaded.file)?;
        let rules = TokenRules::with_form(&args.sampling, &loaded.model.tokenizer)?;
        let request = Request { prompt: &tokens, limit, rules: &rules, shown: &[], stop_loops: false };
        let (end, stats) = generate(&mut runner, &mut sampler, request, &mut Vec::new(), show)?;
        if args.json == Some(Json::Events) && stats.evicted > 0 {
            print_json(&evicted(stats.evicted), false)?;
        }
        match args.json {
            None => print(b"\n")?,
            Some(kind) => print_json(&ended(kind, &answer, end, &stats), false)?,
        }
        if let Some(note) = end.note(&stats, false).filter(|_| !stats.unfinished) {
            tell(&note);
        }
        stats.report(log::log_enabled!(log::Level::Info));
        match end {
            End::Interrupted => Err(Failure::Interrupted),
            end => stats.check_finished(end),
        }
    })
}
