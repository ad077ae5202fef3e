//! What an API makes of an answer; each has its own.

use serde_json::Value;

use super::clients::Ask;
use super::event::{Ended, Scored};
use super::prepare::Source;
use super::problem::{Names, Problem};
use crate::args::Sampling;
use crate::grammar::Form;
use crate::thinking::{Tags, Thinking};
use crate::tools::{Calls, Piece, Tools};

/// What is asked for, as far as the request alone says it.
pub(super) struct Wanted {
    pub(super) names: Names,
    pub(super) source: Source,
    /// With the most tokens of the answer.
    pub(super) sampling: Sampling,
    /// The most tokens of prompt and answer.
    pub(super) context: Option<usize>,
    /// Log probabilities: of each token, and of so many that were likeliest.
    pub(super) scores: Option<usize>,
    pub(super) stream: bool,
    /// What the answer may be.
    pub(super) form: Option<Form>,
    /// Thoughts are told from the answer.
    pub(super) split: bool,
    /// What it may call.
    pub(super) tools: Option<Tools>,
}

/// What is asked for, and the form of the answer.
pub(super) type Request = (Wanted, Box<dyn Format>);

/// What came since the last time.
#[derive(Default)]
pub(super) struct Delta {
    pub(super) thought: String,
    pub(super) text: String,
    pub(super) calls: Vec<CallPart>,
    pub(super) scores: Vec<Scored>,
}

/// More of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct CallPart {
    /// Which one of the answer, from 0.
    pub(super) index: usize,
    /// It begins.
    pub(super) name: Option<String>,
    pub(super) arguments: String,
    /// It is complete.
    pub(super) ended: bool,
}

impl Delta {
    pub(super) fn is_empty(&self) -> bool {
        self.thought.is_empty() && self.text.is_empty() && self.calls.is_empty() && self.scores.is_empty()
    }

    /// Adds what came later.
    pub(super) fn add(&mut self, more: Delta) {
        self.thought += &more.thought;
        self.text += &more.text;
        self.scores.extend(more.scores);
        for part in more.calls {
            self.add_call(part);
        }
    }

    fn add_call(&mut self, part: CallPart) {
        match self.calls.last_mut().filter(|last| last.index == part.index) {
            Some(last) => {
                last.arguments += &part.arguments;
                last.ended |= part.ended;
            }
            None => self.calls.push(part),
        }
    }
}

/// The id of a call of an answer.
pub(super) fn call_id(answer: u64, index: usize) -> String {
    format!("call_{answer:016x}{index:04x}")
}

/// The form of an answer. Pieces of a stream are texts with all that frames them.
pub(super) trait Format: Send {
    /// The media type of a stream.
    fn stream_type(&self) -> &'static str {
        "text/event-stream"
    }

    /// What is generated, with all that the request did not say.
    fn settled(&mut self, _: &Ask, _: &Parts) {}

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

/// What an answer is made of, and how it is told apart.
#[derive(Default)]
pub(super) struct Parts {
    /// Thoughts are between these; else they are answer.
    pub(super) tags: Option<Tags>,
    /// It begins within a thought.
    pub(super) thinking: bool,
    /// Thoughts are left where they are, with their tags; they have no calls.
    pub(super) together: bool,
    pub(super) calls: Option<Calls>,
}

/// Tells thoughts and calls from the answer, without the tags and the white space around them.
pub(super) struct Splitter {
    tags: Tags,
    thinking: Option<Thinking>,
    /// Thoughts have ended, or begun: white space that follows is not passed on.
    trims: bool,
    together: bool,
    calls: Option<Calls>,
    /// Calls that have begun.
    begun: usize,
    /// Tokens of thoughts; and those since then of which it is not certain whether a thought begins.
    thoughts: usize,
    open: usize,
}

impl Splitter {
    pub(super) fn new(parts: Parts) -> Self {
        let thinking = parts.tags.map(|tags| {
            let mut thinking = Thinking::new(tags);
            if parts.thinking {
                thinking.begin();
            }
            thinking
        });
        let tags = parts.tags.unwrap_or_default();
        let Parts { thinking: trims, together, calls, .. } = parts;
        Splitter { tags, thinking, trims, together, calls, begun: 0, thoughts: 0, open: 0 }
    }

