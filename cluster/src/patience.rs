//! How long a board waits for another, and what it says at the end of that.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Tokens up to which a pass takes about as long as one of a token: it reads all weights.
const FEW: usize = 8;
/// How many times as long as any board has taken so far a board may take: for a few tokens, and for a prompt's.
const LONGER: [u32; 2] = [20, 3];

/// How long a board waits for another before it gives up: as long as it was told to, or longer if boards were slower
/// before and still answered. Boards take longer for many tokens than for a few: of each kind the first pass has no end,
/// since weights are read from the disk, and nothing is known of the boards.
#[derive(Debug)]
pub struct Patience {
    least: Duration,
    /// Tokens of the pass.
    tokens: AtomicUsize,
    /// Of passes of a few tokens, and of those of many.
    kinds: [Waits; 2],
}

/// What is known of passes of a kind.
#[derive(Debug, Default)]
struct Waits {
    /// How many have begun.
    passes: AtomicU32,
    /// Microseconds of the longest wait; for each token, if there are many.
    longest: AtomicU64,
}

impl Patience {
    /// Of at least this long.
    pub fn new(least: Duration) -> Self {
        Patience { least, tokens: AtomicUsize::new(0), kinds: Default::default() }
    }

    /// What it was told to be.
    pub fn least(&self) -> Duration {
        self.least
    }

    /// A pass of so many tokens begins.
    pub fn begin(&self, tokens: usize) {
        self.tokens.store(tokens, Ordering::Relaxed);
        self.kinds[self.kind()].passes.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the pass is one of many tokens: 1, else 0.
    fn kind(&self) -> usize {
        usize::from(self.tokens.load(Ordering::Relaxed) > FEW)
    }

    /// What its time is measured by: tokens, if there are many.
    fn units(&self) -> u32 {
        if self.kind() == 0 { 1 } else { u32::try_from(self.tokens.load(Ordering::Relaxed)).unwrap_or(u32::MAX) }
    }

    /// How long to wait; `None` in the first pass.
    pub fn limit(&self) -> Option<Duration> {
        let Waits { passes, longest } = &self.kinds[self.kind()];
        let longest = Duration::from_micros(longest.load(Ordering::Relaxed)).saturating_mul(self.units());
        let is_known = passes.load(Ordering::Relaxed) > 1;
        is_known.then(|| self.least.max(longest.saturating_mul(LONGER[self.kind()])))
    }

    /// A board has answered after so long. In the first pass of a few tokens that is mostly the disk's time.
    pub fn waited(&self, time: Duration) {
        if self.kind() == 1 || self.limit().is_some() {
            let time = (time / self.units()).as_micros() as u64;
            self.kinds[self.kind()].longest.fetch_max(time, Ordering::Relaxed);
        }
    }
}

/// A board, by its name and number.
pub(crate) fn board(rank: usize, names: &[String]) -> String {
    match names.get(rank) {
        Some(name) => format!("board {name} (rank {rank})"),
        None => format!("board {rank}"),
    }
}

/// What a board says when it gives up another. `kept` is the number of tokens of the conversation that are saved.
pub(crate) fn given_up(rank: usize, names: &[String], waited: Duration, kept: Option<u64>) -> String {
    let kept = kept.map_or(String::new(), |n| format!("; the conversation is kept up to token {n}"));
    format!("{} has not answered for {} s{kept}", board(rank, names), waited.as_secs())
}

/// Whom a board should name that has given up `rank`: whom that one waits for itself, and so on. `accused` has for each
/// board whom it has given up, as far as this one, `own`, was told.
pub(crate) fn culprit(own: usize, rank: usize, accused: &[Option<usize>]) -> usize {
    let mut culprit = rank;
    for _ in accused {
        match accused.get(culprit).copied().flatten() {
            // A broken link: each of the two says it of the other.
            Some(next) if next != own => culprit = next,
            _ => break,
        }
    }
    culprit
}

/// How long to sleep before looking again, after waiting for so long: a 32nd of the wait, so that no wait is much longer
/// for it, and at most 1.8 ms, for who waits for a person. `None` for a wait that may end at any moment.
pub(crate) fn nap(waited: Duration) -> Option<Duration> {
    const SPIN: Duration = Duration::from_millis(2);
    const NAPS: [Duration; 2] = [Duration::from_micros(50), Duration::from_micros(1800)];
    (waited >= SPIN).then(|| (waited / 32).clamp(NAPS[0], NAPS[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_slow_and_answered_may_be_slow_again() {
        let patience = Patience::new(Duration::from_secs(10));
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        patience.begin(1);
        // The first pass has no end, and is no measure.
        patience.waited(Duration::from_secs(60));
        assert_eq!(patience.limit(), None);
        patience.begin(1);
        assert_eq!(patience.limit(), seconds(10));
        patience.waited(Duration::from_millis(400));
        assert_eq!(patience.limit(), seconds(10));
        patience.waited(Duration::from_secs(3));
        patience.waited(Duration::from_secs(1));
        assert_eq!(patience.limit(), seconds(60));
        // Eight tokens take about as long, and what many take is not known.
        patience.begin(8);
        assert_eq!(patience.limit(), seconds(60));
        patience.begin(9);
        assert_eq!(patience.limit(), None);
    }

    /// A prompt's passes take as long as they have tokens: the first is a measure, and one of twice as many tokens may take
    /// twice as long. An answer's tokens are none the slower for it.
    #[test]
    fn a_long_prompt_may_take_long() {
        let patience = Patience::new(Duration::from_secs(10));
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        patience.begin(128);
        patience.waited(Duration::from_secs(64));
        assert_eq!(patience.limit(), None);
        patience.begin(256);
        assert_eq!(patience.limit(), seconds(3 * 128));
        patience.begin(1);
        patience.begin(1);
        assert_eq!(patience.limit(), seconds(10));
    }

    #[test]
    fn a_board_is_given_up_by_name() {
        let names = ["b0", "b1"].map(String::from);
        let say = |rank, names, kept| given_up(rank, names, Duration::from_millis(10_020), kept);
        assert_eq!(
            say(1, &names, Some(42)),
            "board b1 (rank 1) has not answered for 10 s; the conversation is kept up to token 42"
        );
        assert_eq!(say(1, &[], None), "board 1 has not answered for 10 s");
    }

    /// In a ring of four, board 1 is silent: 2 waits for it, 3 for 2, and 0 for 3.
    #[test]
    fn who_only_waits_is_not_the_silent_one() {
        let accused = [None, None, Some(1), Some(2)];
        assert_eq!([3, 2, 1].map(|rank| culprit(0, rank, &accused)), [1; 3]);
        assert_eq!(culprit(0, 3, &[None; 4]), 3);
        // The link between 0 and 3 is broken.
        assert_eq!(culprit(0, 3, &[None, None, None, Some(0)]), 3);
        // What cannot be ends too.
        assert!(culprit(0, 1, &[None, Some(2), Some(1)]) > 0);
        assert_eq!(culprit(0, 1, &[None, Some(7)]), 7);
    }

    #[test]
    fn naps_are_short_beside_the_wait() {
        assert_eq!(nap(Duration::from_micros(1999)), None);
        for waited in [2, 5, 31, 500, 1_000_000].map(Duration::from_millis) {
            let nap = nap(waited).unwrap();
            assert!(nap <= waited / 32 && nap >= Duration::from_micros(50) && nap < Duration::from_millis(2));
        }
    }
}
