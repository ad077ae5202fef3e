//! AVX-512 with VNNI: the AVX2 operations with 32 registers, and one instruction for 64 products.

use core::arch::x86_64::*;

use super::eight_rows::EightRows;
use super::isa::AvxDot;
use super::tokens::{Avx2Token, Avx512, simd};
use crate::arch::backend::Backend;
use crate::arch::isa::{F32x16, FloatIsa, PanelIsa};
use crate::arch::kernels::{Kernels, kernels};
use crate::arch::types::{Bytes, Nibbles, PanelScales, Sums, TokenBlock};
use crate::arch::unroll::{unroll, unroll_array};
use crate::quant::PANEL_ROWS;

/// The kernels, where the CPU can run them.
pub(in crate::arch) fn kernels() -> Option<Kernels> {
    Avx512::new().map(|token| {
        kernels!(Backend::Avx512, token, Avx512::new_unchecked(), "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")
    })
}

/// `vpdpbusd` multiplies unsigned by signed. Flipping the top bit of int8 weights makes them unsigned and adds 128 to
/// each; the activations' bias, −8·Σx, times 16 removes that from the sum.
const FLIP: i8 = -128;

impl AvxDot for Avx512 {
    type F32x16 = __m512;
    type Decode = EightRows;

    #[inline(always)]
    fn decode(self) -> EightRows {
        EightRows(self)
    }
    #[inline(always)]
    fn start_i8(self, bias: i32) -> __m256i {
        start(self, bias << 4)
    }

    #[inline(always)]
    fn add_i8(self, w: &[__m256i; 4], x: __m256i, sums: [__m256i; 4]) -> [__m256i; 4] {
        simd!(
            self,
            unroll_array!(r in 0..4 => {
                _mm256_dpbusd_epi32(sums[r], _mm256_xor_si256(w[r], _mm256_set1_epi8(FLIP)), x)
            })
        )
    }

    #[inline(always)]
    fn products_of_halves(self, w: &[__m256i; 4], x: __m256i, [a, b]: [i32; 2]) -> [__m256i; 4] {
        simd!(self, {
            let start = _mm256_setr_epi32(a, 0, 0, 0, b, 0, 0, 0);
            unroll_array!(r in 0..4 => _mm256_dpbusd_epi32(start, w[r], x))
        })
    }

    #[inline(always)]
    fn dot4_nibbles(self, w: &[__m256i; 4], x: __m256i, bias: i32) -> __m128i {
        let dots = simd!(self, unroll_array!(r in 0..4 => _mm256_dpbusd_epi32(start(self, bias), w[r], x)));
        self.avx2().fold(dots)
    }
}

/// `bias` in one of the eight partial sums.
#[inline(always)]
fn start(token: Avx512, bias: i32) -> __m256i {
    simd!(token, _mm256_zextsi128_si256(_mm_cvtsi32_si128(bias)))
}

/// The first vector is the low half.
impl F32x16<Avx512> for __m512 {
    const WIDE: bool = true;

