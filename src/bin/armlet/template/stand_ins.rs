//! What a person writes makes no control tokens, and a template sees it nearly as it is.
//!
//! In the spelling of a control token, the first character is replaced by a private one while the template renders: one
//! for one, so that lengths, slices and searches for anything else give what they would. Afterwards it is put back, as
//! literal text.

use std::collections::BTreeSet;
use std::ops::Range;

use armlet::tokenizer::Tokenizer;

/// A conversation as text.
#[derive(Debug, PartialEq)]
pub(crate) struct Rendered {
    pub(crate) text: String,
    /// Byte ranges of `text` in which no control token begins.
    pub(crate) literal: Vec<Range<usize>>,
}

/// How the control tokens of a vocabulary are spelled.
pub(super) struct Spellings<'m>(BTreeSet<&'m [u8]>);

impl<'m> Spellings<'m> {
    pub(super) fn new(tokenizer: &Tokenizer<'m>) -> Self {
        let tokens = 0..u32::try_from(tokenizer.len()).unwrap_or(u32::MAX);
        let texts = tokens.filter(|token| tokenizer.is_reserved(*token)).map(|token| tokenizer.text(token));
        Spellings(texts.filter(|text| !text.is_empty()).collect())
    }

    /// Whether a control token is spelled at the start of `text`. What it begins with comes before it in order, and so does
    /// anything between the two, which shares fewer bytes with it each time: so a few look-ups tell.
    fn starts(&self, mut text: &[u8]) -> bool {
        while let Some(before) = self.0.range(..=text).next_back() {
            let shared = before.iter().zip(text).take_while(|(a, b)| a == b).count();
            if shared == before.len() {
                return true;
            }
            text = &text[..shared];
        }
        false
    }

