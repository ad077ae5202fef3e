//! A tiny model of each family, with random weights and with all that the family may have: norms that are not 1, biases that
//! are not 0, windows and original contexts that a short text exceeds.

use super::family_mistakes::Mistake::{self, *};
use super::gguf::{Gguf, TensorSpec, Tiny, Val, noise};
use armlet::quant::DType;

/// A model, the context to run it in, and the mistakes that must show.
pub struct Case {
    pub name: &'static str,
    pub gguf: Gguf,
    pub context: usize,
    pub mistakes: Vec<Mistake>,
}

/// A model in the making.
struct Model {
    arch: &'static str,
    layers: usize,
    gguf: Gguf,
}

impl Model {
    fn new(tiny: Tiny) -> Self {
        Model { arch: tiny.arch, layers: tiny.n_layers, gguf: tiny.gguf() }
    }

    fn key(mut self, key: &str, value: Val) -> Self {
        self.gguf.set(&format!("{}.{key}", self.arch), value);
        self
    }

    fn floats(self, keys: &[(&str, f32)]) -> Self {
        keys.iter().fold(self, |m, (key, x)| m.key(key, Val::F32(*x)))
    }

    fn without_key(mut self, key: &str) -> Self {
        self.gguf.unset(&format!("{}.{key}", self.arch));
        self
    }

    /// The scale of a matrix of every layer.
    fn scale(self, name: &str, scale: f32) -> Self {
        (0..self.layers).fold(self, |mut m, l| {
            m.gguf.tensor(&format!("blk.{l}.{name}.scale"), &[1], 0, scale.to_le_bytes().to_vec());
            m
        })
    }

    /// A tensor of noise about `centre`.
    fn tensor(mut self, name: &str, dims: &[u64], centre: f32) -> Self {
        let n = dims.iter().product::<u64>() as usize;
        let seed = 7000 + self.gguf.tensors.len() as u64;
        let data = noise(seed, n).iter().flat_map(|x| (centre + x / 2.0).to_le_bytes()).collect();
        self.gguf.tensor(name, dims, 0, data);
        self
    }

    /// Vectors of every layer.
    fn vectors(self, names: &[&str], len: u64, centre: f32) -> Self {
        let layers = self.layers;
        let all = names.iter().flat_map(|name| (0..layers).map(move |l| format!("blk.{l}.{name}")));
        all.fold(self, |m, name| m.tensor(&name, &[len], centre))
    }

    fn norms(self, names: &[&str], len: u64) -> Self {
        self.vectors(names, len, 1.0)
    }

    fn biases(self, names: &[&str], len: u64) -> Self {
        self.vectors(names, len, 0.0)
    }

    fn factors(mut self, name: &str, last: f32, pairs: usize) -> Self {
        let data = (0..pairs).flat_map(|i| (1.0 + (last - 1.0) * i as f32 / (pairs - 1) as f32).to_le_bytes());
        self.gguf.tensor(name, &[pairs as u64], 0, data.collect());
        self
    }

    fn without(mut self, names: &[&str]) -> Self {
        self.gguf.tensors.retain(|t| !names.iter().any(|name| t.name.ends_with(&format!(".{name}"))));
        self
    }

    /// One tensor in the place of several, whose rows follow each other.
    fn fused(mut self, name: &str, parts: &[&str]) -> Self {
        for l in 0..self.layers {
            let kind = self.gguf.tensors.iter().find(|t| t.name == format!("blk.{l}.{}", parts[0])).unwrap().kind;
            let mut whole = TensorSpec { name: format!("blk.{l}.{name}"), dims: vec![0, 0], kind, data: vec![] };
            for part in parts {
                let part = self.gguf.tensors.iter().find(|t| t.name == format!("blk.{l}.{part}")).unwrap();
                whole.dims = vec![part.dims[0], whole.dims[1] + part.dims[1]];
                whole.data.extend(&part.data);
            }
            self = self.remove_of_layer(l, parts);
            self.gguf.tensors.push(whole);
        }
        self
    }

    fn remove_of_layer(mut self, layer: usize, parts: &[&str]) -> Self {
        self.gguf.tensors.retain(|t| !parts.iter().any(|part| t.name == format!("blk.{layer}.{part}")));
        self
    }

    /// LayerNorm with biases.
    fn layer_norm(self) -> Self {
        self.without_key("attention.layer_norm_rms_epsilon")
            .floats(&[("attention.layer_norm_epsilon", 0.02)])
            .biases(&["attn_norm.bias", "ffn_norm.bias"], WIDTH)
            .tensor("output_norm.bias", &[WIDTH], 0.0)
    }

