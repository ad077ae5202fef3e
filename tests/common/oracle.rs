//! A forward pass in f64, written from the papers: RMSNorm (arXiv 1910.07467), rotary embedding (2104.09864), grouped
//! queries (2305.13245), SwiGLU (2002.05202), llama (2302.13971), attention sinks (2309.17453).
//!
//! It shares with armlet only the decoding of a row of weights. It reads the sizes and the weights from what the test is
//! about to write to the file, has no cache, no chunks, no threads and no tables, and can be told to make a mistake, to
//! show that a comparison with it would notice one. Keys are kept as they are before RoPE, and rotated anew for each
//! query to their positions in its view.

use std::cell::RefCell;
use std::collections::BTreeMap;

use armlet::quant::DType;

use super::gguf::{Gguf, Val};

pub type Vector = Vec<f64>;
/// One vector for each token, or one for each row of a matrix.
pub type Rows = Vec<Vector>;

/// What a token attends to, and where that seems to be: StreamingLLM as its authors run it, positions by place.
#[derive(Clone, Debug)]
pub struct View {
    /// The first tokens, which stay.
    pub sinks: usize,
    /// The last tokens, its own among them.
    pub window: usize,
    /// Every so many tiles of 32 before the window one is kept, and how many; none for 0.
    pub strided: (usize, usize),
    /// Tokens of layers with a window of their own, and every so many layers one without (0 for none).
    pub layers: Option<(usize, usize)>,
    pub mistake: Option<ViewMistake>,
}

/// What a cache with sinks can get wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewMistake {
    /// Sinks at their first places, however far the text is.
    SinksAtZero,
    /// Sinks one place too near.
    OffByOne,
    /// Places modulo the capacity.
    Wrapped,
    /// A window of one more.
    Window,
}

pub const VIEW_MISTAKES: [ViewMistake; 4] =
    [ViewMistake::SinksAtZero, ViewMistake::OffByOne, ViewMistake::Wrapped, ViewMistake::Window];

impl View {
    pub fn new(sinks: usize, window: usize) -> Self {
        View { sinks, window, strided: (0, 0), layers: None, mistake: None }
    }

    fn is_windowed(&self, layer: usize) -> bool {
        self.layers.is_some_and(|(_, every)| every == 0 || layer % every != every - 1)
    }

    /// The tokens that the one at `t` attends to, and their places.
    ///
    /// Tokens of the window are as far apart as they are. What is before it is in front of it, sinks right before the
    /// first of the others.
    fn places(&self, t: usize, layer: usize) -> Vec<(usize, f64)> {
        let (mut sinks, mut window) = (self.sinks, self.window);
        let mut strided = self.strided;
        if self.is_windowed(layer) {
            (sinks, window, strided) = (0, self.layers.unwrap().0, (0, 0));
        }
        if self.mistake == Some(ViewMistake::Window) {
            window += 1;
        }
        let start = (t + 1).saturating_sub(window).max(sinks);
        let kept: Vec<usize> =
            (0..=start / 32).rev().filter(|i| strided.0 > 0 && i % strided.0 == 0).take(strided.1).collect();
        let others: Vec<usize> = (sinks..=t).filter(|s| *s >= start || kept.contains(&(s / 32))).collect();
        let first = others.first().copied().unwrap_or(t + 1);
        let moved = match self.mistake {
            Some(ViewMistake::SinksAtZero) => 0,
            Some(ViewMistake::OffByOne) if first > sinks => first - sinks + 1,
            _ => first.saturating_sub(sinks),
        };
        let sinks = (0..sinks.min(t + 1)).map(|s| (s, (s + moved) as f64));
        let all = sinks.chain(others.into_iter().map(|s| (s, s as f64)));
        let place = |p: f64| match self.mistake {
            Some(ViewMistake::Wrapped) => p % (self.sinks + self.window) as f64,
            _ => p,
        };
        all.map(|(s, p)| (s, place(p))).collect()
    }

    /// Its own place: the last one's, but for a mistake that moves sinks beyond it.
    fn own_place(&self, t: usize, seen: &[(usize, f64)]) -> f64 {
        seen.iter().find(|(s, _)| *s == t).map_or(t as f64, |(_, place)| *place)
    }
}

