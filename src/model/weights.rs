//! Weights, borrowed from the file. Each tensor's shape is checked against the hyper-parameters before use (rule M2).

use super::{Hparams, ModelError};
use crate::gguf::{Directory, File, Label, Tensor, Value};
use crate::quant::{DType, Layout, Matrix, PACK_VERSION};
use crate::storage::{Arena, ArenaError, unpadded};
use crate::util::phase;

/// The weights of a model.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'m> {
    /// (vocab, n_embd)
    pub token_embd: Matrix<'m>,
    /// (n_layers)
    pub layers: &'m [Layer<'m>],
    /// (n_embd) little-endian f32
    pub output_norm: &'m [u8],
    /// (vocab, n_embd); the embedding where the file ties them
    pub output: Matrix<'m>,
    /// (bases, rope_dims / 2) turns per token, in units of 2⁻⁶⁴: of the layers without a window, and of those with one
    /// if these have a base of their own
    pub rope_frequencies: &'m [u64],
}

/// The weights of one transformer block.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'m> {
    /// (n_embd) little-endian f32
    pub attn_norm: &'m [u8],
    /// (q_dim, n_embd)
    pub q: Matrix<'m>,
    /// (kv_dim, n_embd)
    pub k: Matrix<'m>,
    /// (kv_dim, n_embd)
    pub v: Matrix<'m>,
    /// (q_dim), (kv_dim), (kv_dim) little-endian f32; empty where there is none
    pub qkv_bias: [&'m [u8]; 3],
    /// (n_embd, q_dim)
    pub attn_output: Matrix<'m>,
    /// (n_embd) little-endian f32
    pub ffn_norm: &'m [u8],
    /// (n_ff, n_embd)
    pub gate: Matrix<'m>,
    /// (n_ff, n_embd)
    pub up: Matrix<'m>,
    /// (n_embd, n_ff)
    pub down: Matrix<'m>,
}

// Two norms, three biases, seven matrices.
unpadded!(Layer<'_>: [&[u8]; 5], [Matrix<'_>; 7]);

/// The matrices outside the layers.
const TOP_MATRICES: [&str; 2] = ["token_embd.weight", "output.weight"];

/// A matrix of a layer: its name in the file, its shape, and its field.
struct LayerMatrix {
    name: &'static str,
    rows: fn(&Hparams) -> usize,
    cols: fn(&Hparams) -> usize,
    field: for<'l, 'm> fn(&'l mut Layer<'m>) -> &'l mut Matrix<'m>,
}

/// The matrices of a layer, in the order of the fingerprint: loading, packing and counting walk this list.
const LAYER_MATRICES: [LayerMatrix; 7] = {
    const fn matrix(
        name: &'static str,
        rows: fn(&Hparams) -> usize,
        cols: fn(&Hparams) -> usize,
        field: for<'l, 'm> fn(&'l mut Layer<'m>) -> &'l mut Matrix<'m>,
    ) -> LayerMatrix {
        LayerMatrix { name, rows, cols, field }
    }
    [
        matrix("attn_q.weight", Hparams::q_dim, |h| h.n_embd, |l| &mut l.q),
        matrix("attn_k.weight", Hparams::kv_dim, |h| h.n_embd, |l| &mut l.k),
        matrix("attn_v.weight", Hparams::kv_dim, |h| h.n_embd, |l| &mut l.v),
        matrix("attn_output.weight", |h| h.n_embd, Hparams::q_dim, |l| &mut l.attn_output),
        matrix("ffn_gate.weight", |h| h.n_ff, |h| h.n_embd, |l| &mut l.gate),
        matrix("ffn_up.weight", |h| h.n_ff, |h| h.n_embd, |l| &mut l.up),
        matrix("ffn_down.weight", |h| h.n_embd, |h| h.n_ff, |l| &mut l.down),
    ]
};

