//! Which format each tensor gets: the mixes of llama-quantize, and what takes the place of a format whose blocks do not
//! fit the columns.

use armlet::quant::DType;
use regex_lite::Regex;

/// What `--type` names: a mix of formats, most of them of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Preset {
    pub(crate) name: &'static str,
    /// `general.file_type`, in llama.cpp's numbers.
    pub(crate) file_type: u32,
    /// The format of most tensors.
    pub(crate) base: DType,
}

const fn preset(name: &'static str, file_type: u32, base: DType) -> Preset {
    Preset { name, file_type, base }
}

/// The presets of the formats that armlet has, under llama-quantize's names, and MXFP4 and NVFP4, which it does not have.
pub(crate) const PRESETS: [Preset; 26] = [
    preset("F32", 0, DType::F32),
    preset("F16", 1, DType::F16),
    preset("BF16", 32, DType::Bf16),
    preset("Q8_0", 7, DType::Q8_0),
    preset("Q6_K", 18, DType::Q6K),
    preset("Q5_K_M", 17, DType::Q5K),
    preset("Q5_K_S", 16, DType::Q5K),
    preset("Q5_1", 9, DType::Q5_1),
    preset("Q5_0", 8, DType::Q5_0),
    preset("Q4_K_M", 15, DType::Q4K),
    preset("Q4_K_S", 14, DType::Q4K),
    preset("Q4_1", 3, DType::Q4_1),
    preset("Q4_0", 2, DType::Q4_0),
    preset("IQ4_NL", 25, DType::Iq4Nl),
    preset("IQ4_XS", 30, DType::Iq4Xs),
    preset("MXFP4", 38, DType::Mxfp4),
    preset("MXFP4_MOE", 38, DType::Mxfp4),
    preset("NVFP4", 39, DType::Nvfp4),
    preset("Q3_K_L", 13, DType::Q3K),
    preset("Q3_K_M", 12, DType::Q3K),
    preset("Q3_K_S", 11, DType::Q3K),
    preset("Q2_K", 10, DType::Q2K),
    preset("Q2_0", 41, DType::Q2_0),
    preset("TQ2_0", 37, DType::Tq2_0),
    preset("TQ1_0", 36, DType::Tq1_0),
    preset("Q1_0", 40, DType::Q1_0),
];

impl Preset {
    /// The preset of this name or [other name](Preset::alias), in any case.
    pub(crate) fn named(name: &str) -> Option<Preset> {
        let is_it = |p: &Preset| [Some(p.name), p.alias()].into_iter().flatten().any(|n| n.eq_ignore_ascii_case(name));
        PRESETS.into_iter().find(is_it)
    }

    /// What it may be called too, as in llama-quantize: Q4_K for Q4_K_M.
    pub(crate) fn alias(&self) -> Option<&'static str> {
        self.name.strip_suffix("_M").filter(|format| format.ends_with("_K"))
    }
}

/// What a mix depends on beside the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) layers: usize,
    /// Experts; 0 for a dense model.
    pub(crate) experts: u64,
    /// Query heads for each key and value head.
    pub(crate) group: u64,
    /// LLaMA 2 and 3 of 70B parameters: 80 layers and grouped heads.
    pub(crate) is_70b: bool,
}

/// What the command line says about formats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wishes<'a> {
    pub(crate) preset: Preset,
    /// The base format for every matrix.
    pub(crate) pure: bool,
    /// Of `output.weight`, or of the embedding that takes its place.
    pub(crate) output: Option<DType>,
    /// Of `token_embd.weight`.
    pub(crate) embedding: Option<DType>,
    pub(crate) overrides: &'a [Override],
    /// Whether there is an importance matrix.
    pub(crate) importance: bool,
}

/// Tensors whose name has a match of a pattern get a format.
#[derive(Clone, Debug)]
pub(crate) struct Override {
    pub(crate) pattern: Regex,
    pub(crate) dtype: DType,
}

/// A tensor's name and sizes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    pub(crate) name: &'a str,
    pub(crate) dims: [u64; 4],
}

/// The format of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) dtype: DType,
    /// The format of which this one takes the place, because its blocks do not fit the columns.
    pub(crate) instead_of: Option<DType>,
}

