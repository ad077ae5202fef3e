//! The only SIMD of the project: one table of kernels, chosen once, and behind it one instance of each algorithm for
//! every instruction set.
//!
//! ```text
//! generic/     each algorithm once, over the operations of `isa::Isa`; its few pointers are in `walk.rs` and `room.rs`
//! isa.rs       those operations; a value of an `Isa` type proves that the CPU has the instructions
//! pair.rs      two vectors of eight numbers, one register where the CPU has such wide ones
//! unroll.rs    loops and arrays that stay in registers
//! scalar.rs    Isa over plain arrays: spans anywhere, and is the one the others are compared with
//! aarch64/     Isa over NEON: alone, with the dot product, with the matrix multiplication of int8
//! x86_64/      Isa over AVX2 and AVX-512, so that development and honest comparison are possible on a PC
//! ```
//!
//! A row of quantised weights times a vector is, for every backend, the same sum in the same order: the 32 products of
//! a block are added exactly as integers, then each block is scaled and added to one `f32` per row, block after block.
//! So a result does not depend on how many rows or tokens a tile has, and decode and prefill agree to the bit. Float
//! weights have one order of sums for up to eight tokens and one for more, and `a·b + c` is rounded once everywhere: all
//! backends give the same bits, but those that compute a few tokens' products with binary16 weights in binary16. Int8 activations would otherwise not forgive a difference: one that rounds the other way changes a logit
//! by far more than the last bit that caused it.
//!
//! `unsafe` is allowed in this folder.

#![allow(unsafe_code)]

mod f32x16;
mod generic;
mod isa;
mod scalar;
mod unroll;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use generic::activations::{Activations, QuantTile, Quants, QuantsMut};
pub use generic::attention::kv_format::{KvType, QueryBlock};
pub use generic::attention::online_softmax::SoftmaxState;
pub use generic::attention::{KvSpan, Queries};
pub use generic::gemv_f16::F16Block;
pub use generic::matmul::Write;

use crate::quant::{BLOCK, Matrix, PANEL_ROWS};
use crate::storage::{Executor, Tile, for_each_tile};
use crate::util::{SliceExt, times};
use core::ops::Range;

/// An instruction set that has kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Backend {
    /// Portable code.
    Scalar,
    /// aarch64 NEON, Armv8.0: Cortex-A53, A72.
    Neon,
    /// NEON with the Armv8.2 dot product (`sdot`) and binary16 arithmetic: Cortex-A55, A76.
    Dotprod,
    /// That and the Armv8.6 int8 matrix multiplication (`smmla`): Cortex-A710, Neoverse V1.
    I8mm,
    /// x86-64 AVX2, FMA and F16C.
    Avx2,
    /// x86-64 AVX-512 with VNNI.
    Avx512,
}

impl Backend {
    /// All backends, the best of an architecture last.
    pub const ALL: [Backend; 6] =
        [Backend::Scalar, Backend::Neon, Backend::Dotprod, Backend::I8mm, Backend::Avx2, Backend::Avx512];

    /// Its name, as `ARMLET_CPU` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Scalar => "scalar",
            Backend::Neon => "neon",
            Backend::Dotprod => "dotprod",
            Backend::I8mm => "i8mm",
            Backend::Avx2 => "avx2",
            Backend::Avx512 => "avx512",
        }
    }

    /// The backend of this name.
    pub fn from_name(name: &str) -> Option<Backend> {
        Backend::ALL.into_iter().find(|b| b.name() == name)
    }
}

/// The backend of an image without an operating system.
const ONLY: Option<Backend> = if !cfg!(all(target_os = "none", target_arch = "aarch64")) {
    None
} else if cfg!(target_feature = "i8mm") {
    Some(Backend::I8mm)
} else if cfg!(all(target_feature = "dotprod", target_feature = "fp16")) {
    Some(Backend::Dotprod)
} else if cfg!(target_feature = "neon") {
    Some(Backend::Neon)
} else {
    Some(Backend::Scalar)
};

