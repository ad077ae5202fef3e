//! Running state of an online softmax, and merging two of them.

/// Attention over some tiles: `out / sum` is its result; `max` is the highest score, as an exponent of 2.
#[derive(Debug)]
pub struct SoftmaxState<'o> {
    /// `(group, head_dim)`.
    pub out: &'o mut [f32],
    /// `(group)`.
    pub max: &'o mut [f32],
    /// `(group)`.
    pub sum: &'o mut [f32],
}

impl<'o> SoftmaxState<'o> {
    /// An empty state in `memory`, `(group · (head_dim + 2))`.
    pub fn new(memory: &'o mut [f32], group: usize) -> Self {
        let (out, stats) = memory.split_at_mut(memory.len().saturating_sub(2 * group));
        let (max, sum) = stats.split_at_mut(stats.len() / 2);
        let mut state = SoftmaxState { out, max, sum };
        state.clear();
        state
    }

    /// The state that [`new`](SoftmaxState::new) or [`merge`](SoftmaxState::merge) left in `memory`.
    pub fn view(memory: &'o mut [f32], group: usize) -> Self {
        let (out, stats) = memory.split_at_mut(memory.len().saturating_sub(2 * group));
        let (max, sum) = stats.split_at_mut(stats.len() / 2);
        SoftmaxState { out, max, sum }
    }

    /// Makes it the state of no tile.
    fn clear(&mut self) {
        self.out.fill(0.0);
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
    }

    /// Merges the state of later tiles into this one. The order of merging changes bits; the caller's is a function of
    /// positions.
    pub fn merge(&mut self, later: &SoftmaxState<'_>) {
        let head_dim = self.out.len().checked_div(self.max.len()).unwrap_or(0);
        let outs = self.out.chunks_mut(head_dim.max(1)).zip(later.out.chunks(head_dim.max(1)));
        let stats = self.max.iter_mut().zip(&mut *self.sum).zip(later.max.iter().zip(&*later.sum));
        for ((out, later), ((max, sum), (later_max, later_sum))) in outs.zip(stats) {
            let new_max = max.max(*later_max);
            // A state whose maximum is −∞ is empty.
            let weight = |max: f32| if max == new_max { 1.0 } else { libm::exp2f(max - new_max) };
            let (a, b) = (weight(*max), weight(*later_max));
            for (x, y) in out.iter_mut().zip(later) {
                *x = *x * a + *y * b;
            }
            *sum = *sum * a + *later_sum * b;
            *max = new_max;
        }
    }

    /// Writes attention over all that was merged to `out`, `(group, head_dim)`.
    pub fn finish(&self, out: &mut [f32]) {
        let head_dim = self.out.len().checked_div(self.max.len()).unwrap_or(0).max(1);
        for ((out, x), sum) in out.chunks_mut(head_dim).zip(self.out.chunks(head_dim)).zip(&*self.sum) {
            let inverse = 1.0 / sum;
            out.iter_mut().zip(x).for_each(|(out, x)| *out = x * inverse);
        }
    }
}
