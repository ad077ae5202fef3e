//! How much is done in a second, by the number of threads.

/// A rate with a number of threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    pub(crate) threads: usize,
    pub(crate) per_second: f64,
}
