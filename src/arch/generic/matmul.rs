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
//! 1. The 32 products of a block of quants are added exactly, in integers, so every backend gets the same sum; where a
//!    format has a scale for each 16, those of the two halves apart, which are then added with their integer scales.
//! 2. A row has one `f32` for each token, to which blocks are added in order, each scaled by the product of the
//!    weight's and the activation's scale, however many tokens or rows share a vector.
//!
//! So one token at a time and a whole prompt give the same bits, in any chunks. Float weights have one order for up to
//! eight tokens, and another for more, see [`float`]; CPUs that multiply in binary16 do so for a few tokens, see
//! [`gemv_f16`].

use core::marker::PhantomData;
use core::ops::Range;

use super::activations::Activations;
use super::job::{Job, Write};
use super::packed;
use super::panel::Packed;
use super::{float, gemm, gemv, gemv_f16, gemv_quantised};
use crate::arch::formats::Format;
use crate::arch::isa::{FloatIsa, PanelIsa};
use crate::quant::{DType, Layout, Matrix};
use crate::storage::Tile;

/// Fewest tokens for which making panels pays. Firmware, where the last few of a prompt are all there ever are, has one way
/// to multiply several tokens and half of the code.
pub(in crate::arch) const MIN_TOKENS_TO_PACK: usize = if cfg!(target_os = "none") { 2 } else { 8 };
/// Fewest tokens for which widening weights pays: more than a batch of sessions, which has the bits of each alone.
const MIN_TOKENS_TO_WIDEN: usize = gemv_f16::MAX_TOKENS + 1;

/// A way to multiply: for each backend a function of its own, see [`dispatch`].
pub(in crate::arch) trait Product {
    fn multiply<S: PanelIsa + FloatIsa>(isa: S, job: &mut Job<'_, '_, '_>);
}

/// Quantised rows in place, with a few tokens.
pub(in crate::arch) struct Rows<F>(PhantomData<F>);
impl<F: Format> Product for Rows<F> {
    #[inline(always)]
    fn multiply<S: PanelIsa + FloatIsa>(isa: S, job: &mut Job<'_, '_, '_>) {
        if MIN_TOKENS_TO_PACK > 2 {
            gemv::multiply::<gemv_quantised::Quantised<F>, S, 4>(isa, job);
        } else {
            gemv::multiply_one::<gemv_quantised::Quantised<F>, S>(isa, job);
        }
    }
}

/// The same, two tokens at a time and no others: half of the code, for formats of which there are many.
pub(in crate::arch) struct RowsByTwo<F>(PhantomData<F>);
impl<F: Format> Product for RowsByTwo<F> {
    #[inline(always)]
    fn multiply<S: PanelIsa + FloatIsa>(isa: S, job: &mut Job<'_, '_, '_>) {
        if MIN_TOKENS_TO_PACK > 2 {
            gemv::multiply_by_two::<gemv_quantised::Quantised<F>, S>(isa, job);
        } else {
            gemv::multiply_one::<gemv_quantised::Quantised<F>, S>(isa, job);
        }
    }
}

/// Quantised rows with many tokens, unpacked to panels.
pub(in crate::arch) struct Units<F>(PhantomData<F>);
impl<F: Format> Product for Units<F> {
    #[inline(always)]
    fn multiply<S: PanelIsa + FloatIsa>(isa: S, job: &mut Job<'_, '_, '_>) {
        gemm::multiply_units::<F, S>(isa, job);
    }
}

/// Quantised rows with many tokens, interleaved to panels.
pub(in crate::arch) struct Interleaved<F>(PhantomData<F>);
impl<F: packed::Interleaved> Product for Interleaved<F> {
    #[inline(always)]
    fn multiply<S: PanelIsa + FloatIsa>(isa: S, job: &mut Job<'_, '_, '_>) {
        gemm::multiply_rows::<F, S>(isa, job);
    }
}

/// A packed file's panels.
pub(in crate::arch) struct Panels<F>(PhantomData<F>);
impl<F: Packed> Product for Panels<F> {
    #[inline(always)]
    fn multiply<S: PanelIsa + FloatIsa>(isa: S, job: &mut Job<'_, '_, '_>) {
        match job.x.tokens {
            1 => gemm::multiply_panels_by_one::<F, S>(isa, job),
            _ => gemm::multiply_panels::<F, S>(isa, job),
        }
    }
}

/// Floats with many tokens; and all but binary16 with any number of them in firmware, which hardly ever has such weights
/// and room for one way to multiply them.
pub(in crate::arch) struct Widened;
impl Product for Widened {
    #[inline(always)]
    fn multiply<S: PanelIsa + FloatIsa>(isa: S, job: &mut Job<'_, '_, '_>) {
        float::multiply(isa, job);
    }
}

/// Floats in place, with a few tokens.
pub(in crate::arch) struct Floats;
impl Product for Floats {
    #[inline(always)]
    fn multiply<S: PanelIsa + FloatIsa>(isa: S, job: &mut Job<'_, '_, '_>) {
        // One token at a time for rare formats: a tile of two tokens is another two kilobytes of code.
        match job.w.dtype() {
            DType::F16 if S::F16_PRODUCTS && !job.x.f16.is_empty() => {
                gemv::multiply::<gemv_f16::F16Rows<float::F16>, S, 2>(isa, job);
            }
            DType::F16 if S::F16_PRODUCTS => gemv::multiply::<float::Lanes<float::F16>, S, 1>(isa, job),
            DType::F16 => gemv::multiply::<float::Lanes<float::F16>, S, 2>(isa, job),
            DType::Bf16 if !cfg!(target_os = "none") => {
                gemv::multiply::<float::Lanes<float::Bf16>, S, 1>(isa, job);
            }
            DType::F32 if !cfg!(target_os = "none") => gemv::multiply::<float::Lanes<float::F32>, S, 1>(isa, job),
            _ => {}
        }
    }
}

/// Whether a product with so many tokens widens float weights. The tokens of the pass decide, not those of a tile: so the
/// bits of a token do not depend on its tile.
pub(in crate::arch) fn widens(w: &Matrix<'_>, x: &Activations<'_>) -> bool {
    x.tokens >= MIN_TOKENS_TO_WIDEN || (cfg!(target_os = "none") && w.dtype() != DType::F16)
}

/// The product of a matrix's rows with the tokens of a tile, see [`Kernels::matmul`](crate::arch::Kernels::matmul).
pub(in crate::arch) fn job<'a, 'o, 'w>(
    w: &Matrix<'w>,
    rows: Range<usize>,
    x: &Activations<'a>,
    out: &'a mut Tile<'o, f32>,
    write: Write,
) -> Job<'a, 'o, 'w> {
    let rows = rows.start.min(w.rows())..rows.end.min(w.rows());
    Job { w: *w, rows, x: x.part(out.rows()), out, write }
}

