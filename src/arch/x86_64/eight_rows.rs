//! The operations of [`UnitIsa`] for eight rows at a time: a register of 512 bits has 32 columns of two of them.
//!
//! Rows r and r + 4 share a register, so that sums fold for both by the instructions of one, and a register of 256 bits has a
//! number of each row.

use core::arch::x86_64::*;

use super::tokens::{Avx2, Avx2Token, Avx512, simd};
use crate::arch::isa::{At, Field, Form, Order, UnitIsa, at, bias, last};
use crate::arch::types::{BlockQuad, ROWS};
use crate::arch::unroll::unroll_array;

/// Proof that the CPU has what [`Avx512`] says.
#[derive(Clone, Copy)]
pub(crate) struct EightRows(pub(super) Avx512);

impl Avx2Token for EightRows {
    #[inline(always)]
    fn avx2(self) -> Avx2 {
        self.0.avx2()
    }
}

/// int8 weights with the top bit flipped, and so 128 more.
const UNSIGNED: Form = Form::less(-128);

impl EightRows {
    /// One row in the low half, one in the high.
    #[inline(always)]
    fn pair(self, a: __m256i, b: __m256i) -> __m512i {
        simd!(self, _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b))
    }

    /// A bit of a word to each byte: those of the first in the low half.
    #[inline(always)]
    fn mask(self, [a, b]: [&[u8; 4]; 2]) -> __mmask64 {
        u64::from(u32::from_le_bytes(*a)) | u64::from(u32::from_le_bytes(*b)) << 32
    }

    /// The nibbles of 16 bytes of each row, and 16 above each where the row's word has a bit.
    #[inline(always)]
    fn nibbles_and_bits(self, nibbles: [&[u8; 16]; 2], bits: [&[u8; 4]; 2]) -> __m512i {
        let nibbles = self.load_nibbles(nibbles);
        simd!(self, _mm512_mask_add_epi8(nibbles, self.mask(bits), nibbles, _mm512_set1_epi8(16)))
    }

    /// A word of each row.
    #[inline(always)]
    fn words(self, x: [[&[u8; 4]; 2]; ROWS]) -> __m256i {
        let [a, b, c, d] = unroll_array!(r in 0..4 => x[r].map(|x| i32::from_le_bytes(*x)));
        simd!(self, _mm256_setr_epi32(a[0], b[0], c[0], d[0], a[1], b[1], c[1], d[1]))
    }

    /// Products of unsigned quants in four columns each, added to `start`.
    #[inline(always)]
    fn products(self, w: &[__m512i; ROWS], x: __m512i, start: __m512i) -> [__m512i; ROWS] {
        simd!(self, unroll_array!(r in 0..4 => _mm512_dpbusd_epi32(start, w[r], x)))
    }

    /// The sums of neighbours in two vectors of words within 16 bits, those of the first in the low half of each 128 bits.
    #[inline(always)]
    fn add_pairs(self, a: __m512i, b: __m512i) -> __m512i {
        simd!(self, _mm512_madd_epi16(_mm512_packs_epi32(a, b), _mm512_set1_epi16(1)))
    }

    /// The even parts of 128 bits, and the odd ones.
    #[inline(always)]
    fn parts(self, x: __m512i) -> [__m256i; 2] {
        simd!(self, {
            [
                _mm512_castsi512_si256(_mm512_shuffle_i32x4::<0x88>(x, x)),
                _mm512_castsi512_si256(_mm512_shuffle_i32x4::<0xdd>(x, x)),
            ]
        })
    }
}

impl UnitIsa for EightRows {
    type F32x4 = __m256;
    type I8x32 = __m512i;
    type U32x4 = __m256i;
    type Stored = [f32; 8];
    type Places = [[*const u8; ROWS]; 2];

