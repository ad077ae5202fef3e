//! The C interface (feature `capi`): what `include/armlet.h` declares.
//!
//! ```text
//! types.rs      structs, callbacks, statuses, constants
//! status.rs     errors of the core as statuses, and as a line for the caller's log
//! pointers.rs   checks of the caller's pointers
//! executor.rs   an executor over the caller's parallel_for
//! context.rs    a context: what its arena contains
//! lifecycle.rs  functions: version, plan, init, reset, rewind, info
//! decode.rs     functions: prefill, step, sampling, logits
//! generate.rs   functions: generate, finish
//! text.rs       functions: tokenize, chat turns, detokenize
//! snapshot.rs   functions: save and restore
//! ```
//!
//! Each function checks its arguments, calls the core, and turns the result into a status.
//!
//! No globals, no allocation, no state outside the caller's arena.
//!
//! # Contracts
//!
//! NULL, alignment, lengths and overlap are checked, and the bytes behind a pointer are as untrusted as a file. What no
//! check can see, the caller promises. `# Safety` sections and `SAFETY` notes call these promises by their names:
//!
//! * **readable** for n: the pointer is NULL, or n elements there are initialised, and nobody changes them until the
//!   call returns.
//! * **writable** for n: the pointer is NULL, or n elements there may be read and written, and nobody else does either
//!   until the call returns. A context is writable for its size: one thread at a time uses it.
//! * **alive**: from `armlet_init` until the context's last use the model is readable and the arena writable, and only
//!   this library writes to the arena.
//! * **callback**: a function pointer is NULL or points to a function of its type, which does what its description says:
//!   it returns and does not unwind; `parallel_for` calls `work` with the `arg` that it got, and not after it has
//!   returned.
//!
//! A fifth, **apart**, is checked (`pointers::apart`): memory that is written overlaps nothing else that a call uses.
//!
//! Names are those of the header, which cbindgen writes from here (`cargo xtask header`).

#![allow(non_camel_case_types, reason = "these are the names in C")]

mod context;
mod decode;
mod executor;
mod generate;
mod lifecycle;
mod pointers;
mod snapshot;
mod status;
mod text;
mod types;

#[cfg(test)]
#[allow(unsafe_code, reason = "calls as C makes them")]
mod tests;

#[cfg(all(feature = "panic-handler", not(any(feature = "std", test))))]
mod panic;

pub use decode::*;
pub use generate::*;
pub use lifecycle::*;
pub use snapshot::*;
pub use text::*;
pub use types::*;
