//! A model's vocabulary as llguidance wants it: bytes, and a mark before control tokens, which no grammar allows.

use std::sync::Arc;

use armlet::tokenizer::{TokenKind, Tokenizer};
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

/// The token that stands for the end of an answer, of those that the model has.
pub(super) fn end(tokenizer: &Tokenizer<'_>) -> Option<u32> {
    tokenizer.eos().or_else(|| (0..tokenizer.len() as u32).find(|token| tokenizer.is_end(*token)))
}

/// The vocabulary of a model.
pub(super) fn of(tokenizer: &Tokenizer<'_>) -> Result<TokEnv, String> {
    let end = end(tokenizer).ok_or("the model has no token that ends an answer")?;
    let tokens = 0..tokenizer.len() as u32;
    let info = TokRxInfo::new(tokens.end, end);
    let words: Vec<Vec<u8>> = tokens.map(|token| word(tokenizer, token)).collect();
    Ok(Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words))))
}

fn word(tokenizer: &Tokenizer<'_>, token: u32) -> Vec<u8> {
    let is_text = matches!(tokenizer.kind(token), TokenKind::Normal | TokenKind::UserDefined | TokenKind::Byte);
    if is_text && !tokenizer.is_end(token) {
        let bytes: Vec<u8> = tokenizer.piece(token, false).collect();
        // No text has this byte, with which control tokens are marked.
        return if bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) { Vec::new() } else { bytes };
    }
    [&[TokTrie::SPECIAL_TOKEN_MARKER], tokenizer.text(token)].concat()
}
