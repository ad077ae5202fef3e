//! How long a board waits for another, and what it says at the end of that.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// A board may take this many times as long as any board has taken so far.
const LONGER: u32 = 20;

/// How long a board waits for another before it gives up: as long as it was told to, or longer if boards were slower
/// before and still answered. There is no end in the pass of the first command, which reads weights from the disk.
#[derive(Debug)]
pub struct Patience {
    least: Duration,
    /// Microseconds of the longest wait that had an end.
    longest: AtomicU64,
    /// Passes that have begun.
    commands: AtomicU32,
}

impl Patience {
    /// Of at least this long.
    pub fn new(least: Duration) -> Self {
        Patience { least, longest: AtomicU64::new(0), commands: AtomicU32::new(0) }
    }

    /// What it was told to be.
    pub fn least(&self) -> Duration {
        self.least
    }

    /// A command begins.
    pub fn command(&self) {
        self.commands.fetch_add(1, Ordering::Relaxed);
    }

    /// How long to wait; `None` in the first pass.
    pub fn limit(&self) -> Option<Duration> {
        let longest = Duration::from_micros(self.longest.load(Ordering::Relaxed));
        let is_first = self.commands.load(Ordering::Relaxed) < 2;
        (!is_first).then(|| self.least.max(longest.saturating_mul(LONGER)))
    }

    /// A board has answered after so long. In the first pass that says nothing of the others.
    pub fn waited(&self, time: Duration) {
        if self.limit().is_some() {
            self.longest.fetch_max(time.as_micros() as u64, Ordering::Relaxed);
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
        assert_eq!(patience.limit(), None);
        patience.command();
        // The first pass has no end, and is no measure.
        patience.waited(Duration::from_secs(60));
        assert_eq!(patience.limit(), None);
        patience.command();
        assert_eq!(patience.limit(), Some(Duration::from_secs(10)));
        patience.waited(Duration::from_millis(400));
        assert_eq!(patience.limit(), Some(Duration::from_secs(10)));
        patience.waited(Duration::from_secs(3));
        patience.waited(Duration::from_secs(1));
        assert_eq!(patience.limit(), Some(Duration::from_secs(60)));
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
