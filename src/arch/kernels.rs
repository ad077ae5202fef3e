//! The table of one backend's kernels.

use core::ops::Range;

use super::backend::Backend;
use super::generic::activations::{Activations, QuantTile, Quants, QuantsMut};
use super::generic::attention::kv_format::{KvType, QueryBlock};
use super::generic::attention::online_softmax::SoftmaxState;
use super::generic::attention::{KvSpan, Queries};
use super::generic::job::Write;
use super::generic::norm::Activation;
use super::generic::{gemv_f16, matmul};
use super::isa::{FloatIsa, PanelIsa};
use super::types::F16Block;
use crate::quant::{BLOCK, Matrix, PANEL_ROWS};
use crate::storage::{Executor, Tile, for_each_tile};
use crate::util::SliceExt;

/// The kernels of one backend. Having one proves that the CPU can run them.
#[derive(Clone, Copy)]
pub struct Kernels {
    pub(super) backend: Backend,
    pub(super) uses_f16_products: bool,
    pub(super) rows_at_once: usize,
    pub(super) quantise: unsafe fn(&[f32], &mut QuantTile<'_>),
    pub(super) to_f16: unsafe fn(&[f32], &mut [F16Block]),
    pub(super) matmul: unsafe fn(&Matrix<'_>, Range<usize>, &Activations<'_>, &mut Tile<'_, f32>, Write),
    pub(super) rms_norm: unsafe fn(&[f32], &[u8], f32, &mut [f32]),
    pub(super) activate: unsafe fn(Activation, &mut [f32], &[f32]),
    pub(super) attend: unsafe fn(KvType, &Queries<'_>, &[KvSpan<'_>], &mut SoftmaxState<'_>),
    pub(super) quantise_query: unsafe fn(&[f32], usize, &mut [QueryBlock]),
    pub(super) encode_kv: unsafe fn(KvType, &[f32], &mut [u8], &mut [u8]),
}

/// The table of the backend whose `$token` proves that the CPU has its instructions: for each kernel a function that is
/// compiled for `$features`, makes a token by `$new`, and calls the generic algorithm.
///
/// `$new` is a call that needs `unsafe` unless its caller is compiled for the same features, so the compiler sees that
/// the two fit. Pointers to the functions are in this table alone.
macro_rules! kernels {
    ($backend:expr, $token:expr, $new:expr $(, $features:literal)?) => {{
        use $crate::arch::generic::job::Job;
        use $crate::arch::generic::{activations, attention, gemv_f16, matmul, norm};
        use $crate::arch::{Activation, Activations, KvType, F16Block, Kernels, SoftmaxState, QuantTile, Queries, QueryBlock, KvSpan, Write};
        use $crate::quant::Matrix;
        use $crate::storage::Tile;
        $(#[target_feature(enable = $features)])?
        fn quantise(x: &[f32], out: &mut QuantTile<'_>) {
            activations::quantise($new, x, out)
        }
        $(#[target_feature(enable = $features)])?
        fn to_f16(x: &[f32], out: &mut [F16Block]) {
            gemv_f16::to_f16($new, x, out)
        }
        $(#[target_feature(enable = $features)])?
        fn matmul(w: &Matrix<'_>, rows: core::ops::Range<usize>, x: &Activations<'_>, out: &mut Tile<'_, f32>, write: Write) {
            let mut job = matmul::job(w, rows, x, out, write);
            matmul::dispatch!(product, job, matmul::widens(w, x))
        }
        // Never part of the dispatch: compilers take much longer for one function of a hundred loops.
        $(#[target_feature(enable = $features)])?
        #[inline(never)]
        fn product<P: matmul::Product>(job: &mut Job<'_, '_, '_>) {
            P::multiply($new, job)
        }
        $(#[target_feature(enable = $features)])?
        fn rms_norm(x: &[f32], weight: &[u8], eps: f32, out: &mut [f32]) {
            norm::rms_norm($new, x, weight, eps, out)
        }
        $(#[target_feature(enable = $features)])?
        fn activate(activation: Activation, gate: &mut [f32], up: &[f32]) {
            norm::activate($new, activation, gate, up)
        }
        $(#[target_feature(enable = $features)])?
        fn attend(kv_type: KvType, q: &Queries<'_>, spans: &[KvSpan<'_>], out: &mut SoftmaxState<'_>) {
            attention::dispatch!(attend_elements, kv_type, q, spans, out)
        }
        $(#[target_feature(enable = $features)])?
        #[inline(never)]
        fn attend_elements<E: attention::kv_format::KvFormat>(q: &Queries<'_>, spans: &[KvSpan<'_>], out: &mut SoftmaxState<'_>) {
            attention::attend::<_, E>($new, q, spans, out)
        }
        $(#[target_feature(enable = $features)])?
        fn quantise_query(x: &[f32], head_dim: usize, out: &mut [QueryBlock]) {
            attention::kv_format::quantise_query($new, x, head_dim, out)
        }
        $(#[target_feature(enable = $features)])?
        fn encode_kv(kv_type: KvType, x: &[f32], out: &mut [u8], scale: &mut [u8]) {
            attention::kv_format::encode_row($new, kv_type, x, out, scale)
        }
        let (uses_f16_products, rows_at_once) = $crate::arch::kernels::capabilities($token);
        Kernels { backend: $backend, uses_f16_products, rows_at_once, quantise, to_f16, matmul, rms_norm, activate, attend, quantise_query, encode_kv }
    }};
}
pub(super) use kernels;

/// Whether an instruction set computes with binary16, and how many rows it multiplies at once with many tokens.
pub(super) fn capabilities<I: FloatIsa + PanelIsa>(_: I) -> (bool, usize) {
    (I::F16_PRODUCTS, I::PANELS * PANEL_ROWS)
}

impl Kernels {
    /// The most tokens of which [`uses_f16_products`](Kernels::uses_f16_products) can be true.
    pub const MAX_F16_TOKENS: usize = gemv_f16::MAX_TOKENS;

    /// Which backend this is.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Rows of weights that a kernel multiplies at once for so many tokens: tiles of a multiple of it are fastest.
    pub fn rows_at_once(&self, tokens: usize) -> usize {
        if tokens < matmul::MIN_TOKENS_TO_PACK { PANEL_ROWS } else { self.rows_at_once }
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
        let cols = x.len() / tokens.max(1);
        for_each_tile(exec, out.columns(0..cols / BLOCK, tokens), |token, mut tile| {
            self.quantise(x.row(token, cols), &mut tile);
        });
        out.view(cols / BLOCK, tokens)
    }

    /// Whether this CPU multiplies in binary16, and `tokens` are few enough to be multiplied with binary16 weights as
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
    /// little-endian f32, used in place in the file.
    pub fn rms_norm(&self, x: &[f32], weight: &[u8], eps: f32, out: &mut [f32]) {
        // SAFETY: as in `quantise`.
        unsafe { (self.rms_norm)(x, weight, eps, out) }
    }

    /// The gate of a feed-forward network: `gate = f(gate) · up` (Shazeer 2020, arXiv 2002.05202); `f(gate)` if `up` is
    /// empty.
    pub fn activate(&self, activation: Activation, gate: &mut [f32], up: &[f32]) {
        // SAFETY: as in `quantise`.
        unsafe { (self.activate)(activation, gate, up) }
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