/// Parts of names that mark tensors which are not quantised.
const KEPT: [&str; 37] = [
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a0.weight",
    "time_mix_a1.weight",
    "time_mix_a2.weight",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
    "position_embd.weight",
    "token_types.weight",
];

/// Whether a tensor can be quantised: matrices, and stacks of them, but for small ones that matter much.
pub(crate) fn is_quantised(t: &Named<'_>) -> bool {
    t.dims[1..].iter().any(|n| *n > 1) && t.name.ends_with("weight") && !KEPT.iter().any(|part| t.name.contains(part))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Output,
    Embedding,
    Values,
    Keys,
    AttentionOutput,
    Down,
    Other,
}

impl Role {
    fn of(name: &str) -> Role {
        match name {
            "output.weight" => Role::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => Role::Embedding,
            _ if ["attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight"].iter().any(|part| name.contains(part)) => {
                Role::Values
            }
            _ if name.contains("attn_k.weight") => Role::Keys,
            _ if name.contains("attn_q.weight") => Role::Other,
            _ if name.contains("attn_output.weight") => Role::AttentionOutput,
            _ if name.contains("ffn_up") || name.contains("ffn_gate") => Role::Other,
            _ if name.contains("ffn_down") => Role::Down,
            _ => Role::Other,
        }
    }
}

/// The number in `blk.N.`.
fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

/// The layers in which sensitive tensors get more bits: the first eighth, the last, and every third between them.
fn more(i: usize, n: usize) -> bool {
    i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2
}

/// The formats of `tensors`; `None` for those that keep theirs.
pub(crate) fn choose(tensors: &[Named<'_>], shape: &Shape, wishes: &Wishes<'_>) -> Vec<Option<Choice>> {
    let all = || tensors.iter().map(|t| Role::of(t.name));
    let mut mix = Mix {
        shape,
        wishes,
        tied: all().all(|role| role != Role::Output),
        values: all().filter(|role| *role == Role::Values).count(),
        i_values: 0,
        i_down: 0,
    };
    // The mixes count tensors in this order, whatever their order in the file.
    let mut order: Vec<_> = (0..tensors.len()).collect();
    order.sort_by_key(|i| (layer(tensors[*i].name), tensors[*i].name));
    let mut choices = vec![None; tensors.len()];
    for i in order {
        choices[i] = is_quantised(&tensors[i]).then(|| mix.choose(&tensors[i]));
    }
    choices
}

struct Mix<'a> {
    shape: &'a Shape,
    wishes: &'a Wishes<'a>,
    /// Whether the embedding is the output head, too.
    tied: bool,
    /// Tensors of attention values in the model, and how many have been seen.
    values: usize,
    i_values: usize,
    i_down: usize,
}

