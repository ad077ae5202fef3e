//! x86-64: AVX2 and AVX-512.
//!
//! ```text
//! tokens.rs    proof that the CPU has one of the two; cpuid.rs detects them
//! isa.rs       the operations of `Isa`, for both tokens
//! avx2.rs      what differs on AVX2; avx512.rs: with AVX-512 and VNNI; eight_rows.rs: decode there
//! ```

pub(super) mod avx2;
pub(super) mod avx512;
mod cpuid;
mod eight_rows;
mod int8;
mod isa;
mod tokens;
