//! A binary heap in a slice (Williams 1964): priority queues, and sorting in place.
//!
//! The standard library's sorts are faster, but their code is larger than the kernels of a backend and can panic when
//! the comparison is no total order. Here such a comparison gives an unspecified order.

/// Whether the first of two elements belongs below the second, further from the top.
pub(crate) trait Below<T>: Fn(&T, &T) -> bool + Copy {}
impl<T, F: Fn(&T, &T) -> bool + Copy> Below<T> for F {}

/// Restores the heap after an element was appended.
pub(crate) fn sift_up<T: Copy>(heap: &mut [T], below: impl Below<T>) {
    let Some(mut i) = heap.len().checked_sub(1) else { return };
    while i > 0 && swap_if(heap, (i - 1) / 2, i, below) {
        i = (i - 1) / 2;
    }
}

/// Restores the heap after the first element was replaced.
pub(crate) fn sift_down<T: Copy>(heap: &mut [T], below: impl Below<T>) {
    sift_down_from(heap, 0, below);
}

fn sift_down_from<T: Copy>(heap: &mut [T], mut i: usize, below: impl Below<T>) {
    loop {
        let (left, right) = (2 * i + 1, 2 * i + 2);
        let child = match (heap.get(left), heap.get(right)) {
            (Some(l), Some(r)) if below(l, r) => right,
            _ => left,
        };
        if !swap_if(heap, i, child, below) {
            return;
        }
        i = child;
    }
}

/// Swaps an element with one of its children, if it belongs below that; returns whether it did.
fn swap_if<T: Copy>(heap: &mut [T], upper: usize, lower: usize, below: impl Below<T>) -> bool {
    let (Some(u), Some(l)) = (heap.get(upper).copied(), heap.get(lower).copied()) else { return false };
    if !below(&u, &l) {
        return false;
    }
    for (i, value) in [(upper, l), (lower, u)] {
        if let Some(slot) = heap.get_mut(i) {
            *slot = value;
        }
    }
    true
}

/// Turns a heap into a sorted slice, the top of the heap last.
pub(crate) fn drain<T: Copy>(heap: &mut [T], below: impl Below<T>) {
    let mut heap = heap;
    while let Some(last) = heap.len().checked_sub(1).filter(|last| *last > 0) {
        let (Some(top), Some(bottom)) = (heap.first().copied(), heap.get(last).copied()) else { return };
        for (i, value) in [(0, bottom), (last, top)] {
            if let Some(slot) = heap.get_mut(i) {
                *slot = value;
            }
        }
        heap = heap.get_mut(..last).unwrap_or_default();
        sift_down(heap, below);
    }
}

/// Heapsort: afterwards no element stands before one that is `before` it.
pub(crate) fn sort<T: Copy>(items: &mut [T], before: impl Fn(&T, &T) -> bool + Copy) {
    for i in (0..items.len() / 2).rev() {
        sift_down_from(items, i, before);
    }
    drain(items, before);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn sorts() {
        for n in [0, 1, 2, 3, 7, 8, 100, 1000] {
            let mut items: Vec<u32> = (0..n).map(|i: u32| i.wrapping_mul(2_654_435_761) % 97).collect();
            let mut sorted = items.clone();
            sorted.sort();
            sort(&mut items, |a, b| a < b);
            assert_eq!(items, sorted);
        }
    }
}
