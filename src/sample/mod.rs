//! Sampling: from logits to a token by penalties, what the caller knows of a token (a bias, a grammar, [`Dry`]), top-k, top-p,
//! min-p, temperature, and a seeded random choice.
//!
//! The filters and their order are llama.cpp's, so settings that work there work here. Scalar code on `libm`: the same
//! seed and the same logits give the same token on every machine.

mod candidate;
mod config;
mod dry;
mod filters;
mod log_probability;
mod penalties;
mod sampler;
#[cfg(test)]
mod tests;

pub use candidate::{CANDIDATES, Candidate};
pub use config::SamplerConfig;
pub use dry::Dry;
pub use log_probability::log_probability;
pub use penalties::PENALTY_WINDOW;
pub use sampler::{Rules, SampleError, Sampler};