    /// Takes the text that so many tokens added.
    pub(super) fn take(&mut self, text: &str, tokens: usize) -> Delta {
        let was_thought = self.thinking.as_ref().is_some_and(Thinking::is_thought);
        let delta = self.push(text);
        self.open += tokens;
        let Some(thinking) = &self.thinking else { return delta };
        if was_thought || thinking.is_thought() || !delta.thought.is_empty() {
            self.thoughts += std::mem::take(&mut self.open);
        } else if thinking.is_answer() {
            self.open = 0;
        }
        delta
    }

    /// Tokens of thoughts, with their tags.
    pub(super) fn thoughts(&self) -> usize {
        self.thoughts
    }

    fn push(&mut self, text: &str) -> Delta {
        self.each(text, |thinking, f| thinking.push(text, f))
    }

    /// What was held back.
    pub(super) fn finish(&mut self) -> Delta {
        let mut delta = self.each("", |thinking, f| thinking.finish(f));
        if let Some(calls) = &mut self.calls {
            let pieces = calls.finish();
            self.read(pieces, &mut delta);
        }
        delta
    }

    /// Whether there was a call.
    pub(super) fn has_called(&self) -> bool {
        self.begun > 0
    }

    fn each(&mut self, all: &str, give: impl FnOnce(&mut Thinking, &mut dyn FnMut(bool, &str))) -> Delta {
        let mut delta = Delta::default();
        let Some(thinking) = &mut self.thinking else {
            delta.text = all.into();
            return self.with_calls(delta);
        };
        let (trims, Tags { open, close, .. }) = (&mut self.trims, self.tags);
        let together = self.together;
        give(thinking, &mut |is_thought, text| {
            let to = if is_thought { &mut delta.thought } else { &mut delta.text };
            if together {
                *to += text;
                return;
            }
            if is_thought && text.ends_with(open) && text.trim_start() == open {
                *trims = true;
                return;
            }
            let (text, ends) = match text.strip_suffix(close).filter(|_| is_thought) {
                Some(before) => (before, true),
                None => (text, false),
            };
            let text = if *trims { text.trim_start() } else { text };
            *trims = ends || (*trims && text.is_empty());
            *to += text;
        });
        self.with_calls(delta)
    }

    /// Takes the calls out of an answer's text.
    fn with_calls(&mut self, mut delta: Delta) -> Delta {
        if let Some(calls) = &mut self.calls {
            let pieces = calls.push(&std::mem::take(&mut delta.text));
            self.read(pieces, &mut delta);
        }
        if self.together {
            // They come first.
            delta.text.insert_str(0, &std::mem::take(&mut delta.thought));
        }
        delta
    }

    fn read(&mut self, pieces: Vec<Piece>, delta: &mut Delta) {
        for piece in pieces {
            let mut part = CallPart { index: self.begun.saturating_sub(1), ..CallPart::default() };
            match piece {
                Piece::Text(text) => {
                    delta.text += &text;
                    continue;
                }
                Piece::Begin(name) => {
                    part = CallPart { index: self.begun, name: Some(name), ..part };
                    self.begun += 1;
                }
                Piece::Arguments(text) => part.arguments = text,
                Piece::End => part.ended = true,
            }
            delta.add_call(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, piece: usize, begun: bool) -> [String; 2] {
        let mut splitter = Splitter::new(Parts { tags: Some(Tags::default()), thinking: begun, ..Parts::default() });
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
    fn tokens_of_thoughts_are_counted() {
        for (begun, pieces, thoughts) in [
            (false, &[("<think>", 1), ("Hm", 2), ("</think>", 1), ("Yes", 1)][..], 4),
            (false, &[("<", 1), ("think", 1), (">a", 1), ("</", 1), ("think>", 1), ("b", 1)], 5),
            (false, &[("<", 1), ("b", 1), ("<think>", 1)], 0),
            (true, &[("a", 1), ("</think>b", 2), ("c", 1)], 3),
            (false, &[("Yes", 1)], 0),
            (true, &[("never ends", 3)], 3),
        ] {
            let mut splitter =
                Splitter::new(Parts { tags: Some(Tags::default()), thinking: begun, ..Parts::default() });
            pieces.iter().for_each(|(text, tokens)| drop(splitter.take(text, *tokens)));
            assert_eq!(splitter.thoughts(), thoughts, "{pieces:?}");
        }
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
        let mut plain = Splitter::new(Parts { thinking: true, ..Parts::default() });
        assert_eq!((plain.push("<think>a").text, plain.finish().is_empty()), ("<think>a".into(), true));
    }
}
