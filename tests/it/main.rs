//! The integration tests, as one program: the fixtures are compiled once. `memory.rs` and `memory_flat.rs` are programs
//! of their own, because they measure the memory of their process.

#[path = "../common/mod.rs"]
mod common;

mod barriers;
#[cfg(feature = "boards")]
mod boards;
#[cfg(feature = "boards")]
mod boards_answers;
#[cfg(feature = "boards")]
mod boards_bits;
#[cfg(feature = "boards")]
mod boards_exchanges;
#[cfg(feature = "boards")]
mod boards_fingerprint;
#[cfg(feature = "boards")]
mod boards_pipeline;
#[cfg(feature = "boards")]
mod boards_run;
#[cfg(feature = "boards")]
mod boards_sessions;
#[cfg(feature = "capi")]
mod capi;
#[cfg(feature = "capi")]
mod capi_answers;
#[cfg(all(unix, feature = "cli"))]
mod chat;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "cli")]
mod cli_bench;
#[cfg(feature = "cli")]
mod cli_files;
#[cfg(feature = "cli")]
mod cli_metadata;
#[cfg(feature = "cli")]
mod cli_numbers;
#[cfg(feature = "cli")]
mod cli_plan;
#[cfg(feature = "cli")]
mod cli_sampling;
#[cfg(all(unix, feature = "cli"))]
mod cli_words;
mod corrupt;
#[cfg(feature = "cli")]
mod doctor;
#[cfg(all(unix, feature = "cli"))]
mod documents;
#[cfg(feature = "cli")]
mod example;
mod families;
mod family_caches;
mod fuzz;
mod generation;
mod gguf_rules;
mod golden;
#[cfg(feature = "grammar")]
mod grammar;
#[cfg(feature = "cli")]
mod hub;
#[cfg(feature = "cli")]
mod imatrix;
#[cfg(feature = "cli")]
mod killed;
mod layering;
mod long_contexts;
mod model_rules;
mod oracle;
mod pre_tokenizers;
#[cfg(feature = "cli")]
mod quantize;
#[cfg(all(unix, feature = "cli"))]
mod resident;
mod rules_table;
mod saving;
mod scheduler;
#[cfg(all(unix, feature = "serve"))]
mod serve;
#[cfg(feature = "cli")]
mod split_files;
mod streaming;
#[cfg(feature = "cli")]
mod templates;
mod vocabulary_rules;
