//! The forward pass of every family in f64, in a test's own words: from the papers, and from what llama.cpp's graphs say where
//! a family has no paper.
//!
//! What sets a family apart is decided here once more, by name, without a look at armlet's table. It knows full attention,
//! windows, and what is left of a text of which all but the first and the last tokens were evicted, has no cache, and can be
//! told to make a [`Mistake`].

use std::collections::HashMap;

use super::family_mistakes::Mistake;
use super::gguf::{Gguf, Val};
use super::oracle::{Rows, Vector, dot};
use armlet::quant::DType;

/// A tensor in f64: rows of `cols`.
struct Weights {
    cols: usize,
    rows: Rows,
}

/// A model of any family.
pub struct FamilyOracle<'g> {
    gguf: &'g Gguf,
    arch: String,
    tensors: HashMap<String, Weights>,
    /// Tokens that the session can hold, which chooses between short and long factors.
    pub context: usize,
    /// Tokens that are never evicted; the others are once the context is full. `None` for a text that fits.
    pub sinks: Option<usize>,
    /// Whether queries, keys and values of a head are rounded to multiples of a 127th of the largest.
    pub int8: bool,
    pub mistake: Option<Mistake>,
}

/// What a token attends to.
struct View {
    /// The first tokens of the text.
    sinks: std::ops::Range<usize>,
    /// Others, its own last.
    others: std::ops::RangeInclusive<usize>,
    /// The sinks seem to stand directly before the others: the query of them is that of so many positions before.
    nearer: usize,
}

/// The rotation of a layer: angle per position of each pair, and what cosines and sines are multiplied by.
struct Rotation {
    radians: Vector,
    multiplier: f64,
}

impl<'g> FamilyOracle<'g> {
    pub fn new(gguf: &'g Gguf, context: usize) -> Self {
        let tensors = gguf.tensors.iter().map(|t| {
            let (dtype, cols) = (DType::from_gguf(t.kind).unwrap(), t.dims[0] as usize);
            let decode = |row: &[u8]| {
                let mut out = vec![0.0f32; cols];
                dtype.decode_row(row, &mut out);
                out.into_iter().map(f64::from).collect()
            };
            let rows = t.data.chunks(dtype.row_bytes(cols).unwrap()).map(decode).collect();
            (t.name.clone(), Weights { cols, rows })
        });
        let mut oracle = FamilyOracle {
            gguf,
            arch: String::new(),
            tensors: tensors.collect(),
            context,
            sinks: None,
            int8: false,
            mistake: None,
        };
        let Some(Val::Str(arch)) = oracle.value("general.architecture") else { panic!("no architecture") };
        oracle.arch = arch.clone();
        oracle
    }

    fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    fn is(&self, families: &[&str]) -> bool {
        families.contains(&self.arch.as_str())
    }

