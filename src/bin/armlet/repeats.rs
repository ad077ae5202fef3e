//! An answer that repeats itself: small models get into loops that they do not leave.

/// The longest sequence that is looked for, in tokens.
const LONGEST: usize = 256;
/// How often it must have come in a row.
const TIMES: usize = 4;
/// And how many tokens all of that must be: tables and drawings repeat short ones.
const TOKENS: usize = 192;

/// Finds the end of an answer that consists of one sequence of tokens, over and over.
#[derive(Debug)]
pub(crate) struct Repeats {
    /// The last tokens; the one before `at` is the newest.
    recent: [u32; LONGEST],
    at: usize,
    pushed: usize,
    /// For each period, less one: how many tokens in a row are the same as that many before.
    equal: [u32; LONGEST],
}

impl Default for Repeats {
    fn default() -> Self {
        Repeats { recent: [0; LONGEST], at: 0, pushed: 0, equal: [0; LONGEST] }
    }
}

impl Repeats {
    /// Adds a token; true if the answer now ends in a sequence that has come at least four times in a row, and at least
    /// 192 tokens long.
    pub(crate) fn push(&mut self, token: u32) -> bool {
        let mut found = false;
        for (i, equal) in self.equal.iter_mut().enumerate().take(self.pushed.min(LONGEST)) {
            let period = i + 1;
            let before = self.recent[(self.at + LONGEST - period) % LONGEST];
            *equal = if before == token { *equal + 1 } else { 0 };
            // The first time is equal to nothing.
            found |= *equal as usize + period >= TOKENS.max(TIMES * period);
        }
        self.recent[self.at] = token;
        self.at = (self.at + 1) % LONGEST;
        self.pushed += 1;
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many tokens a loop is found.
    fn found(tokens: impl IntoIterator<Item = u32>) -> Option<usize> {
        let mut repeats = Repeats::default();
        tokens.into_iter().position(|token| repeats.push(token)).map(|at| at + 1)
    }

    #[test]
    fn a_loop_of_any_length_is_found_after_four_times() {
        for period in [1, 2, 7, 47, 48, 100, 255, 256] {
            let loops = (0..10_000u32).map(|i| i % period);
            assert_eq!(found(loops), Some((4 * period as usize).max(192)), "{period}");
            // Wherever it begins.
            let after = (1000..1777u32).chain((0..10_000).map(|i| i % period));
            assert_eq!(found(after), Some(777 + (4 * period as usize).max(192)), "{period}");
        }
    }

    #[test]
    fn what_is_not_the_same_is_no_loop() {
        assert_eq!(found((0..10_000u32).map(|i| i % 257)), None);
        assert_eq!(found(std::iter::repeat_n(5, 191)), None);
        // A list whose lines are alike but for a number.
        assert_eq!(found((0..10_000u32).map(|i| if i % 10 == 0 { 100 + i } else { i % 10 })), None);
        // Three times, then something else, again and again.
        let thrice = (0..100u32).flat_map(|n| (0..3).flat_map(|_| 0..100).chain([1000 + n]));
        assert_eq!(found(thrice), None);
    }
}
