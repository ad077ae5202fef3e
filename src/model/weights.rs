//! Weights, borrowed from the file. Each tensor's shape is checked against the hyper-parameters before use (rule M2), and
//! every tensor of the file is used, is known to change nothing, or the file is refused.

use core::cell::Cell;

use super::layer::{Layer, Linear, Norm, Part, Presence, QKV, Slot, TensorSpec, tensors};
use super::{Hparams, ModelError, Rotation};
use crate::gguf::{Directory, File, Label, Tensor, Value};
use crate::quant::{DType, Layout, Matrix, PACK_VERSION, PANEL_ROWS};
use crate::storage::{Arena, ArenaError};
use crate::util::{listed, phase};

/// The weights of a model.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'m> {
    /// (vocab, n_embd)
    pub token_embd: Matrix<'m>,
    /// (n_layers)
    pub layers: &'m [Layer<'m>],
    /// (n_embd)
    pub output_norm: Norm<'m>,
    /// (vocab, n_embd); the embedding where the file ties them
    pub output: Linear<'m>,
    /// (sets, widest rope_dims / 2) turns per token, in units of 2⁻⁶⁴: of the layers without a window, of those with one if these
    /// are rotated in their own way, and of a long context if there are factors for one
    pub rope_frequencies: &'m [u64],
}

/// The tensors outside the layers that are used.
static TOP: [&str; 10] = [
    "token_embd.weight",
    "output.weight",
    "output.scale",
    "output.input_scale",
    "output.bias",
    "output_norm.weight",
    "output_norm.bias",
    FACTORS,
    LONG_FACTORS,
    SHORT_FACTORS,
];
/// Those of them that are matrices.
const TOP_MATRICES: usize = 2;

/// Tensors of a matrix. The scales of inputs are for hardware that quantises activations to NVFP4; they change no product here.
static KINDS: [&str; 4] = ["weight", "scale", "bias", "input_scale"];

/// What the frequencies of RoPE are divided by.
const FACTORS: &str = "rope_freqs.weight";
const LONG_FACTORS: &str = "rope_factors_long.weight";
const SHORT_FACTORS: &str = "rope_factors_short.weight";

/// The most tensors from the first of a block to its last, which each look-up walks. Models have fewer, in any order.
const MAX_SPAN: usize = 4096;

/// Names of tensors that a text model has no use for: encoders of images and sound, prediction of further tokens.
static SKIPPED: [&str; 4] = ["v.", "a.", "mm.", "mtp."];

impl Weights<'_> {
    /// Layers whose weights the matrix behind the layers is as large as, rounded: what [`Share::new`](super::Share::new) asks for.
    #[cfg(feature = "boards")]
    pub fn head_in_layers(&self) -> usize {
        let layers = self.layers.iter().map(Layer::bytes).sum();
        Self::in_layers(self.output.weight.bytes().len(), layers, self.layers.len())
    }

    /// The same of a matrix of so many bytes, and of so many layers with so many together.
    #[cfg(feature = "boards")]
    pub fn in_layers(head: usize, layers: usize, n_layers: usize) -> usize {
        head.saturating_mul(n_layers).saturating_add(layers / 2) / layers.max(1)
    }
}

impl<'m> Weights<'m> {
    /// Whether a tensor of this name is used as a matrix, and so may be packed in panels.
    pub fn is_matrix(name: &str) -> bool {
        match split_block(name) {
            Some((_, name)) => {
                let is_linear = split_kind(name).0 == QKV || spec(name).is_some_and(TensorSpec::is_linear);
                is_linear && name.ends_with(".weight")
            }
            None => TOP.iter().take(TOP_MATRICES).any(|top| *top == name),
        }
    }