/// What the oracle can get wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Queries are rotated by the next position's angle. (Were keys to turn too, nothing would change: it is the difference
    /// that counts.)
    RopePosition,
    /// llama's pairs for qwen2, and the other way round.
    RopePairs,
    /// base^(-i/d).
    RopeExponent,
    /// d is the head's size, not the number of dimensions that RoPE rotates.
    RopeWidth,
    /// `rope_freqs.weight` ignored.
    RopeFactors,
    /// `rope.scaling.factor` ignored.
    RopeScaling,
    /// Query head h reads KV head h % n_kv_heads.
    Groups,
    /// Scores not divided by sqrt(d).
    Scale,
    /// A token sees the next one.
    MaskLate,
    /// A token does not see itself (but for the first, which would see nothing).
    MaskEarly,
    /// x / (sqrt(mean) + eps).
    Epsilon,
    /// No bias of the queries.
    Bias,
    /// gate * silu(up).
    Gate,
    /// The embedding as output matrix although the file has one.
    Head,
    /// The scale of a tensor ignored.
    NoTensorScale,
    /// Applied twice.
    TensorScaleTwice,
    /// Applied to the sum of product and bias.
    ScaledBias,
    /// Applied to the sum of product and residual stream.
    ScaledResidual,
}

pub const MISTAKES: [Mistake; 18] = [
    Mistake::RopePosition,
    Mistake::RopePairs,
    Mistake::RopeExponent,
    Mistake::RopeWidth,
    Mistake::RopeFactors,
    Mistake::RopeScaling,
    Mistake::Groups,
    Mistake::Scale,
    Mistake::MaskLate,
    Mistake::MaskEarly,
    Mistake::Epsilon,
    Mistake::Bias,
    Mistake::Gate,
    Mistake::Head,
    Mistake::NoTensorScale,
    Mistake::TensorScaleTwice,
    Mistake::ScaledBias,
    Mistake::ScaledResidual,
];

/// A llama in f64.
pub struct Oracle<'g> {
    pub gguf: &'g Gguf,
    pub mistake: Option<Mistake>,
    /// Round what armlet rounds on purpose: the input of a quantised matrix to int8 in blocks of 32, and
    pub int8: bool,
    /// keys and values to F16.
    pub half: bool,
    /// What a token attends to; none for all before it.
    pub view: Option<View>,
    /// For each matrix multiplied so far the sum of the squares of its inputs, column by column.
    pub squares: RefCell<BTreeMap<String, Vector>>,
}

impl<'g> Oracle<'g> {
    pub fn new(gguf: &'g Gguf) -> Self {
        Oracle { gguf, mistake: None, int8: false, half: false, view: None, squares: RefCell::default() }
    }

    fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    pub fn value(&self, key: &str) -> Option<&Val> {
        self.gguf.metadata.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    fn arch(&self) -> &str {
        let Some(Val::Str(arch)) = self.value("general.architecture") else { panic!("no architecture") };
        arch
    }

    fn number(&self, key: &str) -> Option<f64> {
        match self.value(&format!("{}.{key}", self.arch()))? {
            Val::U32(n) => Some(f64::from(*n)),
            Val::F32(x) => Some(f64::from(*x)),
            other => panic!("{key} is {other:?}"),
        }
    }

    fn size(&self, key: &str) -> usize {
        self.number(key).unwrap() as usize
    }

    /// The format and the rows of a tensor, if the file has it.
    fn find(&self, name: &str) -> Option<(DType, Rows)> {
        let t = self.gguf.tensors.iter().find(|t| t.name == name)?;
        let dtype = DType::from_gguf(t.kind).unwrap();
        let decode = |row: &[u8]| {
            let mut out = vec![0.0f32; t.dims[0] as usize];
            dtype.decode_row(row, &mut out);
            out.into_iter().map(f64::from).collect()
        };
        Some((dtype, t.data.chunks(dtype.row_bytes(t.dims[0] as usize).unwrap()).map(decode).collect()))
    }

    fn vector(&self, name: &str) -> Option<Vector> {
        self.find(name).map(|(_, mut rows)| rows.remove(0))
    }

    /// A matrix times the vector of each token.
    fn matmul(&self, name: &str, x: &[Vector]) -> Rows {
        let (dtype, rows) = self.find(name).unwrap_or_else(|| panic!("no {name}"));
        let mut squares = self.squares.borrow_mut();
        let squares = squares.entry(name.into()).or_insert_with(|| vec![0.0; rows[0].len()]);
        for x in x {
            squares.iter_mut().zip(x).for_each(|(sum, x)| *sum += x * x);
        }
        let x = x.iter().map(|x| if self.int8 && dtype.is_quantised() { int8(x) } else { x.clone() });
        let scale = match self.mistake {
            Some(Mistake::NoTensorScale) => 1.0,
            Some(Mistake::TensorScaleTwice) => self.tensor_scale(name).powi(2),
            _ => self.tensor_scale(name),
        };
        x.map(|x| rows.iter().map(|w| scale * dot(w, &x)).collect()).collect()
    }

    /// What the products of a matrix are multiplied with.
    fn tensor_scale(&self, matrix: &str) -> f64 {
        self.vector(&matrix.replace(".weight", ".scale")).map_or(1.0, |scale| scale[0])
    }

    /// The residual stream after a sublayer whose last matrix is `name`.
    fn add_residual(&self, name: &str, x: &mut [Vector], y: &[Vector]) {
        let scale = if self.makes(Mistake::ScaledResidual) { self.tensor_scale(name) } else { 1.0 };
        for (x, y) in x.iter_mut().zip(y) {
            x.iter_mut().for_each(|x| *x *= scale);
            add(x, y);
        }
    }

    fn norm(&self, name: &str, x: &[Vector]) -> Rows {
        let weight = self.vector(name).unwrap();
        let eps = self.number("attention.layer_norm_rms_epsilon").unwrap();
        let one = |x: &Vector| {
            let mean = dot(x, x) / x.len() as f64;
            let root = if self.makes(Mistake::Epsilon) { mean.sqrt() + eps } else { (mean + eps).sqrt() };
            x.iter().zip(&weight).map(|(x, w)| x / root * w).collect()
        };
        x.iter().map(one).collect()
    }

    /// Angles of a position, one for each pair of dimensions.
    fn angles(&self, position: f64, layer: usize) -> Vector {
        let (dims, head_dim) = (self.size("rope.dimension_count"), self.size("attention.key_length"));
        let windowed = self.view.as_ref().is_some_and(|v| v.is_windowed(layer));
        let own = self.number("rope.freq_base_swa").filter(|_| windowed);
        let base = own.unwrap_or(self.number("rope.freq_base").unwrap());
        let factors = self.vector("rope_freqs.weight").filter(|_| !self.makes(Mistake::RopeFactors));
        let scaling = self.number("rope.scaling.factor").filter(|_| !self.makes(Mistake::RopeScaling)).unwrap_or(1.0);
        let width = if self.makes(Mistake::RopeWidth) { head_dim } else { dims } as f64;
        let step = if self.makes(Mistake::RopeExponent) { 1.0 } else { 2.0 };
        let angle = |i: usize| {
            let factor = factors.as_ref().map_or(1.0, |f| f[i]);
            position * base.powf(-step * i as f64 / width) / (scaling * factor)
        };
        (0..dims / 2).map(angle).collect()
    }

    /// Rotates every head of `x`.
    fn rotate(&self, x: &mut [f64], position: f64, layer: usize) {
        let angles = self.angles(position, layer);
        let neox = (self.arch() == "qwen2") != self.makes(Mistake::RopePairs);
        for head in x.chunks_mut(self.size("attention.key_length")) {
            for (i, angle) in angles.iter().enumerate() {
                let (a, b) = if neox { (i, i + angles.len()) } else { (2 * i, 2 * i + 1) };
                let (x, y) = (head[a], head[b]);
                head[a] = x * angle.cos() - y * angle.sin();
                head[b] = x * angle.sin() + y * angle.cos();
            }
        }
    }

    /// Queries, keys or values of all tokens.
    fn project(&self, block: &str, part: &str, x: &[Vector]) -> Rows {
        let name = format!("{block}.attn_{part}.weight");
        let mut y = self.matmul(&name, x);
        let mut bias = self.vector(&format!("{block}.attn_{part}.bias"));
        if self.makes(Mistake::ScaledBias) {
            bias.iter_mut().flatten().for_each(|b| *b *= self.tensor_scale(&name));
        }
        if let Some(bias) = bias.filter(|_| !(part == "q" && self.makes(Mistake::Bias))) {
            y.iter_mut().for_each(|y| add(y, &bias));
        }
        if part == "v" && self.half {
            y.iter_mut().for_each(|y| half(y));
        }
        y
    }

    /// Queries or keys rotated to their positions.
    fn rotated(&self, rows: &[Vector], places: &[(usize, f64)], layer: usize) -> Rows {
        let turn = |(t, place): &(usize, f64)| {
            let mut row = rows[*t].clone();
            self.rotate(&mut row, *place, layer);
            row
        };
        places.iter().map(turn).collect()
    }

    /// The tokens that the one at `t` attends to in a layer, and their places; its own is that of the last.
    fn places(&self, t: usize, layer: usize, n: usize) -> Vec<(usize, f64)> {
        let end = match self.mistake {
            Some(Mistake::MaskLate) => (t + 2).min(n),
            Some(Mistake::MaskEarly) => t.max(1),
            _ => t + 1,
        };
        match self.view.as_ref() {
            None => (0..end).map(|s| (s, s as f64)).collect(),
            Some(view) => view.places(t, layer),
        }
    }

    fn attention(&self, layer: usize, x: &[Vector]) -> Rows {
        let block = format!("blk.{layer}");
        let [q, k, v] = ["q", "k", "v"].map(|part| self.project(&block, part, x));
        let [heads, kv_heads] = ["attention.head_count", "attention.head_count_kv"].map(|key| self.size(key));
        let d = self.size("attention.key_length");
        let scale = if self.makes(Mistake::Scale) { 1.0 } else { 1.0 / (d as f64).sqrt() };
        let late = if self.makes(Mistake::RopePosition) { 1.0 } else { 0.0 };
        let part = |row: &Vector, h: usize| row[h * d..][..d].to_vec();
        let token = |t: usize| {
            let seen = self.places(t, layer, x.len());
            let own = self.view.as_ref().map_or(t as f64, |view| view.own_place(t, &seen));
            let q = self.rotated(&q, &[(t, own + late)], layer).remove(0);
            let mut k = self.rotated(&k, &seen, layer);
            if self.half {
                k.iter_mut().for_each(|k| half(k));
            }
            let head = |h: usize| {
                let kv = if self.makes(Mistake::Groups) { h % kv_heads } else { h / (heads / kv_heads) };
                let scores = k.iter().map(|k| scale * dot(&part(&q, h), &part(k, kv))).collect();
                let mut out = vec![0.0; d];
                for ((s, _), p) in seen.iter().zip(softmax(scores)) {
                    out.iter_mut().zip(part(&v[*s], kv)).for_each(|(out, v)| *out += p * v);
                }
                out
            };
            (0..heads).flat_map(head).collect()
        };
        (0..x.len()).map(token).collect()
    }

    fn feed_forward(&self, block: &str, x: &[Vector]) -> Rows {
        let [mut gate, mut up] = ["gate", "up"].map(|part| self.matmul(&format!("{block}.ffn_{part}.weight"), x));
        if self.makes(Mistake::Gate) {
            std::mem::swap(&mut gate, &mut up);
        }
        for (gate, up) in gate.iter_mut().zip(up) {
            gate.iter_mut().zip(up).for_each(|(g, u)| *g = *g / (1.0 + (-*g).exp()) * u);
        }
        self.matmul(&format!("{block}.ffn_down.weight"), &gate)
    }

    /// The logits after each token.
    pub fn logits(&self, tokens: &[u32]) -> Rows {
        let table = self.find("token_embd.weight").unwrap().1;
        let mut x: Rows = tokens.iter().map(|t| table[*t as usize].clone()).collect();
        for l in 0..self.size("block_count") {
            let block = format!("blk.{l}");
            let y = self.attention(l, &self.norm(&format!("{block}.attn_norm.weight"), &x));
            let name = format!("{block}.attn_output.weight");
            self.add_residual(&name, &mut x, &self.matmul(&name, &y));
            let y = self.feed_forward(&block, &self.norm(&format!("{block}.ffn_norm.weight"), &x));
            self.add_residual(&format!("{block}.ffn_down.weight"), &mut x, &y);
        }
        let untied = self.find("output.weight").is_some() && !self.makes(Mistake::Head);
        self.matmul(if untied { "output.weight" } else { "token_embd.weight" }, &self.norm("output_norm.weight", &x))
    }
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(x: &mut [f64], y: &[f64]) {
    assert_eq!(x.len(), y.len());
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn softmax(scores: Vector) -> Vector {
    let max = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(*s));
    let e: Vector = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

/// `x` rounded to multiples of a 127th of the largest magnitude of each 32.
fn int8(x: &[f64]) -> Vector {
    let block = |x: &[f64]| {
        let d = x.iter().fold(0.0f64, |m, x| m.max(x.abs())) / 127.0;
        x.iter().map(|x| if d > 0.0 { (x / d).round_ties_even() * d } else { 0.0 }).collect::<Vector>()
    };
    x.chunks(32).flat_map(block).collect()
}

/// Each number rounded to F16.
fn half(x: &mut [f64]) {
    let floats: Vec<f32> = x.iter().map(|x| *x as f32).collect();
    let mut bytes = vec![0; 2 * x.len()];
    DType::F16.encode_row(&floats, &mut bytes).unwrap();
    let mut rounded = vec![0.0; x.len()];
    DType::F16.decode_row(&bytes, &mut rounded);
    x.iter_mut().zip(rounded).for_each(|(x, r)| *x = f64::from(r));
}