impl<'m> Weights<'m> {
    /// Whether a tensor of this name is used as a matrix, and so may be packed in panels.
    pub fn is_matrix(name: &str) -> bool {
        match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((_, name)) => LAYER_MATRICES.iter().any(|m| m.name == name),
            None => TOP_MATRICES.contains(&name),
        }
    }

    /// Finds and checks every tensor; the table of layers goes to the arena.
    ///
    /// # Errors
    /// [`ModelError`]: a tensor that is missing, or of a type or shape that does not fit.
    pub fn new<'a>(file: &File<'m>, h: &Hparams, arena: &mut Arena<'a>) -> Result<Weights<'a>, ModelError>
    where
        'm: 'a,
    {
        check_pack_version(file)?;
        let top = Scope { tensors: file.directory(), block: None };
        let token_embd = top.matrix("token_embd.weight", h.vocab, h.n_embd)?;
        let untied = top.find("output.weight").is_some();
        let output = if untied { top.matrix("output.weight", h.vocab, h.n_embd)? } else { token_embd };
        // Products are scaled, and the rows of an embedding are none.
        let no_scales = if untied { &["token_embd.scale"][..] } else { &["token_embd.scale", "output.scale"] };
        if let Some(name) = no_scales.iter().find(|name| top.find(name).is_some()) {
            return Err(ModelError::TensorScale(top.label(name)));
        }
        let factors = top.optional_vector("rope_freqs.weight", h.rope_dims / 2)?.as_chunks::<4>().0;
        let pairs = h.rope_dims / 2;
        let rope_frequencies = arena.build("rope frequencies", h.rope_bases() * pairs, |i| {
            // The frequencies of a window's own base come second, and without scaling.
            let second = h.window.and_then(|w| w.rope_base).zip(i.checked_sub(pairs));
            let factor = factors.get(i).map_or(1.0, |f| f64::from(f32::from_le_bytes(*f)));
            Ok::<_, ArenaError>(match second {
                Some((base, i)) => rope_frequency(base, h.rope_dims, i, 1.0),
                None => rope_frequency(h.rope_base, h.rope_dims, i, h.rope_factor * factor),
            })
        })?;
        // A dry run builds nothing, but planning for a broken file should fail as loading it does.
        if arena.is_dry() {
            (0..h.n_layers).try_for_each(|i| Layer::new(file, h, i).map(drop))?;
        }
        let layers = arena.build("layers", h.n_layers, |i| Layer::new(file, h, i))?;
        let output_norm = top.vector("output_norm.weight", h.n_embd)?;
        Ok(Weights { token_embd, layers, output_norm, output, rope_frequencies })
    }
}

/// A file with packed tensors says which layout they have.
fn check_pack_version(file: &File<'_>) -> Result<(), ModelError> {
    const KEY: &str = "armlet.pack.version";
    match file.get(KEY) {
        None if !file.tensors().any(|t| t.kind.is_packed()) => Ok(()),
        Some(Value::Unsigned(version)) if version == u64::from(PACK_VERSION) => Ok(()),
        Some(Value::Unsigned(version)) => Err(ModelError::PackVersion(version)),
        _ => Err(ModelError::Key(Label::new(format_args!("{KEY}")))),
    }
}

/// θᵢ = base^(−2i/d), divided by the file's factors (Su et al. 2021, arXiv 2104.09864; Llama 3's scaling comes as a
/// tensor of factors).
fn rope_frequency(base: f64, dims: usize, i: usize, factor: f64) -> u64 {
    let exponent = -2.0 * i as f64 / dims as f64;
    let radians = libm::pow(base, exponent) / factor;
    phase::frequency(if radians.is_finite() { radians } else { 0.0 })
}