    /// Whether a tensor that is used as several matrices has whole panels of each, so that it may be packed.
    pub fn is_whole_panels(t: &Tensor<'_>, h: &Hparams) -> bool {
        let (layer, name) = split_block(t.name).map_or((0, ""), |(block, name)| (number(block), split_kind(name).0));
        let is_fused_gate = h.family.gated && t.dims[1] == 2 * h.n_ff as u64;
        let parts = match name {
            QKV => [h.q_dim(layer), h.kv_dim(layer)],
            "ffn_up" if is_fused_gate => [h.n_ff; 2],
            _ => [0; 2],
        };
        parts.iter().all(|rows| rows.is_multiple_of(PANEL_ROWS))
    }

    /// Finds and checks every tensor; the table of layers goes to the arena.
    ///
    /// # Errors
    /// [`ModelError`]: a tensor that is missing, that the family has no place for, or of a type or shape that does not fit.
    pub fn new<'a>(file: &File<'m>, h: &Hparams, arena: &mut Arena<'a>) -> Result<Weights<'a>, ModelError>
    where
        'm: 'a,
    {
        check_pack_version(file)?;
        let wrong = Cell::new(None);
        let top = Scope { tensors: file.directory(), block: None, wrong: &wrong };
        let token_embd = top.matrix("token_embd", h.vocab, h.n_embd);
        let tied = !h.family.untied && top.find("output.weight").is_none();
        let weight = if tied { token_embd } else { top.matrix("output", h.vocab, h.n_embd) };
        // Products are scaled, and the rows of an embedding are none.
        for (name, of_embedding) in [("token_embd.scale", true), ("output.scale", tied)] {
            if of_embedding && top.find(name).is_some() {
                top.fail(ModelError::TensorScale(top.label(name)));
            }
        }
        let output = top.linear("output", weight, h.family.biased && h.family.untied);
        let rope_frequencies = rope_frequencies(&top, h, arena)?;
        let layer = |i| Ok::<_, ArenaError>(layer(&Scope::of_block(file, i, &wrong), h, i));
        // A dry run builds nothing, but planning for a broken file should fail as loading it does.
        if arena.is_dry() {
            (0..h.n_layers).try_for_each(|i| layer(i).map(drop))?;
        }
        let layers = arena.build("layers", h.n_layers, layer)?;
        let mut output_norm = Norm { weight: top.vector("output_norm.weight", [h.n_embd, 1]), bias: &[] };
        if Part::BiasBefore.presence(h.family) == Presence::Required {
            output_norm.bias = top.vector("output_norm.bias", [h.n_embd, 1]);
        }
        for t in file.tensors() {
            if !has_place(t.name, h) {
                top.stray(&t);
            }
        }
        wrong.take().map_or(Ok(Weights { token_embd, layers, output_norm, output, rope_frequencies }), Err)
    }
}

/// Whether a tensor belongs to a block, whose loading says whether it is used; is one of those outside the blocks; or is known
/// to be of no use.
#[inline(never)]
fn has_place(name: &str, h: &Hparams) -> bool {
    let Some((block, _)) = split_block(name) else {
        let bias = name == "output_norm.bias" && Part::BiasBefore.presence(h.family) == Presence::Never;
        return listed(&TOP).contains(&name) && !bias || listed(&SKIPPED).iter().any(|s| name.starts_with(s));
    };
    number(block) < h.n_layers + h.n_extra_layers
}

/// The number of a block; the largest for any other spelling than that of its digits, which is no block's, and would be read
/// by none. `usize::from_str` is larger.
#[inline(never)]
fn number(block: &str) -> usize {
    let digits = || block.bytes().map(|b| usize::from(b.wrapping_sub(b'0')));
    let is_spelled = block == "0" || digits().next().is_some_and(|digit| digit != 0);
    if !is_spelled || digits().any(|digit| digit > 9) {
        return usize::MAX;
    }
    digits().fold(0, |n: usize, digit| n.saturating_mul(10).saturating_add(digit))
}

/// The number of a block, and the name of a tensor in it.
#[inline(never)]
fn split_block(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix("blk.")?;
    let dot = rest.bytes().position(|b| b == b'.')?;
    Some((rest.get(..dot)?, rest.get(dot + 1..)?))
}

