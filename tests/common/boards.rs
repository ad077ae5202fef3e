//! Boards that are threads, and a network that is channels: a double of a cluster, for tests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use armlet::boards::{Between, Call, Comm, CommError};

/// How long a board waits for another.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks whether another takes what it sends.
const LOOK: Duration = Duration::from_micros(20);

/// Messages that an eager network has room for.
const ROOM: usize = 64;

/// One of several boards.
pub struct Board {
    rank: usize,
    /// To each board.
    to: Vec<Mutex<SyncSender<Vec<u8>>>>,
    /// From each board.
    from: Vec<Mutex<Receiver<Vec<u8>>>>,
    patience: Duration,
    /// Whether the network has room for what is sent.
    is_eager: bool,
}

/// Runs `f` on each of `size` boards; what each gives. What a board sends it has sent when the other has it, as a network may have
/// it with long messages.
pub fn on_boards<R: Send>(size: usize, f: impl Fn(Board) -> R + Sync) -> Vec<R> {
    on_network(size, PATIENCE, 0, f)
}

/// That, on boards that wait for each other so long, on a network that has room for what they send.
pub fn on_eager_boards<R: Send>(size: usize, patience: Duration, f: impl Fn(Board) -> R + Sync) -> Vec<R> {
    on_network(size, patience, ROOM, f)
}

fn on_network<R: Send>(size: usize, patience: Duration, room: usize, f: impl Fn(Board) -> R + Sync) -> Vec<R> {
    let (mut to, mut from): (Vec<_>, Vec<_>) =
        (0..size).map(|_| ((0..size).map(|_| None).collect::<Vec<_>>(), Vec::new())).unzip();
    for receiver in 0..size {
        for sender in to.iter_mut() {
            let (send, receive) = sync_channel(room);
            sender[receiver] = Some(Mutex::new(send));
            from[receiver].push(Mutex::new(receive));
        }
    }
    let boards = to.into_iter().zip(from).enumerate();
    let board = |(rank, (to, from)): (usize, (Vec<_>, Vec<_>))| Board {
        rank,
        to: to.into_iter().flatten().collect(),
        from,
        patience,
        is_eager: room > 0,
    };
    std::thread::scope(|scope| {
        let f = &f;
        let threads: Vec<_> = boards.map(board).map(|board| scope.spawn(move || f(board))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

impl Board {
    fn send(&self, rank: usize, data: &[u8]) -> Result<(), CommError> {
        let channel = self.to[rank].lock().unwrap_or_else(PoisonError::into_inner);
        let (start, mut data) = (Instant::now(), data.to_vec());
        loop {
            data = match channel.try_send(data) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(data)) if start.elapsed() < PATIENCE => data,
                Err(TrySendError::Full(_)) => {
                    return Err(CommError::Silent { rank, seconds: PATIENCE.as_secs() as u32 });
                }
                Err(TrySendError::Disconnected(_)) => return Err(CommError::Gone { rank }),
            };
            std::thread::sleep(LOOK);
        }
    }

    /// Sends to others while `then` runs.
    fn sending(&self, to: &[(usize, &[u8])], then: impl FnOnce() -> Result<(), CommError>) -> Result<(), CommError> {
        if self.is_eager {
            to.iter().try_for_each(|(rank, data)| self.send(*rank, data))?;
            return then();
        }
        std::thread::scope(|scope| {
            let sent: Vec<_> = to.iter().map(|(rank, data)| scope.spawn(|| self.send(*rank, data))).collect();
            // Who has failed hears of it when this board ends.
            then()?;
            sent.into_iter().try_for_each(|sent| sent.join().unwrap())
        })
    }

    fn receive(&self, rank: usize, data: &mut [u8]) -> Result<(), CommError> {
        let channel = self.from[rank].lock().unwrap_or_else(PoisonError::into_inner);
        let got = channel.recv_timeout(self.patience).map_err(|e| match e {
            RecvTimeoutError::Timeout => CommError::Silent { rank, seconds: self.patience.as_secs() as u32 },
            RecvTimeoutError::Disconnected => CommError::Gone { rank },
        })?;
        if got.len() != data.len() {
            return Err(CommError::Mismatch { rank, got: got.len(), expected: data.len() });
        }
        data.copy_from_slice(&got);
        Ok(())
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let rank = self.rank;
        (0..self.to.len()).filter(move |other| *other != rank)
    }
}

impl Comm for Board {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn all_gather(&self, all: &mut [u8], ends: &[usize]) -> Result<(), CommError> {
        let start = |i: usize| i.checked_sub(1).map_or(0, |before| ends[before]);
        let own = all[start(self.rank)..ends[self.rank]].to_vec();
        let to: Vec<_> = self.others().map(|other| (other, &own[..])).collect();
        self.sending(&to, || {
            self.others().try_for_each(|other| self.receive(other, &mut all[start(other)..ends[other]]))
        })
    }

    fn broadcast(&self, root: usize, data: &mut [u8]) -> Result<(), CommError> {
        if root == self.rank {
            return self.others().try_for_each(|other| self.send(other, data));
        }
        self.receive(root, data)
    }

    fn shift(
        &self,
        to: Option<(usize, &[u8])>,
        from: Option<(usize, &mut [u8])>,
        work: &mut dyn FnMut(&dyn Fn()),
    ) -> Result<(), CommError> {
        self.sending(to.as_slice(), || {
            work(&std::thread::yield_now);
            from.map_or(Ok(()), |(rank, data)| self.receive(rank, data))
        })
    }
}

/// A board that fails in its `k`-th exchange, and is not heard of again.
pub struct Failing {
    board: Board,
    left: AtomicUsize,
}

impl Failing {
    pub fn new(board: Board, exchanges: usize) -> Self {
        Failing { board, left: AtomicUsize::new(exchanges) }
    }
}

impl Between for Failing {
    fn boards(&self) -> &dyn Comm {
        &self.board
    }

    fn exchange(&self, call: Call<'_>) -> Result<(), CommError> {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map_err(|_| CommError::Gone { rank: self.board.rank })?;
        call.on(&self.board)
    }
}
