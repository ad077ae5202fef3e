//! Typed look-ups of a model's metadata.

use core::cell::Cell;

use super::ModelError;
use crate::gguf::{Array, File, Label, Value};

/// The longest context that any key may name, in tokens.
pub(super) const MAX_CONTEXT: u64 = 1 << 32;

/// Look-ups of `prefix.key`.
///
/// Each gives a number that is safe to compute with whatever the file says. What is wrong is kept, the first of it, for
/// [`finish`](Keys::finish): an error in each result would be most of the code.
pub(super) struct Keys<'f, 'a> {
    file: &'f File<'a>,
    prefix: &'static str,
    wrong: Cell<Option<ModelError>>,
}

impl<'f, 'a> Keys<'f, 'a> {
    pub(super) fn new(file: &'f File<'a>, prefix: &'static str) -> Self {
        Keys { file, prefix, wrong: Cell::new(None) }
    }

    /// `value`, if nothing was wrong.
    pub(super) fn finish<T>(self, value: T) -> Result<T, ModelError> {
        self.wrong.take().map_or(Ok(value), Err)
    }

    #[inline(never)]
    pub(super) fn get(&self, key: &str) -> Option<Value<'a>> {
        self.file.get(self.label(key).as_str())
    }

    #[inline(never)]
    fn label(&self, key: &str) -> Label {
        Label::new(format_args!("{}.{key}", self.prefix))
    }

    /// Something is wrong.
    #[inline(never)]
    pub(super) fn fail(&self, error: ModelError) {
        let first = self.wrong.take().unwrap_or(error);
        self.wrong.set(Some(first));
    }

    /// A key is missing, or of another type.
    #[inline(never)]
    fn missing(&self, key: &str) {
        self.fail(ModelError::Key(self.label(key)));
    }

    /// A value that no model has.
    #[inline(never)]
    pub(super) fn impossible(&self, key: &str) {
        self.fail(ModelError::Value(self.label(key)));
    }

    /// The model needs what this program lacks.
    #[inline(never)]
    pub(super) fn lacks(&self, what: &'static str) {
        self.fail(ModelError::Feature(what));
    }

    /// A value that some models have, but none that this family or this program covers.
    #[inline(never)]
    pub(super) fn unsupported(&self, key: &str) {
        self.fail(ModelError::UnsupportedKey(self.label(key)));
    }

    /// A whole number from `min` to `max`; without a default, it must be there. `min` where it is not.
    #[inline(never)]
    pub(super) fn size(&self, key: &str, default: Option<usize>, min: u64, max: u64) -> usize {
        let n = match (self.get(key), default) {
            (Some(Value::Unsigned(n)), _) => n,
            (None, Some(default)) => default as u64,
            _ => {
                self.missing(key);
                return min as usize;
            }
        };
        self.in_range(key, n, min, max)
    }

    #[inline(never)]
    fn in_range(&self, key: &str, n: u64, min: u64, max: u64) -> usize {
        match usize::try_from(n) {
            Ok(size) if (min..=max).contains(&n) => size,
            _ => {
                self.impossible(key);
                min as usize
            }
        }
    }

    /// As [`size`](Keys::size), or a list of one for each layer, if all are the same.
    #[inline(never)]
    pub(super) fn size_of_layers(&self, key: &str, layers: usize, default: Option<usize>, max: u64) -> usize {
        let Some(Value::Array(list)) = self.get(key) else { return self.size(key, default, 1, max) };
        let mut all = None;
        self.for_each_layer(key, list, layers, &mut |_, n| {
            if all.is_some_and(|first| first != n) {
                self.unsupported(key);
            }
            all = Some(n);
        });
        self.in_range(key, all.unwrap_or(0), 1, max)
    }

    /// Calls `f` with each layer and its number in a list of whole numbers, or of flags.
    #[inline(never)]
    pub(super) fn for_each_layer(&self, key: &str, list: Array<'a>, layers: usize, f: &mut dyn FnMut(usize, u64)) {
        if list.len() < layers {
            self.impossible(key);
        }
        for (layer, value) in list.iter().enumerate().take(layers) {
            match value {
                Value::Unsigned(n) => f(layer, n),
                Value::Signed(n) if n >= 0 => f(layer, n.cast_unsigned()),
                Value::Bool(flag) => f(layer, flag.into()),
                _ => self.impossible(key),
            }
        }
    }

    /// A positive, finite number (rule M3); without a default, it must be there. 1 where it is not.
    #[inline(never)]
    pub(super) fn float(&self, key: &str, default: Option<f64>) -> f64 {
        match (self.get(key), default) {
            (Some(Value::Float(x)), _) if x.is_finite() && x > 0.0 => return x,
            (Some(Value::Float(_)), _) => self.impossible(key),
            (None, Some(default)) => return default,
            _ => self.missing(key),
        }
        1.0
    }

    /// As [`float`](Keys::float), in the kernels' precision: where a tiny number becomes 0, and a huge one infinite, it is
    /// impossible.
    #[inline(never)]
    pub(super) fn f32(&self, key: &str, default: Option<f32>) -> f32 {
        let x = self.float(key, default.map(f64::from)) as f32;
        if x.is_finite() && x > 0.0 || default == Some(x) {
            return x;
        }
        self.impossible(key);
        1.0
    }

    /// As [`f32`](Keys::f32), but 0 is a number.
    #[inline(never)]
    pub(super) fn f32_or_zero(&self, key: &str, default: f32) -> f32 {
        if matches!(self.get(key), Some(Value::Float(0.0))) { 0.0 } else { self.f32(key, Some(default)) }
    }

    /// What a key says if the family has it, and this if it says nothing. A family without it refuses what means anything.
    #[inline(never)]
    pub(super) fn own(&self, key: &str, is_own: bool, default: f32) -> f32 {
        if is_own {
            return self.f32_or_zero(key, default);
        }
        self.refuse(key, default);
        default
    }

    /// Refuses a key whose value means anything.
    #[inline(never)]
    pub(super) fn refuse(&self, key: &str, neutral: f32) {
        match self.get(key) {
            None | Some(Value::Unsigned(0) | Value::Bool(false)) => {}
            Some(Value::Float(x)) if x == 0.0 || x as f32 == neutral => {}
            Some(_) => self.unsupported(key),
        }
    }
}