    #[inline(always)]
    fn splat(token: Avx512, x: f32) -> __m512 {
        simd!(token, _mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(token: Avx512, [a, b]: [&[f32; 8]; 2]) -> __m512 {
        simd!(token, join(token, _mm256_loadu_ps(a.as_ptr()), _mm256_loadu_ps(b.as_ptr())))
    }
    #[inline(always)]
    fn load_f32(token: Avx512, [a, b]: [&[u8; 32]; 2]) -> __m512 {
        simd!(token, join(token, _mm256_loadu_ps(a.as_ptr().cast()), _mm256_loadu_ps(b.as_ptr().cast())))
    }
    #[inline(always)]
    fn load_f16(token: Avx512, [a, b]: [&[u8; 16]; 2]) -> __m512 {
        simd!(token, {
            let (a, b) = (_mm_loadu_si128(a.as_ptr().cast()), _mm_loadu_si128(b.as_ptr().cast()));
            _mm512_cvtph_ps(_mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b))
        })
    }
    #[inline(always)]
    fn load_i8(token: Avx512, [a, b]: [&[u8; 8]; 2]) -> __m512 {
        simd!(token, {
            let (a, b) = (_mm_loadl_epi64(a.as_ptr().cast()), _mm_loadl_epi64(b.as_ptr().cast()));
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_unpacklo_epi64(a, b)))
        })
    }
    #[inline(always)]
    fn first(self, token: Avx512) -> __m256 {
        simd!(token, _mm512_castps512_ps256(self))
    }
    #[inline(always)]
    fn store(self, token: Avx512, out: &mut [[f32; 8]]) {
        let out = out.as_flattened_mut();
        if let Some(out) = out.first_chunk_mut::<16>() {
            simd!(token, _mm512_storeu_ps(out.as_mut_ptr(), self))
        } else if let Some(out) = out.first_chunk_mut::<8>() {
            simd!(token, _mm256_storeu_ps(out.as_mut_ptr(), _mm512_castps512_ps256(self)))
        }
    }
    #[inline(always)]
    fn mul(self, token: Avx512, b: __m512) -> __m512 {
        simd!(token, _mm512_mul_ps(self, b))
    }
    #[inline(always)]
    fn fma(self, token: Avx512, b: __m512, c: __m512) -> __m512 {
        simd!(token, _mm512_fmadd_ps(self, b, c))
    }
    #[inline(always)]
    fn fma_lane<const LANE: i32>(self, token: Avx512, b: &[f32; 4], c: __m512) -> __m512 {
        simd!(token, _mm512_fmadd_ps(self, _mm512_set1_ps(b[LANE as usize]), c))
    }
    #[inline(always)]
    fn sums(token: Avx512, [a, b, c, d]: [__m512; 4]) -> [f32; 8] {
        simd!(token, {
            // Lanes i and i + 4 of a vector, the four vectors of two pairs side by side.
            let (ab, cd) = (
                _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b)),
                _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d)),
            );
            // Neighbours, then neighbours of these: in the end each 128 bits hold a sum of `ab` and one of `cd`.
            let two = _mm512_add_ps(_mm512_shuffle_ps::<0x88>(ab, cd), _mm512_shuffle_ps::<0xdd>(ab, cd));
            let one = _mm512_add_ps(two, _mm512_movehdup_ps(two));
            let order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
            let mut out = [0.0; 8];
            let eight = _mm512_castps512_ps256(_mm512_permutexvar_ps(order, one));
            _mm256_storeu_ps(out.as_mut_ptr(), eight);
            out
        })
    }
}

/// `a` in the low half, `b` in the high one.
#[inline(always)]
fn join(token: Avx512, a: __m256, b: __m256) -> __m512 {
    simd!(token, {
        let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
        _mm512_castpd_ps(_mm512_insertf64x4::<1>(_mm512_castpd256_pd512(a), b))
    })
}

impl FloatIsa for Avx512 {
    const ROWS: usize = 16;
    type Column = __m512;

    #[inline(always)]
    fn load_column<const R: usize>(self, x: &[f32; R]) -> __m512 {
        let x = x.first_chunk().unwrap_or(&[0.0; 16]);
        simd!(self, _mm512_loadu_ps(x.as_ptr()))
    }
    #[inline(always)]
    fn store_column<const R: usize>(self, x: __m512, out: &mut [f32; R]) {
        if let Some(out) = out.first_chunk_mut::<16>() {
            simd!(self, _mm512_storeu_ps(out.as_mut_ptr(), x))
        }
    }
    /// The multiplication broadcasts an activation from memory, which saves a register.
    #[inline(always)]
    fn fma_columns(self, w: &[__m512; 4], x: &[f32; 4], acc: __m512) -> __m512 {
        let mut acc = acc;
        unroll!(c in 0..4 => { acc = simd!(self, _mm512_fmadd_ps(w[c], _mm512_set1_ps(x[c]), acc)) });
        acc
    }
}

impl Avx512 {
    /// Products of sixteen rows of unsigned weights with a token, plus `bias`.
    #[inline(always)]
    fn dot(self, w: &[__m512i; 8], x: &[i8; 32], bias: i32) -> __m512i {
        let x = x.as_chunks::<4>().0;
        simd!(self, {
            let mut sum = _mm512_set1_epi32(bias);
            unroll!(k in 0..8 => {
                let four = i32::from_ne_bytes(x[k].map(i8::cast_unsigned));
                sum = _mm512_dpbusd_epi32(sum, w[k], _mm512_set1_epi32(four));
            });
            sum
        })
    }

