//! llama-server's `/tokenize` and `/detokenize`.

use armlet::tokenizer::EncodeOptions;
use serde_json::{Value, json};

use super::fields::{Fields, required, wrong_type};
use super::prepare::Preparation;
use super::problem::Problem;

/// The most tokens with their pieces, and the most that become a text: each takes hundreds of bytes.
pub(super) const MOST: usize = 1 << 16;

/// What `/tokenize` wants.
pub(super) struct Tokenize {
    text: String,
    add_special: bool,
    parse_special: bool,
    with_pieces: bool,
}

impl Tokenize {
    pub(super) fn parse(mut fields: Fields) -> Result<Self, Problem> {
        let tokenize = Tokenize {
            text: required("content", fields.text("content")?)?,
            add_special: fields.flag("add_special")?.unwrap_or(false),
            parse_special: fields.flag("parse_special")?.unwrap_or(true),
            with_pieces: fields.flag("with_pieces")?.unwrap_or(false),
        };
        fields.finish().map(|()| tokenize)
    }

    pub(super) fn run(self, preparation: &Preparation<'_>) -> Result<Value, Problem> {
        let options = EncodeOptions { add_special: self.add_special, parse_special: self.parse_special, literal: &[] };
        let tokens = preparation.tokenize(&self.text, options)?;
        if !self.with_pieces {
            return Ok(json!({ "tokens": tokens }));
        }
        check("content", tokens.len())?;
        let piece = |token: &u32| {
            let bytes: Vec<u8> = preparation.tokenizer.piece(*token, true).collect();
            // A piece of a character is shown as its bytes.
            let piece = String::from_utf8(bytes).map_or_else(|e| json!(e.into_bytes()), |text| json!(text));
            json!({ "id": token, "piece": piece })
        };
        Ok(json!({ "tokens": tokens.iter().map(piece).collect::<Vec<_>>() }))
    }
}

fn check(field: &str, tokens: usize) -> Result<(), Problem> {
    if tokens <= MOST {
        return Ok(());
    }
    let message = format!("Invalid '{field}': {tokens} tokens; at most {MOST} are possible.");
    Err(Problem::invalid(message).of(field).code("invalid_value"))
}

/// What `/detokenize` wants.
pub(super) fn detokenize(mut fields: Fields, vocab: usize) -> Result<Vec<u32>, Problem> {
    let list = required("tokens", fields.list("tokens")?)?;
    fields.finish()?;
    check("tokens", list.len())?;
    let token = |value: &Value| {
        let token = value.as_u64().ok_or_else(|| wrong_type("tokens", "an array of integers", value))?;
        u32::try_from(token).ok().filter(|token| (*token as usize) < vocab).ok_or_else(|| {
            let message = format!("Invalid 'tokens': {token} is not in the vocabulary of {vocab}.");
            Problem::invalid(message).of("tokens").code("invalid_value")
        })
    };
    list.iter().map(token).collect()
}

/// The text of tokens.
pub(super) fn text(tokens: &[u32], preparation: &Preparation<'_>) -> Value {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| preparation.tokenizer.piece(*token, true)).collect();
    json!({ "content": String::from_utf8_lossy(&bytes) })
}
