//! AVX2 with FMA and F16C.

use core::arch::x86_64::*;

use super::tokens::Avx2;
use crate::arch::backend::Backend;
use crate::arch::f32x16::F32x8Pair;
use crate::arch::isa::{FloatIsa, Isa, PanelIsa};
use crate::arch::kernels::{Kernels, kernels};
use crate::arch::types::{Bytes, Nibbles, PanelScales, Sums, TokenBlock};
use crate::arch::unroll::{unroll, unroll_array};

/// The kernels, where the CPU can run them.
pub(in crate::arch) fn kernels() -> Option<Kernels> {
    Avx2::new().map(|token| kernels!(Backend::Avx2, token, Avx2::new_unchecked(), "avx2,fma,f16c"))
}

/// Every block relies on the same fact: a token exists only where its instructions do. Loads and stores go
/// through references to arrays of at least the vector's size.
macro_rules! simd {
    ($e:expr) => {
        // SAFETY: the token proves the instructions, and array references are valid for their size.
        unsafe { $e }
    };
}
pub(super) use simd;

/// Sums of pairs of adjacent products, int16, of unsigned `a` and signed `b`, then of pairs of those, int32.
///
/// # Safety
/// AVX2 is there, and no pair of products exceeds int16: |a·b| ≤ 128·127.
#[inline(always)]
unsafe fn products(a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the caller promises AVX2.
    unsafe { _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)) }
}

/// The sums of four vectors of int32.
///
/// # Safety
/// AVX2 is there.
#[inline(always)]
pub(super) unsafe fn fold([a, b, c, d]: [__m256i; 4]) -> __m128i {
    // SAFETY: the caller promises AVX2.
    unsafe {
        let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        let s = _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
        _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256::<1>(s))
    }
}

/// `maddubs` wants one unsigned factor: |w|, with w's sign given to x. 2·128·127 fits int16.
#[inline(always)]
fn add_i8(w: &[__m256i; 4], x: __m256i, sums: [__m256i; 4]) -> [__m256i; 4] {
    simd!(unroll_array!(r in 0..4 => {
        _mm256_add_epi32(sums[r], products(_mm256_abs_epi8(w[r]), _mm256_sign_epi8(x, w[r])))
    }))
}

/// Nothing is to be taken off: no factor was changed.
#[inline(always)]
fn sums_i8(_bias: i32) -> __m256i {
    simd!(_mm256_setzero_si256())
}

#[inline(always)]
fn dot4_nibbles(w: &[__m256i; 4], x: __m256i, bias: i32) -> __m128i {
    simd!(_mm_add_epi32(fold(unroll_array!(r in 0..4 => products(w[r], x))), _mm_set1_epi32(bias)))
}

