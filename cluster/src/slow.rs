//! A slower network than there is: a model of one, to measure with on a machine that has none.

use std::thread;
use std::time::{Duration, Instant};

use armlet::boards::{Comm, CommError};

use crate::counted::{gathered, spread};

/// Boards whose exchanges take at least as long as in a network of some latency and rate. Each board has a link that sends
/// and receives at once, so the longer of the two counts.
pub struct Slow<C> {
    boards: C,
    latency: Duration,
    /// Seconds.
    byte: f64,
}

impl<C: Comm> Slow<C> {
    /// A network of this latency, and of so many bytes per second in each direction of a link.
    pub fn new(boards: C, latency: Duration, rate: f64) -> Self {
        Slow { boards, latency, byte: 1.0 / rate }
    }

    /// How long an exchange takes in which this board sends and receives so many bytes.
    fn time(&self, (sent, received): (usize, usize)) -> Duration {
        self.latency + Duration::from_secs_f64(sent.max(received) as f64 * self.byte)
    }

    /// Does an exchange of so many bytes.
    fn slowly(
        &self,
        bytes: (usize, usize),
        exchange: impl FnOnce(&C) -> Result<(), CommError>,
    ) -> Result<(), CommError> {
        let start = Instant::now();
        exchange(&self.boards)?;
        if self.size() > 1 {
            thread::sleep(self.time(bytes).saturating_sub(start.elapsed()));
        }
        Ok(())
    }
}

impl<C: Comm> Comm for Slow<C> {
    fn rank(&self) -> usize {
        self.boards.rank()
    }

    fn size(&self) -> usize {
        self.boards.size()
    }

    fn all_gather(&self, all: &mut [u8], ends: &[usize]) -> Result<(), CommError> {
        self.slowly(gathered(&self.boards, ends), |boards| boards.all_gather(all, ends))
    }

    fn broadcast(&self, root: usize, data: &mut [u8]) -> Result<(), CommError> {
        self.slowly(spread(&self.boards, root, data.len()), |boards| boards.broadcast(root, data))
    }

    fn listen(&self, root: usize, data: &mut [u8]) -> Result<(), CommError> {
        // The time is the message's, not that of the wait for it.
        self.boards.listen(root, data)?;
        self.slowly(spread(&self.boards, root, data.len()), |_| Ok(()))
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
        let bytes = (to.map_or(0, |(_, data)| data.len()), from.as_ref().map_or(0, |(_, data)| data.len()));
        self.slowly(bytes, |boards| boards.shift(to, from, work))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boards::on_boards;

    /// Not before its time, and the wait for a command is not part of it.
    #[test]
    fn an_exchange_takes_its_time() {
        let latency = Duration::from_millis(2);
        on_boards(3, |board| {
            let slow = Slow::new(board, latency, 1e6);
            // Two copies of 5,000 bytes are more than 9,000 that come.
            let ends = [5_000, 10_000, 14_000];
            let expected = [10, 10, 10].map(|ms| latency + Duration::from_millis(ms))[slow.rank()];
            assert_eq!(slow.time(gathered(&slow.boards, &ends)), expected);
            let start = Instant::now();
            slow.all_gather(&mut [0; 14_000], &ends).unwrap();
            assert!(start.elapsed() >= expected);
            let start = Instant::now();
            slow.shift(None, None, &mut |_| thread::sleep(Duration::from_millis(1))).unwrap();
            assert!(start.elapsed() >= latency);
        });
    }
}