impl Mix<'_> {
    fn choose(&mut self, t: &Named<'_>) -> Choice {
        let role = Role::of(t.name);
        let asked = match role {
            Role::Embedding => self.wishes.embedding,
            Role::Output => self.wishes.output,
            _ => None,
        };
        if let Some(dtype) = asked {
            return Choice { dtype, instead_of: None };
        }
        let base = self.wishes.preset.base;
        let dtype = match self.wishes.overrides.iter().find(|o| o.pattern.is_match(t.name)) {
            Some(o) => o.dtype,
            None if self.wishes.pure || !base.is_quantised() => base,
            None => self.mixed(t, role),
        };
        fitting(dtype, t.dims[0])
    }

    fn mixed(&mut self, t: &Named<'_>, role: Role) -> DType {
        let Preset { name: preset, base, .. } = self.wishes.preset;
        match role {
            Role::Output => self.head(t.dims[0]),
            Role::Embedding if self.tied => self.head(t.dims[0]),
            _ if preset == "MXFP4_MOE" => {
                if t.dims[2] > 1 {
                    DType::Mxfp4
                } else {
                    DType::Q8_0
                }
            }
            Role::Embedding if matches!(preset, "TQ1_0" | "TQ2_0" | "Q2_0") => DType::Q4K,
            Role::Values => self.attention_values(),
            Role::Keys if self.shape.experts == 8 => DType::Q8_0,
            Role::Down => self.down(t.name),
            Role::AttentionOutput if self.shape.experts == 8 => match preset {
                "Q2_K" | "Q3_K_S" | "Q3_K_M" | "Q4_K_S" | "Q4_K_M" | "IQ4_NL" | "IQ4_XS" => DType::Q5K,
                _ => base,
            },
            Role::AttentionOutput => match preset {
                "Q2_K" => DType::Q3K,
                "Q3_K_M" => DType::Q4K,
                "Q3_K_L" => DType::Q5K,
                _ => base,
            },
            _ => base,
        }
    }

    /// The format of the output head, or of the embedding that is the head.
    fn head(&self, cols: u64) -> DType {
        let Preset { base, .. } = self.wishes.preset;
        match self.wishes.output {
            Some(dtype) => dtype,
            None if matches!(base, DType::Q8_0 | DType::Mxfp4) => DType::Q8_0,
            None if !cols.is_multiple_of(base.block_len() as u64) => DType::Q8_0,
            None => DType::Q6K,
        }
    }

    fn attention_values(&mut self) -> DType {
        let i = self.i_values;
        self.i_values += 1;
        let shared = self.shape.group >= 4;
        let dtype = match self.wishes.preset.name {
            "Q2_K" if shared => DType::Q4K,
            "Q2_K" => DType::Q3K,
            "Q3_K_M" if i < 2 => DType::Q5K,
            "Q3_K_M" => DType::Q4K,
            "Q3_K_L" => DType::Q5K,
            "IQ4_NL" | "IQ4_XS" if shared => DType::Q5K,
            "Q4_K_M" | "Q5_K_M" if more(i, self.values) => DType::Q6K,
            "Q4_K_S" if i < 4 => DType::Q5K,
            _ => self.wishes.preset.base,
        };
        match dtype {
            _ if self.shape.experts == 8 => DType::Q8_0,
            DType::Q3K | DType::Q4K if self.shape.is_70b => DType::Q5K,
            dtype => dtype,
        }
    }

    fn down(&mut self, name: &str) -> DType {
        let n = self.shape.layers;
        // Experts in separate tensors are several to a layer.
        let i = if self.shape.experts > 1 { layer(name).unwrap_or(self.i_down) } else { self.i_down };
        self.i_down += 1;
        let first = i < n / 8;
        match self.wishes.preset.name {
            "Q2_K" => DType::Q3K,
            "Q3_K_M" if i < n / 16 => DType::Q5K,
            "Q3_K_M" => DType::Q4K,
            "Q3_K_L" => DType::Q5K,
            "Q4_K_M" | "Q5_K_M" if more(i, n) => DType::Q6K,
            "Q4_K_S" if first => DType::Q5K,
            "IQ4_NL" | "IQ4_XS" if first && !self.wishes.importance => DType::Q5K,
            "Q4_0" if first && self.wishes.importance => DType::Q4_1,
            "Q5_0" if first && self.wishes.importance => DType::Q5_1,
            _ => self.wishes.preset.base,
        }
    }
}

/// `dtype`, or what takes its place in rows that are not whole blocks of it: F16 where llama-quantize has nothing, too.
fn fitting(dtype: DType, cols: u64) -> Choice {
    let fits = |dtype: DType| cols.is_multiple_of(dtype.block_len() as u64);
    if fits(dtype) {
        return Choice { dtype, instead_of: None };
    }
    let other = match dtype {
        DType::Iq4Xs => DType::Iq4Nl,
        DType::Q2K | DType::Q3K | DType::Tq1_0 | DType::Tq2_0 | DType::Q2_0 | DType::Q1_0 => DType::Q4_0,
        DType::Q4K => DType::Q5_0,
        DType::Q5K => DType::Q5_1,
        DType::Q6K => DType::Q8_0,
        DType::Nvfp4 => DType::Mxfp4,
        _ => DType::F16,
    };
    Choice { dtype: if fits(other) { other } else { DType::F16 }, instead_of: Some(dtype) }
}

#[cfg(test)]
#[path = "mix_tests.rs"]
mod tests;
