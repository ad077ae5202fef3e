//! How long a board waits for another, and what it says at the end of that.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Tokens up to which a pass takes about as long as one of a token: it reads all weights.
const FEW: usize = 8;
/// How many times as long as it should take what boards have to do may take: a pass of a few tokens, and a prompt.
const LONGER: [f64; 2] = [10.0, 3.0];

/// After how long without a pass weights may have to be read again, because others have taken the memory that they were in; and
/// how long that may take each board.
const FORGOTTEN: Duration = Duration::from_secs(30);
const READING: Duration = Duration::from_secs(120);

/// How long a board waits for another before it gives up: as long as it was told to, or longer where boards have that much
/// to do.
///
/// What a pass takes follows from those before it, for each token where there are many. Until one of its kind, of a few tokens
/// or of many, has been measured, there is no end: nothing is known of the boards, which may read weights from the disk. For the same
/// reason each board has two minutes, one after another, in the first passes behind half a minute in which nobody asked anything,
/// and in what is done between a command and a pass: conversations are saved and restored. By layers the first board is ahead of
/// the last by as many passes as there are boards, and waits for all of these.
#[derive(Debug)]
pub struct Patience {
    least: Duration,
    boards: usize,
    state: Mutex<State>,
}

/// What a board knows of its passes: of those of a few tokens, and of those of many.
#[derive(Debug, Default)]
struct State {
    /// When the last one began.
    began: Option<Instant>,
    /// When something last came of a pass.
    heard: Option<Instant>,
    /// Tokens of the last ones, which other boards may not have done yet.
    last: VecDeque<usize>,
    /// How many have begun.
    passes: [usize; 2],
    /// How many more passes may read weights again.
    cold: usize,
    /// Seconds of the slowest; for each token, if there are many.
    slowest: [f64; 2],
}

/// Whether a pass is one of many tokens: 1, else 0.
fn kind(tokens: usize) -> usize {
    usize::from(tokens > FEW)
}

impl State {
    fn begin(&mut self, tokens: usize, boards: usize, now: Instant) {
        if self.heard.is_some_and(|heard| now.duration_since(heard) > FORGOTTEN) {
            // A prompt's and an answer's, on boards that are so many passes apart.
            self.cold = boards + 2;
        }
        self.cold = self.cold.saturating_sub(1);
        (self.began, self.heard) = (Some(now), Some(now));
        self.passes[kind(tokens)] += 1;
        self.last.push_back(tokens);
        if self.last.len() > boards {
            self.last.pop_front();
        }
    }

    /// The pass has come so far: each exchange of it says what it takes at least. The first pass of a few tokens is mostly the
    /// disk's time, and one behind a prompt's that of the prompt.
    fn answered(&mut self, now: Instant) {
        // What travels when a conversation is restored says nothing of weights.
        let (Some(began), Some(tokens)) = (self.began, self.last.back().copied()) else { return };
        self.heard = Some(now);
        let few = kind(tokens) == 0;
        if self.cold > 0 {
            return;
        }
        if few && (self.passes[0] < 2 || self.last.iter().any(|n| kind(*n) == 1)) {
            return;
        }
        let seconds = now.duration_since(began).as_secs_f64() / if few { 1.0 } else { tokens as f64 };
        let slowest = &mut self.slowest[kind(tokens)];
        *slowest = slowest.max(seconds);
    }

    /// How long what boards have to do may take; `None` where that is not known.
    fn limit(&self, boards: usize) -> Option<Duration> {
        let known = |n: &usize| self.passes[kind(*n)] > 1 && self.slowest[kind(*n)] > 0.0;
        let many: usize = self.last.iter().filter(|n| kind(**n) == 1).sum();
        let seconds = LONGER[0] * self.slowest[0] + LONGER[1] * self.slowest[1] * many as f64;
        let known = !self.last.is_empty() && self.last.iter().all(known);
        let reads = self.cold > 0 || self.began.is_none();
        let least = if reads { READING.saturating_mul(boards as u32) } else { Duration::ZERO };
        known.then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).max(least))
    }
}

impl Patience {
    /// Of at least this long, for so many boards.
    pub fn new(least: Duration, boards: usize) -> Self {
        Patience { least, boards, state: Mutex::default() }
    }