impl<'m> Layer<'m> {
    fn new(file: &File<'m>, h: &Hparams, index: usize) -> Result<Self, ModelError> {
        let s = Scope::of_block(file, index);
        let other_biases = ["attn_output.bias", "ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"];
        if other_biases.iter().any(|name| s.find(name).is_some()) {
            return Err(ModelError::Feature("a bias other than those of q, k and v"));
        }
        if s.find("attn_q_norm.weight").is_some() {
            return Err(ModelError::Feature("a norm of q and k"));
        }
        let none = Matrix::default();
        let mut layer = Self {
            attn_norm: s.vector("attn_norm.weight", h.n_embd)?,
            q: none,
            k: none,
            v: none,
            qkv_bias: [
                s.optional_vector("attn_q.bias", h.q_dim())?,
                s.optional_vector("attn_k.bias", h.kv_dim())?,
                s.optional_vector("attn_v.bias", h.kv_dim())?,
            ],
            attn_output: none,
            ffn_norm: s.vector("ffn_norm.weight", h.n_embd)?,
            gate: none,
            up: none,
            down: none,
        };
        for m in &LAYER_MATRICES {
            *(m.field)(&mut layer) = s.matrix(m.name, (m.rows)(h), (m.cols)(h))?;
        }
        Ok(layer)
    }

    /// Its matrices, in the order of the file format's names: q, k, v, attention output, gate, up, down.
    pub fn matrices(&self) -> impl Iterator<Item = Matrix<'m>> + use<'m> {
        let mut layer = *self;
        LAYER_MATRICES.iter().map(move |m| *(m.field)(&mut layer))
    }
}

/// Look-ups of the tensors of one block, or of those outside the blocks.
struct Scope<'m> {
    tensors: Directory<'m>,
    block: Option<usize>,
}

impl<'m> Scope<'m> {
    fn of_block(file: &File<'m>, index: usize) -> Self {
        let prefix = Label::new(format_args!("blk.{index}."));
        Self { tensors: file.directory().with_prefix(prefix.as_str()), block: Some(index) }
    }

    fn label(&self, name: &str) -> Label {
        match self.block {
            Some(i) => Label::new(format_args!("blk.{i}.{name}")),
            None => Label::new(format_args!("{name}")),
        }
    }

    fn find(&self, name: &str) -> Option<Tensor<'m>> {
        self.tensors.tensor(self.label(name).as_str())
    }

    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix<'m>, ModelError> {
        let label = self.label(name);
        let t = self.find(name).ok_or(ModelError::MissingTensor(label))?;
        let (dtype, layout) = t.kind.format().ok_or(ModelError::TensorType { tensor: label, kind: t.kind })?;
        let expected = [cols as u64, rows as u64];
        let shape = ModelError::TensorShape { tensor: label, expected, found: t.dims };
        if t.dims != [expected[0], expected[1], 1, 1] {
            return Err(shape);
        }
        let matrix = Matrix::new_checked(dtype, layout, rows, cols, t.data).ok_or(shape)?;
        Ok(matrix.with_scale(self.scale(name)?))
    }

    /// The scale of a matrix.
    fn scale(&self, matrix: &str) -> Result<f32, ModelError> {
        let name = Label::new(format_args!("{}scale", matrix.strip_suffix("weight").unwrap_or(matrix)));
        let scale = self.optional_vector(name.as_str(), 1)?.as_chunks::<4>().0.first();
        Ok(scale.map_or(1.0, |bytes| f32::from_le_bytes(*bytes)))
    }

    fn vector(&self, name: &str, len: usize) -> Result<&'m [u8], ModelError> {
        let label = self.label(name);
        let t = self.find(name).ok_or(ModelError::MissingTensor(label))?;
        if t.kind.is_packed() {
            return Err(ModelError::Packed { tensor: label, kind: t.kind });
        }
        if t.kind.format() != Some((DType::F32, Layout::Rows)) {
            return Err(ModelError::TensorType { tensor: label, kind: t.kind });
        }
        if t.dims != [len as u64, 1, 1, 1] {
            return Err(ModelError::TensorShape { tensor: label, expected: [len as u64, 1], found: t.dims });
        }
        Ok(t.data)
    }

    fn optional_vector(&self, name: &str, len: usize) -> Result<&'m [u8], ModelError> {
        if self.find(name).is_none() { Ok(&[]) } else { self.vector(name, len) }
    }
}