/// A name up to its last dot, and behind it.
#[inline(never)]
fn split_kind(name: &str) -> (&str, &str) {
    let dot = name.bytes().rposition(|b| b == b'.').unwrap_or(0);
    (name.get(..dot).unwrap_or(""), name.get(dot + 1..).unwrap_or(""))
}

/// The matrix or norm of a layer that a tensor is of.
#[inline(never)]
fn spec(name: &str) -> Option<&'static TensorSpec> {
    let (stem, kind) = split_kind(name);
    let of_matrix = listed(&KINDS).contains(&kind);
    tensors().iter().find(|spec| if spec.is_linear() { of_matrix && spec.name == stem } else { spec.name == name })
}

/// A file with packed tensors says which layout they have.
#[inline(never)]
fn check_pack_version(file: &File<'_>) -> Result<(), ModelError> {
    const KEY: &str = "armlet.pack.version";
    match file.get(KEY) {
        None if !file.tensors().any(|t| t.kind.is_packed()) => Ok(()),
        Some(Value::Unsigned(version)) if version == u64::from(PACK_VERSION) => Ok(()),
        Some(Value::Unsigned(version)) => Err(ModelError::PackVersion(version)),
        _ => Err(ModelError::Key(Label::new(format_args!("{KEY}")))),
    }
}

/// θᵢ = base^(−2i/d), divided by the file's factors (Su et al. 2021, arXiv 2104.09864). The factors of Llama 3 are one tensor,
/// those of LongRoPE (Ding et al. 2024, arXiv 2402.13753) two: for short contexts and for long ones.
#[inline(never)]
fn rope_frequencies<'a>(top: &Scope<'_, '_>, h: &Hparams, arena: &mut Arena<'a>) -> Result<&'a [u64], ArenaError> {
    let pairs = h.widest_head().1 / 2;
    let factors = |name| top.vector_if(name, h.head.rope_dims / 2, false).as_chunks::<4>().0;
    let [any, short, long] = [FACTORS, SHORT_FACTORS, LONG_FACTORS].map(factors);
    if any.is_empty() && short.is_empty() != long.is_empty() {
        let name = if short.is_empty() { SHORT_FACTORS } else { LONG_FACTORS };
        top.fail(ModelError::MissingTensor(top.label(name)));
    }
    // As in llama.cpp, a file that has both kinds means the first.
    let (short, long) = if any.is_empty() { (short, long) } else { (any, &[][..]) };
    let (sets, windowed) = (h.rope_bases() + usize::from(!long.is_empty()), h.window.as_ref().and_then(|w| w.rotation));
    let full = Rotation { base: h.rope_base, scaling: h.rope_scaling };
    let frequencies = arena.build("rope frequencies", sets * pairs, |i| {
        let (set, i) = (i / pairs.max(1), i % pairs.max(1));
        // The frequencies of windowed layers come second.
        let (rotation, dims, factors) = match windowed {
            _ if set == 0 => (full, h.head.rope_dims, short),
            Some(rotation) if set == 1 => (rotation, h.windowed_head().rope_dims, &[][..]),
            _ => (full, h.head.rope_dims, long),
        };
        let factor = factors.get(i).map_or(1.0, |f| f64::from(f32::from_le_bytes(*f)));
        let radians = libm::pow(rotation.base, -2.0 * i as f64 / dims as f64);
        let radians = rotation.scaling.scaled(radians / factor, i);
        Ok::<_, ArenaError>(phase::frequency(if radians.is_finite() { radians } else { 0.0 }))
    });
    Ok(frequencies?)
}