    #[inline(always)]
    fn splat4(self, x: f32) -> __m256 {
        simd!(self, _mm256_set1_ps(x))
    }
    #[inline(always)]
    fn gather4_f16(self, x: [At<'_, Self, [u8; 2]>; ROWS]) -> __m256 {
        let [a, b, c, d] = unroll_array!(r in 0..4 => x[r].map(|x| i32::from(u16::from_le_bytes(*x))));
        simd!(self, {
            let low = _mm_insert_epi16::<1>(_mm_cvtsi32_si128(a[0]), b[0]);
            let low = _mm_insert_epi16::<3>(_mm_insert_epi16::<2>(low, c[0]), d[0]);
            let high = _mm_insert_epi16::<1>(_mm_cvtsi32_si128(a[1]), b[1]);
            let high = _mm_insert_epi16::<3>(_mm_insert_epi16::<2>(high, c[1]), d[1]);
            _mm256_cvtph_ps(_mm_unpacklo_epi64(low, high))
        })
    }
    #[inline(always)]
    fn stored(self, x: __m256) -> [f32; 8] {
        let mut out = [0.0; 8];
        simd!(self, _mm256_storeu_ps(out.as_mut_ptr(), x));
        out
    }
    #[inline(always)]
    fn mul4(self, a: __m256, b: __m256) -> __m256 {
        simd!(self, _mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn fma4(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        simd!(self, _mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; 32]) -> __m512i {
        simd!(self, _mm512_broadcast_i64x4(_mm256_loadu_si256(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn load_u8(self, [a, b]: At<'_, Self, [u8; 32]>) -> __m512i {
        simd!(self, self.pair(_mm256_loadu_si256(a.as_ptr().cast()), _mm256_loadu_si256(b.as_ptr().cast())))
    }
    #[inline(always)]
    fn load_twice(self, [a, b]: At<'_, Self, [u8; 16]>) -> __m512i {
        simd!(self, {
            let a = _mm256_broadcastsi128_si256(_mm_loadu_si128(a.as_ptr().cast()));
            let b = _mm256_broadcastsi128_si256(_mm_loadu_si128(b.as_ptr().cast()));
            self.pair(a, b)
        })
    }
    #[inline(always)]
    fn load_and_repeat(self, x: At<'_, Self, [u8; 20]>) -> __m512i {
        let [a, b] = unroll_array!(h in 0..2 => simd!(self, {
            let word = _mm_set1_epi32(i32::from_le_bytes(*last(x[h])));
            _mm256_set_m128i(word, _mm_loadu_si128(x[h].as_ptr().cast()))
        }));
        self.pair(a, b)
    }
    #[inline(always)]
    fn load_nibbles(self, [a, b]: At<'_, Self, [u8; 16]>) -> __m512i {
        simd!(self, {
            let a = _mm256_broadcastsi128_si256(_mm_loadu_si128(a.as_ptr().cast()));
            let b = _mm256_broadcastsi128_si256(_mm_loadu_si128(b.as_ptr().cast()));
            let twice = self.pair(a, b);
            // The odd 128 bits.
            let split = _mm512_mask_srli_epi16::<4>(twice, 0xff00_ff00, twice);
            _mm512_and_si512(split, _mm512_set1_epi8(15))
        })
    }
    #[inline(always)]
    fn dot4_i8(self, w: &[__m512i; ROWS], x: __m512i, bias: i32) -> __m256 {
        self.dot4_levels(w, Form::PLAIN, x, bias)
    }
    /// Flipping the top bit makes weights unsigned and adds 128 to each; the activations' bias, −8·Σx, times 16 removes that.
    #[inline(always)]
    fn dot4_levels(self, w: &[__m512i; ROWS], form: Form, x: __m512i, bias: i32) -> __m256 {
        simd!(self, {
            let flip = if form == UNSIGNED { 0 } else { -128 };
            let w = unroll_array!(r in 0..4 => _mm512_xor_si512(w[r], _mm512_set1_epi8(flip)));
            let [a, b, c, d] = self.products(&w, x, _mm512_setzero_si512());
            let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            let abcd = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
            let [low, high] = self.parts(abcd);
            _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_add_epi32(low, high), _mm256_set1_epi32(bias << 4)))
        })
    }
    /// Four products of 31 and 127, and twice as many, are within 16 bits.
    #[inline(always)]
    fn dot4_nibbles(self, w: &[__m512i; ROWS], x: __m512i, bias: i32) -> __m256 {
        simd!(self, {
            let [a, b, c, d] = self.products(w, x, _mm512_setzero_si512());
            let [low, high] = self.parts(self.add_pairs(self.add_pairs(a, b), self.add_pairs(c, d)));
            _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_add_epi32(low, high), _mm256_set1_epi32(bias)))
        })
    }

    #[inline(always)]
    fn field(self, x: __m512i, Field { at, bits }: Field) -> __m512i {
        simd!(self, {
            let x = if at == 0 { x } else { _mm512_srl_epi16(x, _mm_cvtsi32_si128(at as i32)) };
            _mm512_and_si512(x, _mm512_set1_epi8(((1 << bits) - 1) as i8))
        })
    }
    /// The field of `high` is masked where it belongs.
    #[inline(always)]
    fn join(self, low: __m512i, l: Field, high: __m512i, h: Field) -> __m512i {
        simd!(self, {
            let high = if h.at >= l.bits {
                _mm512_srl_epi16(high, _mm_cvtsi32_si128((h.at - l.bits) as i32))
            } else {
                _mm512_sll_epi16(high, _mm_cvtsi32_si128((l.bits - h.at) as i32))
            };
            let mask = ((1 << h.bits) - 1) << l.bits;
            _mm512_or_si512(self.field(low, l), _mm512_and_si512(high, _mm512_set1_epi8(mask as i8)))
        })
    }
    #[inline(always)]
    fn lookup(self, levels: &[i8; 16], x: __m512i) -> __m512i {
        simd!(self, _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(levels.as_ptr().cast())), x))
    }
    /// Unsigned, as the products want them.
    #[inline(always)]
    fn lookup_i8(self, levels: &[i8; 16], x: __m512i) -> (__m512i, Form) {
        simd!(self, {
            let levels = _mm_xor_si128(_mm_loadu_si128(levels.as_ptr().cast()), _mm_set1_epi8(-128));
            (_mm512_shuffle_epi8(_mm512_broadcast_i32x4(levels), x), UNSIGNED)
        })
    }
    /// Unsigned, as the products want them.
    #[inline(always)]
    fn lookup_fp4(self, levels: &[i8; 16], x: __m512i) -> (__m512i, Form) {
        simd!(self, {
            let levels = _mm_add_epi8(_mm_loadu_si128(levels.as_ptr().cast()), _mm_set1_epi8(12));
            (_mm512_shuffle_epi8(_mm512_broadcast_i32x4(levels), x), Form::PLAIN)
        })
    }
    #[inline(always)]
    fn bits(self, x: At<'_, Self, [u8; 16]>, u: usize) -> __m512i {
        let mask = self.mask(at::<Self, _, _>(x, 4 * (u & 3)));
        simd!(self, _mm512_maskz_set1_epi8(mask, 1))
    }
    /// A byte to each word, and its fields to the bytes of the word.
    #[inline(always)]
    fn crumbs(self, step: BlockQuad<'_, '_, [u8; 18], Self::Places>) -> ([[__m512i; ROWS]; 2], Form, __m256) {
        let blocks = step.blocks();
        let d = self.gather4_f16(unroll_array!(r in 0..4 => at::<Self, _, _>(blocks[r], 0)));
        let q = unroll_array!(u in 0..2 => unroll_array!(r in 0..4 => {
            let [a, b]: [&[u8; 8]; 2] = at::<Self, _, _>(blocks[r], 2 + 8 * u);
            simd!(self, {
                let both = _mm_unpacklo_epi64(_mm_loadl_epi64(a.as_ptr().cast()), _mm_loadl_epi64(b.as_ptr().cast()));
                let x = _mm512_cvtepu8_epi32(both);
                let x = _mm512_or_si512(x, _mm512_slli_epi32::<12>(x));
                let x = _mm512_or_si512(x, _mm512_slli_epi32::<6>(x));
                _mm512_and_si512(x, _mm512_set1_epi8(3))
            })
        }));
        (q, Form::PLAIN, d)
    }
    #[inline(always)]
    fn fives(self, step: BlockQuad<'_, '_, [u8; 22], Self::Places>) -> ([__m512i; ROWS], Form, __m256) {
        let blocks = step.blocks();
        let d = self.gather4_f16(unroll_array!(r in 0..4 => at::<Self, _, _>(blocks[r], 0)));
        let q = unroll_array!(r in 0..4 => {
            self.nibbles_and_bits(at::<Self, _, _>(blocks[r], 6), at::<Self, _, _>(blocks[r], 2))
        });
        (q, Form::PLAIN, d)
    }
    #[inline(always)]
    fn fives_min(self, step: BlockQuad<'_, '_, [u8; 24], Self::Places>) -> ([__m512i; ROWS], Form, [__m256; 2]) {
        let blocks = step.blocks();
        let d = self.halves_f16(self.words(unroll_array!(r in 0..4 => at::<Self, _, _>(blocks[r], 0))));
        let q = unroll_array!(r in 0..4 => {
            self.nibbles_and_bits(at::<Self, _, _>(blocks[r], 8), at::<Self, _, _>(blocks[r], 4))
        });
        (q, Form::PLAIN, d)
    }
    #[inline(always)]
    fn byte_and_nibbles(self, step: BlockQuad<'_, '_, [u8; 17], Self::Places>) -> (__m256i, [__m512i; ROWS]) {
        let blocks = step.blocks();
        let [a, b, c, d] = unroll_array!(r in 0..4 => blocks[r].map(|block| i32::from(block[0])));
        let words = simd!(self, {
            let low = _mm_insert_epi8::<1>(_mm_cvtsi32_si128(a[0]), b[0]);
            let low = _mm_insert_epi8::<3>(_mm_insert_epi8::<2>(low, c[0]), d[0]);
            let high = _mm_insert_epi8::<1>(_mm_cvtsi32_si128(a[1]), b[1]);
            let high = _mm_insert_epi8::<3>(_mm_insert_epi8::<2>(high, c[1]), d[1]);
            _mm256_cvtepu8_epi32(_mm_unpacklo_epi32(low, high))
        });
        (words, unroll_array!(r in 0..4 => self.load_nibbles(at::<Self, _, _>(blocks[r], 1))))
    }

    #[inline(always)]
    fn word_and_nibbles(
        self,
        step: BlockQuad<'_, '_, [u8; 36], Self::Places>,
    ) -> (__m256i, [[__m512i; ROWS]; 2], Order) {
        let blocks = step.blocks();
        let words = self.words(unroll_array!(r in 0..4 => at::<Self, _, _>(blocks[r], 0)));
        let q = unroll_array!(u in 0..2 => unroll_array!(r in 0..4 => {
            let [a, b]: [&[u8; 16]; 2] = at::<Self, _, _>(blocks[r], 4 + 16 * u);
            simd!(self, {
                let (a, b) = (_mm_loadu_si128(a.as_ptr().cast()), _mm_loadu_si128(b.as_ptr().cast()));
                let both = _mm512_castsi256_si512(_mm256_set_m128i(b, a));
                // Each eight bytes twice.
                let x = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), both);
                let x = _mm512_srlv_epi64(x, _mm512_setr_epi64(0, 4, 0, 4, 0, 4, 0, 4));
                _mm512_and_si512(x, _mm512_set1_epi8(15))
            })
        }));
        (words, q, Order::Plain)
    }
    /// As words, with the byte above another, which stays zero.
    #[inline(always)]
    fn trits(self, x: __m512i, powers: &[u8; 32]) -> (__m512i, Form) {
        simd!(self, {
            let powers = _mm512_broadcast_i64x4(_mm256_loadu_si256(powers.as_ptr().cast()));
            let (three, low, high) = (_mm512_set1_epi16(3), _mm512_set1_epi16(0xff), _mm512_set1_epi16(-0x100));
            let even = _mm512_mullo_epi16(_mm512_slli_epi16::<8>(x), _mm512_and_si512(powers, low));
            let odd = _mm512_mullo_epi16(_mm512_and_si512(x, high), _mm512_srli_epi16::<8>(powers));
            let odd = _mm512_slli_epi16::<8>(_mm512_mulhi_epu16(odd, three));
            (_mm512_or_si512(_mm512_mulhi_epu16(even, three), odd), Form::PLAIN)
        })
    }

    #[inline(always)]
    fn dot4_five(self, w: &[__m512i; ROWS], _: Form, x: __m512i, sum: i32, offset: i32) -> __m256 {
        self.dot4_nibbles(w, x, bias(sum, offset))
    }
    /// Four products of 63 and 127 are within 16 bits, of twice as many there are too many.
    #[inline(always)]
    fn dot4_halves(self, w: &[__m512i; ROWS], _: Form, x: __m512i, sums: &[i32; 2], offset: i32) -> [__m256; 2] {
        simd!(self, {
            let [a, b, c, d] = self.products(w, x, _mm512_setzero_si512());
            let (ab, cd) = (self.add_pairs(a, b), self.add_pairs(c, d));
            let (ab, cd) = (_mm512_castsi512_ps(ab), _mm512_castsi512_ps(cd));
            let even = _mm512_castps_si512(_mm512_shuffle_ps::<0x88>(ab, cd));
            let odd = _mm512_castps_si512(_mm512_shuffle_ps::<0xdd>(ab, cd));
            let mut halves = self.parts(_mm512_add_epi32(even, odd));
            if offset != 0 {
                halves = unroll_array!(h in 0..2 => _mm256_sub_epi32(halves[h], _mm256_set1_epi32(offset * sums[h])));
            }
            unroll_array!(h in 0..2 => _mm256_cvtepi32_ps(halves[h]))
        })
    }

    #[inline(always)]
    fn splat_words(self, x: u32) -> __m256i {
        simd!(self, _mm256_set1_epi32(x.cast_signed()))
    }
    #[inline(always)]
    fn quads(self, x: [At<'_, Self, [u8; 16]>; ROWS]) -> [__m256i; 4] {
        simd!(self, {
            let [a, b, c, d] = unroll_array!(r in 0..4 => {
                let low = _mm256_castsi128_si256(_mm_loadu_si128(x[r][0].as_ptr().cast()));
                _mm256_inserti128_si256::<1>(low, _mm_loadu_si128(x[r][1].as_ptr().cast()))
            });
            let (ab0, ab1) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let (cd0, cd1) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(ab0, cd0),
                _mm256_unpackhi_epi64(ab0, cd0),
                _mm256_unpacklo_epi64(ab1, cd1),
                _mm256_unpackhi_epi64(ab1, cd1),
            ]
        })
    }
    #[inline(always)]
    fn and_words(self, x: __m256i, mask: u32) -> __m256i {
        simd!(self, _mm256_and_si256(x, _mm256_set1_epi32(mask.cast_signed())))
    }
    #[inline(always)]
    fn or_words(self, a: __m256i, b: __m256i) -> __m256i {
        simd!(self, _mm256_or_si256(a, b))
    }
    #[inline(always)]
    fn xor_words(self, x: __m256i, mask: u32) -> __m256i {
        simd!(self, _mm256_xor_si256(x, _mm256_set1_epi32(mask.cast_signed())))
    }
    #[inline(always)]
    fn clear_bytes(self, x: __m256i, byte: u8) -> __m256i {
        simd!(self, _mm256_andnot_si256(_mm256_cmpeq_epi8(x, _mm256_set1_epi8(byte.cast_signed())), x))
    }
    #[inline(always)]
    fn sub_words(self, x: __m256i, n: u32) -> __m256i {
        simd!(self, _mm256_sub_epi32(x, _mm256_set1_epi32(n.cast_signed())))
    }
    #[inline(always)]
    fn shr_words(self, x: __m256i, n: usize) -> __m256i {
        simd!(self, _mm256_srl_epi32(x, _mm_cvtsi32_si128(n as i32)))
    }
    #[inline(always)]
    fn shl_words(self, x: __m256i, n: usize) -> __m256i {
        simd!(self, _mm256_sll_epi32(x, _mm_cvtsi32_si128(n as i32)))
    }
    #[inline(always)]
    fn byte_u8(self, x: __m256i, i: usize) -> __m256i {
        self.and_words(self.shr_words(x, 8 * i), 0xff)
    }
    #[inline(always)]
    fn byte_i8(self, x: __m256i, i: usize) -> __m256i {
        let top = self.shl_words(x, 24 - 8 * i);
        simd!(self, _mm256_srai_epi32::<24>(top))
    }
    #[inline(always)]
    fn max_words(self, a: __m256i, b: __m256i) -> __m256i {
        simd!(self, _mm256_max_epi32(a, b))
    }
    #[inline(always)]
    fn f32_of_bits(self, x: __m256i) -> __m256 {
        simd!(self, _mm256_castsi256_ps(x))
    }
    #[inline(always)]
    fn to_f32(self, x: __m256i) -> __m256 {
        simd!(self, _mm256_cvtepi32_ps(x))
    }
    #[inline(always)]
    fn halves_f16(self, x: __m256i) -> [__m256; 2] {
        simd!(self, {
            let high = _mm256_srli_epi32::<16>(x);
            [_mm256_cvtph_ps(_mm256_cvtepi32_epi16(x)), _mm256_cvtph_ps(_mm256_cvtepi32_epi16(high))]
        })
    }
}
