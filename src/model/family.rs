//! The families of models: what a file cannot say of itself.
//!
//! A family is a row of [`FAMILIES`]. Whatever the presence of a tensor or of a key can tell is not in it: biases, fused
//! projections, tied heads, factors of the rotation. See `docs/adding-a-family.md`.

pub use crate::arch::Activation;

/// Which two dimensions of a head RoPE rotates together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeKind {
    /// 2·i and 2·i + 1, as in the paper.
    Interleaved,
    /// i and i + half, as in GPT-NeoX.
    NeoX,
}

/// How vectors are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467).
    Rms,
    /// LayerNorm with a bias (Ba et al. 2016, arXiv 1607.06450).
    Layer,
}

/// Where the norms of a layer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlaces {
    /// Before attention and before the FFN.
    Before,
    /// Before attention and before the FFN; if the FFN has none, both read the same input and their outputs are added.
    BeforeOrParallel,
    /// Behind each of the two, before its output is added.
    Behind,
    /// Both.
    Around,
    /// Before each of the two, and once more before its last matrix (BitNet).
    BeforeAndWithin,
}

/// Norms of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    None,
    /// Of each head, before the rotation, with the same weights for all heads.
    Head,
    /// As `Head`, after the rotation.
    HeadAfterRope,
    /// Of each head with weights of its own, if the file has them.
    EachHead,
    /// Of all heads together, before the rotation.
    Whole,
}

/// A factor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// 1; a key that says otherwise is refused.
    One,
    /// √n_embd; a key that says otherwise is refused.
    RootOfWidth,
    /// What the key says, else this.
    Key(f32),
    /// What the key says, which must be there.
    RequiredKey,
    /// What the key says, else this divided by √n_layers.
    KeyOrByDepth(f32),
    /// What the key says, else this divided by n_embd.
    KeyOrByWidth(f32),
}

/// The sliding windows of a family's layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowRule {
    /// Positions where the key is missing; 0 for no windows.
    pub size: u16,
    /// One of so many layers, the last, attends to all positions where the key is missing; 0 for none.
    pub global_every: u8,
    /// How windowed layers rotate.
    pub rope: WindowRope,
    /// Models of another number of layers have no windows.
    pub only_of_layers: Option<u8>,
}

/// The rotation of windowed layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WindowRope {
    /// As in the other layers.
    Same,
    /// The same but for a base, which a key may give.
    OwnBase,
    /// As well, and the factor counts even where the type of scaling is "none".
    OwnBaseScaled,
    /// The angles are not scaled, and this is the base where the key is missing.
    Base(u16),
    /// The base of the other layers, and nothing is scaled.
    Plain,
}

/// Layers without a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRope {
    /// None.
    Never,
    /// Every fourth.
    EveryFourth,
    /// Those without a window, if others have one.
    GlobalLayers,
    /// All, where `rope.scaling.finetuned` is false.
    IfNotFinetuned,
}

/// What distinguishes a family.
#[derive(Debug, PartialEq)]
pub struct Family {
    /// `general.architecture`, and the prefix of its keys.
    pub name: &'static str,
    /// Which dimensions are rotated together.
    pub rope: RopeKind,
    /// Layers that are not rotated.
    pub no_rope: NoRope,
    /// How vectors are normalised.
    pub norm: NormKind,
    /// Where.
    pub norms: NormPlaces,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Of the feed-forward network.
    pub activation: Activation,
    /// Whether the FFN multiplies its activations with a second product of the input.
    pub gated: bool,
    /// Windows; `None` where the file's are to be ignored, as llama.cpp does.
    pub window: Option<WindowRule>,
    /// What the embedding is multiplied by: `embedding_scale`.
    pub embedding: Scale,
    /// What is added to the residual stream is multiplied by it: `residual_scale`.
    pub residual: Scale,
    /// The logits are divided by it: `logit_scale`.
    pub logits: Scale,
    /// Models of so many layers scale attention by 1/√(n_embd / n_heads) in the place of 1/√head_dim.
    pub wide_attention_of_layers: u8,
    /// `attn_logit_softcapping` where the key is missing; `None` if the family has no such key.
    pub attention_cap: Option<u8>,
    /// `final_logit_softcapping` where the key is missing, 0 for none; `None` if the family has no such key.
    pub logits_cap: Option<u8>,
    /// Whether the output matrix must be in the file.
    pub untied: bool,
    /// Whether the output of attention, the FFN, and an output matrix of its own must have biases.
    pub biased: bool,
    /// Keys that other families do not have.
    pub own_keys: OwnKeys,
}

/// Keys that few families have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnKeys {
    /// None of them.
    None,
    /// `attention.scale`.
    AttentionScale,
    /// YaRN's ends and damping, and the growth of queries: `rope.scaling.yarn_*` and `attention.temperature_scale`.
    LongContext,
}