/// The weights of a block.
#[inline(never)]
fn layer<'m>(s: &Scope<'m, '_>, h: &Hparams, index: usize) -> Layer<'m> {
    let mut layer = Layer::default();
    if s.is_wrong() {
        return layer;
    }
    let fused = Fused {
        qkv: s.find("attn_qkv.weight").is_some(),
        gate: h.family.gated
            && s.find("ffn_gate.weight").is_none()
            && s.find("ffn_up.weight").is_some_and(|t| t.dims == [h.n_embd as u64, 2 * h.n_ff as u64, 1, 1]),
    };
    for t in tensors() {
        let presence = t.part.presence(h.family);
        let (rows, cols) = (t.rows.of(h, index), t.cols.of(h, index));
        match (t.slot)(&mut layer) {
            _ if presence == Presence::Never => {}
            Slot::Linear(_) if fused.has(t.part) => {}
            Slot::Linear(linear) => {
                let biased = h.family.biased && matches!(t.part, Part::All | Part::Up);
                *linear = s.linear(t.name, s.matrix(t.name, rows, cols), biased);
            }
            Slot::Vector(_) if presence == Presence::Optional && s.find(t.name).is_none() => {}
            Slot::Vector(v) => *v = s.vector(t.name, [cols, rows]),
        }
    }
    let (kv, ff) = (h.kv_dim(index), h.n_ff);
    let Layer { q, k, v, gate, up, ffn_norm, .. } = &mut layer;
    if fused.qkv {
        s.split(QKV, h.n_embd, &mut [(q, h.q_dim(index)), (k, kv), (v, kv)]);
    }
    if fused.gate {
        s.split("ffn_up", h.n_embd, &mut [(gate, ff), (up, ff)]);
    }
    for t in s.tensors.tensors() {
        let Some(name) = t.name.strip_prefix(s.label("").as_str()) else { continue };
        let used = match spec(name) {
            Some(spec) => {
                // There may be a tensor that takes its place.
                let taken = spec.part != Part::Up && fused.has(spec.part);
                let nothing = name == "ffn_norm.bias" && ffn_norm.weight.is_empty();
                spec.part.presence(h.family) != Presence::Never && !taken && !nothing
            }
            None => fused.qkv && split_kind(name).0 == QKV && listed(&KINDS).contains(&split_kind(name).1),
        };
        if !used {
            s.stray(&t);
        }
    }
    layer
}

/// Which matrices of a layer are rows of one tensor.
struct Fused {
    /// q, k and v.
    qkv: bool,
    /// The gate and `up`.
    gate: bool,
}

impl Fused {
    fn has(&self, part: Part) -> bool {
        match part {
            Part::Projection => self.qkv,
            Part::Gate | Part::Up => self.gate,
            _ => false,
        }
    }
}

/// Look-ups of the tensors of one block, or of those outside the blocks. A tensor that is wrong gives nothing, and the first
/// error is kept: one in each result would be most of the code.
struct Scope<'m, 'e> {
    tensors: Directory<'m>,
    block: Option<usize>,
    wrong: &'e Cell<Option<ModelError>>,
}

impl<'m, 'e> Scope<'m, 'e> {
    #[inline(never)]
    fn of_block(file: &File<'m>, index: usize, wrong: &'e Cell<Option<ModelError>>) -> Self {
        let mut scope = Self { tensors: file.directory(), block: Some(index), wrong };
        if !scope.is_wrong() {
            scope.tensors = scope.tensors.with_prefix(scope.label("").as_str());
            if scope.tensors.len() > MAX_SPAN {
                scope.fail(ModelError::Feature("a block whose tensors are spread over more than 4096"));
            }
        }
        scope
    }

    /// Whether there is an error. Nothing more is looked up then: a hostile file may have many layers, and many tensors.
    fn is_wrong(&self) -> bool {
        let first = self.wrong.take();
        self.wrong.set(first);
        first.is_some()
    }

    #[inline(never)]
    fn fail(&self, error: ModelError) {
        let first = self.wrong.take().unwrap_or(error);
        self.wrong.set(Some(first));
    }

    /// Refuses a tensor that is not used.
    #[inline(never)]
    fn stray(&self, t: &Tensor<'_>) {
        self.fail(ModelError::UnknownTensor(Label::from_bytes(t.name.as_bytes())));
    }

