//! Stop strings: an answer ends before the first of them.

use crate::util::SliceExt;

/// The longest stop string, in bytes.
pub const MAX_STOP: usize = 256;

/// Bytes of a stop string but its last, and of a character.
const ROOM: usize = MAX_STOP + 3;

/// Whether a stop string is found: others count as absent.
pub(super) fn fits(stop: &str) -> bool {
    (1..=MAX_STOP).contains(&stop.len())
}

/// The end of the text so far, as far as it may be the start of a stop string.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// What may be the start of a stop string is shorter than one; a character comes behind it.
    bytes: [u8; ROOM],
    len: usize,
}

impl Held {
    pub(super) const fn new() -> Self {
        Held { bytes: [0; ROOM], len: 0 }
    }

    /// Takes text, and passes on what belongs to no stop string. If one is complete, its number: what follows is dropped.
    pub(super) fn push(&mut self, text: &str, stops: &[&str], show: &mut dyn FnMut(&str)) -> Option<usize> {
        if stops.is_empty() {
            // There may have been some before.
            self.finish(show);
            show(text);
            return None;
        }
        for c in text.chars() {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                if let Some(slot) = self.bytes.get_mut(self.len) {
                    *slot = byte;
                    self.len += 1;
                }
            }
            let held = self.bytes.first_n(self.len);
            if let Some(stop) = stops.iter().position(|stop| fits(stop) && held.ends_with(stop.as_bytes())) {
                let before = self.len - stops.get(stop).map_or(0, |stop| stop.len());
                self.pass_on(before, show);
                self.len = 0;
                return Some(stop);
            }
            // The longest end of what is held that begins a stop string stays.
            let begins = |at: &usize| {
                let end = held.get(*at..).unwrap_or(&[]);
                stops.iter().any(|stop| fits(stop) && stop.as_bytes().starts_with(end))
            };
            let at = (0..self.len).find(begins).unwrap_or(self.len);
            self.pass_on(at, show);
        }
        None
    }

    /// Passes on what is still held: the text has ended.
    pub(super) fn finish(&mut self, show: &mut dyn FnMut(&str)) {
        self.pass_on(self.len, show);
    }

    /// Passes on the first `n` bytes. They are whole characters: a stop string begins with one.
    fn pass_on(&mut self, n: usize, show: &mut dyn FnMut(&str)) {
        let first = core::str::from_utf8(self.bytes.first_n(n)).unwrap_or("");
        if !first.is_empty() {
            show(first);
        }
        for (at, from) in (n..self.len).enumerate() {
            let byte = self.bytes.get(from).copied().unwrap_or(0);
            if let Some(slot) = self.bytes.get_mut(at) {
                *slot = byte;
            }
        }
        self.len -= n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    /// The text that is shown of pieces, and which stop string ended it.
    fn shown(pieces: &[&str], stops: &[&str]) -> (String, Option<usize>) {
        let (mut held, mut text) = (Held::new(), String::new());
        for piece in pieces {
            if let Some(stop) = held.push(piece, stops, &mut |t| text.push_str(t)) {
                return (text, Some(stop));
            }
        }
        held.finish(&mut |t| text.push_str(t));
        (text, None)
    }

    #[test]
    fn the_longest_stop_string_loses_nothing() {
        let stop = "a".repeat(MAX_STOP);
        for n in MAX_STOP - 4..MAX_STOP {
            for c in ["é", "漢", "😀", "b"] {
                let text = "a".repeat(n) + c;
                assert_eq!(shown(&[&text], &[&stop]), (text.clone(), None), "{n} {c}");
            }
        }
        assert_eq!(shown(&[&stop], &[&stop]), (String::new(), Some(0)));
    }

    #[test]
    fn what_was_held_comes_first_where_there_are_no_more_stop_strings() {
        let (mut held, mut text) = (Held::new(), String::new());
        assert_eq!(held.push("a#", &["##"], &mut |t| text.push_str(t)), None);
        assert_eq!(held.push(" b", &[], &mut |t| text.push_str(t)), None);
        assert_eq!(text, "a# b");
    }

    #[test]
    fn a_stop_string_is_found_across_pieces() {
        assert_eq!(shown(&["ab", "cd"], &["bc"]), ("a".into(), Some(0)));
        assert_eq!(shown(&["ab", "xcd"], &["bc"]), ("abxcd".into(), None));
        assert_eq!(shown(&["aab"], &["ab"]), ("a".into(), Some(0)));
        // An attempt that fails may hold the start of another.
        assert_eq!(shown(&["a", "a", "b", "a", "a", "b", "c"], &["aabc"]), ("aab".into(), Some(0)));
        assert_eq!(shown(&["xé", "漢", "字"], &["漢字"]), ("xé".into(), Some(0)));
        assert_eq!(shown(&["one\n", "\ntwo"], &["END", "\n\n"]), ("one".into(), Some(1)));
        assert_eq!(shown(&["abc"], &[]), ("abc".into(), None));
        // What is no stop string changes nothing, whatever its length.
        let (text, long) = ("x".repeat(300), "x".repeat(MAX_STOP + 4));
        assert_eq!(shown(&[&text, "é", "END"], &["", &long, "END"]), (text.clone() + "é", Some(2)));
    }

    #[test]
    fn what_cannot_become_one_is_shown_at_once() {
        let (mut held, mut text) = (Held::new(), String::new());
        for (piece, so_far) in [("Hello", "Hello"), (" EN", "Hello "), ("T", "Hello ENT"), ("E", "Hello ENT")] {
            assert_eq!(held.push(piece, &["END"], &mut |t| text.push_str(t)), None);
            assert_eq!(text, so_far);
        }
    }

    /// As the first of all ends of a stop string in the whole text.
    #[test]
    fn stops_are_those_of_a_naive_search() {
        let mut state = 7u64;
        for _ in 0..2000 {
            let mut random = |n: u64| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) % n
            };
            let letters = ["a", "b", "é"];
            let mut word = |n| (0..1 + random(n)).map(|_| letters[random(3) as usize]).collect::<String>();
            let pieces: Vec<String> = (0..6).map(|_| word(4)).collect();
            let stops: Vec<String> = (0..2).map(|_| word(4)).collect();
            let (pieces, stops): (Vec<&str>, Vec<&str>) =
                (pieces.iter().map(|s| s.as_str()).collect(), stops.iter().map(|s| s.as_str()).collect());
            let whole = pieces.concat();
            let ends = (0..=whole.len()).filter(|end| whole.is_char_boundary(*end));
            let first =
                ends.filter_map(|end| Some((end, stops.iter().position(|stop| whole[..end].ends_with(stop))?))).next();
            let want = match first {
                Some((end, stop)) => (whole[..end - stops[stop].len()].into(), Some(stop)),
                None => (whole.clone(), None),
            };
            assert_eq!(shown(&pieces, &stops), want, "{pieces:?} {stops:?}");
        }
    }
}
