//! Measures the read bandwidth of this machine's memory, which bounds tokens per second.

use std::hint::black_box;
use std::time::{Duration, Instant};

use armlet::host::{Pool, memory};
use armlet::storage::{Executor, for_each, for_each_row};

/// The buffer is this many times the last-level cache, so that next to nothing of it is cached when it is read again.
const CACHES: usize = 8;
/// Limits of the buffer's size, and its size if the cache's is unknown.
const SMALLEST: usize = 64 << 20;
const LARGEST: usize = 1 << 30;
const UNKNOWN: usize = 256 << 20;

/// How often each way of reading is measured; the fastest counts. Where that takes longer than a second, less often: memory
/// that is so slow, or so much of it, differs less from one time to another.
const ROUNDS: usize = 5;
const ENOUGH: Duration = Duration::from_secs(1);
/// Bytes of a piece, which one thread reads.
const PIECES: [usize; 2] = [256 << 10, 4 << 20];
/// Ways to read a piece: as one stream, or as four.
const STREAMS: [fn(&[u8]) -> u64; 2] = [sum::<1>, sum::<4>];

/// Memory to read.
pub(crate) struct Buffer(memmap2::MmapMut);

impl Buffer {
    /// `None` if there is not enough memory: of as many bytes as are free, if that is known, it takes no more than half, so that
    /// what other programs have there is not driven out.
    pub(crate) fn new(pool: &Pool, free: Option<u64>) -> Option<Self> {
        if free.is_some_and(|free| free < needed()) {
            return None;
        }
        let mut buffer = memory(size()).ok()?;
        // Pages that were never written are all backed by one zero page, and would be read from the cache.
        for_each_row(pool, &mut buffer, PIECES[0], |_, row| row.fill(1));
        Some(Self(buffer))
    }

    /// Bytes per second that the pool's threads read together, in the fastest way.
    pub(crate) fn read(&self, pool: &Pool) -> f64 {
        let start = Instant::now();
        let rounds = (0..ROUNDS).take_while(|round| *round == 0 || start.elapsed() < ENOUGH);
        let ways = rounds.flat_map(|_| PIECES.into_iter().flat_map(|piece| STREAMS.map(|read| (piece, read))));
        ways.map(|(piece, read)| self.read_once(pool, piece, read)).fold(0.0, f64::max)
    }

    fn read_once(&self, pool: &dyn Executor, piece: usize, read: fn(&[u8]) -> u64) -> f64 {
        let pieces: Vec<_> = self.0.chunks(piece).collect();
        let start = Instant::now();
        for_each(pool, pieces.len(), &|i| {
            black_box(read(pieces[i]));
        });
        self.0.len() as f64 / start.elapsed().as_secs_f64().max(1e-9)
    }
}

/// Sums all words, reading `S` streams in parallel. Written so that it compiles to SIMD additions.
fn sum<const S: usize>(bytes: &[u8]) -> u64 {
    let lines = bytes.as_chunks::<64>().0;
    let n = lines.len() / S;
    let streams: [&[[u8; 64]]; S] = core::array::from_fn(|i| &lines[i * n..][..n]);
    let mut sums = [0u64; 8];
    for i in 0..n {
        for stream in streams {
            for (sum, word) in sums.iter_mut().zip(stream[i].as_chunks::<8>().0) {
                *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
            }
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}

/// Bytes of memory that must be free for a [`Buffer`].
pub(crate) fn needed() -> u64 {
    2 * size() as u64
}

/// Bytes of a [`Buffer`].
fn size() -> usize {
    cache().map_or(UNKNOWN, |cache| cache.saturating_mul(CACHES).clamp(SMALLEST, LARGEST))
}

/// Bytes of the largest cache, on Linux.
fn cache() -> Option<usize> {
    let size = |i: usize| {
        let text = std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{i}/size")).ok()?;
        let kib: usize = text.trim().strip_suffix('K')?.parse().ok()?;
        kib.checked_mul(1024)
    };
    (0..8).filter_map(size).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_once() {
        let bytes: Vec<u8> = (0..4096u64).flat_map(u64::to_ne_bytes).collect();
        assert_eq!(STREAMS.map(|sum| sum(&bytes)), [4095 * 2048; 2]);
    }

    #[test]
    fn memory_is_slower_than_nothing_and_faster_than_a_disk() {
        let pool = Pool::new(1);
        let rate = Buffer(memory(8 << 20).unwrap()).read(&pool);
        assert!((1e7..1e13).contains(&rate), "{rate}");
    }
}
