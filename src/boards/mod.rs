//! Boards that run one model together, as far as the core knows of them: how they exchange bytes.
//!
//! **No sum travels.** Floats do not add up to the same in every order, so a board that added what others sent would give
//! other bits than one board alone, and others again for another number of boards. Each sum is some one board's, from its
//! first product to its last, and what travels is finished: rows of results, keys and values, roots of attention's tree.
//! So there is no reduction here, only three ways to pass on what is finished.
//!
//! The core has no network, as it has no threads: what implements [`Comm`] is the caller's. A program for one board uses
//! [`Alone`].

use thiserror::Error;

mod between;

pub use between::{Between, Call};

/// Boards that run one model together. All of them call the same methods in the same order, with the same lengths.
///
/// After an error the boards no longer agree on what comes next, so nothing more is exchanged.
pub trait Comm: Sync {
    /// Number of this board.
    fn rank(&self) -> usize;

    /// How many boards there are; at least 1, and the same on each.
    fn size(&self) -> usize;

    /// Part `i` of `all` ends at `ends[i]`, where part `i + 1` begins; `ends` has [`size`](Comm::size) numbers. This board's
    /// part is there; those of the others are written.
    ///
    /// # Errors
    /// [`CommError`].
    fn all_gather(&self, all: &mut [u8], ends: &[usize]) -> Result<(), CommError>;

    /// `data` of board `root` is written to that of all others.
    ///
    /// # Errors
    /// [`CommError`].
    fn broadcast(&self, root: usize, data: &mut [u8]) -> Result<(), CommError>;

    /// [`broadcast`](Comm::broadcast) of what the boards do next; `root` calls it, too. The others may wait for it as long as a
    /// person types, so they wait idly, and silence of `root` is no error.
    ///
    /// # Errors
    /// [`CommError`].
    fn listen(&self, root: usize, data: &mut [u8]) -> Result<(), CommError> {
        self.broadcast(root, data)
    }

    /// A pass of so many tokens begins on this board: how long another may be silent follows from it.
    fn begin(&self, tokens: usize) {
        let _ = tokens;
    }

    /// Sends to a board and receives from another while `work` runs, which is called once, and should call what it is given
    /// now and then: much of the time that the exchange takes passes only in these calls. What was received is there when
    /// `shift` returns, and not before.
    ///
    /// # Errors
    /// [`CommError`].
    fn shift(
        &self,
        to: Option<(usize, &[u8])>,
        from: Option<(usize, &mut [u8])>,
        work: &mut dyn FnMut(&dyn Fn()),
    ) -> Result<(), CommError>;
}

/// Why boards cannot go on together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum CommError {
    /// A board does not answer.
    #[error("board {rank} has not answered for {seconds} s")]
    Silent {
        /// Which.
        rank: usize,
        /// For how long.
        seconds: u32,
    },
    /// A board's program has ended.
    #[error("board {rank} is gone")]
    Gone {
        /// Which.
        rank: usize,
    },
    /// A board does something else.
    #[error("board {rank} sent {got} bytes where {expected} were expected")]
    Mismatch {
        /// Which.
        rank: usize,
        /// What it sent.
        got: usize,
        /// What this board expected.
        expected: usize,
    },
}

/// One board: nothing is exchanged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Comm for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_gather(&self, _: &mut [u8], _: &[usize]) -> Result<(), CommError> {
        Ok(())
    }

    fn broadcast(&self, _: usize, _: &mut [u8]) -> Result<(), CommError> {
        Ok(())
    }

    /// # Errors
    /// [`CommError::Gone`] for any other board.
    fn shift(
        &self,
        to: Option<(usize, &[u8])>,
        from: Option<(usize, &mut [u8])>,
        work: &mut dyn FnMut(&dyn Fn()),
    ) -> Result<(), CommError> {
        work(&|| ());
        match to.map(|(rank, _)| rank).or(from.map(|(rank, _)| rank)) {
            Some(rank) => Err(CommError::Gone { rank }),
            None => Ok(()),
        }
    }
}