/// How the rows of a quantised matrix are multiplied.
pub(in crate::arch) enum Way {
    /// In place.
    Rows,
    /// By panels that are made of them.
    MakePanels,
    /// They are in panels.
    Panels,
}

impl Job<'_, '_, '_> {
    /// How this is multiplied.
    pub(in crate::arch) fn way(&self) -> Way {
        // One token of a pass of several is none of decode's: panels take any, and give the same bits.
        let few = self.x.tokens < MIN_TOKENS_TO_PACK && (self.x.tokens != 1 || self.x.quants.stride == 1);
        match self.w.layout() {
            Layout::Rows if few => Way::Rows,
            Layout::Rows => Way::MakePanels,
            Layout::Panels => Way::Panels,
        }
    }
}

/// Calls `$product::<P>(&mut $job)` for the [`Product`] that multiplies `$job`. Each is a function of its own, and not
/// part of one of all: compilers take much longer for one function of a hundred loops.
///
/// A format that is not [built](DType::is_built) is no matrix's.
macro_rules! dispatch {
    ($product:ident, $job:ident, $widens:expr) => {
        $crate::arch::generic::matmul::dispatch!(@ $product, $job, $widens,
            interleaved Q8_0 Q4_0 Q4_1;
            packed Q5_0 Q4K Q5K Q6K Iq4Nl Q1_0 Q2_0;
            rows Q5_1 Q2K Q3K Iq4Xs Tq1_0 Tq2_0 Mxfp4 Nvfp4)
    };
    (@ $product:ident, $job:ident, $widens:expr,
        interleaved $($interleaved:ident)*; packed $($packed:ident)*; rows $($rows:ident)*) => {{
        use $crate::arch::generic::matmul::{Floats, Interleaved, Panels, Rows, RowsByTwo, Units, Way, Widened};
        use $crate::quant::{DType, Layout, types};
        match $job.w.dtype() {
            $(DType::$interleaved if const { DType::$interleaved.is_built() } => match $job.way() {
                Way::Rows => $product::<Rows<types::$interleaved>>(&mut $job),
                Way::MakePanels => $product::<Interleaved<types::$interleaved>>(&mut $job),
                Way::Panels => $product::<Panels<types::$interleaved>>(&mut $job),
            },)*
            $(DType::$packed if const { DType::$packed.is_built() } => match $job.way() {
                Way::Rows => $product::<RowsByTwo<types::$packed>>(&mut $job),
                Way::Panels if const { Layout::Panels.is_built(DType::$packed) } => {
                    $product::<Panels<types::$packed>>(&mut $job);
                }
                _ => $product::<Units<types::$packed>>(&mut $job),
            },)*
            $(DType::$rows if const { DType::$rows.is_built() } => match $job.way() {
                Way::Rows => $product::<RowsByTwo<types::$rows>>(&mut $job),
                _ => $product::<Units<types::$rows>>(&mut $job),
            },)*
            DType::F32 | DType::F16 | DType::Bf16 if $widens => $product::<Widened>(&mut $job),
            DType::F32 | DType::F16 | DType::Bf16 => $product::<Floats>(&mut $job),
            _ => {}
        }
    }};
}
pub(in crate::arch) use dispatch;
