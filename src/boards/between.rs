//! What stands between a board and the others: a call of [`Comm`] as a value, which [`Between`] passes on or does not.

use super::{Comm, CommError};

/// A call of one of [`Comm`]'s methods that exchange something.
pub enum Call<'a> {
    /// [`Comm::all_gather`].
    AllGather {
        /// All parts.
        all: &'a mut [u8],
        /// Where each ends.
        ends: &'a [usize],
    },
    /// [`Comm::broadcast`].
    Broadcast {
        /// Whose data it is.
        root: usize,
        /// What is sent, or becomes what was.
        data: &'a mut [u8],
    },
    /// [`Comm::listen`].
    Listen {
        /// Whose data it is.
        root: usize,
        /// What is sent, or becomes what was.
        data: &'a mut [u8],
    },
    /// [`Comm::shift`].
    Shift {
        /// What goes to which board.
        to: Option<(usize, &'a [u8])>,
        /// What comes from which.
        from: Option<(usize, &'a mut [u8])>,
        /// Runs meanwhile.
        work: &'a mut dyn FnMut(&dyn Fn()),
    },
}

impl Call<'_> {
    /// Bytes that this one of `boards` sends, a copy to each board that it sends to, and bytes that it receives.
    pub fn bytes(&self, boards: &dyn Comm) -> (usize, usize) {
        let (rank, others) = (boards.rank(), boards.size() - 1);
        match self {
            Call::AllGather { ends, .. } => {
                let end = |rank: usize| ends.get(rank).copied().unwrap_or(0);
                let own = end(rank) - rank.checked_sub(1).map_or(0, end);
                (others * own, end(others) - own)
            }
            Call::Broadcast { root, data } | Call::Listen { root, data } if *root == rank => (others * data.len(), 0),
            Call::Broadcast { data, .. } | Call::Listen { data, .. } => (0, data.len()),
            Call::Shift { to, from, .. } => {
                (to.map_or(0, |(_, data)| data.len()), from.as_ref().map_or(0, |(_, data)| data.len()))
            }
        }
    }

    /// The call itself, on this one of `boards`.
    ///
    /// # Errors
    /// Those of the call.
    pub fn on(self, boards: &dyn Comm) -> Result<(), CommError> {
        match self {
            Call::AllGather { all, ends } => boards.all_gather(all, ends),
            Call::Broadcast { root, data } => boards.broadcast(root, data),
            Call::Listen { root, data } => boards.listen(root, data),
            Call::Shift { to, from, work } => boards.shift(to, from, work),
        }
    }
}

/// What counts exchanges, delays them, or in a test spoils them: boards behind it, and what becomes of a call.
pub trait Between: Sync {
    /// The boards behind it.
    fn boards(&self) -> &dyn Comm;

    /// Does `call` [on](Call::on) the boards behind it, and what else it is there for.
    ///
    /// # Errors
    /// Those of the call, or its own.
    fn exchange(&self, call: Call<'_>) -> Result<(), CommError>;
}

impl<B: Between> Comm for B {
    fn rank(&self) -> usize {
        Between::boards(self).rank()
    }

    fn size(&self) -> usize {
        Between::boards(self).size()
    }

    fn all_gather(&self, all: &mut [u8], ends: &[usize]) -> Result<(), CommError> {
        self.exchange(Call::AllGather { all, ends })
    }

    fn broadcast(&self, root: usize, data: &mut [u8]) -> Result<(), CommError> {
        self.exchange(Call::Broadcast { root, data })
    }

    fn listen(&self, root: usize, data: &mut [u8]) -> Result<(), CommError> {
        self.exchange(Call::Listen { root, data })
    }

    fn begin(&self, tokens: usize) {
        Between::boards(self).begin(tokens);
    }

    fn shift(
        &self,
        to: Option<(usize, &[u8])>,
        from: Option<(usize, &mut [u8])>,
        work: &mut dyn FnMut(&dyn Fn()),
    ) -> Result<(), CommError> {
        self.exchange(Call::Shift { to, from, work })
    }
}
