//! What is exchanged, counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use armlet::boards::{Comm, CommError};

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
        let mut all = vec![[exchanges, sent, received].map(u64::to_le_bytes); self.size()];
        let ends: Vec<usize> = (1..=self.size()).map(|i| i * 24).collect();
        self.boards.all_gather(all.as_flattened_mut().as_flattened_mut(), &ends)?;
        let read = |numbers: [[u8; 8]; 3]| {
            let [exchanges, sent, received] = numbers.map(u64::from_le_bytes);
            Counts { exchanges, sent, received }
        };
        Ok(all.into_iter().map(read).collect())
    }

    fn count(&self, sent: usize, received: usize) {
        if self.size() == 1 {
            return;
        }
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        self.sent.fetch_add(sent as u64, Ordering::Relaxed);
        self.received.fetch_add(received as u64, Ordering::Relaxed);
    }
}

/// What a board sends and receives when all gather: bytes.
pub(crate) fn gathered(boards: &impl Comm, ends: &[usize]) -> (usize, usize) {
    let (rank, others) = (boards.rank(), boards.size() - 1);
    let start = rank.checked_sub(1).map_or(0, |before| ends[before]);
    let (own, all) = (ends[rank] - start, ends.last().copied().unwrap_or(0));
    (others * own, all - own)
}

/// What a board sends and receives when one sends to all: bytes.
pub(crate) fn spread(boards: &impl Comm, root: usize, bytes: usize) -> (usize, usize) {
    if root == boards.rank() { ((boards.size() - 1) * bytes, 0) } else { (0, bytes) }
}

impl<C: Comm> Comm for Counted<C> {
    fn rank(&self) -> usize {
        self.boards.rank()
    }

    fn size(&self) -> usize {
        self.boards.size()
    }

    fn all_gather(&self, all: &mut [u8], ends: &[usize]) -> Result<(), CommError> {
        let (sent, received) = gathered(&self.boards, ends);
        self.count(sent, received);
        self.boards.all_gather(all, ends)
    }

    fn broadcast(&self, root: usize, data: &mut [u8]) -> Result<(), CommError> {
        let (sent, received) = spread(&self.boards, root, data.len());
        self.count(sent, received);
        self.boards.broadcast(root, data)
    }

    fn listen(&self, root: usize, data: &mut [u8]) -> Result<(), CommError> {
        let (sent, received) = spread(&self.boards, root, data.len());
        self.count(sent, received);
        self.boards.listen(root, data)
    }

    fn begin(&self, tokens: usize) {
        self.boards.begin(tokens);
    }

    fn shift(
        &self,
        to: Option<(usize, &[u8])>,
        from: Option<(usize, &mut [u8])>,
        work: &mut dyn FnMut(&dyn Fn()),
    ) -> Result<(), CommError> {
        self.count(to.map_or(0, |(_, data)| data.len()), from.as_ref().map_or(0, |(_, data)| data.len()));
        self.boards.shift(to, from, work)
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