/// What most families have in common: a llama, whose windows, where a file has them, are its own.
const LLAMA: Family = Family {
    name: "llama",
    rope: RopeKind::Interleaved,
    no_rope: NoRope::Never,
    norm: NormKind::Rms,
    norms: NormPlaces::Before,
    qk_norm: QkNorm::None,
    activation: Activation::Silu,
    gated: true,
    window: None,
    embedding: Scale::One,
    residual: Scale::One,
    logits: Scale::One,
    wide_attention_of_layers: 0,
    attention_cap: None,
    logits_cap: None,
    untied: false,
    biased: false,
    own_keys: OwnKeys::None,
};

/// A llama with the other pairs.
const NEOX: Family = Family { rope: RopeKind::NeoX, ..LLAMA };

/// What the Gemmas have in common.
const GEMMA: Family = Family { name: "gemma", activation: Activation::Gelu, embedding: Scale::RootOfWidth, ..NEOX };

/// What families of GPT-NeoX's kind have in common.
const LAYER_NORM: Family = Family { norm: NormKind::Layer, gated: false, ..NEOX };

/// The windows of a family, with its size and period where the keys are missing.
const fn windows(size: u16, global_every: u8, rope: WindowRope) -> Option<WindowRule> {
    Some(WindowRule { size, global_every, rope, only_of_layers: None })
}

/// Families that the forward pass covers.
pub static FAMILIES: [Family; 22] = [
    Family { window: windows(0, 0, WindowRope::OwnBase), ..LLAMA },
    Family { name: "mistral3", own_keys: OwnKeys::LongContext, ..LLAMA },
    Family { name: "internlm2", untied: true, ..LLAMA },
    Family { name: "ernie4_5", ..LLAMA },
    Family { name: "arcee", activation: Activation::ReluSquared, gated: false, ..LLAMA },
    Family { name: "smollm3", no_rope: NoRope::EveryFourth, ..LLAMA },
    Family {
        name: "granite",
        no_rope: NoRope::IfNotFinetuned,
        embedding: Scale::Key(1.0),
        residual: Scale::Key(1.0),
        logits: Scale::RequiredKey,
        own_keys: OwnKeys::AttentionScale,
        ..LLAMA
    },
    Family {
        name: "minicpm",
        embedding: Scale::Key(12.0),
        residual: Scale::KeyOrByDepth(1.4),
        logits: Scale::KeyOrByWidth(256.0),
        ..LLAMA
    },
    Family { name: "qwen2", ..NEOX },
    Family { name: "qwen3", qk_norm: QkNorm::Head, ..NEOX },
    Family { name: "hunyuan-dense", qk_norm: QkNorm::HeadAfterRope, ..NEOX },
    Family { name: "phi3", ..NEOX },
    Family { name: "bitnet", norms: NormPlaces::BeforeAndWithin, ..NEOX },
    GEMMA,
    Family {
        name: "gemma2",
        norms: NormPlaces::Around,
        window: windows(4096, 2, WindowRope::OwnBaseScaled),
        wide_attention_of_layers: 46,
        attention_cap: Some(50),
        logits_cap: Some(30),
        ..GEMMA
    },
    Family {
        name: "gemma3",
        norms: NormPlaces::Around,
        qk_norm: QkNorm::Head,
        window: windows(0, 6, WindowRope::Base(10_000)),
        wide_attention_of_layers: 62,
        logits_cap: Some(0),
        ..GEMMA
    },
    Family {
        name: "olmo2",
        norms: NormPlaces::Behind,
        qk_norm: QkNorm::Whole,
        window: windows(0, 4, WindowRope::Plain),
        untied: true,
        ..NEOX
    },
    Family {
        name: "exaone4",
        norms: NormPlaces::Behind,
        qk_norm: QkNorm::Head,
        no_rope: NoRope::GlobalLayers,
        window: Some(WindowRule { size: 4096, global_every: 4, rope: WindowRope::Same, only_of_layers: Some(64) }),
        ..NEOX
    },
    Family { name: "nemotron", activation: Activation::ReluSquared, untied: true, ..LAYER_NORM },
    Family { name: "starcoder2", activation: Activation::Gelu, biased: true, ..LAYER_NORM },
    Family {
        name: "phi2",
        norms: NormPlaces::BeforeOrParallel,
        activation: Activation::Gelu,
        untied: true,
        biased: true,
        ..LAYER_NORM
    },
    Family {
        name: "stablelm",
        norms: NormPlaces::BeforeOrParallel,
        qk_norm: QkNorm::EachHead,
        gated: true,
        untied: true,
        ..LAYER_NORM
    },
];