    fn value(&self, key: &str) -> Option<&'g Val> {
        self.gguf.metadata.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    fn key(&self, key: &str) -> Option<&'g Val> {
        self.value(&format!("{}.{key}", self.arch))
    }

    fn number(&self, key: &str) -> Option<f64> {
        match self.key(key)? {
            Val::U32(n) => Some(f64::from(*n)),
            Val::F32(x) => Some(f64::from(*x)),
            other => panic!("{key} is {other:?}"),
        }
    }

    fn size(&self, key: &str) -> usize {
        self.number(key).unwrap_or_else(|| panic!("no {key}")) as usize
    }

    /// Width of a layer's heads.
    fn head_dim(&self, layer: usize) -> usize {
        let own = self.number("attention.key_length_swa").filter(|_| self.window(layer).is_some());
        own.or(self.number("attention.key_length"))
            .map_or_else(|| self.size("embedding_length") / self.size("attention.head_count"), |n| n as usize)
    }

    fn text(&self, key: &str) -> Option<&str> {
        if let Some(Val::Str(s)) = self.key(key) { Some(s) } else { None }
    }

    fn vector(&self, name: &str) -> Option<&Vector> {
        self.tensors.get(name).map(|t| &t.rows[0])
    }

    // The layers' kinds ----------------------------------------------------------------------------------------------

    fn layers(&self) -> usize {
        self.size("block_count")
    }

    /// The window of a layer; `None` if it attends to all positions.
    fn window(&self, layer: usize) -> Option<usize> {
        let default = if self.is(&["gemma2", "exaone4"]) { 4096 } else { 0 };
        let size = self.number("attention.sliding_window").map_or(default, |n| n as usize);
        let none = self.is(&["phi3", "starcoder2"]) || self.arch == "exaone4" && self.layers() != 64;
        if size == 0 || none && !self.makes(Mistake::WindowHonoured) || self.makes(Mistake::WindowIgnored) {
            return None;
        }
        let period = match self.arch.as_str() {
            "gemma2" => 2,
            "gemma3" => 6,
            "olmo2" | "exaone4" => 4,
            _ => 0,
        };
        let windowed = match self.key("attention.sliding_window_pattern") {
            Some(Val::Raw(9, list)) => list[12 + layer] != 0,
            Some(Val::U32(0)) => true,
            Some(Val::U32(n)) => layer % (*n as usize) < *n as usize - 1,
            _ if self.makes(Mistake::GlobalFirst) => !layer.is_multiple_of(period),
            _ => period == 0 || layer % period < period - 1,
        };
        let off = i64::from(self.makes(Mistake::WindowLonger)) - i64::from(self.makes(Mistake::WindowShorter));
        windowed.then_some((size as i64 + off) as usize)
    }

    /// The rotation of a layer; `None` if it has none.
    fn rotation(&self, layer: usize) -> Option<Rotation> {
        let windowed = self.window(layer).is_some();
        let none = match self.arch.as_str() {
            "smollm3" if self.makes(Mistake::NoRopeFirst) => layer.is_multiple_of(4),
            "smollm3" => (layer + 1).is_multiple_of(4),
            "granite" => matches!(self.key("rope.scaling.finetuned"), Some(Val::Bool(false))),
            "exaone4" => !windowed && (0..self.layers()).any(|l| self.window(l).is_some()),
            _ => false,
        };
        if none && !self.makes(Mistake::NoRopeIgnored) {
            return None;
        }
        let wide = self.makes(Mistake::RopeWidth);
        let of_others = self.makes(Mistake::WindowRopeWidth);
        let own = self.number("rope.dimension_count_swa").filter(|_| windowed && !of_others);
        let others = self.number("attention.key_length").filter(|_| of_others);
        let dims = own.or(self.number("rope.dimension_count")).or(others).filter(|_| !wide);
        let dims = dims.map_or(self.head_dim(layer), |n| n as usize).min(self.head_dim(layer));
        let mut base = self.number("rope.freq_base").unwrap_or(1e4);
        let mut factor = self.number("rope.scaling.factor").unwrap_or(1.0);
        let kind = self.text("rope.scaling.type").unwrap_or("linear");
        if kind == "none" || self.makes(Mistake::LinearNowhere) {
            factor = 1.0;
        }
        let mut yarn = kind == "yarn";
        let mut multiplier = self.number("rope.scaling.attn_factor").unwrap_or(1.0);
        if yarn {
            let m = self.number("rope.scaling.yarn_log_multiplier").unwrap_or(0.0);
            multiplier *= 0.1 * factor.ln() + 1.0;
            multiplier /= if m == 0.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
        }
        let mut factors = self.factors();
        // What windowed layers have of their own.
        let own = self.number("rope.freq_base_swa");
        if windowed && self.arch == "gemma2" && !self.makes(Mistake::WindowRope) {
            base = own.unwrap_or(base);
            // llama.cpp reads the type of scaling for the other layers only.
            factor = self.number("rope.scaling.factor").unwrap_or(1.0);
        }
        if windowed && self.makes(Mistake::WindowUnscaled) {
            (factor, yarn, multiplier, factors) = (1.0, false, 1.0, None);
        }
        if windowed && self.is(&["gemma3", "olmo2"]) && !self.makes(Mistake::WindowRope) {
            base = own.unwrap_or(if self.arch == "gemma3" { 1e4 } else { base });
            if !self.makes(Mistake::LinearEverywhere) {
                // That of the file stays, and YaRN's is 1 for a factor of 1; but Olmo 3 does without both.
                let of_file = self.number("rope.scaling.attn_factor").filter(|_| self.arch == "gemma3");
                (factor, yarn, multiplier, factors) = (1.0, false, of_file.unwrap_or(1.0), None);
            }
        }
        if windowed && self.makes(Mistake::WindowMultiplier) {
            multiplier = 1.0;
        }
        multiplier = match self.mistake {
            Some(Mistake::RopeMultiplier | Mistake::RopeMultiplierOfScores) => 1.0,
            Some(Mistake::RopeMultiplierTwice) => multiplier * multiplier,
            _ => multiplier,
        };
        let original =
            self.number("rope.scaling.original_context_length").unwrap_or(self.size("context_length") as f64);
        let beta = |key, default| self.number(key).unwrap_or(default);
        let turns = [beta("rope.scaling.yarn_beta_fast", 32.0), beta("rope.scaling.yarn_beta_slow", 1.0)];
        let [mut low, mut high] =
            turns.map(|turns| dims as f64 * (original / (turns * 2.0 * std::f64::consts::PI)).ln() / (2.0 * base.ln()));
        if !self.makes(Mistake::RampEnds) {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dims as f64 - 1.0));
        let radians = |i: usize| {
            let mut theta = base.powf(-2.0 * i as f64 / dims as f64);
            if let Some(f) = factors.and_then(|f| f.get(i)) {
                theta = if self.makes(Mistake::FactorsMultiplied) { theta * f } else { theta / f };
            }
            let at = if self.makes(Mistake::RampOfDims) { 2 * i } else { i } as f64;
            let kept = 1.0 - ((at - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
            if yarn { theta / factor * (1.0 - kept) + theta * kept } else { theta / factor }
        };
        Some(Rotation { radians: (0..dims / 2).map(radians).collect(), multiplier })
    }

    fn factors(&self) -> Option<&Vector> {
        let original =
            self.number("rope.scaling.original_context_length").unwrap_or(self.size("context_length") as f64);
        let long = (self.context as f64 > original) != self.makes(Mistake::LongForShort);
        let name = if long { "rope_factors_long.weight" } else { "rope_factors_short.weight" };
        let found = self.vector("rope_freqs.weight").or_else(|| self.vector(name));
        found.filter(|_| !self.makes(Mistake::FactorsIgnored))
    }

    // Scales ---------------------------------------------------------------------------------------------------------

    fn embedding_scale(&self) -> f64 {
        let scale = match self.arch.as_str() {
            "gemma" | "gemma2" | "gemma3" => (self.size("embedding_length") as f64).sqrt(),
            "minicpm" => self.number("embedding_scale").unwrap_or(12.0),
            _ => self.number("embedding_scale").unwrap_or(1.0),
        };
        if self.makes(Mistake::EmbeddingScale) { 1.0 } else { scale }
    }

    fn residual_scale(&self) -> f64 {
        let default = if self.arch == "minicpm" { 1.4 / (self.layers() as f64).sqrt() } else { 1.0 };
        if self.makes(Mistake::ResidualScale) { 1.0 } else { self.number("residual_scale").unwrap_or(default) }
    }

    fn logit_scale(&self) -> f64 {
        let default = if self.arch == "minicpm" { 256.0 / self.size("embedding_length") as f64 } else { 1.0 };
        let scale = self.number("logit_scale").unwrap_or(default);
        if self.makes(Mistake::LogitScale) { scale } else { 1.0 / scale }
    }

    fn attention_scale(&self, layer: usize) -> f64 {
        let heads = self.size("attention.head_count");
        let wide = [("gemma2", 46), ("gemma3", 62)].contains(&(self.arch.as_str(), self.layers()));
        let global =
            (0..self.layers()).find(|l| self.window(*l).is_none()).filter(|_| self.makes(Mistake::WindowScale));
        let layer = global.unwrap_or(layer);
        let width = if wide { self.size("embedding_length") / heads } else { self.head_dim(layer) };
        let default = 1.0 / (width as f64).sqrt();
        match self.mistake {
            Some(Mistake::AttentionScale) => 1.0 / (self.head_dim(layer) as f64).sqrt(),
            Some(Mistake::RopeMultiplierOfScores) => {
                default * self.number("rope.scaling.attn_factor").unwrap_or(1.0).powi(2)
            }
            _ => self.number("attention.scale").unwrap_or(default),
        }
    }

    fn cap(&self, key: &str, gemma2: f64) -> f64 {
        self.number(key).unwrap_or(if self.arch == "gemma2" { gemma2 } else { 0.0 })
    }

    // Steps ----------------------------------------------------------------------------------------------------------

    /// s·W·x + b.
    fn linear(&self, name: &str, x: &[Vector]) -> Rows {
        let w = &self.tensors[&format!("{name}.weight")];
        assert_eq!(w.cols, x[0].len(), "{name}");
        let forgotten = match self.mistake {
            Some(Mistake::BiasOfQ) => "attn_q",
            Some(Mistake::BiasOfOutput) => "attn_output",
            Some(Mistake::BiasOfUp) => "ffn_up",
            Some(Mistake::BiasOfDown) => "ffn_down",
            Some(Mistake::BiasOfLogits) => "output",
            _ => "none",
        };
        let bias = self.vector(&format!("{name}.bias")).filter(|_| !name.ends_with(forgotten));
        let scale =
            self.vector(&format!("{name}.scale")).filter(|_| !self.makes(Mistake::TensorScales)).map_or(1.0, |s| s[0]);
        let of_bias = if self.makes(Mistake::ScaledBiases) { scale } else { 1.0 };
        let one = |x: &Vector| {
            let mut y: Vector = w.rows.iter().map(|w| scale * dot(w, x)).collect();
            if let Some(bias) = bias {
                y.iter_mut().zip(bias).for_each(|(y, b)| *y += of_bias * b);
            }
            y
        };
        x.iter().map(one).collect()
    }

    /// The family's norm of `x` with these weights.
    fn normalise(&self, x: &[f64], weight: &[f64], bias: Option<&Vector>) -> Vector {
        let layer_norm = self.is(&["nemotron", "starcoder2", "phi2", "stablelm"]);
        let n = x.len() as f64;
        let mean = if layer_norm && !self.makes(Mistake::MeanKept) { x.iter().sum::<f64>() / n } else { 0.0 };
        let x: Vector = x.iter().map(|x| x - mean).collect();
        let eps = if layer_norm { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" };
        let root = (dot(&x, &x) / n + self.number(eps).unwrap()).sqrt();
        let more = if self.makes(Mistake::NormsPlusOne) { 1.0 } else { 0.0 };
        let mut y: Vector = x.iter().zip(weight).map(|(x, w)| x / root * (w + more)).collect();
        if let Some(bias) = bias.filter(|_| !self.makes(Mistake::BiasOfNorms)) {
            y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
        y
    }

    /// A norm by name, or `x` if the file has none of this name.
    fn norm(&self, name: &str, x: &[Vector]) -> Rows {
        let Some(weight) = self.vector(&format!("{name}.weight")) else { return x.to_vec() };
        let bias = self.vector(&format!("{name}.bias"));
        x.iter().map(|x| self.normalise(x, weight, bias)).collect()
    }

    /// The norm of queries or keys, of each head or of all.
    fn head_norm(&self, name: &str, head_dim: usize, x: &mut [Vector]) {
        let Some(weights) = self.tensors.get(name) else { return };
        let whole = (self.arch == "olmo2") != self.makes(Mistake::QkNormWidth);
        for row in x {
            let width = if whole { row.len() } else { head_dim };
            for (i, head) in row.chunks_mut(width).enumerate() {
                let first = self.makes(Mistake::QkNormOfFirstHead);
                let weight = &weights.rows[if weights.rows.len() > 1 && !first { i } else { 0 }];
                // With a mistake, weights of the other width.
                let weight: Vector = (0..width).map(|j| weight[j % weight.len()]).collect();
                let normed = self.normalise(head, &weight, None);
                head.copy_from_slice(&normed);
            }
        }
    }

    /// What the token at `t` attends to. Layers with a window that is narrower than the context keep no sinks.
    fn view(&self, layer: usize, t: usize) -> View {
        let own = self.window(layer).filter(|w| self.sinks.is_none() || *w < self.context);
        let (sinks, window) = match (own, self.sinks) {
            (Some(window), _) => (0, window),
            (None, Some(sinks)) => (sinks, self.context - sinks),
            (None, None) => (0, usize::MAX),
        };
        let first = (t + 1).saturating_sub(window).max(sinks);
        View { sinks: 0..sinks.min(t + 1), others: first..=t, nearer: first - sinks }
    }

    /// Rotates each row by its position: its number, less this.
    fn rotate(&self, x: &mut [Vector], head_dim: usize, rotation: Option<&Rotation>, less: &dyn Fn(usize) -> usize) {
        let Some(Rotation { radians, multiplier }) = rotation else { return };
        let adjacent = ["llama", "arcee", "mistral3", "smollm3", "minicpm", "ernie4_5", "granite", "internlm2"];
        let adjacent = self.is(&adjacent) != self.makes(Mistake::RopePairs);
        for (position, row) in x.iter_mut().enumerate() {
            for head in row.chunks_mut(head_dim) {
                for (i, radians) in radians.iter().enumerate() {
                    let (a, b) = if adjacent { (2 * i, 2 * i + 1) } else { (i, i + rotation.unwrap().radians.len()) };
                    let (sin, cos) = ((position - less(position)) as f64 * radians).sin_cos();
                    let (x, y) = (head[a], head[b]);
                    head[a] = (x * cos - y * sin) * multiplier;
                    head[b] = (x * sin + y * cos) * multiplier;
                }
            }
        }
    }

    /// Queries, keys and values.
    fn project(&self, block: &str, head_dim: usize, x: &[Vector]) -> [Rows; 3] {
        if !self.tensors.contains_key(&format!("{block}.attn_qkv.weight")) {
            return ["q", "k", "v"].map(|part| self.linear(&format!("{block}.attn_{part}"), x));
        }
        let all = self.linear(&format!("{block}.attn_qkv"), x);
        let q = self.size("attention.head_count") * head_dim;
        let kv = self.size("attention.head_count_kv") * head_dim;
        [0..q, q..q + kv, q + kv..q + 2 * kv].map(|part| all.iter().map(|row| row[part.clone()].to_vec()).collect())
    }

    /// 1 + β·ln(⌊n / original context⌋ + 1).
    fn temperature(&self, position: usize) -> f64 {
        let beta = self.number("attention.temperature_scale").unwrap_or(0.0);
        let steps = position as f64 / self.number("rope.scaling.original_context_length").unwrap_or(1e9);
        match self.mistake {
            Some(Mistake::TemperatureIgnored) => 1.0,
            Some(Mistake::TemperatureSmooth) => 1.0 + beta * (steps + 1.0).ln(),
            _ => 1.0 + beta * (steps.floor() + 1.0).ln(),
        }
    }

    fn attention(&self, layer: usize, x: &[Vector]) -> Rows {
        let block = format!("blk.{layer}");
        let (heads, d) = (self.size("attention.head_count"), self.head_dim(layer));
        let [mut q, mut k, mut v] = self.project(&block, d, x);
        let mut of_sinks = q.clone();
        let late = (self.arch == "hunyuan-dense") != self.makes(Mistake::QkNormOrder);
        let rotation = self.rotation(layer);
        let (own, nearer) = (|_: usize| 0, |t: usize| self.view(layer, t).nearer);
        let of_q = "attn_q_norm.weight";
        for (name, x, less) in [
            (of_q, &mut q, &own as &dyn Fn(usize) -> usize),
            (of_q, &mut of_sinks, &nearer),
            ("attn_k_norm.weight", &mut k, &own),
        ] {
            let name = format!("{block}.{name}");
            if !late {
                self.head_norm(&name, d, x);
            }
            self.rotate(x, d, rotation.as_ref(), less);
            if late {
                self.head_norm(&name, d, x);
            }
        }
        let heat = |x: &mut Rows| {
            for (position, row) in x.iter_mut().enumerate() {
                row.iter_mut().for_each(|x| *x *= self.temperature(position));
            }
        };
        heat(&mut q);
        heat(&mut of_sinks);
        if self.makes(Mistake::TemperatureOfKeys) {
            heat(&mut k);
        }
        let group = heads / self.size("attention.head_count_kv");
        if self.int8 {
            for (x, in_cache) in [(&mut q, false), (&mut of_sinks, false), (&mut k, true), (&mut v, true)] {
                x.iter_mut().flat_map(|row| row.chunks_mut(d)).for_each(|head| round(head, in_cache));
            }
        }
        let scale = self.attention_scale(layer);
        let cap = self.cap("attn_logit_softcapping", 50.0);
        let capped = |s: f64| {
            if cap == 0.0 || self.makes(Mistake::AttentionCap) { s } else { cap * (s / cap).tanh() }
        };
        let part = |row: &Vector, h: usize| row[h * d..][..d].to_vec();
        let token = |t: usize| {
            let view = self.view(layer, t);
            let seen: Vec<_> = view.sinks.map(|s| (s, &of_sinks[t])).chain(view.others.map(|s| (s, &q[t]))).collect();
            let head = |h: usize| {
                let score = |(s, q): &(usize, &Vector)| capped(scale * dot(&part(q, h), &part(&k[*s], h / group)));
                let scores: Vector = seen.iter().map(score).collect();
                let max = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(*s));
                let weights: Vector = scores.iter().map(|s| (s - max).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let mut out = vec![0.0; d];
                for ((s, _), w) in seen.iter().zip(weights) {
                    out.iter_mut().zip(part(&v[*s], h / group)).for_each(|(out, v)| *out += w / sum * v);
                }
                out
            };
            (0..heads).flat_map(head).collect()
        };
        let attended: Rows = (0..x.len()).map(token).collect();
        let attended = self.within(&format!("{block}.attn_sub_norm"), attended);
        self.linear(&format!("{block}.attn_output"), &attended)
    }

    fn within(&self, name: &str, x: Rows) -> Rows {
        if self.makes(Mistake::NormsWithin) { x } else { self.norm(name, &x) }
    }

    fn activation(&self, x: f64) -> f64 {
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let gelu = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
        let (is_gelu, is_relu) =
            (self.is(&["gemma", "gemma2", "gemma3", "starcoder2", "phi2"]), self.is(&["nemotron", "arcee"]));
        match self.makes(Mistake::Activation) {
            true if is_gelu => silu(x),
            true if is_relu => x.max(0.0),
            true => gelu(x),
            false if is_gelu => gelu(x),
            false if is_relu => x.max(0.0).powi(2),
            false => silu(x),
        }
    }

    fn feed_forward(&self, block: &str, x: &[Vector]) -> Rows {
        let mut up = self.linear(&format!("{block}.ffn_up"), x);
        let n_ff = self.size("feed_forward_length");
        let gate = if self.tensors.contains_key(&format!("{block}.ffn_gate.weight")) {
            Some(self.linear(&format!("{block}.ffn_gate"), x))
        } else if up[0].len() == 2 * n_ff {
            let (mut gate, mut rest): (Rows, Rows) =
                up.iter().map(|row| (row[..n_ff].to_vec(), row[n_ff..].to_vec())).unzip();
            if self.makes(Mistake::Halves) {
                std::mem::swap(&mut gate, &mut rest);
            }
            up = rest;
            Some(gate)
        } else {
            None
        };
        match gate {
            None => up.iter_mut().flatten().for_each(|u| *u = self.activation(*u)),
            Some(gate) => {
                up.iter_mut().flatten().zip(gate.iter().flatten()).for_each(|(u, g)| *u *= self.activation(*g));
            }
        }
        let up = self.within(&format!("{block}.ffn_sub_norm"), up);
        self.linear(&format!("{block}.ffn_down"), &up)
    }

    /// x + r·norm(y)
    fn add(&self, x: &mut [Vector], y: Rows, post_norm: &str) {
        let y = if self.makes(Mistake::NormsBehind) { y } else { self.norm(post_norm, &y) };
        let scale = self.residual_scale();
        for (x, y) in x.iter_mut().flatten().zip(y.iter().flatten()) {
            *x += scale * y;
        }
    }

    /// The logits after each token.
    pub fn logits(&self, tokens: &[u32]) -> Rows {
        let table = &self.tensors["token_embd.weight"].rows;
        let scale = self.embedding_scale();
        let mut x: Rows = tokens.iter().map(|t| table[*t as usize].iter().map(|x| x * scale).collect()).collect();
        for l in 0..self.layers() {
            let block = format!("blk.{l}");
            let h = self.norm(&format!("{block}.attn_norm"), &x);
            let parallel =
                self.is(&["phi2", "stablelm"]) && !self.tensors.contains_key(&format!("{block}.ffn_norm.weight"));
            self.add(&mut x, self.attention(l, &h), &format!("{block}.post_attention_norm"));
            let h = match parallel {
                true if self.makes(Mistake::NotParallel) => self.norm(&format!("{block}.attn_norm"), &x),
                true => h,
                false => self.norm(&format!("{block}.ffn_norm"), &x),
            };
            self.add(&mut x, self.feed_forward(&block, &h), &format!("{block}.post_ffw_norm"));
        }
        let untied = self.tensors.contains_key("output.weight") && !self.makes(Mistake::Head);
        let mut logits = self.linear(if untied { "output" } else { "token_embd" }, &self.norm("output_norm", &x));
        let (scale, cap) = (self.logit_scale(), self.cap("final_logit_softcapping", 30.0));
        for l in logits.iter_mut().flatten() {
            *l *= scale;
            if cap > 0.0 && !self.makes(Mistake::LogitsCap) {
                *l = cap * (*l / cap).tanh();
            }
        }
        logits
    }
}

/// Rounds a head to multiples of a 127th of its largest magnitude, which in a cache is a binary16 number.
fn round(head: &mut [f64], in_cache: bool) {
    let mut d = head.iter().fold(0.0f64, |m, x| m.max(x.abs())) / 127.0;
    if in_cache {
        d = half::f16::from_f64(d).to_f64();
    }
    head.iter_mut().for_each(|x| *x = if d > 0.0 { (*x / d).round_ties_even().clamp(-127.0, 127.0) * d } else { 0.0 });
}