    fn yarn(self, factor: f32) -> Self {
        self.key("rope.scaling.type", Val::Str("yarn".into()))
            .floats(&[("rope.scaling.factor", factor)])
            .key("rope.scaling.original_context_length", Val::U32(ORIGINAL))
    }

    /// Heads of another size in gemma3's windowed layers: five of six.
    fn windowed_heads(self, dim: u64, rope_dims: u32) -> Self {
        let sizes = [("key_length", dim as u32), ("value_length", dim as u32)];
        let m = sizes.into_iter().fold(self, |m, (key, n)| m.key(&format!("attention.{key}_swa"), Val::U32(n)));
        let m = m.key("rope.dimension_count_swa", Val::U32(rope_dims));
        (0..m.layers).filter(|l| l % 6 != 5).fold(m, |m, l| {
            let (q, kv) = (4 * dim, 2 * dim);
            let matrices = [("q", WIDTH, q), ("k", WIDTH, kv), ("v", WIDTH, kv), ("output", q, WIDTH)];
            let m = matrices.into_iter().fold(m, |mut m, (name, cols, rows)| {
                let (name, seed) = (format!("blk.{l}.attn_{name}.weight"), 9000 + m.gguf.tensors.len() as u64);
                m.gguf.tensors.retain(|t| t.name != name);
                let scale = (6.0 / cols as f32).sqrt();
                let data = noise(seed, (cols * rows) as usize).iter().flat_map(|x| (x * scale).to_le_bytes()).collect();
                m.gguf.tensor(&name, &[cols, rows], 0, data);
                m
            });
            Q_AND_K.into_iter().fold(m, |mut m, name| {
                let name = format!("blk.{l}.{name}");
                m.gguf.tensors.retain(|t| t.name != name);
                m.tensor(&name, &[dim], 1.0)
            })
        })
    }

    /// Norms behind the halves of a layer, and perhaps before them.
    fn norms_behind(self, before: bool) -> Self {
        let m = self.norms(&["post_attention_norm.weight", "post_ffw_norm.weight"], WIDTH);
        if before { m } else { m.without(&["attn_norm.weight", "ffn_norm.weight"]) }
    }

    fn case(self, name: &'static str, mistakes: &[Mistake]) -> Case {
        Case { name, gguf: self.gguf, context: 256, mistakes: mistakes.to_vec() }
    }
}

/// Width of the models.
const WIDTH: u64 = 64;
/// Tokens of the context before it was stretched: fewer than the tests read.
const ORIGINAL: u32 = 16;
/// Positions of a window: fewer as well.
const WINDOW: u32 = 5;

/// Four layers of 4 heads of 16 for 2 of keys and values, in 64 dimensions.
fn tiny(arch: &'static str) -> Tiny {
    Tiny { arch, n_layers: 4, seed: 40 + arch.len() as u64, ..Tiny::default() }
}

/// Heads of 32, twice the width for each head.
fn wide_heads(arch: &'static str) -> Tiny {
    Tiny { head_dim: 32, rope_dims: 32, ..tiny(arch) }
}

fn flags(flags: &[bool]) -> Val {
    let items: Vec<u8> = flags.iter().map(|f| u8::from(*f)).collect();
    Val::Raw(9, [&7u32.to_le_bytes()[..], &(flags.len() as u64).to_le_bytes(), &items].concat())
}

const Q_AND_K: [&str; 2] = ["attn_q_norm.weight", "attn_k_norm.weight"];

pub fn cases() -> Vec<Case> {
    let mut cases = llamas();
    cases.extend(neox());
    cases.extend(gemmas());
    cases.extend(windowed_heads());
    cases.extend(layer_norms());
    cases
}

/// A model in Q8_0 with a tensor for each matrix, and with one for q, k and v, and one for the gate and `up`.
pub fn apart_and_fused(tiny: Tiny) -> (Gguf, Gguf) {
    let model = || Model::new(Tiny { dtype: DType::Q8_0, ..tiny.clone() });
    let fused = model()
        .fused("attn_qkv.weight", &["attn_q.weight", "attn_k.weight", "attn_v.weight"])
        .fused("ffn_up.weight", &["ffn_gate.weight", "ffn_up.weight"]);
    (model().gguf, fused.gguf)
}

