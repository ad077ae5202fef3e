//! `armlet tokenize`: prints the token ids of a text.

use std::fmt::Write;
use std::path::Path;

use armlet::gguf::File;
use armlet::host::memory;
use armlet::storage::{Arena, ArenaError};
use armlet::tokenizer::{EncodeOptions, Tokenizer, TokenizerError};

use crate::args::Tokenize;
use crate::error::{Failure, print};
use crate::model::{encode, resolve, text, warn, with_metadata};

/// Needs only the vocabulary, so it works for models that armlet cannot run, and for the first one of several parts.
pub(crate) fn run(args: &Tokenize) -> Result<(), Failure> {
    let text = text(&args.text)?;
    let path = resolve(args.model.given()?)?;
    with_metadata(&path, &args.model.metadata.override_kv, |file| run_on(args, &text, &path, file))
}

fn run_on(args: &Tokenize, text: &str, path: &Path, file: &File<'_>) -> Result<(), Failure> {
    let fail = |e: TokenizerError| Failure::file(path, e);
    let mut dry = Arena::dry_run();
    Tokenizer::new(file, &mut dry).map_err(fail)?;
    let mut index = memory(dry.used()).map_err(|e| Failure::new("cannot allocate the vocabulary's tables", e))?;
    let mut arena = Arena::new(&mut index).map_err(|e: ArenaError| fail(e.into()))?;
    let tokenizer = Tokenizer::new(file, &mut arena).map_err(fail)?;
    warn(path, &tokenizer);

    let options = EncodeOptions {
        add_special: !args.no_bos && tokenizer.adds_bos(),
        parse_special: !args.no_parse_special,
        literal: &[],
    };
    let tokens = encode(&tokenizer, text, options)?;
    let out = if args.ids { format!("{tokens:?}\n") } else { table(&tokenizer, &tokens) };
    print(out.as_bytes())
}

/// One token a line: its id, and its text in quotes.
fn table(tokenizer: &Tokenizer<'_>, tokens: &[u32]) -> String {
    let mut out = String::new();
    for token in tokens {
        let piece: Vec<u8> = tokenizer.piece(*token, true).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{token:6} -> '{}'", String::from_utf8_lossy(&piece).escape_debug());
    }
    out
}
