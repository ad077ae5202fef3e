//! AVX2 with FMA and F16C.

use core::arch::x86_64::*;

use super::isa::AvxDot;
use super::tokens::{Avx2, simd};
use crate::arch::backend::Backend;
use crate::arch::f32x16::F32x8Pair;
use crate::arch::isa::{FloatIsa, Isa, PanelIsa};
use crate::arch::kernels::{Kernels, kernels};
use crate::arch::types::{Bytes, Nibbles, PanelScales, Sums, TokenBlock};
use crate::arch::unroll::{unroll, unroll_array};
use crate::quant::PANEL_ROWS;

/// The kernels, where the CPU can run them.
pub(in crate::arch) fn kernels() -> Option<Kernels> {
    Avx2::new().map(|token| kernels!(Backend::Avx2, token, Avx2::new_unchecked(), "avx2,fma,f16c"))
}

/// Sums of pairs of adjacent products, int16, of unsigned `a` and signed `b`, then of pairs of those, int32. No pair of
/// products exceeds int16: |a·b| ≤ 128·127.
#[inline(always)]
fn products(token: Avx2, a: __m256i, b: __m256i) -> __m256i {
    simd!(token, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
}

impl AvxDot for Avx2 {
    type F32x16 = F32x8Pair<Self>;
    type Decode = Self;

    #[inline(always)]
    fn decode(self) -> Self {
        self
    }
    /// Zero: signed weights need no correction.
    #[inline(always)]
    fn start_i8(self, _bias: i32) -> __m256i {
        simd!(self, _mm256_setzero_si256())
    }

    /// `maddubs` multiplies unsigned by signed: |w| by x with the sign of w. 2·128·127 fits int16.
    #[inline(always)]
    fn add_i8(self, w: &[__m256i; 4], x: __m256i, sums: [__m256i; 4]) -> [__m256i; 4] {
        simd!(
            self,
            unroll_array!(r in 0..4 => {
                _mm256_add_epi32(sums[r], products(self, _mm256_abs_epi8(w[r]), _mm256_sign_epi8(x, w[r])))
            })
        )
    }

    #[inline(always)]
    fn products_of_halves(self, w: &[__m256i; 4], x: __m256i, [a, b]: [i32; 2]) -> [__m256i; 4] {
        simd!(self, {
            let bias = _mm256_setr_epi32(a, 0, 0, 0, b, 0, 0, 0);
            unroll_array!(r in 0..4 => _mm256_add_epi32(products(self, w[r], x), bias))
        })
    }

    #[inline(always)]
    fn dot4_nibbles(self, w: &[__m256i; 4], x: __m256i, bias: i32) -> __m128i {
        simd!(self, {
            let sums = self.fold(unroll_array!(r in 0..4 => products(self, w[r], x)));
            _mm_add_epi32(sums, _mm_set1_epi32(bias))
        })
    }
}

impl FloatIsa for Avx2 {
    const ROWS: usize = 8;
    type Column = __m256;

    #[inline(always)]
    fn load_column<const R: usize>(self, x: &[f32; R]) -> __m256 {
        self.load8(x.first_chunk().unwrap_or(&[0.0; 8]))
    }
    #[inline(always)]
    fn store_column<const R: usize>(self, x: __m256, out: &mut [f32; R]) {
        if let Some(out) = out.first_chunk_mut() {
            self.store8(x, out);
        }
    }
    #[inline(always)]
    fn fma_columns(self, w: &[__m256; 4], x: &[f32; 4], acc: __m256) -> __m256 {
        let mut acc = acc;
        unroll!(c in 0..4 => { acc = self.fma8(w[c], self.splat8(x[c]), acc) });
        acc
    }
}

/// The four columns at 4k in all lanes.
#[inline(always)]
fn broadcast(token: Avx2, x: &[i8; 32], k: usize) -> __m256i {
    let four = x.as_chunks::<4>().0[k & 7].map(i8::cast_unsigned);
    simd!(token, _mm256_set1_epi32(i32::from_ne_bytes(four)))
}

/// Eight rows a group.
impl PanelIsa for Avx2 {
    const ROWS: usize = 8;
    const TOKENS: usize = 1;
    type Single = Self;
    type Weights = [__m256i; 8];
    type Dots = __m256i;
    type Scales = __m256;
    type Ints = __m256;
    type Acc = __m256;

    fn single(self) -> Self {
        self
    }
    #[inline(always)]
    fn int8(self, q: &Bytes, group: usize) -> [__m256i; 8] {
        let (pairs, _) = q.as_chunks::<2>();
        simd!(self, unroll_array!(k in 0..8 => _mm256_loadu_si256(pairs[2 * k + (group & 1)].as_ptr().cast())))
    }
    #[inline(always)]
    fn nibbles(self, n: &Nibbles, group: usize) -> [__m256i; 8] {
        let (pairs, _) = n.as_chunks::<2>();
        simd!(
            self,
            unroll_array!(k in 0..8 => {
                let n = _mm256_loadu_si256(pairs[2 * (k % 4) + (group & 1)].as_ptr().cast());
                let n = if k < 4 { n } else { _mm256_srli_epi16::<4>(n) };
                _mm256_and_si256(n, _mm256_set1_epi8(15))
            })
        )
    }
    #[inline(always)]
    fn scales(self, scales: &PanelScales, group: usize) -> __m256 {
        self.load8_f16(&scales.as_chunks::<16>().0[group & 1])
    }
    #[inline(always)]
    fn load<const T: usize>(self, sums: &[Sums; T], group: usize) -> __m256 {
        self.load8(&sums[0].as_chunks::<8>().0[group & 1])
    }
    #[inline(always)]
    fn store<const T: usize>(self, acc: __m256, sums: &mut [Sums; T], group: usize) {
        self.store8(acc, &mut sums[0].as_chunks_mut::<8>().0[group & 1]);
    }
    #[inline(always)]
    fn dot_int8<const T: usize>(self, w: &[__m256i; 8], x: &TokenBlock<'_, T>) -> __m256i {
        simd!(self, {
            let mut sum = _mm256_setzero_si256();
            unroll!(k in 0..8 => {
                let x = broadcast(self, &x.q[0], k);
                sum = _mm256_add_epi32(sum, products(self, _mm256_abs_epi8(w[k]), _mm256_sign_epi8(x, w[k])));
            });
            sum
        })
    }
    /// The int16 sums of pairs leave room for all eight: 8·2·15·127 = 30480.
    #[inline(always)]
    fn dot_nibbles<const T: usize>(self, w: &[__m256i; 8], x: &TokenBlock<'_, T>, offset: bool) -> __m256i {
        let bias = if offset { x.bias[0] } else { 0 };
        simd!(self, {
            let mut pairs = _mm256_setzero_si256();
            unroll!(k in 0..8 => {
                pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w[k], broadcast(self, &x.q[0], k)));
            });
            _mm256_add_epi32(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)), _mm256_set1_epi32(bias))
        })
    }
    #[inline(always)]
    fn weights_of<const INT8: bool>(self, q: [[__m256i; 8]; 2]) -> [__m256i; 8] {
        q[0]
    }
    #[inline(always)]
    fn scales_of(self, d: [__m128; 4]) -> __m256 {
        simd!(self, _mm256_set_m128(d[1], d[0]))
    }
    #[inline(always)]
    fn ints_of(self, x: [__m128i; 4]) -> __m256 {
        simd!(self, _mm256_cvtepi32_ps(_mm256_set_m128i(x[1], x[0])))
    }
    #[inline(always)]
    fn mul_scales(self, a: __m256, b: __m256) -> __m256 {
        self.mul8(a, b)
    }
    #[inline(always)]
    fn scales_f32(self, scales: &Sums, group: usize) -> __m256 {
        self.load8(&scales.as_chunks::<8>().0[group & 1])
    }
    /// The int16 sums of pairs leave room for four: 4·2·31·127 = 31496.
    #[inline(always)]
    fn dot_five<const T: usize>(self, w: &[__m256i; 8], x: &TokenBlock<'_, T>, offset: bool) -> __m256i {
        let bias = if offset { x.bias[0] } else { 0 };
        simd!(self, {
            let mut sums = [_mm256_setzero_si256(); 2];
            unroll!(k in 0..8 => {
                sums[k / 4] =
                    _mm256_add_epi16(sums[k / 4], _mm256_maddubs_epi16(w[k], broadcast(self, &x.q[0], k)));
            });
            let ones = _mm256_set1_epi16(1);
            let sum = _mm256_add_epi32(_mm256_madd_epi16(sums[0], ones), _mm256_madd_epi16(sums[1], ones));
            _mm256_add_epi32(sum, _mm256_set1_epi32(bias))
        })
    }
    #[inline(always)]
    fn ints(self, x: &[i32; PANEL_ROWS], group: usize) -> __m256 {
        let eight = &x.as_chunks::<8>().0[group & 1];
        simd!(self, _mm256_cvtepi32_ps(_mm256_loadu_si256(eight.as_ptr().cast())))
    }
    /// The int16 sums of pairs leave room for two: 2·2·63·127 = 32004.
    #[inline(always)]
    fn dot_halves<const T: usize>(self, w: &[__m256i; 8], x: &TokenBlock<'_, T>, offset: i32) -> [__m256i; 2] {
        simd!(self, {
            let mut pairs = [_mm256_setzero_si256(); 4];
            unroll!(k in 0..8 => {
                pairs[k / 2] =
                    _mm256_add_epi16(pairs[k / 2], _mm256_maddubs_epi16(w[k], broadcast(self, &x.q[0], k)));
            });
            let ones = _mm256_set1_epi16(1);
            unroll_array!(h in 0..2 => {
                let sum = _mm256_add_epi32(_mm256_madd_epi16(pairs[2 * h], ones), _mm256_madd_epi16(pairs[2 * h + 1], ones));
                _mm256_add_epi32(sum, _mm256_set1_epi32(-offset * x.halves[0][h]))
            })
        })
    }
    /// In `f32`, which has these integers exactly.
    #[inline(always)]
    fn add_halves<const T: usize>(
        self,
        acc: __m256,
        dots: [__m256i; 2],
        d: [__m256; 2],
        s: [__m256; 2],
        minima: Option<[__m256; 2]>,
        x: &TokenBlock<'_, T>,
    ) -> __m256 {
        simd!(self, {
            let first = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[0]), s[0]);
            let mut sum = _mm256_mul_ps(_mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[1]), s[1], first), d[0]);
            if let Some([a, b]) = minima {
                let [first, last] = x.halves[0];
                let first = _mm256_mul_ps(a, _mm256_set1_ps(first as f32));
                sum = _mm256_fmadd_ps(_mm256_fmadd_ps(b, _mm256_set1_ps(last as f32), first), d[1], sum);
            }
            _mm256_fmadd_ps(sum, _mm256_set1_ps(x.d[0]), acc)
        })
    }
    #[inline(always)]
    fn add<const T: usize>(self, acc: __m256, dots: __m256i, d: __m256, x: &[f32; T]) -> __m256 {
        simd!(self, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), _mm256_mul_ps(d, _mm256_set1_ps(x[0])), acc))
    }
    #[inline(always)]
    fn add_minima<const T: usize>(self, acc: __m256, m: __m256, x: &[f32; T]) -> __m256 {
        simd!(self, _mm256_fmadd_ps(m, _mm256_set1_ps(x[0]), acc))
    }
}
