//! The thoughts at the start of an answer, between `<think>` and `</think>`, or what a family has instead.

/// What is around thoughts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tags {
    pub(crate) open: &'static str,
    pub(crate) close: &'static str,
    /// Of these, what control tokens have.
    pub(crate) tokens: [&'static str; 2],
}

impl Default for Tags {
    fn default() -> Self {
        Tags { open: "<think>", close: "</think>", tokens: ["<think>", "</think>"] }
    }
}

impl Tags {
    /// Those of a template: Mistral's, Gemma's, or what all others have.
    pub(crate) fn of(template: &str) -> Self {
        let tags = |open, close, tokens| Tags { open, close, tokens };
        let others = [
            tags("[THINK]", "[/THINK]", ["[THINK]", "[/THINK]"]),
            tags("<|channel>thought", "<channel|>", ["<|channel>", "<channel|>"]),
        ];
        others.into_iter().find(|tags| template.contains(tags.close)).unwrap_or_default()
    }
}

/// Where in an answer the next text is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before anything but white space.
    #[default]
    Start,
    Thought,
    Answer,
}

/// Tells thoughts from the answer, as text comes. `<think>` counts at the start of an answer only: behind that, it is text
/// like any other.
#[derive(Debug, Default)]
pub(crate) struct Thinking {
    tags: Tags,
    place: Place,
    /// What may be the beginning of a tag.
    held: String,
}

impl Thinking {
    pub(crate) fn new(tags: Tags) -> Self {
        Thinking { tags, ..Thinking::default() }
    }

    /// The prompt ended with the first tag.
    pub(crate) fn begin(&mut self) {
        self.place = Place::Thought;
    }

    pub(crate) fn is_thought(&self) -> bool {
        self.place == Place::Thought
    }

    /// No thought can come any more.
    #[cfg(feature = "serve")]
    pub(crate) fn is_answer(&self) -> bool {
        self.place == Place::Answer
    }

    /// Adds text. Calls `f` with pieces, and whether they are thoughts; tags count as such.
    pub(crate) fn push(&mut self, text: &str, f: &mut dyn FnMut(bool, &str)) {
        self.held += text;
        let Tags { open, close, .. } = self.tags;
        if self.place == Place::Start {
            let word = self.held.trim_start();
            if word.starts_with(open) {
                self.place = Place::Thought;
                let tag = self.held.len() - word.len() + open.len();
                f(true, &self.held[..tag]);
                self.held.drain(..tag);
            } else if !open.starts_with(word) {
                self.place = Place::Answer;
            } else {
                return;
            }
        }
        if self.place == Place::Thought {
            let (end, held) = match self.held.find(close) {
                Some(at) => (at + close.len(), 0),
                None => (self.held.len(), half_tag(&self.held, close)),
            };
            if held == 0 && self.held[..end].ends_with(close) {
                self.place = Place::Answer;
            }
            self.give(true, end - held, f);
            if self.place == Place::Thought {
                return;
            }
        }
        self.give(false, self.held.len(), f);
    }

    /// Gives what was held back.
    pub(crate) fn finish(&mut self, f: &mut dyn FnMut(bool, &str)) {
        let is_thought = self.is_thought();
        self.give(is_thought, self.held.len(), f);
    }

    fn give(&mut self, is_thought: bool, len: usize, f: &mut dyn FnMut(bool, &str)) {
        if len > 0 {
            f(is_thought, &self.held[..len]);
            self.held.drain(..len);
        }
    }
}

/// How many bytes at the end of a text are the beginning of a tag.
fn half_tag(text: &str, tag: &str) -> usize {
    (1..tag.len()).rev().find(|len| text.ends_with(&tag[..*len])).unwrap_or(0)
}

/// An answer without its thoughts, and the white space behind them.
pub(crate) fn without_thoughts(text: &str, tags: Tags) -> String {
    let mut out = String::new();
    let (mut thinking, mut thought) = (Thinking::new(tags), false);
    let mut take = |is_thought: bool, text: &str| {
        thought |= is_thought;
        if !is_thought {
            let is_first = thought && out.is_empty();
            out += if is_first { text.trim_start() } else { text };
        }
    };
    thinking.push(text, &mut take);
    thinking.finish(&mut take);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thoughts and answer, of a text that comes in pieces of so many characters.
    fn split(text: &str, piece: usize, begun: bool) -> (String, String) {
        let (mut thoughts, mut answer) = (String::new(), String::new());
        let mut take = |is_thought: bool, text: &str| {
            if is_thought { &mut thoughts } else { &mut answer }.push_str(text);
        };
        let mut thinking = Thinking::default();
        if begun {
            thinking.begin();
        }
        let chars: Vec<char> = text.chars().collect();
        chars.chunks(piece).for_each(|c| thinking.push(&c.iter().collect::<String>(), &mut take));
        thinking.finish(&mut take);
        (thoughts, answer)
    }

    #[test]
    fn thoughts_are_told_from_the_answer_however_the_text_comes() {
        for piece in [1, 2, 3, 5, 8, 100] {
            for (text, thoughts, answer) in [
                ("<think>a < b </thin> ü</think>\n\nc", "<think>a < b </thin> ü</think>", "\n\nc"),
                ("\n <think></think>c", "\n <think></think>", "c"),
                ("no <think>thought</think>", "", "no <think>thought</think>"),
                ("<thin air>", "", "<thin air>"),
                ("<think>never ends </th", "<think>never ends </th", ""),
                ("  <th", "", "  <th"),
                ("<think>a</think>b</think><think>c", "<think>a</think>", "b</think><think>c"),
            ] {
                assert_eq!(split(text, piece, false), (thoughts.into(), answer.into()), "{text:?} by {piece}");
            }
            assert_eq!(split("a</think>b", piece, true), ("a</think>".into(), "b".into()));
        }
    }

    #[test]
    fn an_answer_without_its_thoughts() {
        let without = |text: &str| without_thoughts(text, Tags::default());
        assert_eq!(without("<think>a</think>\n\n b\n"), "b\n");
        assert_eq!(without("\n b\n"), "\n b\n");
        assert_eq!(without("<think>a"), "");
        assert_eq!(without_thoughts("[THINK]a[/THINK]b", Tags::of("{# [/THINK] #}")), "b");
    }
}
