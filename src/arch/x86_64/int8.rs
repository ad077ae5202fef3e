//! The operations of [`Int8Isa`] on AVX2, generic over the token.

use core::arch::x86_64::*;

use super::isa::AvxDot;
use super::tokens::{Avx2, simd};
use crate::arch::isa::{At, Field, Form, Int8Isa, Isa, Order, UnitIsa, at, bias, first, last, pair};
use crate::arch::types::BlockQuad;
use crate::arch::unroll::{unroll, unroll_array};

/// A shift by a constant number of bits, which is known after inlining.
macro_rules! shift {
    ($n:expr, $shift:ident, $x:expr, $zero:expr) => {
        match $n {
            0 => $zero,
            1 => $shift::<1>($x),
            2 => $shift::<2>($x),
            3 => $shift::<3>($x),
            4 => $shift::<4>($x),
            5 => $shift::<5>($x),
            6 => $shift::<6>($x),
            _ => $shift::<7>($x),
        }
    };
}

impl Avx2 {
    /// Nibbles of four rows with a bit above each, the bits of a row in a word.
    #[inline(always)]
    fn nibbles_and_bits(self, nibbles: [__m256i; 4], bits: __m128i) -> [__m256i; 4] {
        simd!(self, {
            let eight = 0x0101_0101_0101_0101;
            let bytes = _mm256_setr_epi64x(0, eight, 2 * eight, 3 * eight);
            let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
            let (words, sixteen) = (_mm256_broadcastsi128_si256(bits), _mm256_set1_epi8(16));
            unroll_array!(r in 0..4 => {
                // A byte of the row's word to each eight columns, of which each has its own bit left.
                let word = _mm256_add_epi8(bytes, _mm256_set1_epi8(4 * r as i8));
                let x = _mm256_and_si256(_mm256_shuffle_epi8(words, word), bit);
                _mm256_or_si256(nibbles[r], _mm256_and_si256(_mm256_cmpeq_epi8(x, bit), sixteen))
            })
        })
    }
}

impl<X: AvxDot> UnitIsa for X {
    type F32x4 = __m128;
    type I8x32 = __m256i;
    type U32x4 = __m128i;
    type Stored = [f32; 4];
    type Places = [*const u8; 4];

