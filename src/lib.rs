//! Language models on ARM, in memory that is known before the first token.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "std", test))]
#[macro_use]
extern crate std;

#[macro_use]
mod fmt;

pub mod arch;
pub mod engine;
pub mod gguf;
#[cfg(feature = "std")]
pub mod host;
pub mod math;
pub mod model;
pub mod quant;
pub mod sample;
pub mod storage;
pub mod tokenizer;
