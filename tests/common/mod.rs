//! What several tests share: the real model, edits of a GGUF file's metadata, a context of the C API,
//! the bits that a run has to give.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

pub mod boards;
#[cfg(feature = "capi")]
pub mod c_context;
pub mod contract;
pub mod family_mistakes;
pub mod family_models;
pub mod family_oracle;
pub mod fuzzed;
#[cfg(feature = "grammar")]
pub mod fuzzed_grammar;
#[cfg(feature = "serve")]
pub mod fuzzed_tools;
pub mod gguf;
pub mod oracle;
#[cfg(all(unix, feature = "cli"))]
pub mod pty;
pub mod reference_bits;
pub mod run;
pub mod scripted;
pub mod untrusted;

use std::path::{Path, PathBuf};

use armlet::gguf::File;
use armlet::host::MappedFile;
use proptest::prelude::ProptestConfig;

/// A number of cases: the first of `cargo xtask test --deep`, which sets `ARMLET_DEEP=1`, the second of everything else.
pub fn deep(full: usize, gate: usize) -> usize {
    if std::env::var_os("ARMLET_DEEP").is_some_and(|value| value == "1") { full } else { gate }
}

/// proptest's settings for so many cases.
pub fn cases(full: usize, gate: usize) -> ProptestConfig {
    ProptestConfig { cases: deep(full, gate) as u32, failure_persistence: None, ..ProptestConfig::default() }
}

/// Where `armlet pull` keeps SmolLM2; it is an error, not a reason to skip, if it is not there.
pub fn smollm2() -> PathBuf {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = var("ARMLET_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|p| p.join("armlet")))
        .or_else(|| var("HOME").map(|p| p.join(".cache/armlet")))
        .expect("HOME is not set");
    let path = cache.join("SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(path.exists(), "{} is missing: run `cargo xtask test`, or `armlet pull`", path.display());
    path
}

#[allow(unsafe_code)]
pub fn map_smollm2() -> MappedFile {
    // SAFETY: no test writes to the cache, where a model is put by a rename.
    unsafe { MappedFile::open(&smollm2()) }.unwrap()
}

/// The program under test.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_armlet"))
}

/// The file's header with no tensors: a vocabulary alone.
pub fn header_of(bytes: &[u8]) -> Vec<u8> {
    let file = File::new_checked(bytes).unwrap();
    let entries: Vec<&[u8]> = file.raw_metadata().map(|(_, raw)| raw).collect();
    rebuild(&entries)
}

fn rebuild(entries: &[&[u8]]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.extend((entries.len() as u64).to_le_bytes());
    entries.iter().for_each(|e| out.extend(*e));
    out
}

fn with_entry(bytes: &[u8], key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    let file = File::new_checked(bytes).unwrap();
    let mut entry = (key.len() as u64).to_le_bytes().to_vec();
    entry.extend(key.as_bytes());
    entry.extend(kind.to_le_bytes());
    entry.extend(value);
    let mut entries: Vec<&[u8]> = file.raw_metadata().filter(|(k, _)| *k != key).map(|(_, raw)| raw).collect();
    entries.push(&entry);
    rebuild(&entries)
}

/// A file without tensors with a metadata string set.
pub fn with_string(bytes: Vec<u8>, key: &str, value: &str) -> Vec<u8> {
    let mut string = (value.len() as u64).to_le_bytes().to_vec();
    string.extend(value.as_bytes());
    with_entry(&bytes, key, 8, &string)
}

/// A file without tensors with a metadata flag set.
pub fn with_bool(bytes: Vec<u8>, key: &str, value: bool) -> Vec<u8> {
    with_entry(&bytes, key, 7, &[u8::from(value)])
}

/// Of the formats that the tiny models can have, those that whole models are run with: a format of each kind of kernel, or
/// with `--deep` every one.
pub fn some_formats() -> impl Iterator<Item = armlet::quant::DType> {
    let more = [armlet::quant::DType::Q5_1, armlet::quant::DType::Iq4Nl, armlet::quant::DType::Mxfp4];
    gguf::small_formats().filter(move |dtype| deep(1, 0) == 1 || !more.contains(dtype))
}