/// Those that rotate adjacent dimensions.
fn llamas() -> Vec<Case> {
    let granite = |finetuned| {
        let m = Model::new(Tiny { bias: true, ..tiny("granite") }).floats(&[
            ("logit_scale", 6.0),
            ("residual_scale", 0.4),
            ("embedding_scale", 3.0),
            ("attention.scale", 0.6),
        ]);
        m.key("rope.scaling.finetuned", Val::Bool(finetuned))
    };
    vec![
        Model::new(Tiny { rope_factors: true, tied: false, bias: true, ..wide_heads("llama") })
            .biases(&["attn_output.bias", "ffn_down.bias"], WIDTH)
            .biases(&["ffn_gate.bias", "ffn_up.bias"], 96)
            .scale("attn_q", 0.7)
            .scale("attn_output", 1.4)
            .case(
                "llama",
                &[
                    RopePairs,
                    FactorsIgnored,
                    FactorsMultiplied,
                    TensorScales,
                    ScaledBiases,
                    BiasOfQ,
                    BiasOfOutput,
                    BiasOfUp,
                    BiasOfDown,
                    Head,
                ],
            ),
        // llama.cpp scales the products of an FFN's matrices after their biases, which it calls incorrect.
        ["ffn_gate", "ffn_up", "ffn_down"]
            .into_iter()
            .fold(Model::new(tiny("llama")), |m, name| m.scale(name, 0.7))
            .case("llama with scales", &[TensorScales]),
        Model::new(Tiny { rope_base: 1e6, ..wide_heads("mistral3") })
            .yarn(8.0)
            .floats(&[("attention.temperature_scale", 0.3), ("rope.scaling.yarn_log_multiplier", 0.5)])
            .floats(&[("rope.scaling.yarn_beta_fast", 16.0), ("rope.scaling.yarn_beta_slow", 0.5)])
            .case(
                "mistral3",
                &[
                    TemperatureIgnored,
                    TemperatureOfKeys,
                    TemperatureSmooth,
                    RopeMultiplier,
                    RopeMultiplierTwice,
                    RampOfDims,
                    RampEnds,
                    LinearNowhere,
                ],
            ),
        Model::new(Tiny { tied: false, ..tiny("internlm2") })
            .fused("attn_qkv.weight", &["attn_q.weight", "attn_k.weight", "attn_v.weight"])
            .case("internlm2", &[RopePairs, Head]),
        // llama.cpp reads a bias of its attention's output and leaves it out.
        Model::new(Tiny { bias: true, ..wide_heads("ernie4_5") }).case("ernie4_5", &[RopePairs, BiasOfQ]),
        Model::new(tiny("arcee")).without(&["ffn_gate.weight"]).case("arcee", &[RopePairs, Activation]),
        Model::new(Tiny { n_layers: 5, ..tiny("smollm3") }).case("smollm3", &[RopePairs, NoRopeFirst, NoRopeIgnored]),
        granite(true).case("granite", &[RopePairs, EmbeddingScale, ResidualScale, LogitScale, AttentionScale]),
        granite(false).case("granite, not finetuned", &[NoRopeIgnored]),
        Model::new(tiny("minicpm")).case("minicpm", &[RopePairs, EmbeddingScale, ResidualScale, LogitScale]),
        Model::new(tiny("minicpm"))
            .floats(&[("embedding_scale", 2.0), ("residual_scale", 0.3), ("logit_scale", 9.0)])
            .case("minicpm with keys", &[EmbeddingScale, ResidualScale, LogitScale]),
    ]
}