    #[inline(never)]
    fn label(&self, name: &str) -> Label {
        match self.block {
            Some(i) => Label::new(format_args!("blk.{i}.{name}")),
            None => Label::new(format_args!("{name}")),
        }
    }

    #[inline(never)]
    fn find(&self, name: &str) -> Option<Tensor<'m>> {
        self.tensors.tensor(self.label(name).as_str())
    }

    /// The tensor of this name, columns and rows.
    #[inline(never)]
    fn tensor(&self, name: &str, dims: [usize; 2]) -> Option<Tensor<'m>> {
        let (found, expected) = (self.find(name), dims.map(|d| d as u64));
        let error = match &found {
            None => ModelError::MissingTensor(self.label(name)),
            Some(t) if t.kind.format().is_none() => ModelError::TensorType { tensor: self.label(name), kind: t.kind },
            Some(t) if t.dims == [expected[0], expected[1], 1, 1] => return found,
            Some(t) => ModelError::TensorShape { tensor: self.label(name), expected, found: t.dims },
        };
        self.fail(error);
        None
    }

    /// The matrix of this name, without its scale and bias.
    #[inline(never)]
    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Matrix<'m> {
        let name = Label::new(format_args!("{name}.weight"));
        let Some(t) = self.tensor(name.as_str(), [cols, rows]) else { return Matrix::default() };
        let matrix = t.kind.format().and_then(|(dtype, layout)| Matrix::new_checked(dtype, layout, rows, cols, t.data));
        matrix.unwrap_or_else(|| {
            let (tensor, expected) = (self.label(name.as_str()), [cols as u64, rows as u64]);
            self.fail(ModelError::TensorShape { tensor, expected, found: t.dims });
            Matrix::default()
        })
    }

    /// A matrix with its scale and its bias, which may have to be there.
    #[inline(never)]
    fn linear(&self, name: &str, weight: Matrix<'m>, biased: bool) -> Linear<'m> {
        let vector = |kind, len, required| {
            let name = Label::new(format_args!("{name}.{kind}"));
            self.vector_if(name.as_str(), len, required)
        };
        let bias = vector("bias", weight.rows(), biased);
        let scale = vector("scale", 1, false).first_chunk().map_or(1.0, |bytes| f32::from_le_bytes(*bytes));
        Linear { weight: weight.with_scale(scale), bias }
    }

    /// Little-endian f32; `dims` are columns and rows.
    #[inline(never)]
    fn vector(&self, name: &str, dims: [usize; 2]) -> &'m [u8] {
        let (tensor, found) = (self.label(name), self.find(name));
        match found.filter(|t| t.kind.format() != Some((DType::F32, Layout::Rows))) {
            Some(Tensor { kind, .. }) if kind.is_packed() => self.fail(ModelError::Packed { tensor, kind }),
            Some(Tensor { kind, .. }) => self.fail(ModelError::TensorType { tensor, kind }),
            None => return self.tensor(name, dims).map_or(&[], |t| t.data),
        }
        &[]
    }

    /// A vector that must be there, or need not be.
    #[inline(never)]
    fn vector_if(&self, name: &str, len: usize, required: bool) -> &'m [u8] {
        if !required && self.find(name).is_none() { &[] } else { self.vector(name, [len, 1]) }
    }

    /// Matrices whose rows are those of one tensor, one after the other. In panels, they must not share one.
    fn split(&self, name: &str, cols: usize, parts: &mut [(&mut Linear<'m>, usize)]) {
        let rows = parts.iter().map(|(_, rows)| rows).sum();
        let whole = self.linear(name, self.matrix(name, rows, cols), false);
        let mut start = 0;
        for (part, rows) in parts {
            let range = start..start + *rows;
            start = range.end;
            part.bias = whole.bias.get(4 * range.start..4 * range.end).unwrap_or_default();
            match whole.weight.rows_of(range) {
                Some(rows) => part.weight = rows.with_scale(whole.weight.scale()),
                None => self.fail(ModelError::Panels(self.label(name))),
            }
        }
    }
}