/// An `Isa` of AVX2 operations, with a pair of vectors and the integer dot products of four rows given.
macro_rules! avx2_isa {
    ($token:ident, $pair:ty, $sums_i8:expr, $add_i8:expr, $dot4_nibbles:expr) => {
        impl Isa for $token {
            type F32x8 = __m256;
            type F32x16 = $pair;
            type F32x4 = __m128;
            type I8x32 = __m256i;
            type Sums = [__m256i; 4];

            #[inline(always)]
            fn prefetch(self, at: *const u8, bytes: usize) {
                for line in (0..bytes).step_by(64) {
                    // A hint: no address makes it fault.
                    simd!(_mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(line).cast()));
                }
            }
            #[inline(always)]
            fn prefetch_far(self, at: *const u8, bytes: usize) {
                for line in (0..bytes).step_by(64) {
                    // A hint, as above.
                    simd!(_mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(line).cast()));
                }
            }
            #[inline(always)]
            fn splat8(self, x: f32) -> __m256 {
                simd!(_mm256_set1_ps(x))
            }
            #[inline(always)]
            fn load8(self, x: &[f32; 8]) -> __m256 {
                simd!(_mm256_loadu_ps(x.as_ptr()))
            }
            #[inline(always)]
            fn store8(self, x: __m256, out: &mut [f32; 8]) {
                simd!(_mm256_storeu_ps(out.as_mut_ptr(), x))
            }
            #[inline(always)]
            fn load8_f32(self, x: &[u8; 32]) -> __m256 {
                simd!(_mm256_loadu_ps(x.as_ptr().cast()))
            }
            #[inline(always)]
            fn load8_f16(self, x: &[u8; 16]) -> __m256 {
                simd!(_mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())))
            }
            #[inline(always)]
            fn load8_bf16(self, x: &[u8; 16]) -> __m256 {
                simd!(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(
                    x.as_ptr().cast()
                )))))
            }
            #[inline(always)]
            fn load8_i8(self, x: &[u8; 8]) -> __m256 {
                simd!(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(x.as_ptr().cast()))))
            }
            #[inline(always)]
            fn store8_f16(self, x: __m256, out: &mut [u8; 16]) {
                simd!(_mm_storeu_si128(out.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x)))
            }
            #[inline(always)]
            fn add8(self, a: __m256, b: __m256) -> __m256 {
                simd!(_mm256_add_ps(a, b))
            }
            #[inline(always)]
            fn sub8(self, a: __m256, b: __m256) -> __m256 {
                simd!(_mm256_sub_ps(a, b))
            }
            #[inline(always)]
            fn mul8(self, a: __m256, b: __m256) -> __m256 {
                simd!(_mm256_mul_ps(a, b))
            }
            #[inline(always)]
            fn div8(self, a: __m256, b: __m256) -> __m256 {
                simd!(_mm256_div_ps(a, b))
            }
            #[inline(always)]
            fn min8(self, a: __m256, b: __m256) -> __m256 {
                simd!(_mm256_min_ps(a, b))
            }
            #[inline(always)]
            fn max8(self, a: __m256, b: __m256) -> __m256 {
                simd!(_mm256_max_ps(a, b))
            }
            #[inline(always)]
            fn abs8(self, a: __m256) -> __m256 {
                simd!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), a))
            }
            #[inline(always)]
            fn fma8(self, a: __m256, b: __m256, c: __m256) -> __m256 {
                simd!(_mm256_fmadd_ps(a, b, c))
            }
            #[inline(always)]
            fn round8(self, a: __m256) -> __m256 {
                simd!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
            }
            #[inline(always)]
            fn ldexp8(self, x: __m256, n: __m256) -> __m256 {
                simd!({
                    let n = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n));
                    _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), n))
                })
            }
            #[inline(always)]
            fn sum8(self, a: __m256) -> f32 {
                simd!({
                    let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
                })
            }
            #[inline(always)]
            fn sum8x4(self, a: [__m256; 4]) -> [f32; 4] {
                simd!({
                    let a = unroll_array!(i in 0..4 => _mm_add_ps(_mm256_castps256_ps128(a[i]), _mm256_extractf128_ps::<1>(a[i])));
                    let mut out = [0.0; 4];
                    _mm_storeu_ps(out.as_mut_ptr(), _mm_hadd_ps(_mm_hadd_ps(a[0], a[1]), _mm_hadd_ps(a[2], a[3])));
                    out
                })
            }
            #[inline(always)]
            fn hmax8(self, a: __m256) -> f32 {
                simd!({
                    let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                    let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
                    _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
                })
            }
            #[inline(always)]
            fn to_i8(self, x: [__m256; 4], out: &mut [i8; 32]) {
                simd!({
                    let [a, b, c, d] = unroll_array!(i in 0..4 => _mm256_cvtps_epi32(x[i]));
                    // Packs work within 128-bit halves; the permutation puts the groups of four back in order.
                    let bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
                    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
                    _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm256_permutevar8x32_epi32(bytes, order))
                })
            }

            #[inline(always)]
            fn transpose8x4(self, [a, b, c, d]: [__m256; 4]) -> [__m128; 8] {
                simd!({
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
            fn splat4(self, x: f32) -> __m128 {
                simd!(_mm_set1_ps(x))
            }
            #[inline(always)]
            fn load4(self, x: &[f32; 4]) -> __m128 {
                simd!(_mm_loadu_ps(x.as_ptr()))
            }
            #[inline(always)]
            fn store4(self, x: __m128) -> [f32; 4] {
                let mut out = [0.0; 4];
                simd!(_mm_storeu_ps(out.as_mut_ptr(), x));
                out
            }
            #[inline(always)]
            fn gather4_f16(self, x: [&[u8; 2]; 4]) -> __m128 {
                let [a, b, c, d] = x.map(|b| i32::from(u16::from_le_bytes(*b)));
                simd!({
                    let x = _mm_insert_epi16::<1>(_mm_cvtsi32_si128(a), b);
                    _mm_cvtph_ps(_mm_insert_epi16::<3>(_mm_insert_epi16::<2>(x, c), d))
                })
            }
            #[inline(always)]
            fn mul4(self, a: __m128, b: __m128) -> __m128 {
                simd!(_mm_mul_ps(a, b))
            }
            #[inline(always)]
            fn fma4(self, a: __m128, b: __m128, c: __m128) -> __m128 {
                simd!(_mm_fmadd_ps(a, b, c))
            }

            #[inline(always)]
            fn load_i8(self, x: &[i8; 32]) -> __m256i {
                simd!(_mm256_loadu_si256(x.as_ptr().cast()))
            }
            #[inline(always)]
            fn load_u8(self, x: &[u8; 32]) -> __m256i {
                simd!(_mm256_loadu_si256(x.as_ptr().cast()))
            }
            #[inline(always)]
            fn load_nibbles(self, x: &[u8; 16]) -> __m256i {
                simd!({
                    let x = _mm_loadu_si128(x.as_ptr().cast());
                    let both = _mm256_set_m128i(_mm_srli_epi16::<4>(x), x);
                    _mm256_and_si256(both, _mm256_set1_epi8(15))
                })
            }
            #[inline(always)]
            fn dot4_i8(self, w: &[__m256i; 4], x: __m256i, bias: i32) -> __m128 {
                self.fold_i8(self.add_i8(w, x, self.sums_i8(bias)))
            }
            #[inline(always)]
            fn sums_i8(self, bias: i32) -> [__m256i; 4] {
                [$sums_i8(bias); 4]
            }
            #[inline(always)]
            fn add_i8(self, w: &[__m256i; 4], x: __m256i, sums: [__m256i; 4]) -> [__m256i; 4] {
                $add_i8(w, x, sums)
            }
            #[inline(always)]
            fn fold_i8(self, sums: [__m256i; 4]) -> __m128 {
                simd!(_mm_cvtepi32_ps(fold(sums)))
            }
            #[inline(always)]
            fn dot4_nibbles(self, w: &[__m256i; 4], x: __m256i, bias: i32) -> __m128 {
                simd!(_mm_cvtepi32_ps($dot4_nibbles(w, x, bias)))
            }
            #[inline(always)]
            fn transpose4(self, rows: [&[u8; 16]; 4]) -> [[u8; 16]; 4] {
                simd!({
                    let [a, b, c, d] = unroll_array!(r in 0..4 => _mm_loadu_si128(rows[r].as_ptr().cast()));
                    let (ab0, ab1) = (_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
                    let (cd0, cd1) = (_mm_unpacklo_epi32(c, d), _mm_unpackhi_epi32(c, d));
                    let words = [
                        _mm_unpacklo_epi64(ab0, cd0),
                        _mm_unpackhi_epi64(ab0, cd0),
                        _mm_unpacklo_epi64(ab1, cd1),
                        _mm_unpackhi_epi64(ab1, cd1),
                    ];
                    let mut out = [[0; 16]; 4];
                    unroll!(k in 0..4 => { _mm_storeu_si128(out[k].as_mut_ptr().cast(), words[k]) });
                    out
                })
            }
        }
    };
}
pub(super) use avx2_isa;

avx2_isa!(Avx2, F32x8Pair<Self>, sums_i8, add_i8, dot4_nibbles);

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
///
/// # Safety
/// AVX2 is there, and `k` is below 8.
#[inline(always)]
unsafe fn broadcast(x: &[i8; 32], k: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_set1_epi32(x.as_ptr().cast::<i32>().add(k).read_unaligned()) }
}

