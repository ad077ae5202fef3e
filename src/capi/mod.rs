//! The C face (feature `capi`): what `include/armlet.h` declares.
//!
//! ```text
//! types.rs      what crosses the border: structs, callbacks, statuses; written as C names them
//! status.rs     errors of the core as statuses, and as a line for the caller's log
//! pointers.rs   pointers: checked once, then slices
//! executor.rs   the caller's cores as an executor
//! context.rs    what an arena holds
//! lifecycle.rs  functions: versions, sizes, the life of a context
//! decode.rs     functions: reading and choosing tokens
//! text.rs       functions: text to tokens and back
//! snapshot.rs   functions: keeping what was read
//! ```
//!
//! A function checks what it was given, calls the core, and turns what came of it into a status.
//!
//! No globals, no allocation, no state outside the caller's arena. What a pointer is said to be is believed only as
//! far as its length: NULL, alignment and overlap are checked, and everything behind it is as hostile as a file.
//!
//! Names are those of the header, which cbindgen writes from here (`cargo xtask header`).

#![allow(unsafe_code)]
#![allow(non_camel_case_types, reason = "these are the names in C")]

mod context;
mod decode;
mod executor;
mod lifecycle;
mod pointers;
mod snapshot;
mod status;
mod text;
mod types;

#[cfg(all(feature = "panic-handler", not(any(feature = "std", test))))]
mod panic;

pub use decode::*;
pub use lifecycle::*;
pub use snapshot::*;
pub use text::*;
pub use types::*;