/// Those that rotate halves, with RMSNorm.
fn neox() -> Vec<Case> {
    let phi3 = |original, mistakes: &[Mistake]| {
        Model::new(Tiny { rope_dims: 12, ..tiny("phi3") })
            .key("rope.scaling.original_context_length", Val::U32(original))
            .key("attention.sliding_window", Val::U32(WINDOW))
            .floats(&[("rope.scaling.attn_factor", 1.19)])
            .factors("rope_factors_long.weight", 20.0, 6)
            .factors("rope_factors_short.weight", 2.0, 6)
            .fused("attn_qkv.weight", &["attn_q.weight", "attn_k.weight", "attn_v.weight"])
            .fused("ffn_up.weight", &["ffn_gate.weight", "ffn_up.weight"])
            .case(if original == ORIGINAL { "phi3, long" } else { "phi3, short" }, mistakes)
    };
    let exaone4 = |n_layers| {
        let m = Model::new(Tiny { n_layers, n_embd: 32, n_heads: 2, n_kv_heads: 1, n_ff: 32, ..tiny("exaone4") });
        let m = m.key("attention.sliding_window", Val::U32(WINDOW)).norms(&Q_AND_K, 16);
        let m = m.vectors(
            &["post_attention_norm.weight", "post_ffw_norm.weight"],
            32,
            if n_layers > 9 { 0.3 } else { 1.0 },
        );
        m.without(&["attn_norm.weight", "ffn_norm.weight"])
    };
    let olmo2 = || {
        let m = Model::new(Tiny { tied: false, rope_base: 5e5, ..tiny("olmo2") }).norms_behind(false);
        m.norms(&Q_AND_K[..1], 64).norms(&Q_AND_K[1..], 32)
    };
    vec![
        Model::new(Tiny { bias: true, tied: false, ..tiny("qwen2") })
            .tensor("output.bias", &[67], 0.0)
            .case("qwen2", &[RopePairs, BiasOfQ, BiasOfLogits, Head]),
        Model::new(wide_heads("qwen3"))
            .without_key("rope.dimension_count")
            .norms(&Q_AND_K, 32)
            .case("qwen3", &[RopePairs, QkNormWidth, QkNormOrder]),
        Model::new(wide_heads("qwen3"))
            .yarn(4.0)
            .norms(&Q_AND_K, 32)
            .case("qwen3 with YaRN", &[RopeMultiplier, RopeMultiplierTwice, RampOfDims, RampEnds]),
        Model::new(wide_heads("hunyuan-dense"))
            .key("rope.scaling.type", Val::Str("none".into()))
            .norms(&Q_AND_K, 32)
            .case("hunyuan-dense", &[RopePairs, QkNormWidth, QkNormOrder]),
        phi3(
            ORIGINAL,
            &[
                RopePairs,
                RopeWidth,
                LongForShort,
                RopeMultiplier,
                RopeMultiplierTwice,
                RopeMultiplierOfScores,
                Halves,
                WindowHonoured,
            ],
        ),
        phi3(256, &[LongForShort, FactorsIgnored]),
        Model::new(tiny("bitnet"))
            .norms(&["attn_sub_norm.weight"], 64)
            .norms(&["ffn_sub_norm.weight"], 96)
            .case("bitnet", &[RopePairs, NormsWithin, Activation]),
        olmo2().case("olmo2", &[RopePairs, QkNormWidth, QkNormOrder, NormsBehind, Head]),
        olmo2()
            .yarn(8.0)
            .key("attention.sliding_window", Val::U32(WINDOW))
            .key("attention.sliding_window_pattern", flags(&[true, false, true, true]))
            .case("olmo2 with windows", &[WindowIgnored, WindowLonger, WindowShorter, WindowRope, LinearEverywhere]),
        olmo2()
            .key("attention.sliding_window", Val::U32(WINDOW))
            .case("olmo2 with windows by its own period", &[GlobalFirst]),
        exaone4(4)
            .factors("rope_freqs.weight", 8.0, 8)
            .case("exaone4", &[RopePairs, QkNormWidth, QkNormOrder, NormsBehind, FactorsIgnored, WindowHonoured]),
        exaone4(64)
            .factors("rope_freqs.weight", 8.0, 8)
            .floats(&[("rope.scaling.factor", 2.0)])
            .case("exaone4 of 64 layers", &[WindowIgnored, WindowLonger, NoRopeIgnored, GlobalFirst, WindowUnscaled]),
    ]
}

/// As its converter writes it: all of a head is rotated, however wide the model is.
fn gemma3() -> Model {
    let m = Model::new(Tiny { n_layers: 7, rope_base: 1e6, ..wide_heads("gemma3") })
        .without_key("rope.dimension_count")
        .norms_behind(true)
        .norms(&Q_AND_K, 32);
    m.key("rope.scaling.type", Val::Str("linear".into())).floats(&[("rope.scaling.factor", 8.0)])
}

