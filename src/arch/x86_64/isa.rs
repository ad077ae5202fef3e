//! The operations of [`Isa`] on AVX2, generic over the token.

use core::arch::x86_64::*;

use super::tokens::{Avx2, Avx2Token, simd};
use crate::arch::isa::F32x16;
use crate::arch::isa::{Isa, UnitIsa};
use crate::arch::unroll::{unroll, unroll_array};

/// The operations that differ between AVX2 and AVX-512: pairs of vectors, and dot products of int8.
pub(crate) trait AvxDot: Avx2Token {
    /// Two vectors of eight `f32`, in one register where that is as wide.
    type F32x16: F32x16<Self>;
    /// As [`Int8Isa::Decode`](crate::arch::isa::Int8Isa::Decode).
    type Decode: UnitIsa;

    fn decode(self) -> Self::Decode;

    /// The initial value of a row's sum of int8 products; `bias` is −8·Σx of all blocks.
    fn start_i8(self, bias: i32) -> __m256i;

    /// Adds the products of a block of 32 int8 with four others, in eight partial sums each.
    fn add_i8(self, w: &[__m256i; 4], x: __m256i, sums: [__m256i; 4]) -> [__m256i; 4];

    /// Dot products of a block of 32 int8 with four others within 0..=31, plus `bias`.
    fn dot4_nibbles(self, w: &[__m256i; 4], x: __m256i, bias: i32) -> __m128i;

    /// The products of a block of 32 int8 with four others within 0..=63, in eight partial sums each, four of each half,
    /// plus `bias` of the halves.
    fn products_of_halves(self, w: &[__m256i; 4], x: __m256i, bias: [i32; 2]) -> [__m256i; 4];
}

impl Avx2 {
    /// The sum of each of four vectors.
    #[inline(always)]
    pub(super) fn fold(self, v: [__m256i; 4]) -> __m128i {
        let s = self.fold_halves(v);
        simd!(self, _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256::<1>(s)))
    }

    /// Four rows of four words to four columns.
    #[inline(always)]
    pub(super) fn transpose_words(self, [a, b, c, d]: [__m128i; 4]) -> [__m128i; 4] {
        simd!(self, {
            let (ab0, ab1) = (_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
            let (cd0, cd1) = (_mm_unpacklo_epi32(c, d), _mm_unpackhi_epi32(c, d));
            [
                _mm_unpacklo_epi64(ab0, cd0),
                _mm_unpackhi_epi64(ab0, cd0),
                _mm_unpacklo_epi64(ab1, cd1),
                _mm_unpackhi_epi64(ab1, cd1),
            ]
        })
    }

    /// The sum of each half of four vectors, in the halves of one.
    #[inline(always)]
    pub(super) fn fold_halves(self, [a, b, c, d]: [__m256i; 4]) -> __m256i {
        simd!(self, {
            let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd))
        })
    }
}

impl<X: AvxDot> Isa for X {
    type F32x8 = __m256;
    type F32x16 = X::F32x16;
    type Sums = [__m256i; 4];

