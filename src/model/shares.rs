//! How much of a model each of several boards has, where they are not alike.

use core::fmt;

/// Most boards that share a model.
pub const MAX_BOARDS: usize = 64;

/// What the boards have in proportion to each other, as small whole numbers: `3,3,2`. It divides what is divided the same way on
/// every board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// What the boards up to each have together; behind the last one 0.
    ends: [u8; MAX_BOARDS],
    size: u8,
}

impl Shares {
    /// Of one board.
    pub(super) const ONE: Shares = {
        let mut ends = [0; MAX_BOARDS];
        ends[0] = 1;
        Shares { ends, size: 1 }
    };
    /// The most that the numbers of all boards may come to.
    pub const MOST: usize = u8::MAX as usize;

    /// The same for each of `size` boards, as far as that is from 1 to [`MAX_BOARDS`].
    pub fn even(size: usize) -> Self {
        let size = size.clamp(1, MAX_BOARDS);
        let mut ends = [0; MAX_BOARDS];
        ends.iter_mut().zip(1..=size as u8).for_each(|(end, boards)| *end = boards);
        Shares { ends, size: size as u8 }
    }

    /// Of so many boards as there are numbers; none where a number is 0, where there are none or more than [`MAX_BOARDS`], or
    /// where they come to more than [`MOST`](Shares::MOST).
    pub fn new(numbers: &[u8]) -> Option<Self> {
        let (mut ends, mut sum) = ([0; MAX_BOARDS], 0u8);
        for (i, number) in numbers.iter().enumerate() {
            sum = sum.checked_add(*number).filter(|_| *number > 0)?;
            *ends.get_mut(i)? = sum;
        }
        (sum > 0).then_some(Shares { ends, size: numbers.len() as u8 })
    }

    /// How many boards there are.
    pub fn size(&self) -> usize {
        usize::from(self.size)
    }

    /// The number of a board; 0 if there is none.
    pub fn of(&self, rank: usize) -> usize {
        if rank < self.size() { self.of_first(rank + 1) - self.of_first(rank) } else { 0 }
    }

    /// Whether all boards have the same.
    pub fn are_even(&self) -> bool {
        (0..self.size()).all(|rank| self.of(rank) == self.of(0))
    }

    /// What the first `boards` have together.
    pub(super) fn of_first(&self, boards: usize) -> usize {
        boards.checked_sub(1).and_then(|last| self.ends.get(last)).map_or(0, |end| usize::from(*end))
    }

    /// What all have together.
    pub(super) fn sum(&self) -> usize {
        self.of_first(self.size()).max(1)
    }

    /// Where the parts of the first `boards` end, of `n` things: as near as can be, and between two the lower.
    pub(super) fn part(&self, n: usize, boards: usize) -> usize {
        (2 * n * self.of_first(boards) + self.sum() - 1) / (2 * self.sum())
    }

    /// Where the parts of the first `boards` end, of `n` things of which there are enough for each board to have one: at `end`, as
    /// far as that leaves none with nothing.
    pub(super) fn one_each(&self, n: usize, boards: usize, end: impl Fn(usize) -> usize) -> usize {
        let last = |boards: usize| (n + boards).saturating_sub(self.size());
        (1..=boards).fold(0, |before, boards| end(boards).max(before + 1).min(last(boards)))
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..self.size()).try_for_each(|rank| write!(f, "{}{}", if rank > 0 { "," } else { "" }, self.of(rank)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn numbers_are_kept_as_they_are() {
        let shares = Shares::new(&[3, 3, 2]).unwrap();
        assert_eq!((shares.size(), shares.to_string().as_str(), shares.are_even()), (3, "3,3,2", false));
        assert_eq!([0, 1, 2, 3].map(|rank| shares.of(rank)), [3, 3, 2, 0]);
        assert_eq!(Shares::new(&[1; 64]), Some(Shares::even(64)));
        assert!(Shares::new(&[5; 3]).unwrap().are_even() && Shares::new(&[85; 3]).is_some());
        for wrong in [&[][..], &[0], &[1, 0, 1], &[1; 65], &[86, 85, 85], &[255, 1]] {
            assert_eq!(Shares::new(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_divided_is_in_proportion() {
        let ends = |numbers: &[u8], n| {
            let shares = Shares::new(numbers).unwrap();
            [1, 2, 3].map(|boards| shares.one_each(n, boards, |boards| shares.part(n, boards)))
        };
        assert_eq!(ends(&[3, 3, 2], 80), [30, 60, 80]);
        assert_eq!((ends(&[1, 1, 1], 8), ends(&[1, 1, 1], 4)), ([3, 5, 8], [1, 3, 4]));
        // Nobody has nothing.
        assert_eq!(
            (ends(&[100, 1, 1], 3), ends(&[1, 1, 100], 3), ends(&[125, 1, 125], 9)),
            ([1, 2, 3], [1, 2, 3], [4, 5, 9])
        );
    }
}
