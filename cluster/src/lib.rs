//! Boards that run one model together over MPI: Open MPI first, MPICH second.
//!
//! [`Mpi`] is the core's [`Comm`](armlet::boards::Comm). Around it is what a program for several boards needs before and
//! after it exchanges anything: boards show each other their [`Card`]s and go on only if they agree ([`Mpi::start`]),
//! silence has an end ([`Patience`]), and the launcher must have been told to look after hosts that go away ([`launch`]).
//! [`Counted`] counts what is exchanged.
//!
//! Only what MPI is asked is in [`Mpi`] and [`check`]; the rest is tested without MPI.

mod agree;
mod card;
pub mod check;
mod counted;
mod exchange;
pub mod launch;
pub mod machine;
mod patience;
mod transport;

#[cfg(test)]
#[path = "../../tests/common/boards.rs"]
#[allow(dead_code, unreachable_pub, reason = "tests use a part of it")]
mod boards;

pub use agree::{agree, alike, gather_texts, tell};
pub use card::{Card, Numbers};
pub use counted::{Counted, Counts};
pub use patience::Patience;
pub use transport::{Mpi, library};
