//! Matrix times activations, for one token or many.
//!
//! ```text
//!              one token, or a few (GEMV)       a prompt (GEMM)
//! quantised    gemv_quantised  in place         gemm    16 or 32 rows interleaved, once for 128 tokens
//! binary16     gemv_f16        in place, in binary16 where the CPU can; else as other floats
//! float        float           in place         float   8 or 16 rows widened, once for 128 tokens
//! packed file  gemm            in place         gemm    in place
//! ```
//!
//! Each path of quantised weights computes, for each row and token, one sum in one order:
//!
//! 1. The 32 products of a block of quants are added exactly, in integers, so every backend gets the same sum.
//! 2. A row has one `f32` for each token, to which blocks are added in order, each scaled by the product of the
//!    weight's and the activation's scale, however many tokens or rows share a vector.
//!
//! So one token at a time and a whole prompt give the same bits, in any chunks. Float weights have one order for up to
//! eight tokens, and another for more, see [`float`]; CPUs that multiply in binary16 do so for a few tokens, see
//! [`gemv_f16`].

use core::ops::Range;

use super::activations::Activations;
use super::job::{Job, Write};
use super::{float, gemm, gemv, gemv_f16, gemv_quantised, panel};
use crate::arch::isa::{FloatIsa, PanelIsa};
use crate::quant::{DType, Layout, Matrix};
use crate::storage::Tile;

/// Fewest tokens for which interleaving weights pays.
pub(in crate::arch) const MIN_TOKENS_TO_PACK: usize = 8;
/// Fewest tokens for which widening weights pays: more than a batch of sessions, which has the bits of each alone.
const MIN_TOKENS_TO_WIDEN: usize = 9;

/// See [`Kernels::matmul`](crate::arch::Kernels::matmul).
#[inline(always)]
pub(in crate::arch) fn matmul<S: PanelIsa + FloatIsa>(
    isa: S,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &Activations<'_>,
    out: &mut Tile<'_, f32>,
    write: Write,
) {
    let rows = rows.start.min(w.rows())..rows.end.min(w.rows());
    // The tokens of the pass decide, not those of a tile: so the bits of a token do not depend on its tile.
    let many = x.tokens >= MIN_TOKENS_TO_WIDEN;
    let x = x.part(out.rows());
    let job = Job { w: *w, rows, x, out, write };
    match w.dtype() {
        DType::Q8_0 => quantised::<gemv_quantised::Q8_0, panel::Q8_0, S, 544, 34>(isa, job),
        DType::Q4_0 => quantised::<gemv_quantised::Q4_0, panel::Q4_0, S, 288, 18>(isa, job),
        DType::Q4_1 => quantised::<gemv_quantised::Q4_1, panel::Q4_1, S, 320, 20>(isa, job),
        // Firmware, which hardly ever has such weights, has room for one way to multiply them.
        kind if many || (cfg!(target_os = "none") && kind != DType::F16) => {
            float::multiply(isa, &mut { job });
        }
        // One token at a time for rare formats: a tile of two tokens is another two kilobytes of code.
        DType::F32 => gemv::multiply::<float::Lanes<float::F32, 64>, S, 1>(isa, &mut { job }),
        DType::F16 if S::F16_PRODUCTS && !job.x.f16.is_empty() => {
            gemv::multiply::<gemv_f16::F16Rows<float::F16>, S, 2>(isa, &mut { job });
        }
        DType::F16 if S::F16_PRODUCTS => gemv::multiply::<float::Lanes<float::F16, 32>, S, 1>(isa, &mut { job }),
        DType::F16 => gemv::multiply::<float::Lanes<float::F16, 32>, S, 2>(isa, &mut { job }),
        DType::Bf16 => gemv::multiply::<float::Lanes<float::Bf16, 32>, S, 1>(isa, &mut { job }),
    }
}

/// Quantised weights. A block has `B` bytes, a panel's block of 16 rows `P`.
#[inline(always)]
fn quantised<R, F, S, const P: usize, const B: usize>(isa: S, mut job: Job<'_, '_, '_>)
where
    R: gemv_quantised::Format<B>,
    F: panel::Format<P, B>,
    S: PanelIsa + FloatIsa,
{
    match job.w.layout() {
        Layout::Rows if job.x.tokens < MIN_TOKENS_TO_PACK => {
            gemv::multiply::<gemv_quantised::Quantised<R, B>, S, 4>(isa, &mut job);
        }
        Layout::Rows => gemm::multiply_rows::<F, S, P, B>(isa, &mut job),
        Layout::Panels if job.x.tokens == 1 => gemm::multiply_panels_by_one::<F, S, P, B>(isa, &mut job),
        Layout::Panels => gemm::multiply_panels::<F, S, P, B>(isa, &mut job),
    }
}