    /// Rows `r`, `r + 4`, `r + 8` and `r + 12`.
    #[inline(always)]
    fn every_fourth(self, rows: [&[u8; 16]; PANEL_ROWS], r: usize) -> __m512i {
        simd!(self, {
            let four = unroll_array!(i in 0..4 => _mm_loadu_si128(rows[4 * i + r].as_ptr().cast()));
            let x = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(four[0]), four[1]);
            _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(x, four[2]), four[3])
        })
    }
}

/// All rows of a panel in one group, and two panels at once.
impl PanelIsa for Avx512 {
    const ROWS: usize = 16;
    const TOKENS: usize = 1;
    const PANELS: usize = 2;
    type Single = Self;
    type Weights = [__m512i; 8];
    type Dots = __m512i;
    type Scales = __m512;
    type Ints = __m512;
    type Acc = __m512;

    fn single(self) -> Self {
        self
    }
    /// Lane i holds rows 4i to 4i + 3, so that one transposition within lanes serves all rows.
    #[inline(always)]
    fn transpose16(self, rows: [&[u8; 16]; PANEL_ROWS]) -> [u8; 256] {
        let [a, b, c, d] = unroll_array!(r in 0..4 => self.every_fourth(rows, r));
        simd!(self, {
            let (ab0, ab1) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd0, cd1) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            let words = [
                _mm512_unpacklo_epi64(ab0, cd0),
                _mm512_unpackhi_epi64(ab0, cd0),
                _mm512_unpacklo_epi64(ab1, cd1),
                _mm512_unpackhi_epi64(ab1, cd1),
            ];
            let mut out = [0; 256];
            let lines = out.as_chunks_mut::<64>().0;
            unroll!(k in 0..4 => { _mm512_storeu_si512(lines[k].as_mut_ptr().cast(), words[k]) });
            out
        })
    }
    #[inline(always)]
    fn interleave_scales(self, rows: [&[u8; 16]; PANEL_ROWS]) -> [PanelScales; 2] {
        let [a, b, c, d] = unroll_array!(r in 0..4 => self.every_fourth(rows, r));
        simd!(self, {
            let first = _mm512_unpacklo_epi64(_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
            let mut out = [[0; 32]; 2];
            _mm256_storeu_si256(out[0].as_mut_ptr().cast(), _mm512_cvtepi32_epi16(first));
            _mm256_storeu_si256(out[1].as_mut_ptr().cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(first)));
            out
        })
    }
    /// Made unsigned by flipping the top bit.
    #[inline(always)]
    fn int8(self, q: &Bytes, _group: usize) -> [__m512i; 8] {
        let (rows, _) = q.as_chunks::<4>();
        simd!(
            self,
            unroll_array!(k in 0..8 => {
                _mm512_xor_si512(_mm512_loadu_si512(rows[k].as_ptr().cast()), _mm512_set1_epi8(FLIP))
            })
        )
    }
    #[inline(always)]
    fn nibbles(self, n: &Nibbles, _group: usize) -> [__m512i; 8] {
        let (rows, _) = n.as_chunks::<4>();
        simd!(
            self,
            unroll_array!(k in 0..8 => {
                let n = _mm512_loadu_si512(rows[k % 4].as_ptr().cast());
                let n = if k < 4 { n } else { _mm512_srli_epi16::<4>(n) };
                _mm512_and_si512(n, _mm512_set1_epi8(15))
            })
        )
    }
    #[inline(always)]
    fn scales(self, scales: &PanelScales, _group: usize) -> __m512 {
        simd!(self, _mm512_cvtph_ps(_mm256_loadu_si256(scales.as_ptr().cast())))
    }
    #[inline(always)]
    fn load<const T: usize>(self, sums: &[Sums; T], _group: usize) -> __m512 {
        simd!(self, _mm512_loadu_ps(sums[0].as_ptr()))
    }
    #[inline(always)]
    fn store<const T: usize>(self, acc: __m512, sums: &mut [Sums; T], _group: usize) {
        simd!(self, _mm512_storeu_ps(sums[0].as_mut_ptr(), acc))
    }
    #[inline(always)]
    fn dot_int8<const T: usize>(self, w: &[__m512i; 8], x: &TokenBlock<'_, T>) -> __m512i {
        self.dot(w, &x.q[0], x.bias[0] << 4)
    }
    #[inline(always)]
    fn dot_nibbles<const T: usize>(self, w: &[__m512i; 8], x: &TokenBlock<'_, T>, offset: bool) -> __m512i {
        self.dot(w, &x.q[0], if offset { x.bias[0] } else { 0 })
    }
    #[inline(always)]
    fn small(self, q: &Bytes, _group: usize) -> [__m512i; 8] {
        let (rows, _) = q.as_chunks::<4>();
        simd!(self, unroll_array!(k in 0..8 => _mm512_loadu_si512(rows[k].as_ptr().cast())))
    }
    #[inline(always)]
    fn weights_of<const INT8: bool>(self, q: [[__m256i; 8]; 2]) -> [__m512i; 8] {
        simd!(
            self,
            unroll_array!(k in 0..8 => {
                let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(q[0][k]), q[1][k]);
                _mm512_xor_si512(both, _mm512_set1_epi8(if INT8 { FLIP } else { 0 }))
            })
        )
    }
    #[inline(always)]
    fn scales_of(self, d: [__m128; 4]) -> __m512 {
        simd!(self, join(self, _mm256_set_m128(d[1], d[0]), _mm256_set_m128(d[3], d[2])))
    }
    #[inline(always)]
    fn ints_of(self, x: [__m128i; 4]) -> __m512 {
        simd!(self, {
            let (low, high) = (_mm256_set_m128i(x[1], x[0]), _mm256_set_m128i(x[3], x[2]));
            _mm512_cvtepi32_ps(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high))
        })
    }
    #[inline(always)]
    fn mul_scales(self, a: __m512, b: __m512) -> __m512 {
        simd!(self, _mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn scales_f32(self, scales: &Sums, _group: usize) -> __m512 {
        simd!(self, _mm512_loadu_ps(scales.as_ptr()))
    }
    #[inline(always)]
    fn dot_five<const T: usize>(self, w: &[__m512i; 8], x: &TokenBlock<'_, T>, offset: bool) -> __m512i {
        self.dot_nibbles(w, x, offset)
    }
    #[inline(always)]
    fn ints(self, x: &[i32; PANEL_ROWS], _group: usize) -> __m512 {
        simd!(self, _mm512_cvtepi32_ps(_mm512_loadu_si512(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn dot_halves<const T: usize>(self, w: &[__m512i; 8], x: &TokenBlock<'_, T>, offset: i32) -> [__m512i; 2] {
        let q = x.q[0].as_chunks::<4>().0;
        simd!(self, {
            let mut sums = unroll_array!(h in 0..2 => _mm512_set1_epi32(-offset * x.halves[0][h]));
            unroll!(k in 0..8 => {
                let four = i32::from_ne_bytes(q[k].map(i8::cast_unsigned));
                sums[k / 4] = _mm512_dpbusd_epi32(sums[k / 4], w[k], _mm512_set1_epi32(four));
            });
            sums
        })
    }
    /// In `f32`, which has these integers exactly.
    #[inline(always)]
    fn add_halves<const T: usize>(
        self,
        acc: __m512,
        dots: [__m512i; 2],
        d: [__m512; 2],
        s: [__m512; 2],
        minima: Option<[__m512; 2]>,
        x: &TokenBlock<'_, T>,
    ) -> __m512 {
        simd!(self, {
            let first = _mm512_mul_ps(_mm512_cvtepi32_ps(dots[0]), s[0]);
            let mut sum = _mm512_mul_ps(_mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[1]), s[1], first), d[0]);
            if let Some([a, b]) = minima {
                let [first, last] = x.halves[0];
                let first = _mm512_mul_ps(a, _mm512_set1_ps(first as f32));
                sum = _mm512_fmadd_ps(_mm512_fmadd_ps(b, _mm512_set1_ps(last as f32), first), d[1], sum);
            }
            _mm512_fmadd_ps(sum, _mm512_set1_ps(x.d[0]), acc)
        })
    }
    #[inline(always)]
    fn add<const T: usize>(self, acc: __m512, dots: __m512i, d: __m512, x: &[f32; T]) -> __m512 {
        simd!(self, _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), _mm512_mul_ps(d, _mm512_set1_ps(x[0])), acc))
    }
    #[inline(always)]
    fn add_minima<const T: usize>(self, acc: __m512, m: __m512, x: &[f32; T]) -> __m512 {
        simd!(self, _mm512_fmadd_ps(m, _mm512_set1_ps(x[0]), acc))
    }
}
