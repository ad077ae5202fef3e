//! `armlet serve` as its clients have it: over TCP, byte for byte.

mod answers;
mod apis;
mod client;
#[cfg(feature = "grammar")]
mod damaged;
mod limits;
mod load;
mod soak;
#[cfg(feature = "grammar")]
mod tools;
#[cfg(feature = "grammar")]
mod untrusted;

const ANSWER: [&str; 3] = ["Some", " fine", " answer."];
const TEXT: &str = "Some fine answer.";