    #[inline(always)]
    fn splat4(self, x: f32) -> __m128 {
        simd!(self, _mm_set1_ps(x))
    }
    #[inline(always)]
    fn gather4_f16(self, x: [At<'_, Self, [u8; 2]>; 4]) -> __m128 {
        let [a, b, c, d] = x.map(|b| i32::from(u16::from_le_bytes(*b)));
        simd!(self, {
            let x = _mm_insert_epi16::<1>(_mm_cvtsi32_si128(a), b);
            _mm_cvtph_ps(_mm_insert_epi16::<3>(_mm_insert_epi16::<2>(x, c), d))
        })
    }
    #[inline(always)]
    fn mul4(self, a: __m128, b: __m128) -> __m128 {
        simd!(self, _mm_mul_ps(a, b))
    }
    #[inline(always)]
    fn fma4(self, a: __m128, b: __m128, c: __m128) -> __m128 {
        simd!(self, _mm_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; 32]) -> __m256i {
        simd!(self, _mm256_loadu_si256(x.as_ptr().cast()))
    }
    #[inline(always)]
    fn load_u8(self, x: At<'_, Self, [u8; 32]>) -> __m256i {
        simd!(self, _mm256_loadu_si256(x.as_ptr().cast()))
    }
    #[inline(always)]
    fn load_nibbles(self, x: At<'_, Self, [u8; 16]>) -> __m256i {
        simd!(self, {
            let x = _mm_loadu_si128(x.as_ptr().cast());
            let both = _mm256_set_m128i(_mm_srli_epi16::<4>(x), x);
            _mm256_and_si256(both, _mm256_set1_epi8(15))
        })
    }
    #[inline(always)]
    fn dot4_i8(self, w: &[__m256i; 4], x: __m256i, bias: i32) -> __m128 {
        self.fold_i8(Isa::add_i8(self, w, x, self.sums_i8(bias)))
    }
    #[inline(always)]
    fn dot4_nibbles(self, w: &[__m256i; 4], x: __m256i, bias: i32) -> __m128 {
        simd!(self, _mm_cvtepi32_ps(AvxDot::dot4_nibbles(self, w, x, bias)))
    }
    #[inline(always)]
    fn field(self, x: __m256i, Field { at, bits }: Field) -> __m256i {
        simd!(self, {
            let x = shift!(at, _mm256_srli_epi16, x, x);
            _mm256_and_si256(x, _mm256_set1_epi8(((1 << bits) - 1) as i8))
        })
    }
    /// The field of `high` is masked where it belongs.
    #[inline(always)]
    fn join(self, low: __m256i, l: Field, high: __m256i, h: Field) -> __m256i {
        simd!(self, {
            let high = if h.at >= l.bits {
                shift!(h.at - l.bits, _mm256_srli_epi16, high, high)
            } else {
                shift!(l.bits - h.at, _mm256_slli_epi16, high, high)
            };
            let mask = ((1 << h.bits) - 1) << l.bits;
            let high = _mm256_and_si256(high, _mm256_set1_epi8(mask as i8));
            _mm256_or_si256(self.field(low, l), high)
        })
    }
    #[inline(always)]
    fn lookup(self, levels: &[i8; 16], x: __m256i) -> __m256i {
        simd!(self, {
            let levels = _mm256_broadcastsi128_si256(_mm_loadu_si128(levels.as_ptr().cast()));
            _mm256_shuffle_epi8(levels, x)
        })
    }
    /// Unsigned, as the products want them.
    #[inline(always)]
    fn lookup_fp4(self, levels: &[i8; 16], x: __m256i) -> (__m256i, Form) {
        simd!(self, {
            let levels = _mm_add_epi8(_mm_loadu_si128(levels.as_ptr().cast()), _mm_set1_epi8(12));
            (_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(levels), x), Form::PLAIN)
        })
    }
    #[inline(always)]
    fn bits(self, x: At<'_, Self, [u8; 16]>, u: usize) -> __m256i {
        simd!(self, {
            let eight = 0x0101_0101_0101_0101;
            let bytes = _mm256_setr_epi64x(0, eight, 2 * eight, 3 * eight);
            let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
            let word = i32::from_le_bytes(x.as_chunks::<4>().0[u & 3]);
            let x = _mm256_shuffle_epi8(_mm256_set1_epi32(word), bytes);
            _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(x, bit), bit), _mm256_set1_epi8(1))
        })
    }
    /// A byte to each word, and its fields to the bytes of the word.
    #[inline(always)]
    fn crumbs(self, step: BlockQuad<'_, '_, [u8; 18]>) -> ([[__m256i; 4]; 2], Form, __m128) {
        let blocks = step.blocks();
        let d = self.gather4_f16(unroll_array!(r in 0..4 => pair(blocks[r], 0)));
        let q = unroll_array!(u in 0..2 => unroll_array!(r in 0..4 => simd!(self, {
            let eight = last::<18, 16>(blocks[r]).as_chunks::<8>().0[u].as_ptr();
            let x = _mm256_cvtepu8_epi32(_mm_loadl_epi64(eight.cast()));
            let x = _mm256_or_si256(x, _mm256_slli_epi32::<12>(x));
            let x = _mm256_or_si256(x, _mm256_slli_epi32::<6>(x));
            _mm256_and_si256(x, _mm256_set1_epi8(3))
        })));
        (q, Form::PLAIN, d)
    }
    #[inline(always)]
    fn fives(self, step: BlockQuad<'_, '_, [u8; 22]>) -> ([__m256i; 4], Form, __m128) {
        let blocks = step.blocks();
        let d = self.gather4_f16(unroll_array!(r in 0..4 => pair(blocks[r], 0)));
        let [bits, ..] = self.quads(unroll_array!(r in 0..4 => first(last::<22, 20>(blocks[r]))));
        let nibbles = unroll_array!(r in 0..4 => self.load_nibbles(last(blocks[r])));
        (self.avx2().nibbles_and_bits(nibbles, bits), Form::PLAIN, d)
    }
    #[inline(always)]
    fn fives_min(self, step: BlockQuad<'_, '_, [u8; 24]>) -> ([__m256i; 4], Form, [__m128; 2]) {
        let blocks = step.blocks();
        let [d, bits, ..] = self.quads(unroll_array!(r in 0..4 => first(blocks[r])));
        let nibbles = unroll_array!(r in 0..4 => self.load_nibbles(last(blocks[r])));
        (self.avx2().nibbles_and_bits(nibbles, bits), Form::PLAIN, self.halves_f16(d))
    }
    #[inline(always)]
    fn byte_and_nibbles(self, step: BlockQuad<'_, '_, [u8; 17]>) -> (__m128i, [__m256i; 4]) {
        let blocks = step.blocks();
        let [a, b, c, d] = unroll_array!(r in 0..4 => i32::from(blocks[r][0]));
        let bytes = simd!(self, _mm_setr_epi32(a, b, c, d));
        (bytes, unroll_array!(r in 0..4 => self.load_nibbles(last(blocks[r]))))
    }
    #[inline(always)]
    fn dot4_five(self, w: &[__m256i; 4], _: Form, x: __m256i, sum: i32, offset: i32) -> __m128 {
        UnitIsa::dot4_nibbles(self, w, x, bias(sum, offset))
    }
    #[inline(always)]
    fn dot4_halves(self, w: &[__m256i; 4], _: Form, x: __m256i, sums: &[i32; 2], offset: i32) -> [__m128; 2] {
        let bias = [-offset * sums[0], -offset * sums[1]];
        let sums = self.avx2().fold_halves(self.products_of_halves(w, x, bias));
        simd!(self, {
            let sums = _mm256_cvtepi32_ps(sums);
            [_mm256_castps256_ps128(sums), _mm256_extractf128_ps::<1>(sums)]
        })
    }
    #[inline(always)]
    fn splat_words(self, x: u32) -> __m128i {
        simd!(self, _mm_set1_epi32(x.cast_signed()))
    }
    #[inline(always)]
    fn quads(self, x: [At<'_, Self, [u8; 16]>; 4]) -> [__m128i; 4] {
        self.avx2().transpose_words(simd!(self, unroll_array!(r in 0..4 => _mm_loadu_si128(x[r].as_ptr().cast()))))
    }
    #[inline(always)]
    fn xor_words(self, x: __m128i, mask: u32) -> __m128i {
        simd!(self, _mm_xor_si128(x, _mm_set1_epi32(mask.cast_signed())))
    }
    #[inline(always)]
    fn max_words(self, a: __m128i, b: __m128i) -> __m128i {
        simd!(self, _mm_max_epi32(a, b))
    }
    #[inline(always)]
    fn f32_of_bits(self, x: __m128i) -> __m128 {
        simd!(self, _mm_castsi128_ps(x))
    }
    #[inline(always)]
    fn sub_words(self, x: __m128i, n: u32) -> __m128i {
        simd!(self, _mm_sub_epi32(x, _mm_set1_epi32(n.cast_signed())))
    }
    #[inline(always)]
    fn and_words(self, x: __m128i, mask: u32) -> __m128i {
        simd!(self, _mm_and_si128(x, _mm_set1_epi32(mask.cast_signed())))
    }
    #[inline(always)]
    fn or_words(self, a: __m128i, b: __m128i) -> __m128i {
        simd!(self, _mm_or_si128(a, b))
    }
    #[inline(always)]
    fn shr_words(self, x: __m128i, n: usize) -> __m128i {
        simd!(self, _mm_srl_epi32(x, _mm_cvtsi32_si128(n as i32)))
    }
    #[inline(always)]
    fn shl_words(self, x: __m128i, n: usize) -> __m128i {
        simd!(self, _mm_sll_epi32(x, _mm_cvtsi32_si128(n as i32)))
    }
    #[inline(always)]
    fn byte_u8(self, x: __m128i, i: usize) -> __m128i {
        self.and_words(self.shr_words(x, 8 * i), 0xff)
    }
    #[inline(always)]
    fn byte_i8(self, x: __m128i, i: usize) -> __m128i {
        let top = self.shl_words(x, 24 - 8 * i);
        simd!(self, _mm_srai_epi32::<24>(top))
    }
    #[inline(always)]
    fn to_f32(self, x: __m128i) -> __m128 {
        simd!(self, _mm_cvtepi32_ps(x))
    }
    #[inline(always)]
    fn halves_f16(self, x: __m128i) -> [__m128; 2] {
        simd!(self, {
            let order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
            let x = _mm256_cvtph_ps(_mm_shuffle_epi8(x, order));
            [_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x)]
        })
    }
    #[inline(always)]
    fn stored(self, x: __m128) -> [f32; 4] {
        self.store4(x)
    }
    #[inline(always)]
    fn load_twice(self, x: At<'_, Self, [u8; 16]>) -> __m256i {
        simd!(self, _mm256_broadcastsi128_si256(_mm_loadu_si128(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn load_and_repeat(self, x: At<'_, Self, [u8; 20]>) -> __m256i {
        let word = i32::from_le_bytes(*last(x));
        simd!(self, _mm256_set_m128i(_mm_set1_epi32(word), _mm_loadu_si128(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn word_and_nibbles(self, step: BlockQuad<'_, '_, [u8; 36]>) -> (__m128i, [[__m256i; 4]; 2], Order) {
        let blocks = step.blocks();
        let [words, ..] = self.quads(unroll_array!(r in 0..4 => first(blocks[r])));
        let q = unroll_array!(u in 0..2 => unroll_array!(r in 0..4 => simd!(self, {
            let x = _mm_loadu_si128(at::<Self, 36, 16>(blocks[r], 4 + 16 * u).as_ptr().cast());
            // Each eight bytes twice.
            let x = _mm256_permute4x64_epi64::<0x50>(_mm256_castsi128_si256(x));
            let x = _mm256_srlv_epi64(x, _mm256_setr_epi64x(0, 4, 0, 4));
            _mm256_and_si256(x, _mm256_set1_epi8(15))
        })));
        (words, q, Order::Plain)
    }
    /// As words, with the byte above another, which stays zero.
    #[inline(always)]
    fn trits(self, x: __m256i, powers: &[u8; 32]) -> (__m256i, Form) {
        simd!(self, {
            let powers = _mm256_loadu_si256(powers.as_ptr().cast());
            let (three, low, high) = (_mm256_set1_epi16(3), _mm256_set1_epi16(0xff), _mm256_set1_epi16(-0x100));
            let even = _mm256_mullo_epi16(_mm256_slli_epi16::<8>(x), _mm256_and_si256(powers, low));
            let odd = _mm256_mullo_epi16(_mm256_and_si256(x, high), _mm256_srli_epi16::<8>(powers));
            let odd = _mm256_slli_epi16::<8>(_mm256_mulhi_epu16(odd, three));
            (_mm256_or_si256(_mm256_mulhi_epu16(even, three), odd), Form::PLAIN)
        })
    }
    #[inline(always)]
    fn clear_bytes(self, x: __m128i, byte: u8) -> __m128i {
        simd!(self, _mm_andnot_si128(_mm_cmpeq_epi8(x, _mm_set1_epi8(byte.cast_signed())), x))
    }
}

impl<X: AvxDot> Int8Isa for X {
    type Decode = X::Decode;

    #[inline(always)]
    fn decode(self) -> X::Decode {
        AvxDot::decode(self)
    }

    #[inline(always)]
    fn join_planes(self, low: __m256i, high: [__m256i; 2], h: [Field; 2]) -> [__m256i; 2] {
        let half = simd!(self, _mm256_set1_epi8(8 << h[0].bits));
        unroll_array!(i in 0..2 => {
            let q = self.join(low, Field { at: 4 * i, bits: 4 }, high[i], h[i]);
            simd!(self, _mm256_xor_si256(q, half))
        })
    }
    #[inline(always)]
    fn interleave(self, w: &[__m256i; 4]) -> [[u8; 16]; 8] {
        simd!(self, {
            let (ab0, ab1) = (_mm256_unpacklo_epi32(w[0], w[1]), _mm256_unpackhi_epi32(w[0], w[1]));
            let (cd0, cd1) = (_mm256_unpacklo_epi32(w[2], w[3]), _mm256_unpackhi_epi32(w[2], w[3]));
            // Columns 4k and 16 + 4k.
            let words = [
                _mm256_unpacklo_epi64(ab0, cd0),
                _mm256_unpackhi_epi64(ab0, cd0),
                _mm256_unpacklo_epi64(ab1, cd1),
                _mm256_unpackhi_epi64(ab1, cd1),
            ];
            let mut out = [[0; 16]; 8];
            unroll!(k in 0..4 => {
                _mm_storeu_si128(out[k].as_mut_ptr().cast(), _mm256_castsi256_si128(words[k]));
                _mm_storeu_si128(out[k + 4].as_mut_ptr().cast(), _mm256_extracti128_si256::<1>(words[k]));
            });
            out
        })
    }
    #[inline(always)]
    fn load_words(self, x: &[u8; 16]) -> __m128i {
        simd!(self, _mm_loadu_si128(x.as_ptr().cast()))
    }
    #[inline(always)]
    fn load_six_bits(self, x: &[u8; 24]) -> [__m128i; 2] {
        let first = self.load_words(first(x));
        simd!(self, {
            let eight = _mm_loadl_epi64(last::<24, 8>(x).as_ptr().cast());
            let low = self.and_words(_mm_unpacklo_epi64(eight, _mm_srli_epi64::<4>(eight)), 0x0f0f_0f0f);
            [first, _mm_or_si128(low, self.and_words(self.shr_words(first, 2), 0x3030_3030))]
        })
    }
    #[inline(always)]
    fn store_words(self, x: __m128i) -> [i32; 4] {
        let mut out = [0; 4];
        simd!(self, _mm_storeu_si128(out.as_mut_ptr().cast(), x));
        out
    }
}
