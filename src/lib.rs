//! Language models on ARM: transformers with grouped-query attention, with the weights used in place in a mapped GGUF
//! file, and every other byte planned before the first token.
//!
//! The core is `no_std` and never allocates. The caller maps the file (or has it in flash), asks how many bytes are
//! needed, and lends them; nothing grows after that.
//!
//! # Layers
//!
//! A module uses those below it, never those above; `tests/it/layering.rs` checks this.
//!
//! | layer | modules | what they contain |
//! |---|---|---|
//! | 6 | [`host`], [`capi`] | files, threads and memory of an operating system (feature `std`); the C API (feature `capi`) |
//! | 5 | [`generation`] | answers, token by token |
//! | 4 | [`engine`] | plans, engines, sessions and their snapshots |
//! | 3 | [`tokenizer`], [`model`], [`sample`] | tokens, transformers, sampling |
//! | 2 | [`gguf`], [`arch`] | untrusted files; kernels |
//! | 1 | [`storage`], [`quant`] | the caller's memory and threads; weight formats |
//! | 0 | `util` | slices that cannot panic, a binary heap, a checksum, sine and cosine |
//!
//! # An answer
//!
//! In `Cargo.toml`, the library alone: `std` adds [`host`], and without it nothing of an operating system is used. An
//! unoptimised build is 40 to 100 times slower, so a program's debug builds need the second part:
//!
//! ```toml
//! [dependencies]
//! armlet = { version = "0.1", default-features = false, features = ["std"] }
//!
//! [profile.dev.package.armlet]
//! opt-level = 3
//! ```
//!
//! A program that streams an answer, token by token (`examples/chat.rs` adds a chat's control tokens and sampling):
//!
#![cfg_attr(feature = "std", doc = "```no_run")]
#![cfg_attr(not(feature = "std"), doc = "```ignore")]
//! use std::io::Write;
//!
//! use armlet::arch::Kernels;
//! use armlet::engine::{Config, Engine, Plan, Session};
//! use armlet::generation::{Event, Generation, Limits, Run};
//! use armlet::gguf::File;
//! use armlet::host::{MappedFile, Pool, memory};
//! use armlet::model::Model;
//! use armlet::sample::{Rules, Sampler, SamplerConfig};
//! use armlet::tokenizer::EncodeOptions;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // SAFETY: nobody changes the file while it is mapped.
//!     let bytes = unsafe { MappedFile::open("model.gguf".as_ref())? };
//!     let file = File::new_checked(&bytes)?;
//!     let mut tables = memory(Model::required_bytes(&file)?)?;
//!     let model = Model::new(&file, &mut tables)?;
//!
//!     // Every byte from here on is planned: 512 tokens of context, attention sinks, a KV cache of fp16.
//!     let plan = Plan::new(&model.hparams, &Config { context: 512, ..Config::default() })?;
//!     let (mut workspace, mut cache) = (memory(plan.engine_bytes())?, memory(plan.session_bytes())?);
//!     let mut engine = Engine::new(&model, Kernels::detect(), &plan, &mut workspace)?;
//!     let mut session = Session::new(&model, &plan, &mut cache)?;
//!     let pool = Pool::new(Pool::cpus());
//!
//!     let tokenizer = &model.tokenizer;
//!     let text = "The capital of France is";
//!     let mut scratch = memory(tokenizer.scratch_bytes(text)?)?;
//!     let mut tokens = vec![0; tokenizer.max_tokens(text.len())];
//!     let options = EncodeOptions { add_special: true, ..EncodeOptions::default() };
//!     let n = tokenizer.encode(text, options, &mut scratch, &mut tokens)?;
//!     // Prefill; then a token at a time, until the model ends the text.
//!     engine.eval(&pool, &mut session, &tokens[..n])?;
//!     let mut sampler = Sampler::new(SamplerConfig::default());
//!     let mut run = Run { engine: &mut engine, exec: &pool, session: &mut session, sampler: &mut sampler, lookup: None };
//!     let (mut answer, limits) = (Generation::new(), Limits { tokens: 256, stops: &[] });
//!     while let Event::Token(_) = answer.step(&mut run, limits, Rules::NONE, &mut |text| print!("{text}"))? {
//!         std::io::stdout().flush()?;
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Without an operating system
//!
//! The same with the caller's memory, and without threads:
//!
//! ```no_run
//! use armlet::arch::Kernels;
//! use armlet::engine::{Config, Engine, Plan, Session};
//! use armlet::gguf::File;
//! use armlet::model::Model;
//! use armlet::storage::Serial;
//! use armlet::tokenizer::EncodeOptions;
//!
//! # fn run(bytes: &[u8], tables: &mut [u8], workspace: &mut [u8], cache: &mut [u8], scratch: &mut [u8])
//! #     -> Result<(), Box<dyn std::error::Error>> {
//! // `bytes` is the whole file; `tables`, `workspace`, `cache` and `scratch` start at multiples of 64.
//! let file = File::new_checked(bytes)?;
//! let model = Model::new(&file, tables)?; // Model::required_bytes bytes
//! let plan = Plan::new(&model.hparams, &Config { context: 512, ..Config::default() })?;
//! let mut engine = Engine::new(&model, Kernels::detect(), &plan, workspace)?; // plan.engine_bytes()
//! let mut session = Session::new(&model, &plan, cache)?; // plan.session_bytes()
//!
//! let mut tokens = [0; 64];
//! let options = EncodeOptions { add_special: true, ..EncodeOptions::default() };
//! let n = model.tokenizer.encode("The capital of France is", options, scratch, &mut tokens)?;
//! let logits = engine.eval(&Serial, &mut session, &tokens[..n])?;
//! # let _ = logits; Ok(()) }
//! ```
//!
//! # Safety and trust
//!
//! A file is untrusted: a malformed one is an error, and none can make the library read or write outside the memory
//! that it was given, as long as nobody changes the file while it is mapped. `unsafe` code is confined to [`arch`], the
//! arena and the tiles of [`storage`], the C API, and the mapping and the threads of [`host`]; each block names the
//! contract that makes it sound.
//!
//! # Features
//!
//! `std` adds [`host`]; `kv_f32` a KV cache in binary32 where there is no operating system; `cli` the program; `capi` the C API,
//! and `panic-handler` what its static library needs without an operating system; `log` and `defmt` send the library's few messages. The minimum supported Rust version is 1.95.

#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "std", test))]
#[macro_use]
extern crate std;

#[macro_use]
mod fmt;

pub mod arch;
pub mod boards;
#[cfg(feature = "capi")]
pub mod capi;
pub mod engine;
pub mod error;
pub mod generation;
pub mod gguf;
#[cfg(feature = "std")]
pub mod host;
pub mod model;
pub mod quant;
pub mod sample;
pub mod storage;
pub mod tokenizer;
mod util;

pub use error::Error;
