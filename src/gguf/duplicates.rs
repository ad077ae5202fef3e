//! Finds duplicate names in fixed memory (rules K3 and T1).

use crate::util::binary_heap;

/// Names in a window: 2 KiB of hashes on the stack. Real files have one window of keys and a few of tensors.
const WINDOW: usize = 256;

/// Checks that all names are distinct. Each comes with its offset; the error is the offset of the second of two equal
/// names.
///
/// Sorts a window of hashes and looks up every later name in it: n / 256 passes over the remaining names. Names whose
/// 64-bit FNV-1a hashes are equal count as equal; this happens only in files that were made for it.
pub(super) fn check<'a>(mut names: impl Iterator<Item = (&'a str, u64)> + Clone) -> Result<(), u64> {
    loop {
        let start = names.clone();
        let mut window = [0u64; WINDOW];
        let mut len = 0;
        for (slot, (name, _)) in window.iter_mut().zip(names.by_ref()) {
            *slot = hash(name);
            len += 1;
        }
        let Some(window) = window.get_mut(..len).filter(|w| !w.is_empty()) else { return Ok(()) };
        binary_heap::sort(window, |a, b| a < b);
        let twice = window.array_windows().find(|[a, b]| a == b).map(|[a, _]| *a);
        let second = twice.and_then(|twice| start.filter(|(name, _)| hash(name) == twice).nth(1));
        let later = || names.clone().find(|(name, _)| window.binary_search(&hash(name)).is_ok());
        if let Some((_, at)) = second.or_else(later) {
            return Err(at);
        }
    }
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
        let checked = |names: &[String]| check(names.iter().map(String::as_str).zip(0..));
        assert_eq!(checked(&names), Ok(()));
        for (a, b) in [(0, 1), (0, 999), (255, 256), (300, 310), (998, 999)] {
            let mut twice = names.clone();
            twice[b] = twice[a].clone();
            assert_eq!(checked(&twice), Err(b as u64), "{a} and {b}");
        }
    }
}