/// Eight rows a group.
impl PanelIsa for Avx2 {
    const ROWS: usize = 8;
    const TOKENS: usize = 1;
    type Single = Self;
    type Weights = [__m256i; 8];
    type Dots = __m256i;
    type Scales = __m256;
    type Acc = __m256;

    fn single(self) -> Self {
        self
    }
    #[inline(always)]
    fn int8(self, q: &Bytes, group: usize) -> [__m256i; 8] {
        let (pairs, _) = q.as_chunks::<2>();
        simd!(unroll_array!(k in 0..8 => _mm256_loadu_si256(pairs[2 * k + (group & 1)].as_ptr().cast())))
    }
    #[inline(always)]
    fn nibbles(self, n: &Nibbles, group: usize) -> [__m256i; 8] {
        let (pairs, _) = n.as_chunks::<2>();
        simd!(unroll_array!(k in 0..8 => {
            let n = _mm256_loadu_si256(pairs[2 * (k % 4) + (group & 1)].as_ptr().cast());
            let n = if k < 4 { n } else { _mm256_srli_epi16::<4>(n) };
            _mm256_and_si256(n, _mm256_set1_epi8(15))
        }))
    }
    #[inline(always)]
    fn scales(self, halves: &PanelScales, group: usize) -> __m256 {
        self.load8_f16(&halves.as_chunks::<16>().0[group & 1])
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
        simd!({
            let mut sum = _mm256_setzero_si256();
            unroll!(k in 0..8 => {
                let x = broadcast(&x.q[0], k);
                sum = _mm256_add_epi32(sum, products(_mm256_abs_epi8(w[k]), _mm256_sign_epi8(x, w[k])));
            });
            sum
        })
    }
    /// The int16 sums of pairs leave room for all eight: 8·2·15·127 = 30480.
    #[inline(always)]
    fn dot_nibbles<const T: usize>(self, w: &[__m256i; 8], x: &TokenBlock<'_, T>, offset: bool) -> __m256i {
        let bias = if offset { x.bias[0] } else { 0 };
        simd!({
            let mut pairs = _mm256_setzero_si256();
            unroll!(k in 0..8 => {
                pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w[k], broadcast(&x.q[0], k)));
            });
            _mm256_add_epi32(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)), _mm256_set1_epi32(bias))
        })
    }
    #[inline(always)]
    fn add<const T: usize>(self, acc: __m256, dots: __m256i, d: __m256, x: &[f32; T]) -> __m256 {
        simd!(_mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), _mm256_mul_ps(d, _mm256_set1_ps(x[0])), acc))
    }
    #[inline(always)]
    fn add_minima<const T: usize>(self, acc: __m256, m: __m256, x: &[f32; T]) -> __m256 {
        simd!(_mm256_fmadd_ps(m, _mm256_set1_ps(x[0]), acc))
    }
}
