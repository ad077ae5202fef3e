//! `--shares`: how much of a model each of several boards has.

use std::fmt;

use armlet::model::{MAX_BOARDS, Shares, Split};

/// Boards whose speeds differ by no more than this are alike.
const ALIKE: f64 = 1.15;
/// The number of the fastest board, where those of all have room.
const FINEST: usize = 16;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wanted {
    /// The same for all.
    Even,
    /// In proportion to how fast each board reads its memory.
    Auto,
    /// These.
    Given(Shares),
}

impl Wanted {
    /// Parses `even`, `auto` or `3,3,2`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "even" => return Ok(Wanted::Even),
            "auto" => return Ok(Wanted::Auto),
            _ => {}
        }
        let numbers = text.split(',').map(|number| {
            let number = number.trim();
            let wrong = || format!("\"{number}\" is not from 1 to {}, as each share is", Shares::MOST);
            number.parse::<u8>().ok().filter(|n| *n > 0).ok_or_else(wrong)
        });
        let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
        if numbers.len() > MAX_BOARDS {
            return Err(format!("{} shares, and there are at most {MAX_BOARDS} boards", numbers.len()));
        }
        let sum: usize = numbers.iter().map(|n| usize::from(*n)).sum();
        Shares::new(&numbers)
            .map(Wanted::Given)
            .ok_or_else(|| format!("they come to {sum}, and may come to {}", Shares::MOST))
    }

    /// By a split: one by tokens has nothing to be faster with.
    pub(crate) fn of_split(self, split: Split) -> Self {
        if (self, split) == (Wanted::Auto, Split::Tokens) { Wanted::Even } else { self }
    }

    /// Whether so many boards can share a model, with a number for each.
    pub(crate) fn check(self, boards: usize) -> Result<(), String> {
        match self {
            _ if boards > MAX_BOARDS => Err(format!("{boards} boards, and at most {MAX_BOARDS} share a model")),
            Wanted::Given(shares) if shares.size() != boards => {
                Err(format!("--shares {shares}: {} shares, and {boards} boards", shares.size()))
            }
            _ => Ok(()),
        }
    }

    /// The shares of so many boards, whose speeds are asked for if they are needed.
    pub(crate) fn of(self, boards: usize, speeds: impl FnOnce() -> Result<Vec<f64>, String>) -> Result<Shares, String> {
        self.check(boards)?;
        match self {
            Wanted::Even => Ok(Shares::even(boards)),
            Wanted::Auto => Ok(by_speed(&speeds()?).unwrap_or(Shares::even(boards))),
            Wanted::Given(shares) => Ok(shares),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Even => write!(f, "even"),
            Wanted::Auto => write!(f, "auto"),
            Wanted::Given(shares) => write!(f, "{shares}"),
        }
    }
}

/// Shares in proportion to speeds of boards: small numbers, the same for those that are alike. None where there are no boards, or
/// too many.
///
/// From the slowest on, a board is like the slowest of those before it unless it is faster by more than a measurement varies; boards
/// that are alike count as fast as that one, which the others wait for.
fn by_speed(speeds: &[f64]) -> Option<Shares> {
    let mut order: Vec<usize> = (0..speeds.len()).collect();
    order.sort_by(|a, b| speeds[*a].total_cmp(&speeds[*b]));
    let mut paces = vec![0.0; speeds.len()];
    let mut pace = 0.0;
    for board in order {
        if speeds[board] > ALIKE * pace {
            pace = speeds[board];
        }
        paces[board] = pace;
    }
    let finest = FINEST.min(Shares::MOST / speeds.len().max(1)) as f64;
    let numbers: Vec<u8> = paces.iter().map(|own| (own / pace * finest).round().max(1.0) as u8).collect();
    let common = numbers.iter().copied().reduce(divisor)?;
    Shares::new(&numbers.iter().map(|n| n / common).collect::<Vec<_>>())
}

