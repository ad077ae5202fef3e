//! What a file says of a model in a way that llama.cpp mends or ignores: here it is mended or ignored, and said.

use core::fmt;

use super::family::OwnKeys;
use super::hparams::family;
use super::keys::Keys;
use crate::gguf::{File, Label, Value};

/// Something that a file says of a model and that does not count as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ModelWarning {
    /// A kind of scaling, and not how far.
    NoRopeFactor,
    /// Scaling by nothing.
    ZeroRopeFactor,
    /// Keys of YaRN that this family does not read.
    YarnKeys,
}

impl fmt::Display for ModelWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRopeFactor => {
                "the file has a rope.scaling.type and no rope.scaling.factor: positions are not scaled, and texts longer than \
                 the model was trained for may be worse"
            }
            Self::ZeroRopeFactor => "rope.scaling.factor is 0: positions are not scaled",
            Self::YarnKeys => {
                "rope.scaling.yarn_beta_fast, yarn_beta_slow, yarn_attn_factor and yarn_ext_factor are not read for this \
                 architecture: YaRN takes 32, 1, 1 and 1, as in llama.cpp"
            }
        })
    }
}

/// What does not count as it stands in a file whose model can be run.
pub fn warnings(file: &File<'_>) -> impl Iterator<Item = ModelWarning> {
    let family = family(file).ok();
    let keys = family.map(|family| Keys::new(file, family.name));
    let get = |key: &str| keys.as_ref().and_then(|keys| keys.get(key));
    let kind = get("rope.scaling.type");
    let is_yarn = matches!(kind, Some(Value::String(b"yarn")));
    let factor = match get("rope.scaling.factor").or_else(|| get("rope.scale_linear")) {
        None if is_yarn || matches!(kind, Some(Value::String(b"linear"))) => Some(ModelWarning::NoRopeFactor),
        Some(Value::Float(0.0)) => Some(ModelWarning::ZeroRopeFactor),
        _ => None,
    };
    let differs = |key: &str, default| matches!(get(key), Some(Value::Float(x)) if x != default);
    let differ = [("beta_fast", 32.0), ("beta_slow", 1.0), ("attn_factor", 1.0), ("ext_factor", 1.0)]
        .iter()
        .any(|(key, default)| differs(Label::new(format_args!("rope.scaling.yarn_{key}")).as_str(), *default));
    let are_read = family.is_some_and(|family| family.own_keys == OwnKeys::LongContext);
    let ignored = (is_yarn && differ && !are_read).then_some(ModelWarning::YarnKeys);
    [factor, ignored].into_iter().flatten()
}
