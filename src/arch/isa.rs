//! What an instruction set must offer for the generic algorithms to run on it.

/// A set of SIMD operations on vectors of fixed, virtual width.
///
/// A value of an implementing type is proof that the CPU has the instructions: it can be made only where they were
/// detected, or inside a function compiled for them. That is why these methods are safe.
///
/// Widths are virtual: eight `f32` are one AVX register, two NEON registers or an array. GGUF blocks are 32 long and
/// head sizes are multiples of 8, so the hot loops have no tails, and every backend adds in the same order.
///
/// Every method must be `#[inline(always)]`, so that it is compiled inside a function that enables its instructions.
///
/// Loads take byte arrays: weights lie in a file at any alignment.
pub(crate) trait Isa: Copy {
    /// Eight `f32`.
    type F32x8: Copy;
    /// Four `f32`, one for each of four rows of weights.
    type F32x4: Copy;
    /// A block of 32 int8.
    type I8x32: Copy;

    fn splat8(self, x: f32) -> Self::F32x8;
    fn load8(self, x: &[f32; 8]) -> Self::F32x8;
    fn store8(self, x: Self::F32x8, out: &mut [f32; 8]);
    /// Eight little-endian binary32.
    fn load8_f32(self, x: &[u8; 32]) -> Self::F32x8;
    /// Eight little-endian binary16.
    fn load8_f16(self, x: &[u8; 16]) -> Self::F32x8;
    /// Eight bfloat16.
    fn load8_bf16(self, x: &[u8; 16]) -> Self::F32x8;
    /// Eight binary16, rounded to nearest even.
    fn store8_f16(self, x: Self::F32x8, out: &mut [u8; 16]);
    fn add8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    fn sub8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    fn mul8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    fn div8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    fn min8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    fn max8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    fn abs8(self, a: Self::F32x8) -> Self::F32x8;
    /// `a·b + c`, rounded once.
    fn fma8(self, a: Self::F32x8, b: Self::F32x8, c: Self::F32x8) -> Self::F32x8;
    /// Nearest integer, ties to even.
    fn round8(self, a: Self::F32x8) -> Self::F32x8;
    /// 2ⁿ for integral −126 ≤ n ≤ 127.
    fn exp2i8(self, n: Self::F32x8) -> Self::F32x8;
    /// Sum in the order ((0+4)+(2+6)) + ((1+5)+(3+7)).
    fn sum8(self, a: Self::F32x8) -> f32;
    fn hmax8(self, a: Self::F32x8) -> f32;
    /// Integral values within ±127, as int8.
    fn to_i8(self, x: [Self::F32x8; 4], out: &mut [i8; 32]);

    fn splat4(self, x: f32) -> Self::F32x4;
    fn store4(self, x: Self::F32x4) -> [f32; 4];
    /// Four little-endian binary16 from four places: the scales of four rows' blocks.
    fn gather4_f16(self, x: [&[u8; 2]; 4]) -> Self::F32x4;
    fn mul4(self, a: Self::F32x4, b: Self::F32x4) -> Self::F32x4;
    /// `a·b + c`, rounded once.
    fn fma4(self, a: Self::F32x4, b: Self::F32x4, c: Self::F32x4) -> Self::F32x4;

    fn load_i8(self, x: &[i8; 32]) -> Self::I8x32;
    fn load_u8(self, x: &[u8; 32]) -> Self::I8x32;
    /// Low nibbles of the 16 bytes, then their high nibbles.
    fn nibbles(self, x: &[u8; 16]) -> Self::I8x32;
    /// The exact dot product of each of four blocks of int8 weights with one block of activations within ±127.
    fn dot4_i8(self, w: &[Self::I8x32; 4], x: Self::I8x32) -> Self::F32x4;
    /// The same for weights within 0..=15, which some CPUs multiply faster.
    #[inline(always)]
    fn dot4_nibbles(self, w: &[Self::I8x32; 4], x: Self::I8x32) -> Self::F32x4 {
        self.dot4_i8(w, x)
    }
}
