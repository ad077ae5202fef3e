//! GEMV: rows of a GGUF file in place, four at a time, times one token or a few.
//!
//! Decode spends most of its time here. What is outside the loop over a row is paid for every four rows, so the cursor over
//! the tokens is made once, and the results of four rows are written at once.

use super::activations::Activations;
use super::cursor::{RowQuad, RowQuads};
use super::job::{Job, write_to};
use crate::arch::isa::{FloatIsa, Int8Isa};
use crate::arch::types::ROWS;

/// How four rows of a format are multiplied with `T` tokens.
pub(super) trait RowKernel {
    /// A cursor over the columns of `T` tokens.
    type Tokens<'a, const T: usize>: Copy;

    /// The cursor over tokens `token..token + T`.
    fn tokens<'a, const T: usize>(x: &Activations<'a>, token: usize) -> Self::Tokens<'a, T>;

    /// The cursor over the only token of a pass.
    #[inline(always)]
    fn only_token<'a>(x: &Activations<'a>) -> Self::Tokens<'a, 1> {
        Self::tokens(x, 0)
    }

    /// The products of the rows that are multiplied at once with the only token of a pass.
    type Sums<I: Int8Isa>: AsRef<[f32]>;

    /// The products, `(T, ROWS)`.
    fn tile<I: FloatIsa + Int8Isa, const T: usize>(
        isa: I,
        rows: RowQuad<'_>,
        x: Self::Tokens<'_, T>,
    ) -> [[f32; ROWS]; T];

    /// The products with the only token of a pass, of as many rows as [`Sums`](RowKernel::Sums) has.
    fn tile_of_one<I: FloatIsa + Int8Isa>(isa: I, rows: RowQuad<'_>, x: Self::Tokens<'_, 1>) -> Self::Sums<I>;
}

/// All tokens, `T` at a time while there are as many.
#[inline(always)]
pub(super) fn multiply<K: RowKernel, I: FloatIsa + Int8Isa, const T: usize>(isa: I, job: &mut Job<'_, '_, '_>) {
    if job.x.tokens == 1 {
        return multiply_one::<K, I>(isa, job);
    }
    let bytes = job.w.row_bytes();
    for (first, rows) in job.rows.clone().step_by(ROWS).zip(RowQuads::new(rows_of(job), bytes, ROWS)) {
        let mut token = 0;
        while token + T <= job.x.tokens {
            let sums = K::tile::<I, T>(isa, rows, K::tokens(&job.x, token));
            for (t, sums) in sums.iter().enumerate() {
                job.write_sums(first, token + t, sums);
            }
            token += T;
        }
        while token < job.x.tokens {
            let [sums] = K::tile::<I, 1>(isa, rows, K::tokens(&job.x, token));
            job.write_sums(first, token, &sums);
            token += 1;
        }
    }
}

/// All tokens, two at a time; of an odd number the last but one is computed twice.
#[inline(always)]
pub(super) fn multiply_by_two<K: RowKernel, I: FloatIsa + Int8Isa>(isa: I, job: &mut Job<'_, '_, '_>) {
    if job.x.tokens == 1 {
        return multiply_one::<K, I>(isa, job);
    }
    let bytes = job.w.row_bytes();
    for (first, rows) in job.rows.clone().step_by(ROWS).zip(RowQuads::new(rows_of(job), bytes, ROWS)) {
        for token in (0..job.x.tokens).step_by(2) {
            let pair = token.min(job.x.tokens - 2);
            let sums = K::tile::<I, 2>(isa, rows, K::tokens(&job.x, pair));
            for (t, sums) in sums.iter().enumerate().skip(token - pair) {
                job.write_sums(first, pair + t, sums);
            }
        }
    }
}

/// The only token.
#[inline(always)]
pub(super) fn multiply_one<K: RowKernel, I: FloatIsa + Int8Isa>(isa: I, job: &mut Job<'_, '_, '_>) {
    let (rows, bytes, x, write) = (rows_of(job), job.w.row_bytes(), K::only_token(&job.x), job.write);
    let asked = job.rows.len();
    let out = job.out.row(0).get_mut(..asked).unwrap_or(&mut []);
    let together = size_of::<K::Sums<I>>() / size_of::<f32>();
    for (rows, out) in RowQuads::new(rows, bytes, together).zip(out.chunks_mut(together)) {
        let sums = K::tile_of_one::<I>(isa, rows, x);
        match out.split_at_mut_checked(together) {
            Some((out, _)) => write_to(out, sums.as_ref(), write),
            None => write_to(out, sums.as_ref(), write),
        }
    }
}

/// The bytes of the job's rows.
#[inline(always)]
fn rows_of<'w>(job: &Job<'_, '_, 'w>) -> &'w [u8] {
    job.w.rows_bytes(job.rows.clone())
}
