//! What is exchanged, counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use armlet::boards::{Between, Call, Comm, CommError};

use crate::agree::gather_each;

/// What a board has exchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of [`Comm`]'s methods.
    pub exchanges: u64,
    /// Bytes to other boards, one copy for each.
    pub sent: u64,
    /// Bytes from other boards.
    pub received: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} exchanges, {} bytes sent, {} received", self.exchanges, self.sent, self.received)
    }
}

/// Boards whose exchanges are counted.
pub struct Counted<C> {
    boards: C,
    exchanges: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl<C: Comm> Counted<C> {
    /// Counts from now on.
    pub fn new(boards: C) -> Self {
        let [exchanges, sent, received] = [0, 0, 0].map(AtomicU64::new);
        Counted { boards, exchanges, sent, received }
    }

    /// The boards themselves.
    pub fn boards(&self) -> &C {
        &self.boards
    }

    /// What was exchanged so far.
    pub fn counts(&self) -> Counts {
        let [exchanges, sent, received] =
            [&self.exchanges, &self.sent, &self.received].map(|n| n.load(Ordering::Relaxed));
        Counts { exchanges, sent, received }
    }

    /// What each board has exchanged so far, without what this takes.
    ///
    /// # Errors
    /// Those of the exchange.
    pub fn of_all(&self) -> Result<Vec<Counts>, CommError> {
        let Counts { exchanges, sent, received } = self.counts();
        let mut own = [0; 24];
        let numbers = [exchanges, sent, received].map(u64::to_le_bytes);
        own.as_chunks_mut().0.copy_from_slice(&numbers);
        let read = |numbers: [u8; 24]| {
            let number = |i: usize| numbers.as_chunks().0.get(i).copied().map_or(0, u64::from_le_bytes);
            Counts { exchanges: number(0), sent: number(1), received: number(2) }
        };
        Ok(gather_each(&self.boards, own)?.into_iter().map(read).collect())
    }
}

impl<C: Comm> Between for Counted<C> {
    fn boards(&self) -> &dyn Comm {
        &self.boards
    }

    fn exchange(&self, call: Call<'_>) -> Result<(), CommError> {
        if self.size() > 1 {
            let (sent, received) = call.bytes(&self.boards);
            self.exchanges.fetch_add(1, Ordering::Relaxed);
            self.sent.fetch_add(sent as u64, Ordering::Relaxed);
            self.received.fetch_add(received as u64, Ordering::Relaxed);
        }
        call.on(&self.boards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boards::on_boards;

    /// Each part is sent to each other board, and what one sends the others receive.
    #[test]
    fn bytes_are_those_of_the_formulas() {
        for size in 1..=4usize {
            let counts = on_boards(size, |board| {
                let counted = Counted::new(board);
                let ends: Vec<usize> = (0..size).map(|i| (0..=i).map(|i| 3 * i).sum()).collect();
                counted.all_gather(&mut vec![0; ends[size - 1]], &ends).unwrap();
                counted.broadcast(size - 1, &mut [0; 7]).unwrap();
                counted.listen(0, &mut [0; 16]).unwrap();
                if size > 1 {
                    let (left, right) = ((counted.rank() + size - 1) % size, (counted.rank() + 1) % size);
                    let mut next = [0; 5];
                    counted.shift(Some((right, &[1; 5])), Some((left, &mut next)), &mut |poll| poll()).unwrap();
                    counted.shift(None, None, &mut |poll| poll()).unwrap();
                }
                let counts = counted.counts();
                assert_eq!(counted.of_all().unwrap()[counted.rank()], counts);
                assert_eq!(counted.counts(), counts);
                counted.of_all().unwrap()
            });
            assert!(counts.iter().all(|known| *known == counts[0]));
            let counts = &counts[0];
            let others = size as u64 - 1;
            let all = 3 * others * size as u64 / 2;
            for (rank, counts) in (0..).zip(counts) {
                let (first, last) = (u64::from(rank == 0), u64::from(rank == others));
                let ring = if others > 0 { 5 } else { 0 };
                let sent = others * (3 * rank + 7 * last + 16 * first) + ring;
                let listens = |is_root| if others > 0 { 1 - is_root } else { 0 };
                let received = all - 3 * rank + 7 * listens(last) + 16 * listens(first) + ring;
                let exchanges = if others > 0 { 5 } else { 0 };
                assert_eq!(*counts, Counts { exchanges, sent, received }, "{rank} of {size}");
            }
            let sum = |of: fn(&Counts) -> u64| counts.iter().map(of).sum::<u64>();
            assert_eq!(sum(|c| c.sent), sum(|c| c.received));
        }
    }
}
