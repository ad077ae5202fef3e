//! What a file says of a model in a way that llama.cpp mends or ignores: here it is mended or ignored, and said.

use core::fmt;

use super::hparams::family;
use super::keys::Keys;
use crate::gguf::{File, Value};

/// Something that a file says of a model and that does not count as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ModelWarning {
    /// A kind of scaling, and not how far.
    NoRopeFactor,
    /// Scaling by nothing.
    ZeroRopeFactor,
}

impl fmt::Display for ModelWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRopeFactor => {
                "the file has a rope.scaling.type and no rope.scaling.factor: positions are not scaled, and texts longer than \
                 the model was trained for may be worse"
            }
            Self::ZeroRopeFactor => "rope.scaling.factor is 0: positions are not scaled",
        })
    }
}

/// What does not count as it stands in a file whose model can be run.
pub fn warnings(file: &File<'_>) -> impl Iterator<Item = ModelWarning> {
    let keys = family(file).ok().map(|family| Keys::new(file, family.name));
    let get = |key: &str| keys.as_ref().and_then(|keys| keys.get(key));
    let scales = matches!(get("rope.scaling.type"), Some(Value::String(b"linear" | b"yarn")));
    let warning = match get("rope.scaling.factor").or_else(|| get("rope.scale_linear")) {
        None if scales => Some(ModelWarning::NoRopeFactor),
        Some(Value::Float(0.0)) => Some(ModelWarning::ZeroRopeFactor),
        _ => None,
    };
    warning.into_iter()
}
