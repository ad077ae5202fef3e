//! What all requests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;

use super::about::About;
use super::guard::Guard;
use super::metrics::Metrics;
use super::phase::Phase;
use super::{engine, prepare};
use crate::args::Sampling;
use crate::clock;
use crate::grammar::Form;

/// What all requests share.
pub(super) struct App {
    pub(super) about: About,
    pub(super) engine: engine::Handle,
    pub(super) prepare: prepare::Handle,
    pub(super) metrics: Arc<Metrics>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) guard: Guard,
    pub(super) sizes: Sizes,
    pub(super) limits: Limits,
    /// The command line's settings, where a request has none of its own.
    pub(super) sampling: Sampling,
    /// And what answers may be.
    pub(super) form: Option<Form>,
    pub(super) ids: Ids,
}

/// How much there is for requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Tokens that a session holds.
    pub(super) context: usize,
    pub(super) slots: usize,
}

/// What a request may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of a body.
    pub(super) body: usize,
    /// Time for the headers, and for the body.
    pub(super) time: Duration,
    pub(super) connections: usize,
    /// The log shows what people write, and what the model answers.
    pub(super) log_prompts: bool,
}

/// Numbers of answers.
pub(super) struct Ids {
    start: u64,
    next: AtomicU64,
}

impl Ids {
    pub(super) fn new() -> Self {
        Ids { start: clock::since_1970().as_nanos() as u64, next: AtomicU64::new(0) }
    }

    /// A number that no other answer of this server has: a bijection of the counter (splitmix64).
    pub(super) fn next(&self) -> u64 {
        let z = self.start.wrapping_add(self.next.fetch_add(1, Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