    /// What it was told to be.
    pub fn least(&self) -> Duration {
        self.least
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was begun is over, and a command has come: nothing is measured until a pass begins.
    pub fn listened(&self) {
        self.state().began = None;
    }

    /// A pass of so many tokens begins.
    pub fn begin(&self, tokens: usize) {
        self.state().begin(tokens, self.boards, Instant::now());
    }

    /// The other boards have answered in the pass that has begun.
    pub fn answered(&self) {
        self.state().answered(Instant::now());
    }

    /// How long to wait; `None` without an end.
    pub fn limit(&self) -> Option<Duration> {
        self.state().limit(self.boards).map(|limit| limit.max(self.least))
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
/// for it, and at most 8 ms, for who waits for a person. `None` for a wait that may end at any moment.
pub(crate) fn nap(waited: Duration) -> Option<Duration> {
    const SPIN: Duration = Duration::from_millis(2);
    const NAPS: [Duration; 2] = [Duration::from_micros(50), Duration::from_millis(8)];
    (waited >= SPIN).then(|| (waited / 32).clamp(NAPS[0], NAPS[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state after passes of so many tokens, of which the last exchange ended after so many seconds.
    fn after(boards: usize, passes: &[(usize, u64)]) -> State {
        let mut state = State::default();
        for (tokens, seconds) in passes {
            let now = Instant::now();
            state.begin(*tokens, boards, now);
            state.answered(now + Duration::from_secs(*seconds));
        }
        state
    }

    /// Seconds that a board waits in a pass of `tokens` tokens behind these.
    fn waits(boards: usize, passes: &[(usize, u64)], tokens: usize) -> Option<u64> {
        let mut state = after(boards, passes);
        state.begin(tokens, boards, Instant::now());
        state.limit(boards).map(|limit| limit.as_secs())
    }

    #[test]
    fn who_was_slow_and_answered_may_be_slow_again() {
        // The first pass has no end, and is no measure.
        assert_eq!(waits(2, &[], 1), None);
        assert_eq!(waits(2, &[(1, 60)], 1), None);
        assert_eq!(waits(2, &[(1, 60), (1, 3), (1, 1)], 8), Some(30));
        // Nor is an answer's token, until none of the prompt is among what others may do yet.
        assert_eq!(waits(2, &[(128, 64), (128, 64), (1, 9)], 1), None);
        assert_eq!(waits(2, &[(128, 64), (128, 64), (1, 9), (1, 8), (1, 7)], 1), Some(80));
        // What many take is not known then.
        assert_eq!(waits(2, &[(1, 60), (1, 3)], 9), None);
        let patience = Patience::new(Duration::from_secs(10), 2);
        assert_eq!(patience.limit(), None);
        (0..3).for_each(|_| {
            patience.begin(1);
            patience.answered();
        });
        assert_eq!(patience.limit(), Some(Duration::from_secs(10)));
    }

    /// A prompt's passes take as long as they have tokens, and the first is a measure. Boards that are a pass behind have two to
    /// do, whatever comes behind these; an answer's tokens are none the slower for it.
    #[test]
    fn a_long_prompt_may_take_long() {
        assert_eq!(waits(1, &[(128, 64)], 256), Some(3 * 128));
        assert_eq!(waits(2, &[(128, 25)], 128), Some(3 * 50));
        assert_eq!(waits(2, &[(1, 1), (1, 1), (128, 25), (128, 25)], 3), Some(10 + 3 * 25));
        assert_eq!(waits(2, &[(1, 1), (128, 25), (3, 30), (1, 2)], 1), Some(20));
    }

    /// While a person thinks, the system may take weights out of memory. Each board reads its own in its turn.
    #[test]
    fn weights_are_read_again_behind_a_long_silence() {
        let mut state = after(2, &[(1, 60), (1, 3)]);
        let seconds = |state: &State| state.limit(2).map(|limit| limit.as_secs());
        let mut now = state.heard.unwrap() + FORGOTTEN;
        state.begin(1, 2, now);
        assert_eq!(seconds(&state), Some(30));
        state.answered(now);
        now += 3 * FORGOTTEN;
        // A conversation is restored before it goes on, from a disk too.
        state.began = None;
        assert_eq!(seconds(&state), Some(240));
        state.answered(now);
        for limit in [240, 240, 240, 30] {
            state.begin(1, 2, now);
            assert_eq!(seconds(&state), Some(limit));
            // What takes long then is no measure.
            now += Duration::from_secs(if limit == 240 { 20 } else { 1 });
            state.answered(now);
        }
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
            assert!(nap <= waited / 32 && nap >= Duration::from_micros(50) && nap < Duration::from_millis(9));
        }
    }
}
