//! What an API makes of an answer; each has its own.

use serde_json::Value;

use super::event::{Ended, Scored};
use super::prepare::Source;
use super::problem::Problem;
use crate::args::Sampling;
use crate::grammar::Form;
use crate::thinking::Thinking;

/// What is asked for, as far as the request alone says it.
pub(super) struct Wanted {
    pub(super) source: Source,
    pub(super) sampling: Sampling,
    /// The most tokens of the answer.
    pub(super) tokens: Option<usize>,
    /// The most tokens of prompt and answer.
    pub(super) context: Option<usize>,
    /// Log probabilities: of each token, and of so many that were likeliest.
    pub(super) scores: Option<usize>,
    pub(super) stream: bool,
    /// What the answer may be.
    pub(super) form: Option<Form>,
    /// Thoughts are told from the answer.
    pub(super) split: bool,
}

/// What is asked for, and the form of the answer.
pub(super) type Request = (Wanted, Box<dyn Format>);

/// What came since the last time.
#[derive(Default)]
pub(super) struct Delta {
    pub(super) thought: String,
    pub(super) text: String,
    pub(super) scores: Vec<Scored>,
}

impl Delta {
    pub(super) fn is_empty(&self) -> bool {
        self.thought.is_empty() && self.text.is_empty() && self.scores.is_empty()
    }
}

/// The form of an answer. Pieces of a stream are texts with all that frames them.
pub(super) trait Format: Send {
    /// The media type of a stream.
    fn stream_type(&self) -> &'static str {
        "text/event-stream"
    }

    /// What comes first in a stream.
    fn begin(&mut self) -> String {
        String::new()
    }

    fn piece(&mut self, delta: Delta) -> String;

    /// The last piece.
    fn end(&mut self, ended: &Ended) -> String;

    /// The last piece of a stream that fails.
    fn failed(&mut self, problem: &Problem) -> String;

    /// All of it at once.
    fn whole(&mut self, whole: Delta, ended: &Ended) -> Value;
}

/// An event of a stream.
pub(super) fn sse(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// Tells thoughts from the answer, without the tags and the white space around them.
pub(super) struct Splitter {
    thinking: Option<Thinking>,
    /// Thoughts have ended, or begun: white space that follows is not passed on.
    trims: bool,
}

impl Splitter {
    /// `begun`: the prompt ended with `<think>`. Without `split`, all is answer.
    pub(super) fn new(split: bool, begun: bool) -> Self {
        let mut thinking = Thinking::default();
        if begun {
            thinking.begin();
        }
        Splitter { thinking: split.then_some(thinking), trims: begun }
    }

    pub(super) fn push(&mut self, text: &str) -> Delta {
        self.each(text, |thinking, f| thinking.push(text, f))
    }

    /// What was held back.
    pub(super) fn finish(&mut self) -> Delta {
        self.each("", |thinking, f| thinking.finish(f))
    }

    fn each(&mut self, all: &str, give: impl FnOnce(&mut Thinking, &mut dyn FnMut(bool, &str))) -> Delta {
        let mut delta = Delta::default();
        let Some(thinking) = &mut self.thinking else {
            delta.text = all.into();
            return delta;
        };
        let trims = &mut self.trims;
        give(thinking, &mut |is_thought, text| {
            let to = if is_thought { &mut delta.thought } else { &mut delta.text };
            if is_thought && text.ends_with(crate::thinking::OPEN) && text.trim_start() == crate::thinking::OPEN {
                *trims = true;
                return;
            }
            let (text, ends) = match text.strip_suffix(crate::thinking::CLOSE).filter(|_| is_thought) {
                Some(before) => (before, true),
                None => (text, false),
            };
            let text = if *trims { text.trim_start() } else { text };
            *trims = ends || (*trims && text.is_empty());
            *to += text;
        });
        delta
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, piece: usize, begun: bool) -> [String; 2] {
        let mut splitter = Splitter::new(true, begun);
        let chars: Vec<char> = text.chars().collect();
        let mut out = [String::new(), String::new()];
        let deltas: Vec<Delta> = chars.chunks(piece).map(|c| splitter.push(&c.iter().collect::<String>())).collect();
        for delta in deltas.into_iter().chain([splitter.finish()]) {
            out[0] += &delta.thought;
            out[1] += &delta.text;
        }
        out
    }

    #[test]
    fn tags_are_no_part_of_either() {
        for piece in [1, 2, 3, 7, 100] {
            for (text, begun, thought, answer) in [
                ("<think>\na < b\n</think>\n\nc ", false, "a < b\n", "c "),
                ("\na</think>\n\n c", true, "a", "c"),
                ("<think></think>c", false, "", "c"),
                (" c <think>d", false, "", " c <think>d"),
                ("<think>never", false, "never", ""),
            ] {
                assert_eq!(split(text, piece, begun), [thought, answer], "{text:?} by {piece}");
            }
        }
        let mut plain = Splitter::new(false, true);
        assert_eq!((plain.push("<think>a").text, plain.finish().is_empty()), ("<think>a".into(), true));
    }
}
