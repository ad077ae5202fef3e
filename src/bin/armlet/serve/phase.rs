//! How the server ends: first it takes nothing new, then it cuts what still runs.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::watch;

/// How far the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Running,
    /// Answers go on, and nothing new begins.
    Draining,
    /// Answers that still run are told that they end.
    Cut,
}

/// Ready when the server has come so far.
pub(super) type Reached = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) fn reached(phase: &watch::Receiver<Phase>, wanted: Phase) -> Reached {
    let mut phase = phase.clone();
    // Without a sender the server is at its end.
    Box::pin(async move { drop(phase.wait_for(|now| *now >= wanted).await) })
}