fn gemmas() -> Vec<Case> {
    vec![
        Model::new(wide_heads("gemma")).case("gemma", &[RopePairs, EmbeddingScale, NormsPlusOne, Activation]),
        Model::new(wide_heads("gemma2"))
            .norms_behind(true)
            .key("attention.sliding_window", Val::U32(WINDOW))
            .floats(&[("attn_logit_softcapping", 5.0), ("final_logit_softcapping", 3.0)])
            .case(
                "gemma2",
                &[
                    RopePairs,
                    GlobalFirst,
                    WindowIgnored,
                    WindowLonger,
                    WindowShorter,
                    AttentionCap,
                    LogitsCap,
                    NormsBehind,
                    EmbeddingScale,
                ],
            ),
        Model::new(wide_heads("gemma2"))
            .norms_behind(true)
            .yarn(4.0)
            .key("attention.sliding_window", Val::U32(WINDOW))
            .floats(&[("rope.freq_base_swa", 3e2), ("rope.scaling.attn_factor", 1.2)])
            .case("gemma2 with YaRN", &[WindowRope, WindowUnscaled, WindowMultiplier, RampOfDims]),
        Model::new(wide_heads("gemma2"))
            .norms_behind(true)
            .key("rope.scaling.type", Val::Str("none".into()))
            .key("attention.sliding_window", Val::U32(WINDOW))
            .floats(&[("rope.scaling.factor", 8.0)])
            .case("gemma2 with a factor and no scaling", &[WindowRope, WindowUnscaled]),
        // The default caps, and a default window that is longer than the text.
        Model::new(wide_heads("gemma2")).norms_behind(true).case("gemma2 without keys", &[AttentionCap, LogitsCap]),
        gemma3().key("attention.sliding_window", Val::U32(WINDOW)).case(
            "gemma3",
            &[
                RopePairs,
                GlobalFirst,
                WindowIgnored,
                WindowLonger,
                WindowShorter,
                WindowRope,
                LinearEverywhere,
                LinearNowhere,
                EmbeddingScale,
                NormsPlusOne,
                NormsBehind,
                QkNormWidth,
                QkNormOrder,
                Activation,
            ],
        ),
        gemma3()
            .key("attention.sliding_window", Val::U32(WINDOW))
            .key("attention.sliding_window_pattern", flags(&[true, true, false, true, false, false, true]))
            .floats(&[("rope.freq_base_swa", 5e3), ("rope.scaling.attn_factor", 1.3)])
            .case("gemma3 with a list of windows", &[WindowIgnored, WindowRope, WindowMultiplier]),
        gemma3().case("gemma3 without windows", &[LinearNowhere]),
    ]
}

/// Heads of windowed layers of their own.
fn windowed_heads() -> Vec<Case> {
    vec![
        gemma3()
            .key("attention.sliding_window", Val::U32(WINDOW))
            .windowed_heads(16, 12)
            .case("gemma3 with smaller heads in windows", &[WindowRopeWidth, WindowScale]),
        gemma3()
            .key("attention.sliding_window", Val::U32(WINDOW))
            .windowed_heads(48, 48)
            .case("gemma3 with larger heads in windows", &[WindowRopeWidth, WindowScale]),
        // A window that evicts no more than the context does, in a cache of its own.
        gemma3()
            .key("attention.sliding_window", Val::U32(3 * WINDOW * WINDOW))
            .windowed_heads(8, 8)
            .case("gemma3 with other heads in long windows", &[WindowScale]),
    ]
}

fn layer_norms() -> Vec<Case> {
    let biased = |m: Model| {
        m.biases(&["attn_output.bias", "ffn_down.bias"], WIDTH)
            .biases(&["ffn_up.bias"], 96)
            .without(&["ffn_gate.weight"])
    };
    let stablelm = || Model::new(Tiny { rope_dims: 8, tied: false, ..tiny("stablelm") }).layer_norm();
    let each_head = |m: Model| {
        (0..4).fold(m, |m, l| {
            m.tensor(&format!("blk.{l}.attn_q_norm.weight"), &[16, 4], 1.0).tensor(
                &format!("blk.{l}.attn_k_norm.weight"),
                &[16, 2],
                1.0,
            )
        })
    };
    let parallel = |m: Model| m.without(&["ffn_norm.weight", "ffn_norm.bias"]);
    vec![
        Model::new(Tiny { rope_dims: 8, tied: false, ..tiny("nemotron") })
            .layer_norm()
            .without(&["ffn_gate.weight"])
            .case("nemotron", &[RopePairs, RopeWidth, MeanKept, BiasOfNorms, Activation, Head]),
        biased(Model::new(Tiny { bias: true, ..tiny("starcoder2") }))
            .layer_norm()
            .key("attention.sliding_window", Val::U32(WINDOW))
            .case("starcoder2", &[RopePairs, MeanKept, BiasOfNorms, BiasOfUp, BiasOfDown, Activation, WindowHonoured]),
        parallel(biased(Model::new(Tiny { rope_dims: 8, tied: false, bias: true, ..tiny("phi2") })).layer_norm())
            .tensor("output.bias", &[67], 0.0)
            .case("phi2", &[RopePairs, RopeWidth, NotParallel, BiasOfOutput, BiasOfLogits, Activation]),
        stablelm().case("stablelm", &[RopePairs, RopeWidth, MeanKept, BiasOfNorms]),
        parallel(each_head(stablelm())).case("stablelm, parallel", &[NotParallel, QkNormOfFirstHead, QkNormOrder]),
    ]
}
