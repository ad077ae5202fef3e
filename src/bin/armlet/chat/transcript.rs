//! What was said in a conversation, and which tokens of it a session has; saved beside the KV cache.

use armlet::tokenizer::{EncodeOptions, Role, TokenKind, Tokenizer};
use chrono::NaiveDateTime;

use crate::clock;
use crate::error::Failure;
use crate::model::{Loaded, encode_prompt};
use crate::template::{Message, Rendered, Template};

/// The messages of a conversation, and the tokens of it that are in the session.
pub(super) struct Transcript {
    pub(super) messages: Vec<Message>,
    pub(super) read: Vec<u32>,
    /// The time that templates are given throughout, so that what was prefilled stays as it is.
    pub(super) began: NaiveDateTime,
}

impl Default for Transcript {
    fn default() -> Self {
        Transcript { messages: Vec::new(), read: Vec::new(), began: clock::local() }
    }
}

impl Transcript {
    pub(super) fn encode(&self) -> Vec<u8> {
        let message = |m: &Message| serde_json::json!({ "role": m.role.name(), "text": m.text });
        let messages: Vec<_> = self.messages.iter().map(message).collect();
        let began = format!("{:?}", self.began);
        serde_json::json!({ "messages": messages, "read": self.read, "began": began }).to_string().into_bytes()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        let message = |m: &serde_json::Value| {
            let role = [Role::System, Role::User, Role::Assistant].into_iter().find(|r| m["role"] == r.name())?;
            Some(Message::new(role, m["text"].as_str()?.to_string()))
        };
        let read = |t: &serde_json::Value| u32::try_from(t.as_u64()?).ok();
        let messages = value["messages"].as_array()?.iter().map(message).collect::<Option<_>>()?;
        let read = value["read"].as_array()?.iter().map(read).collect::<Option<_>>()?;
        let began = value["began"].as_str().map_or_else(|| Some(clock::local()), |began| began.parse().ok())?;
        Some(Transcript { messages, read, began })
    }

    /// The system prompt.
    pub(super) fn system(&self) -> Option<&str> {
        self.messages.iter().find(|m| m.role == Role::System).map(|m| m.text.as_str())
    }
}

/// A rendered conversation as token ids.
pub(super) fn encode_rendered(loaded: &Loaded<'_>, rendered: &Rendered) -> Result<Vec<u32>, Failure> {
    let options = EncodeOptions { add_special: true, parse_special: true, literal: &rendered.literal };
    encode_prompt(&loaded.model.tokenizer, &rendered.text, options)
}

/// A rendered conversation as the tokens that were read, and more behind them; `None` if it does not begin with their
/// text, or not up to where a control token begins or, after an answer that was cut, the `model` has chosen a boundary.
///
/// A model may write a text with other tokens than the tokenizer has for it. Those would have to be read again, and with
/// them, where tokens have been evicted, the whole conversation.
pub(super) fn going_on(
    loaded: &Loaded<'_>,
    rendered: &Rendered,
    read: &[u32],
    model: bool,
) -> Result<Option<Vec<u32>>, Failure> {
    let tokenizer = &loaded.model.tokenizer;
    let text: Vec<u8> = without_bos(tokenizer, read).iter().flat_map(|t| tokenizer.piece(*t, true)).collect();
    let at = text.len();
    let rest = rendered.text.as_bytes().starts_with(&text).then(|| rendered.text.get(at..)).flatten();
    let Some(rest) = rest.filter(|rest| !rest.is_empty()) else { return Ok(None) };
    let literal = rendered.literal.iter().filter(|l| l.end > at);
    let literal: Vec<_> = literal.map(|l| l.start.saturating_sub(at)..l.end - at).collect();
    let options = EncodeOptions { add_special: false, parse_special: true, literal: &literal };
    let more = encode_prompt(tokenizer, rest, options)?;
    let at_control = more.first().is_some_and(|first| tokenizer.kind(*first) == TokenKind::Control);
    Ok((at_control || model).then(|| [read, &more].concat()))
}

/// Tokens without the BOS that the tokenizer adds itself.
fn without_bos<'r>(tokenizer: &Tokenizer<'_>, read: &'r [u32]) -> &'r [u32] {
    match read {
        [first, rest @ ..] if tokenizer.adds_bos() && tokenizer.bos() == Some(*first) => rest,
        _ => read,
    }
}

/// How many of the tokens that were read are the beginning of a rendered conversation.
pub(super) fn beginning(loaded: &Loaded<'_>, rendered: &Rendered, read: &[u32]) -> usize {
    let tokenizer = &loaded.model.tokenizer;
    let (tokens, mut text) = (without_bos(tokenizer, read), rendered.text.as_bytes());
    let is_next = |token: &&u32| {
        let piece: Vec<u8> = tokenizer.piece(**token, true).collect();
        text.strip_prefix(piece.as_slice()).map(|rest| text = rest).is_some()
    };
    read.len() - tokens.len() + tokens.iter().take_while(is_next).count()
}

/// The tokens with which all conversations with this system prompt begin.
pub(super) fn start(
    loaded: &Loaded<'_>,
    template: &Template<'_>,
    system: &Message,
    began: NaiveDateTime,
) -> Result<Vec<u32>, Failure> {
    let tokens = |word: &str| {
        let user = Message::new(Role::User, word.to_string());
        encode_rendered(loaded, &template.render(&[system.clone(), user], began)?)
    };
    let (mut a, b) = (tokens("Yes.")?, tokens("42")?);
    a.truncate(common(&a, &b));
    Ok(a)
}

/// With how many tokens both begin.
pub(super) fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A template that tells the date sees the same one when a conversation goes on the next day.
    #[test]
    fn the_time_of_a_conversation_is_saved() {
        let transcript =
            Transcript { read: vec![7], began: "2026-07-06T05:04:03.002001".parse().unwrap(), ..Default::default() };
        let saved = Transcript::decode(&transcript.encode()).unwrap();
        assert_eq!((saved.began, saved.read), (transcript.began, vec![7]));
        assert!(Transcript::decode(br#"{"messages":[],"read":[1]}"#).is_some());
        assert!(Transcript::decode(br#"{"messages":[],"read":[1],"began":"x"}"#).is_none());
    }
}