/// The greatest common divisor (Euclid).
fn divisor(a: u8, b: u8) -> u8 {
    if b == 0 { a } else { divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(speeds: &[f64]) -> String {
        by_speed(speeds).unwrap().to_string()
    }

    #[test]
    fn shares_are_whole_numbers() {
        for (text, spelled) in [("even", "even"), ("auto", "auto"), ("3,3,2", "3,3,2"), (" 1, 254", "1,254")] {
            assert_eq!(Wanted::parse(text).unwrap().to_string(), spelled);
        }
        let wrong = [
            ("", "\"\" is not from 1 to 255, as each share is"),
            ("0,0", "\"0\" is not from 1 to 255, as each share is"),
            ("3,,2", "\"\" is not from 1 to 255, as each share is"),
            ("3,-1", "\"-1\" is not from 1 to 255, as each share is"),
            ("1.5,1", "\"1.5\" is not from 1 to 255, as each share is"),
            ("256,1", "\"256\" is not from 1 to 255, as each share is"),
            ("200,56", "they come to 256, and may come to 255"),
        ];
        wrong.iter().for_each(|(text, why)| assert_eq!(Wanted::parse(text), Err((*why).into()), "{text}"));
        assert!(Wanted::parse(&["1"; 65].join(",")).unwrap_err().starts_with("65 shares, and there are at most 64"));
    }

    #[test]
    fn there_is_one_for_each_board() {
        let of = |text, boards| Wanted::parse(text).unwrap().of(boards, || Ok(vec![4.0, 2.0])).map(|s| s.to_string());
        assert_eq!(of("1,2", 3), Err("--shares 1,2: 2 shares, and 3 boards".into()));
        assert_eq!(
            (of("1,2", 2), of("even", 2), of("auto", 2)),
            (Ok("1,2".into()), Ok("1,1".into()), Ok("2,1".into()))
        );
        assert_eq!(Wanted::Auto.of(2, || Err("not measured".into())), Err("not measured".into()));
        assert_eq!(Wanted::Even.check(65), Err("65 boards, and at most 64 share a model".into()));
        let of_split = |wanted: Wanted| Split::ALL.map(|split| wanted.of_split(split));
        assert_eq!(of_split(Wanted::Auto), [Wanted::Auto, Wanted::Auto, Wanted::Even]);
        assert_eq!(of_split(Wanted::Even), [Wanted::Even; 3]);
    }

    /// Two of a kind are measured a little apart.
    #[test]
    fn boards_that_are_alike_have_the_same() {
        assert_eq!(shares(&[11e9, 9.6e9, 10.2e9]), "1,1,1");
        assert_eq!(shares(&[11e9, 3.0e9, 11.9e9, 3.4e9]), "4,1,4,1");
        assert_eq!(shares(&[5.0]), "1");
        assert_ne!(shares(&[10e9, 11.4e9, 13e9, 14.8e9]), "1,1,1,1");
        for size in 1..=64 {
            assert!(by_speed(&vec![7e9; size]).unwrap().are_even());
        }
        assert_eq!(by_speed(&[]), None);
    }

    /// A Raspberry Pi 5 beside a Raspberry Pi 4, in either order; and whatever there is, shares are near what was measured.
    #[test]
    fn shares_are_in_proportion_to_speed() {
        assert_eq!((shares(&[11e9, 3.2e9]), shares(&[3.2e9, 11e9])), ("16,5".into(), "5,16".into()));
        assert_eq!(shares(&[1e12, 1.0]), "16,1");
        let all = by_speed(&(0..64).map(|i| 1e9 * 1.2f64.powi(i % 8)).collect::<Vec<_>>()).unwrap();
        assert!(all.size() == 64 && all.of(0) < all.of(7));
        for fast in 12..64 {
            let shares = by_speed(&[10.0, f64::from(fast)]).unwrap();
            let ratio = shares.of(1) as f64 / shares.of(0) as f64;
            assert!((ratio / f64::from(fast) * 10.0 - 1.0).abs() < 0.2, "{fast}: {shares}");
        }
    }
}