    /// Byte offsets in `text` at which a control token is spelled, or is at the end as far as the text goes: what follows
    /// in the template could complete it.
    fn find(&self, text: &str) -> Vec<usize> {
        let starts = |at: &usize| self.starts(&text.as_bytes()[*at..]);
        let mut found: Vec<usize> = text.char_indices().map(|(at, _)| at).filter(starts).collect();
        let tail = text.trim_end();
        let completed = |token: &&[u8]| {
            let most = token.len().min(tail.len() + 1);
            let fits = |len: &usize| *len >= 2 && tail.as_bytes().ends_with(&token[..*len]);
            (2..most).rev().find(fits).map(|len| tail.len() - len)
        };
        found.extend(self.0.iter().filter_map(completed).filter(|at| text.is_char_boundary(*at)));
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Private characters, each with the one that it stands for.
pub(super) struct StandIns(Vec<(char, char)>);

impl StandIns {
    /// Replaces characters of `texts`. No stand-in occurs in any of them or in `others`.
    pub(super) fn put(spellings: &Spellings<'_>, texts: &mut [String], others: &[&str]) -> Self {
        let found: Vec<Vec<usize>> = texts.iter().map(|text| spellings.find(text)).collect();
        if found.iter().all(Vec::is_empty) {
            return StandIns(Vec::new());
        }
        let private = '\u{f0000}'..='\u{ffffd}';
        let all = texts.iter().map(String::as_str).chain(others.iter().copied());
        let used: BTreeSet<char> = all.flat_map(str::chars).filter(|c| private.contains(c)).collect();
        let mut free = private.filter(|c| !used.contains(c));
        let mut pairs = Vec::new();
        for (text, places) in texts.iter_mut().zip(found) {
            let mut places = places.into_iter().peekable();
            let replace = |(at, c): (usize, char)| match places.next_if_eq(&at) {
                Some(_) => stand_in(&mut pairs, &mut free, c),
                None => c,
            };
            *text = text.char_indices().map(replace).collect();
        }
        StandIns(pairs)
    }

    /// The private characters.
    pub(super) fn chars(&self) -> String {
        self.0.iter().map(|pair| pair.0).collect()
    }

    /// Puts back what was replaced, as literal text.
    pub(super) fn take(&self, rendered: &str) -> Rendered {
        let mut text = String::with_capacity(rendered.len());
        let mut literal: Vec<Range<usize>> = Vec::new();
        for c in rendered.chars() {
            let stood_for = self.0.iter().find(|pair| pair.0 == c);
            let start = text.len();
            text.push(stood_for.map_or(c, |pair| pair.1));
            if stood_for.is_some() {
                literal.push(start..text.len());
            }
        }
        Rendered { text, literal }
    }
}

/// The character that stands for `c`. There are 65,534 of them, and no vocabulary has control tokens that begin with so
/// many different ones: `c` itself is never the answer.
fn stand_in(pairs: &mut Vec<(char, char)>, free: &mut impl Iterator<Item = char>, c: char) -> char {
    if let Some(pair) = pairs.iter().find(|pair| pair.1 == c) {
        return pair.0;
    }
    let private = free.next().unwrap_or('\u{fffd}');
    pairs.push((private, c));
    private
}

#[cfg(test)]
mod tests {
    use armlet::tokenizer::EncodeOptions;

    use super::*;
    use crate::model::{encode, with_tokenizer};

    fn put(tokenizer: &Tokenizer<'_>, text: &str) -> (StandIns, String) {
        let mut texts = [text.to_string()];
        let stand_ins = StandIns::put(&Spellings::new(tokenizer), &mut texts, &["\u{f0000}"]);
        let [text] = texts;
        (stand_ins, text)
    }

    /// How many control tokens a rendered text has.
    fn controls(tokenizer: &Tokenizer<'_>, rendered: &Rendered) -> usize {
        let options = EncodeOptions { add_special: false, parse_special: true, literal: &rendered.literal };
        let tokens = encode(tokenizer, &rendered.text, options).unwrap();
        tokens.iter().filter(|token| tokenizer.is_reserved(**token)).count()
    }

    #[test]
    fn only_first_characters_of_spellings_are_replaced() {
        with_tokenizer(|tokenizer| {
            for (text, expected) in [
                ("a < b </think> <|im_end > <tool>", "a < b </think> <|im_end > <tool>"),
                ("<s>a<|im_end|></s>", "\u{f0001}s>a\u{f0001}|im_end|>\u{f0001}/s>"),
                ("<<s>", "<\u{f0001}s>"),
                ("see <|im_en\n", "see \u{f0001}|im_en\n"),
                ("a <", "a <"),
                ("<|unk|>\u{f0001}", "\u{f0002}|unk|>\u{f0001}"),
            ] {
                let (stand_ins, found) = put(tokenizer, text);
                assert_eq!(found, expected);
                assert_eq!(stand_ins.take(&found).text, text);
            }
        });
    }

    #[test]
    fn what_is_put_back_is_literal_text() {
        with_tokenizer(|tokenizer| {
            let (stand_ins, text) = put(tokenizer, "<|im_end|>é<s> ");
            let rendered = stand_ins.take(&format!("<|im_start|>{}<|im_end|>", text.trim()));
            assert_eq!(rendered.text, "<|im_start|><|im_end|>é<s><|im_end|>");
            assert_eq!(rendered.literal, [12..13, 24..25]);
            assert_eq!(controls(tokenizer, &rendered), 2);
            // The template ends what the text began.
            let (stand_ins, text) = put(tokenizer, "<|im_end");
            assert_eq!(controls(tokenizer, &stand_ins.take(&format!("{text}|>"))), 0);
        });
    }

    /// However the spellings of control tokens overlap and follow each other, none is parsed.
    #[test]
    fn no_text_makes_a_control_token() {
        with_tokenizer(|tokenizer| {
            let parts = ["<", "|", ">", "s", "/", "im_start", "im_end", "<s>", "<|im_end|>", "unk", " ", "é", "<tool>"];
            let mut state = 1u64;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                parts[(state >> 33) as usize % parts.len()]
            };
            let mut spelled = 0;
            for _ in 0..2000 {
                let text: String = (0..12).map(|_| next()).collect();
                let (stand_ins, replaced) = put(tokenizer, &text);
                assert_eq!(replaced.chars().count(), text.chars().count());
                let rendered = stand_ins.take(&replaced);
                assert_eq!(rendered.text, text);
                assert_eq!(controls(tokenizer, &rendered), 0, "{text}");
                spelled += controls(tokenizer, &Rendered { literal: Vec::new(), ..rendered });
            }
            assert!(spelled > 1000, "{spelled}");
        });
    }
}
