//! Plans, engines and sessions over one shared model.
//!
//! A [`Session`] is one conversation: its KV cache. An [`Engine`] runs tokens for sessions; it has the buffers of a
//! forward pass. One engine serves any number of sessions, in turn or several in one batch, so that each further
//! session costs its KV cache and no more.

#[cfg(feature = "boards")]
mod boards;
#[allow(clippy::module_inception, reason = "it is the file of the type `Engine`")]
mod engine;
mod error;
#[cfg(feature = "boards")]
mod follow;
mod header;
mod plan;
mod prefix;
mod session;
#[cfg(feature = "boards")]
mod shared_snapshot;
mod snapshot;

pub use engine::Engine;
pub use error::{EngineError, SnapshotError};
pub use plan::{Config, Pattern, Plan};
pub use prefix::Prefix;
pub use session::Session;
pub use snapshot::Saved;