/// The kernels of one backend. Having one proves that the CPU can run them.
#[derive(Clone, Copy)]
pub struct Kernels {
    backend: Backend,
    uses_f16_products: bool,
    rows_at_once: usize,
    quantise: unsafe fn(&[f32], &mut QuantTile<'_>),
    to_f16: unsafe fn(&[f32], &mut [F16Block]),
    matmul: unsafe fn(&Matrix<'_>, Range<usize>, &Activations<'_>, &mut Tile<'_, f32>, Write),
    rms_norm: unsafe fn(&[f32], &[u8], f32, &mut [f32]),
    silu_mul: unsafe fn(&mut [f32], &[f32]),
    attend: unsafe fn(KvType, &Queries<'_>, &[KvSpan<'_>], &mut SoftmaxState<'_>),
    quantise_query: unsafe fn(&[f32], usize, &mut [QueryBlock]),
    encode_kv: unsafe fn(KvType, &[f32], &mut [u8], &mut [u8]),
}

/// Makes the table of a backend: for each kernel a function compiled for its instructions, which makes the token and
/// calls the generic algorithm.
macro_rules! kernels {
    ($backend:expr, $isa:expr $(, $features:literal)?) => {{
        use $crate::arch::generic::{activations, attention, gemv_f16, matmul, norm};
        use $crate::arch::{Activations, KvType, F16Block, Kernels, SoftmaxState, QuantTile, Queries, QueryBlock, KvSpan, Write};
        use $crate::quant::Matrix;
        use $crate::storage::Tile;
        $(#[target_feature(enable = $features)])?
        fn quantise(x: &[f32], out: &mut QuantTile<'_>) {
            activations::quantise($isa, x, out)
        }
        $(#[target_feature(enable = $features)])?
        fn to_f16(x: &[f32], out: &mut [F16Block]) {
            gemv_f16::to_f16($isa, x, out)
        }
        $(#[target_feature(enable = $features)])?
        fn matmul(w: &Matrix<'_>, rows: core::ops::Range<usize>, x: &Activations<'_>, out: &mut Tile<'_, f32>, write: Write) {
            matmul::matmul($isa, w, rows, x, out, write)
        }
        $(#[target_feature(enable = $features)])?
        fn rms_norm(x: &[f32], weight: &[u8], eps: f32, out: &mut [f32]) {
            norm::rms_norm($isa, x, weight, eps, out)
        }
        $(#[target_feature(enable = $features)])?
        fn silu_mul(gate: &mut [f32], up: &[f32]) {
            norm::silu_mul($isa, gate, up)
        }
        $(#[target_feature(enable = $features)])?
        fn attend(kv_type: KvType, q: &Queries<'_>, spans: &[KvSpan<'_>], out: &mut SoftmaxState<'_>) {
            attention::attend($isa, kv_type, q, spans, out)
        }
        $(#[target_feature(enable = $features)])?
        fn quantise_query(x: &[f32], head_dim: usize, out: &mut [QueryBlock]) {
            attention::kv_format::quantise_query($isa, x, head_dim, out)
        }
        $(#[target_feature(enable = $features)])?
        fn encode_kv(kv_type: KvType, x: &[f32], out: &mut [u8], scale: &mut [u8]) {
            attention::kv_format::encode_row($isa, kv_type, x, out, scale)
        }
        let (uses_f16_products, rows_at_once) = $crate::arch::capabilities(&$isa);
        Kernels { backend: $backend, uses_f16_products, rows_at_once, quantise, to_f16, matmul, rms_norm, silu_mul, attend, quantise_query, encode_kv }
    }};
}
use kernels;

/// Whether an instruction set computes with binary16, and how many rows it multiplies at once with many tokens.
fn capabilities<I: isa::FloatIsa + isa::PanelIsa>(_: &I) -> (bool, usize) {
    (I::F16_PRODUCTS, I::PANELS * PANEL_ROWS)
}

impl Kernels {
    /// The most tokens of which [`uses_f16_products`](Kernels::uses_f16_products) can be true.
    pub const MAX_F16_TOKENS: usize = generic::gemv_f16::MAX_TOKENS;

    /// The best kernels that this CPU can run. Without an operating system: those of the CPU that the library was compiled
    /// for, and no others are in it, because an image is for one chip and has little room.
    pub fn detect() -> Kernels {
        let best = match ONLY {
            Some(only) => Kernels::for_backend(only),
            None => Backend::ALL.into_iter().rev().find_map(Kernels::for_backend),
        };
        let best = best.unwrap_or_else(scalar::kernels);
        debug!("kernels: {}", best.backend.name());
        best
    }

    /// The kernels of `backend`; `None` when this CPU cannot run them.
    pub fn for_backend(backend: Backend) -> Option<Kernels> {
        if ONLY.is_some_and(|only| only != backend) {
            return None;
        }
        match backend {
            Backend::Scalar => Some(scalar::kernels()),
            #[cfg(target_arch = "aarch64")]
            Backend::Neon => aarch64::neon::kernels(),
            #[cfg(target_arch = "aarch64")]
            Backend::Dotprod => aarch64::dotprod::kernels(),
            #[cfg(target_arch = "aarch64")]
            Backend::I8mm => aarch64::i8mm::kernels(),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2 => x86_64::avx2::kernels(),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512 => x86_64::avx512::kernels(),
            #[allow(unreachable_patterns, reason = "which arms are above depends on the architecture")]
            _ => None,
        }
    }

    /// Which backend this is.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Rows of weights that meet so many tokens at once: a multiple of these is done soonest.
    pub fn rows_at_once(&self, tokens: usize) -> usize {
        if tokens < generic::matmul::MIN_TOKENS_TO_PACK { PANEL_ROWS } else { self.rows_at_once }
    }

    /// Quantises the activations `x` of one token to int8 blocks of 32, in the first column of `out`:
    /// `q[b][i] = round(x[32·b + i] / d[b])`, `d` the largest magnitude / 127.
    pub fn quantise(&self, x: &[f32], out: &mut QuantTile<'_>) {
        // SAFETY: a `Kernels` is made only where its instructions were detected.
        unsafe { (self.quantise)(x, out) }
    }

    /// Quantises the activations `x`, `(tokens, cols)`, each token an item of `exec`'s work.
    pub fn quantise_tokens<'q>(
        &self,
        exec: &dyn Executor,
        x: &[f32],
        tokens: usize,
        out: &'q mut QuantsMut<'_>,
    ) -> Quants<'q> {
        let cols = times(x.len(), tokens);
        for_each_tile(exec, out.columns(cols / BLOCK, tokens), |mut tile| {
            let token = tile.0[0].columns().start;
            self.quantise(x.row(token, cols), &mut tile);
        });
        out.view(cols / BLOCK, tokens)
    }

    /// Whether this CPU computes with binary16, and so few `tokens` are to meet binary16 weights as
    /// [`to_f16`](Kernels::to_f16) leaves them.
    pub fn uses_f16_products(&self, tokens: usize) -> bool {
        self.uses_f16_products && tokens <= Self::MAX_F16_TOKENS
    }

    /// The activations `x` of one token as binary16 in blocks of 32 with a power of two for each; the last one padded with
    /// zeros.
    pub fn to_f16(&self, x: &[f32], out: &mut [F16Block]) {
        // SAFETY: as in `quantise`.
        unsafe { (self.to_f16)(x, out) }
    }

    /// Rows `rows` of `w` times those tokens of `x` that `out`, `(tokens, rows.len())`, has rows for. How many tokens `x`
    /// has decides the order of sums, not how many `out` has.
    ///
    /// Nothing is read or written past an end: missing rows and outputs are left out, missing activations count nothing.
    pub fn matmul(
        &self,
        w: &Matrix<'_>,
        rows: Range<usize>,
        x: &Activations<'_>,
        out: &mut Tile<'_, f32>,
        write: Write,
    ) {
        // SAFETY: as in `quantise`.
        unsafe { (self.matmul)(w, rows, x, out, write) }
    }

    /// `out = x / sqrt(mean(x²) + eps) · weight` (Zhang and Sennrich 2019, arXiv 1910.07467); `weight` is
    /// little-endian f32 where it lies in the file.
    pub fn rms_norm(&self, x: &[f32], weight: &[u8], eps: f32, out: &mut [f32]) {
        // SAFETY: as in `quantise`.
        unsafe { (self.rms_norm)(x, weight, eps, out) }
    }

    /// SwiGLU's gate: `gate = silu(gate) · up`, `silu(x) = x / (1 + e⁻ˣ)` (Shazeer 2020, arXiv 2002.05202).
    pub fn silu_mul(&self, gate: &mut [f32], up: &[f32]) {
        // SAFETY: as in `quantise`.
        unsafe { (self.silu_mul)(gate, up) }
    }

    /// Attention of the query heads of a group over the rows of one KV head in a tile, added to `out`.
    ///
    /// `spans`, stored as `kv_type`, have at most [`TILE`](crate::storage::TILE) rows together; more are left out.
    pub fn attend(&self, kv_type: KvType, q: &Queries<'_>, spans: &[KvSpan<'_>], out: &mut SoftmaxState<'_>) {
        // SAFETY: as in `quantise`.
        unsafe { (self.attend)(kv_type, q, spans, out) }
    }

    /// The queries `x`, `(heads, head_dim)`, as int8 in blocks of 32, `(heads, head_dim / 32)` rounded up.
    pub fn quantise_query(&self, x: &[f32], head_dim: usize, out: &mut [QueryBlock]) {
        // SAFETY: as in `quantise`.
        unsafe { (self.quantise_query)(x, head_dim, out) }
    }

    /// Converts the row `x` of a position and head to cache elements; `scale` is written if it is int8.
    pub fn encode_kv(&self, kv_type: KvType, x: &[f32], out: &mut [u8], scale: &mut [u8]) {
        // SAFETY: as in `quantise`.
        unsafe { (self.encode_kv)(kv_type, x, out, scale) }
    }
}

#[cfg(test)]
mod tests;