    #[inline(always)]
    fn prefetch(self, at: *const u8, bytes: usize) {
        for line in (0..bytes).step_by(64) {
            // A hint: no address makes it fault, and nothing is read.
            simd!(self, _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(line).cast()));
        }
    }
    #[inline(always)]
    fn prefetch_far(self, at: *const u8, bytes: usize) {
        for line in (0..bytes).step_by(64) {
            // A hint, as above.
            simd!(self, _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(line).cast()));
        }
    }
    #[inline(always)]
    fn splat8(self, x: f32) -> __m256 {
        simd!(self, _mm256_set1_ps(x))
    }
    #[inline(always)]
    fn load8(self, x: &[f32; 8]) -> __m256 {
        simd!(self, _mm256_loadu_ps(x.as_ptr()))
    }
    #[inline(always)]
    fn store8(self, x: __m256, out: &mut [f32; 8]) {
        simd!(self, _mm256_storeu_ps(out.as_mut_ptr(), x))
    }
    #[inline(always)]
    fn load8_f32(self, x: &[u8; 32]) -> __m256 {
        simd!(self, _mm256_loadu_ps(x.as_ptr().cast()))
    }
    #[inline(always)]
    fn load8_f16(self, x: &[u8; 16]) -> __m256 {
        simd!(self, _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn load8_bf16(self, x: &[u8; 16]) -> __m256 {
        simd!(
            self,
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().cast()))))
        )
    }
    #[inline(always)]
    fn load8_i8(self, x: &[u8; 8]) -> __m256 {
        simd!(self, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(x.as_ptr().cast()))))
    }
    #[inline(always)]
    fn store8_f16(self, x: __m256, out: &mut [u8; 16]) {
        simd!(self, _mm_storeu_si128(out.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x)))
    }
    #[inline(always)]
    fn add8(self, a: __m256, b: __m256) -> __m256 {
        simd!(self, _mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub8(self, a: __m256, b: __m256) -> __m256 {
        simd!(self, _mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul8(self, a: __m256, b: __m256) -> __m256 {
        simd!(self, _mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div8(self, a: __m256, b: __m256) -> __m256 {
        simd!(self, _mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn min8(self, a: __m256, b: __m256) -> __m256 {
        simd!(self, _mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn max8(self, a: __m256, b: __m256) -> __m256 {
        simd!(self, _mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn abs8(self, a: __m256) -> __m256 {
        simd!(self, _mm256_andnot_ps(_mm256_set1_ps(-0.0), a))
    }
    #[inline(always)]
    fn fma8(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        simd!(self, _mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn round8(self, a: __m256) -> __m256 {
        simd!(self, _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn ldexp8(self, x: __m256, n: __m256) -> __m256 {
        simd!(self, {
            let n = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), n))
        })
    }
    #[inline(always)]
    fn sum8(self, a: __m256) -> f32 {
        simd!(self, {
            let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }
    #[inline(always)]
    fn sum8x4(self, a: [__m256; 4]) -> [f32; 4] {
        simd!(self, {
            let a =
                unroll_array!(i in 0..4 => _mm_add_ps(_mm256_castps256_ps128(a[i]), _mm256_extractf128_ps::<1>(a[i])));
            let mut out = [0.0; 4];
            _mm_storeu_ps(out.as_mut_ptr(), _mm_hadd_ps(_mm_hadd_ps(a[0], a[1]), _mm_hadd_ps(a[2], a[3])));
            out
        })
    }
    #[inline(always)]
    fn hmax8(self, a: __m256) -> f32 {
        simd!(self, {
            let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        })
    }
    #[inline(always)]
    fn to_i8(self, x: [__m256; 4], out: &mut [i8; 32]) {
        simd!(self, {
            let [a, b, c, d] = unroll_array!(i in 0..4 => _mm256_cvtps_epi32(x[i]));
            // Packs work within 128-bit halves; the permutation puts the groups of four back in order.
            let bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm256_permutevar8x32_epi32(bytes, order))
        })
    }

    #[inline(always)]
    fn transpose8x4(self, [a, b, c, d]: [__m256; 4]) -> [__m128; 8] {
        simd!(self, {
            let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
            let (ab2, cd2) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
            // Columns i and i + 4.
            let pairs = [
                _mm256_shuffle_ps::<0x44>(ab, cd),
                _mm256_shuffle_ps::<0xee>(ab, cd),
                _mm256_shuffle_ps::<0x44>(ab2, cd2),
                _mm256_shuffle_ps::<0xee>(ab2, cd2),
            ];
            let [a, b, c, d] = unroll_array!(i in 0..4 => _mm256_castps256_ps128(pairs[i]));
            let [e, f, g, h] = unroll_array!(i in 0..4 => _mm256_extractf128_ps::<1>(pairs[i]));
            [a, b, c, d, e, f, g, h]
        })
    }
    #[inline(always)]
    fn load4(self, x: &[f32; 4]) -> __m128 {
        simd!(self, _mm_loadu_ps(x.as_ptr()))
    }
    #[inline(always)]
    fn store4(self, x: __m128) -> [f32; 4] {
        let mut out = [0.0; 4];
        simd!(self, _mm_storeu_ps(out.as_mut_ptr(), x));
        out
    }

    #[inline(always)]
    fn sums_i8(self, bias: i32) -> [__m256i; 4] {
        [self.start_i8(bias); 4]
    }
    #[inline(always)]
    fn add_i8(self, w: &[__m256i; 4], x: __m256i, sums: [__m256i; 4]) -> [__m256i; 4] {
        AvxDot::add_i8(self, w, x, sums)
    }
    #[inline(always)]
    fn fold_i8(self, sums: [__m256i; 4]) -> __m128 {
        simd!(self, _mm_cvtepi32_ps(self.avx2().fold(sums)))
    }
    #[inline(always)]
    fn transpose4(self, rows: [&[u8; 16]; 4]) -> [[u8; 16]; 4] {
        simd!(self, {
            let rows = unroll_array!(r in 0..4 => _mm_loadu_si128(rows[r].as_ptr().cast()));
            let words = self.avx2().transpose_words(rows);
            let mut out = [[0; 16]; 4];
            unroll!(k in 0..4 => { _mm_storeu_si128(out[k].as_mut_ptr().cast(), words[k]) });
            out
        })
    }
}
