//! Rules K3 and T1, that names are distinct, in fixed memory.

/// Names compared at once: 2 KiB of hashes on the stack. Real files have one window of keys and a few of tensors.
const WINDOW: usize = 256;

/// Checks that the `n` names that `names()` lists are distinct, or gives the offset of one that is not.
///
/// A window of hashes is sorted, then every later name is looked up in it: n / 256 passes. Two names with the same
/// 64-bit FNV-1a hash count as the same; only a file made for it has them.
pub(super) fn check<'a, I: Iterator<Item = (&'a str, u64)>>(names: impl Fn() -> I, n: usize) -> Result<(), u64> {
    for first in (0..n).step_by(WINDOW) {
        let mut window = [0u64; WINDOW];
        let mut len = 0;
        for ((name, _), slot) in names().skip(first).zip(&mut window) {
            *slot = hash(name);
            len += 1;
        }
        let Some(window) = window.get_mut(..len) else { return Ok(()) };
        window.sort_unstable();
        let twice = |h: u64| window.partition_point(|w| *w <= h) - window.partition_point(|w| *w < h) > 1;
        let known = |h: u64| window.binary_search(&h).is_ok();
        for (i, (name, at)) in names().enumerate().skip(first) {
            let h = hash(name);
            if (i < first + len && twice(h)) || (i >= first + len && known(h)) {
                return Err(at);
            }
        }
    }
    Ok(())
}

fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    #[test]
    fn finds_a_pair_at_any_distance() {
        let names: Vec<String> = (0..1000).map(|i| format!("blk.{i}.w")).collect();
        let run = |names: &[String]| {
            check(|| names.iter().map(String::as_str).zip(0..).collect::<Vec<_>>().into_iter(), names.len())
        };
        assert_eq!(run(&names), Ok(()));
        for (a, b) in [(0, 1), (0, 999), (255, 256), (300, 310), (998, 999)] {
            let mut twice = names.clone();
            twice[b] = twice[a].clone();
            assert!(run(&twice).is_err(), "{a} and {b}");
        }
    }
}
