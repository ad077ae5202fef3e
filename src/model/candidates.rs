//! The logits of boards that share a model by rows: each has those of its part of the vocabulary.
//!
//! The first board needs them to choose a token. Where the best few are enough for that, each board sends its best, and the first
//! one takes the others for −∞: as of one board, the best of all are among them, with the bits that they have there.

use super::pass::Pass;
use super::share::Split;
use super::shares::MAX_BOARDS;
use crate::boards::CommError;
use crate::storage::bytes_of_mut;
use crate::util::SliceExt;
use crate::util::binary_heap::{sift_down, sift_up};

/// A token, as the bits of a number, and its logit.
type Candidate = [f32; 2];
/// Logits that are compared together with the least of the best: nearly all are below it.
const CHUNK: usize = 32;

impl Pass<'_> {
    /// How many of its best logits each board sends, the same on all of them; none where they send all.
    pub(super) fn best_of_each(&self, rows: usize, room: usize) -> Option<usize> {
        let (best, vocab) = (self.best.filter(|_| self.share.is(Split::Rows))?, self.model.hparams.vocab);
        let of_all = (0..self.share.size()).map(|board| self.share.of_board(board).candidates(vocab, best));
        let all = of_all.sum::<Option<usize>>()?;
        (rows * all * size_of::<Candidate>() <= size_of::<f32>() * room).then_some(best)
    }

    /// From what this board has computed of `logits`, `(rows, its part of the vocabulary)`, to `(rows, vocab)` on the first board:
    /// the best of all boards.
    #[inline(never)]
    pub(super) fn gather_best(&self, logits: &mut [f32], best: usize, exchange: &mut [f32]) -> Result<(), CommError> {
        let (vocab, own, size) =
            (self.model.hparams.vocab, self.share.rows(self.model.hparams.vocab), self.share.size());
        let rows = logits.len() / vocab.max(1);
        let computed = logits.first_n_mut(rows * own.len());
        // Before they are compared: each token has a bias of its own.
        self.finish_logits(computed, own.len(), own.start);
        // (boards, rows, candidates of a board)
        let of = |board| self.share.of_board(board).rows(vocab).len().min(best);
        let start = |board| rows * (0..board).map(of).sum::<usize>();
        let (mine, candidates) = (start(self.share.rank()), exchange.as_chunks_mut::<2>().0);
        let mine = candidates.part_mut(mine..mine + rows * own.len().min(best));
        for (row, best) in computed.rows(own.len()).zip(mine.rows_mut(own.len().min(best))) {
            select(row, own.start, best);
        }
        let mut ends = [0; MAX_BOARDS];
        let all = ends.first_n_mut(size).iter_mut().enumerate();
        all.for_each(|(board, end)| *end = start(board + 1) * size_of::<Candidate>());
        let bytes = bytes_of_mut(exchange);
        self.comm().all_gather(bytes.part_mut(0..start(size) * size_of::<Candidate>()), ends.first_n(size))?;
        // Nobody chooses from the logits of the others.
        if self.share.rank() > 0 {
            return Ok(());
        }
        logits.fill(f32::NEG_INFINITY);
        let candidates = exchange.as_chunks::<2>().0;
        for board in 0..size {
            let of_board = candidates.part(start(board)..start(board + 1));
            for (of_row, logits) in of_board.rows(of(board)).zip(logits.rows_mut(vocab)) {
                for [token, logit] in of_row {
                    logits.get_mut(token.to_bits() as usize).into_iter().for_each(|to| *to = *logit);
                }
            }
        }
        Ok(())
    }
}

/// Puts the best of `logits`, those of the tokens from `first` on, into `best`, which has no more room than there are; of equals
/// those with lower numbers.
///
/// A heap with the least of them on top, so that most logits are compared once and dropped.
fn select(logits: &[f32], first: usize, best: &mut [Candidate]) {
    let mut n = 0;
    for (first, logits) in (first..).step_by(CHUNK).zip(logits.chunks(CHUNK)) {
        // Those kept have lower numbers, so an equal logit is no better.
        let is_full = n == best.len();
        if best.first().is_some_and(|[_, least]| is_full && logits.iter().fold(true, |none, l| none & (l <= least))) {
            continue;
        }
        for (token, logit) in (first..).zip(logits) {
            let new = [f32::from_bits(token as u32), *logit];
            if let Some(slot) = best.get_mut(n) {
                *slot = new;
                n += 1;
                sift_up(best.first_n_mut(n), better);
            } else if let Some(least) = best.first_mut().filter(|least| better(&new, least)) {
                *least = new;
                sift_down(best, better);
            }
        }
    }
}

/// Whether `a` comes before `b`. What is no number comes first, so that who chooses learns of it.
fn better(a: &Candidate, b: &Candidate) -> bool {
    let key =
        |[token, logit]: &Candidate| (if *logit < f32::INFINITY { *logit } else { f32::INFINITY }, token.to_bits());
    let ((a, token), (b, other)) = (key(a), key(b));
    a > b || (a == b && token < other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn selected(logits: &[f32], first: usize, n: usize) -> Vec<(u32, u32)> {
        let mut best = vec![[f32::NAN; 2]; n];
        select(logits, first, &mut best);
        let mut found: Vec<_> = best.iter().map(|[token, logit]| (token.to_bits(), logit.to_bits())).collect();
        found.sort_unstable();
        found
    }

    /// Few different logits, so that there are ties, beside sorting all.
    #[test]
    fn the_best_are_those_of_a_sort() {
        let random = |i: u64| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        for round in 0..60u64 {
            let len = 1 + random(round) % 500;
            let logits: Vec<f32> = (0..len).map(|i| (random(1000 * round + i) % 19) as f32 - 9.0).collect();
            let first = 32 * (round as usize % 5);
            let mut sorted: Vec<(u32, f32)> = (first as u32..).zip(logits.iter().copied()).collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            for n in [0, 1, 7, 40, 500] {
                let n = n.min(logits.len());
                let mut expected: Vec<_> = sorted[..n].iter().map(|(token, l)| (*token, l.to_bits())).collect();
                expected.sort_unstable();
                assert_eq!(selected(&logits, first, n), expected, "round {round}, {n} of {len}");
            }
        }
    }

    /// Or a damaged model would answer, where one board says that it is.
    #[test]
    fn what_is_no_number_is_among_the_best() {
        for wrong in [f32::NAN, -f32::NAN, f32::INFINITY] {
            for at in [0, 50, 99] {
                let mut logits: Vec<f32> = (0..100).map(|i| i as f32).collect();
                logits[at] = wrong;
                assert!(selected(&logits, 0, 1).iter().all(|(token, _)| *token == at as u32), "{wrong} at {at}");
            }
        }
        assert_eq!(selected(&[f32::NEG_INFINITY; 3], 5, 2).iter().map(|(token, _)| *token).collect::<Vec<_>>(), [5, 6]);
    }
}
