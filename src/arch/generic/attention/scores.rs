//! The scores of one head over one tile.

use crate::storage::TILE;

/// A head's scores of a tile, then its softmax weights; four more at the end, so that four can be written from any position.
pub(super) type Scores = [f32; TILE + 4];

/// The four scores from position `at` of the tile on.
#[inline(always)]
pub(super) fn scores4(scores: &Scores, at: usize) -> &[f32; 4] {
    // `at` is within the tile; the remainder tells the compiler so.
    scores[at % TILE..].first_chunk().unwrap_or(&[0.0; 4])
}

/// Writes the four scores from position `at` of the tile on.
#[inline(always)]
pub(super) fn set_scores4(scores: &mut Scores, at: usize, values: [f32; 4]) {
    if let Some(four) = scores[at % TILE..].first_chunk_mut() {
        *four = values;
    }
}
