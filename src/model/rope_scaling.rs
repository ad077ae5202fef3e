//! How a file stretches RoPE to a longer context than the model was first trained with.

use core::f64::consts::PI;

use super::family::{Family, OwnKeys};
use super::keys::{Keys, MAX_CONTEXT};
use crate::gguf::Value;

/// Scaling of the frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeScaling {
    /// Angles are divided by it (position interpolation: Chen et al. 2023, arXiv 2306.15595).
    pub factor: f64,
    /// Which pairs are divided, if not all.
    pub yarn: Option<Yarn>,
    /// Cosines and sines are multiplied by it.
    pub multiplier: f32,
    /// Tokens of the context before it was stretched: with more, the long factors of LongRoPE hold.
    pub original_context: usize,
}

/// YaRN (Peng et al. 2023, arXiv 2309.00071): pairs up to `low`, which turn fast, keep their angles, those from `high` on are
/// divided by the factor, and those between in part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// A number of pairs.
    pub low: f64,
    /// A number of pairs.
    pub high: f64,
}

/// In f32, as in llama.cpp.
#[inline(never)]
fn log(x: f64) -> f64 {
    libm::logf(x as f32).into()
}

impl RopeScaling {
    /// A factor without a type means linear scaling, and a type without a factor, or with one of 0, none, as in llama.cpp;
    /// "none" ignores the factor (but see `WindowRope::OwnBaseScaled`); unknown kinds are refused (dynamic NTK for good: it
    /// changes with the position).
    pub(super) fn new(keys: &Keys<'_, '_>, family: &Family, context: usize, base: f64, dims: usize) -> Self {
        let is_own = family.own_keys == OwnKeys::LongContext;
        let factor = Self::factor_of(keys);
        let original_context = keys.size("rope.scaling.original_context_length", Some(context), 1, MAX_CONTEXT);
        let multiplier = keys.float("rope.scaling.attn_factor", Some(1.0));
        let mut scaling = Self { factor, yarn: None, multiplier: multiplier as f32, original_context };
        match keys.get("rope.scaling.type") {
            None | Some(Value::String(b"linear" | b"longrope")) => {}
            Some(Value::String(b"none")) => scaling.factor = 1.0,
            Some(Value::String(b"yarn")) => {
                // What YaRN multiplies cosines and sines by, so that scores of longer contexts stay as sharp.
                let growth = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * log(factor) + 1.0 };
                let damping = keys.own("rope.scaling.yarn_log_multiplier", is_own, 0.0);
                scaling.multiplier = (multiplier * growth(1.0) / growth(damping.into())) as f32;
                // The pair that makes so many turns in the original context.
                let pair = |key, turns: f64| {
                    // Converters write the ends for any family, and llama.cpp reads them for few.
                    let turns = if is_own { keys.float(key, Some(turns)) } else { turns };
                    dims as f64 * log(original_context as f64 / (turns * 2.0 * PI)) / (2.0 * log(base))
                };
                scaling.yarn = Some(Yarn {
                    low: libm::floor(pair("rope.scaling.yarn_beta_fast", 32.0)).max(0.0),
                    high: libm::ceil(pair("rope.scaling.yarn_beta_slow", 1.0)).min(dims as f64 - 1.0),
                });
            }
            _ => keys.lacks("this rope.scaling.type"),
        }
        if !scaling.multiplier.is_finite() {
            keys.impossible("rope.scaling.attn_factor");
        }
        scaling
    }

    /// The factor that the file gives, whatever the type.
    #[inline(never)]
    pub(super) fn factor_of(keys: &Keys<'_, '_>) -> f64 {
        // The old name of the key, for files without the new one.
        let old = keys.f32_or_zero("rope.scale_linear", 1.0);
        match keys.f32_or_zero("rope.scaling.factor", old) {
            0.0 => 1.0,
            factor => factor.into(),
        }
    }

    /// The angle per position of pair `i`, which without scaling is `radians`.
    pub(super) fn scaled(&self, radians: f64, i: usize) -> f64 {
        let divided = radians / self.factor;
        let Some(Yarn { low, high }) = self.yarn else { return divided };
        let kept = 1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
        divided * (1.0 - kept) + radians * kept
    }
}
