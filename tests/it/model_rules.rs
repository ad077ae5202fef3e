//! One test for each rule of a model's sizes and weights (M), as `gguf_rules.rs` has them for the file around it and
//! `vocabulary_rules.rs` for the vocabulary: each file is well-formed GGUF whose claims are false.

use crate::common::family_models::cases;
use crate::common::gguf::{Gguf, Tiny, Val};
use crate::common::run::with_model;
use crate::common::untrusted::{self, Outcome};
use armlet::engine::{Config, EngineError, Plan};
use armlet::gguf::File;
use armlet::model::{Hparams, ModelError};
use armlet::quant::FORMATS;
use armlet::sample::SampleError;
use armlet::storage::ArenaError;

fn u64s(x: u64) -> Val {
    Val::U64(x)
}

/// The text of an error that names a key or a tensor, to compare what it names.
fn shown(error: &ModelError) -> (&'static str, String) {
    match error {
        ModelError::Key(k) => ("key", k.to_string()),
        ModelError::Value(k) => ("value", k.to_string()),
        ModelError::Feature(f) => ("feature", (*f).into()),
        ModelError::UnsupportedKey(k) => ("unsupported", k.to_string()),
        ModelError::TensorScale(t) => ("scale", t.to_string()),
        ModelError::UnknownTensor(t) => ("unknown", t.to_string()),
        ModelError::MissingTensor(t) => ("missing", t.to_string()),
        ModelError::TensorType { tensor, kind } => ("type", format!("{tensor} {kind}")),
        ModelError::TensorShape { tensor, .. } => ("shape", tensor.to_string()),
        other => ("other", format!("{other:?}")),
    }
}

#[track_caller]
fn unusable(g: &Gguf) -> ModelError {
    match untrusted::digest(&g.build()) {
        Outcome::Unusable(e) => e,
        other => panic!("expected an error, not {other:?}"),
    }
}

#[track_caller]
fn runs(g: &Gguf) {
    let outcome = untrusted::digest(&g.build());
    assert!(matches!(outcome, Outcome::Ran(Ok(_))), "{outcome:?}");
}

/// Sets `llama.<key>` of a tiny model.
fn with(key: &str, value: Val) -> Gguf {
    let mut g = Tiny::default().gguf();
    g.set(&format!("llama.{key}"), value);
    g
}

#[test]
fn m1_sizes_are_in_range() {
    runs(&Tiny::default().gguf());
    let table = [
        ("block_count", vec![0, 1025, 1 << 32, u64::MAX]),
        ("context_length", vec![0, (1 << 32) + 1, u64::MAX]),
        ("embedding_length", vec![0, (1 << 18) + 1, 1 << 32, u64::MAX]),
        ("feed_forward_length", vec![0, (1 << 18) + 1, u64::MAX]),
        ("attention.head_count", vec![0, (1 << 18) + 1, u64::MAX]),
        // More than there are query heads, or no divisor of them.
        ("attention.head_count_kv", vec![0, 3, 5, 8, u64::MAX]),
        ("attention.key_length", vec![0, 7, 513, u64::MAX]),
        ("attention.value_length", vec![0, 7, 513, u64::MAX]),
        // Odd, or wider than a head.
        ("rope.dimension_count", vec![0, 1, 3, 15, 18, u64::MAX]),
    ];
    for (key, values) in table {
        for value in values {
            assert_eq!(shown(&unusable(&with(key, u64s(value)))), ("value", format!("llama.{key}")), "{value}");
        }
    }
    for value in [12, 20] {
        let mut g = with("attention.key_length", u64s(value));
        assert_eq!(shown(&unusable(g.set("llama.attention.value_length", u64s(value)))).0, "feature");
    }
    assert_eq!(shown(&unusable(&with("attention.value_length", u64s(24)))).0, "feature");
    // A u64 of the right value is as good as a u32, and the defaults are those of the file.
    runs(&with("block_count", u64s(2)));
    let mut g = Tiny::default().gguf();
    for key in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
        g.unset(&format!("llama.{key}"));
    }
    runs(&g);
}

#[test]
fn m1_more_heads_than_width() {
    let mut g = with("attention.head_count", Val::U32(65));
    g.unset("llama.attention.key_length").unset("llama.attention.head_count_kv");
    assert_eq!(shown(&unusable(&g)), ("value", "llama.attention.key_length".into()));
    // With its own head size that is a model, if an odd one.
    runs(&Tiny { n_embd: 3, n_heads: 6, n_kv_heads: 3, head_dim: 8, rope_dims: 2, ..Tiny::default() }.gguf());
}

#[test]
fn m1_keys_are_there_and_of_their_type() {
    let keys = [
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    ];
    for key in keys {
        let mut g = Tiny::default().gguf();
        g.unset(&format!("llama.{key}"));
        assert_eq!(shown(&unusable(&g)), ("key", format!("llama.{key}")));
        for value in [Val::Str("64".into()), Val::Raw(5, vec![64, 0, 0, 0]), Val::Bool(true)] {
            assert_eq!(shown(&unusable(&with(key, value))), ("key", format!("llama.{key}")));
        }
    }
    // One number for each layer: the same for all, or a model of another kind; too few, or of another type, are none.
    for (key, n) in [("attention.head_count", 4), ("attention.head_count_kv", 2), ("feed_forward_length", 96)] {
        let named = |kind| (kind, format!("llama.{key}"));
        runs(&with(key, Val::I32s(vec![n; 2])));
        runs(&with(key, Val::I32s(vec![n, n, 7])));
        assert_eq!(shown(&unusable(&with(key, Val::I32s(vec![n, n / 2])))), named("unsupported"));
        for list in
            [Val::Strs(vec!["4".into(); 2]), Val::I32s(vec![n]), Val::I32s(vec![n, -1]), Val::F32s(vec![n as f32; 2])]
        {
            assert_eq!(shown(&unusable(&with(key, list))), named("value"));
        }
        assert_eq!(shown(&unusable(&with(key, Val::I32s(vec![0; 2])))), named("value"));
    }
    let mut g = Tiny::default().gguf();
    assert_eq!(shown(&unusable(g.unset("general.architecture"))).0, "key");
    assert!(matches!(
        unusable(g.set("general.architecture", Val::Str("\u{1b}[2J".into()))),
        ModelError::Architecture(_)
    ));
}

#[test]
fn m1_what_would_change_the_result_is_refused() {
    for (key, value) in [
        ("expert_count", Val::U32(8)),
        ("rope.scaling.type", Val::Str("dynamic".into())),
        ("expert_count", Val::U32(2)),
        ("rope.scaling.type", Val::U32(1)),
    ] {
        assert_eq!(shown(&unusable(&with(key, value))).0, "feature", "{key}");
    }
    runs(&with("expert_count", Val::U32(0)));
    runs(&with("expert_count", Val::U32(1)));
    // Keys of mechanisms that a llama does not have, and what they say where they mean nothing.
    for (key, value, neutral) in [
        ("attention.clamp_kqv", Val::F32(8.0), Val::F32(0.0)),
        ("attention.max_alibi_bias", Val::F32(8.0), Val::F32(0.0)),
        ("attention.q_lora_rank", Val::U32(8), Val::U32(0)),
        ("attention.kv_lora_rank", Val::U32(8), Val::U32(0)),
        ("attention.shared_kv_layers", Val::U32(1), Val::U32(0)),
        ("attention.causal", Val::Bool(false), Val::Bool(true)),
        ("embedding_length_per_layer_input", Val::U32(8), Val::U32(0)),
        ("rope.scaling.alpha", Val::F32(1000.0), Val::F32(0.0)),
        ("shortconv.l_cache", Val::U32(3), Val::U32(0)),
        ("ssm.conv_kernel", Val::U32(4), Val::U32(0)),
        ("embedding_scale", Val::F32(12.0), Val::F32(1.0)),
        ("residual_scale", Val::F32(0.2), Val::F32(1.0)),
        ("logit_scale", Val::F32(8.0), Val::F32(1.0)),
        ("attention.scale", Val::F32(0.5), Val::F32(0.25)),
        ("attention.temperature_scale", Val::F32(0.1), Val::F32(0.0)),
        ("attn_logit_softcapping", Val::F32(50.0), Val::F32(0.0)),
        ("final_logit_softcapping", Val::F32(30.0), Val::F32(0.0)),
    ] {
        assert_eq!(shown(&unusable(&with(key, value))), ("unsupported", format!("llama.{key}")));
        runs(&with(key, neutral));
    }
    // Heads of windowed layers: none in a llama; else alike for K and V, of whole vectors, rotated in pairs.
    runs(&with("attention.key_length_swa", Val::U32(8)));
    let Some(own) = cases().into_iter().find(|c| c.name == "gemma3 with smaller heads in windows") else { panic!() };
    runs(&own.gguf);
    for (key, value, error) in [
        ("attention.value_length_swa", 8, "feature"),
        ("attention.key_length_swa", 20, "feature"),
        ("attention.key_length_swa", 24, "feature"),
        ("attention.key_length_swa", 4, "value"),
        ("rope.dimension_count_swa", 7, "value"),
        ("rope.dimension_count_swa", 18, "value"),
    ] {
        let found = unusable(own.gguf.clone().set(&format!("gemma3.{key}"), Val::U32(value)));
        assert_eq!(shown(&found).0, error, "{key} {value}");
    }
    // A base of windowed layers, where llama.cpp rotates them by that of the others.
    let Some(mut olmo2) = cases().into_iter().find(|c| c.name == "olmo2 with windows") else { panic!() };
    runs(olmo2.gguf.set("olmo2.rope.freq_base_swa", Val::F32(5e5)));
    olmo2.gguf.set("olmo2.rope.freq_base_swa", Val::F32(1e4));
    assert_eq!(shown(&unusable(&olmo2.gguf)), ("unsupported", "olmo2.rope.freq_base_swa".into()));
    let mut gemma = Tiny { arch: "gemma", ..Tiny::default() }.gguf();
    runs(gemma.set("gemma.embedding_scale", Val::F32(8.0)));
    gemma.set("gemma.embedding_scale", Val::F32(1.0));
    assert_eq!(shown(&unusable(&gemma)), ("unsupported", "gemma.embedding_scale".into()));
    // Of YaRN's keys, converters write the ends of the ramp for any family, and llama.cpp reads them for few.
    let mut yarn = with("rope.scaling.type", Val::Str("yarn".into()));
    yarn.set("llama.rope.scaling.factor", Val::F32(4.0));
    let frequencies = |g: &Gguf| with_model(g, |model| model.weights.rope_frequencies.to_vec());
    let (plain, ends) = (frequencies(&yarn), "llama.rope.scaling.yarn_beta_fast");
    assert!(frequencies(yarn.set(ends, Val::F32(8.0))) == plain);
    yarn.set("llama.rope.scaling.yarn_log_multiplier", Val::F32(0.5));
    assert_eq!(shown(&unusable(&yarn)), ("unsupported", "llama.rope.scaling.yarn_log_multiplier".into()));
    let mut adapter = Tiny::default().gguf();
    let error = unusable(adapter.set("general.type", Val::Str("adapter".into()))).to_string();
    assert!(error.contains("adapter"), "{error}");
    runs(with("rope.scaling.type", Val::Str("linear".into())).set("llama.rope.scaling.factor", Val::F32(2.0)));
    // llama.cpp takes a type without a factor as no scaling.
    runs(&with("rope.scaling.type", Val::Str("linear".into())));
}

/// Each size is allowed, and together they are 2⁷¹ bytes of cache.
#[test]
fn m1_legal_sizes_with_an_impossible_product() {
    let mut g = Tiny::default().gguf();
    for (key, value) in [
        ("block_count", 1024),
        ("context_length", 1 << 32),
        ("embedding_length", 1 << 18),
        ("feed_forward_length", 1 << 18),
        ("attention.head_count", 1 << 18),
        ("attention.head_count_kv", 1 << 18),
        ("attention.key_length", 512),
        ("attention.value_length", 512),
        ("rope.dimension_count", 512),
    ] {
        g.set(&format!("llama.{key}"), Val::U64(value));
    }
    assert_eq!(shown(&unusable(&g)).0, "shape");
    let bytes = g.build();
    let h = Hparams::new(&File::new_checked(&bytes).unwrap()).unwrap();
    let sinks = 0;
    let plan =
        |context, chunk, logit_rows| Plan::new(&h, &Config { context, chunk, logit_rows, sinks, ..Config::default() });
    assert!(matches!(plan(1 << 32, 4096, 4096), Err(EngineError::Arena(ArenaError::Overflow(_)))));
    assert!(matches!(plan(1 << 31, 1, 1), Err(EngineError::Arena(_))));
    assert!(plan(1, 1, 1).is_ok());
    assert!(matches!(plan((1 << 32) + 1, 1, 1), Err(EngineError::Config { name: "context", .. })));
    for budget in [0, 1, 1 << 30] {
        let context = Plan::context_for_budget(&h, &Config::default(), budget, 1);
        assert!(matches!(context, Err(EngineError::Budget { .. })), "{context:?}");
    }
    let context = Plan::context_for_budget(&h, &Config::default(), usize::MAX, 1).unwrap();
    assert!((1..1 << 32).contains(&context));
}

/// A look-up walks the tensors of its block and those among them, so these have a bound.
#[test]
fn m2_blocks_are_not_spread_over_the_file() {
    let spread = |others: usize| {
        let mut g = Tiny::default().gguf();
        let first = g.tensors.iter().position(|t| t.name.starts_with("blk.0.")).unwrap();
        let other =
            |i| crate::common::gguf::TensorSpec { name: format!("v.{i}"), dims: vec![1], kind: 0, data: vec![0; 4] };
        g.tensors.splice(first + 1..first + 1, (0..others).map(other));
        g
    };
    let own = spread(0).tensors.iter().filter(|t| t.name.starts_with("blk.0.")).count();
    runs(&spread(4096 - own));
    assert_eq!(shown(&unusable(&spread(4097 - own))).0, "feature");
}

/// Biases that are in every file of a family, and those that need not be.
#[test]
fn m2_biases_that_a_family_has_are_there() {
    let without = |family: &str, bias: &str| {
        let Some(mut case) = cases().into_iter().find(|c| c.name == family) else { panic!("{family}") };
        let before = case.gguf.tensors.len();
        case.gguf.tensors.retain(|t| t.name != bias);
        assert_eq!(case.gguf.tensors.len(), before - 1, "{family} has no {bias}");
        case.gguf
    };
    for (family, bias) in [
        ("phi2", "output.bias"),
        ("phi2", "blk.3.ffn_up.bias"),
        ("starcoder2", "blk.0.attn_output.bias"),
        ("starcoder2", "blk.1.ffn_down.bias"),
    ] {
        assert_eq!(shown(&unusable(&without(family, bias))), ("missing", bias.into()));
    }
    for (family, bias) in [("phi2", "blk.0.attn_q.bias"), ("llama", "blk.0.ffn_up.bias"), ("qwen2", "output.bias")] {
        runs(&without(family, bias));
    }
}

/// A tiny model whose tensor `name` was changed.
fn with_tensor(name: &str, change: impl Fn(&mut crate::common::gguf::TensorSpec)) -> Gguf {
    let mut g = Tiny::default().gguf();
    change(g.tensors.iter_mut().find(|t| t.name == name).unwrap());
    g
}

#[test]
fn m2_shapes_are_those_of_the_sizes() {
    // (tensor, its dimensions in the file): transposed, flat, with another axis, too large, too small.
    for (name, dims) in [
        ("token_embd.weight", &[67, 64][..]),
        ("token_embd.weight", &[64 * 67]),
        ("token_embd.weight", &[64, 67, 2]),
        ("token_embd.weight", &[64, 66]),
        ("token_embd.weight", &[64, 68]),
        ("blk.0.attn_q.weight", &[32, 128]),
        ("blk.1.attn_k.weight", &[32, 64]),
        ("blk.1.attn_v.weight", &[64, 64]),
        ("blk.0.attn_output.weight", &[64, 32]),
        ("blk.1.ffn_down.weight", &[64, 96]),
        ("blk.1.ffn_up.weight", &[96, 64]),
        ("output_norm.weight", &[64, 64]),
        ("output_norm.weight", &[63]),
        ("blk.0.ffn_norm.weight", &[8, 8]),
        ("blk.0.attn_norm.weight", &[64, 1, 1, 2]),
    ] {
        let g = with_tensor(name, |t| {
            t.dims = dims.into();
            t.data = vec![0; 4 * dims.iter().product::<u64>() as usize];
        });
        let error = unusable(&g);
        let ModelError::TensorShape { tensor, expected, found } = error else { panic!("{name}: {error}") };
        assert_eq!(tensor.as_str(), name);
        assert_ne!([expected[0], expected[1], 1, 1], found);
    }
}

#[test]
fn m2_every_tensor_is_there() {
    for name in Tiny::default().gguf().tensors.iter().map(|t| t.name.clone()) {
        let g = with_tensor(&name, |t| t.name.push('x'));
        assert_eq!(shown(&unusable(&g)), ("missing", name));
    }
}

#[test]
fn m2_every_tensor_is_used() {
    let with = |name: &str| {
        let mut g = Tiny::default().gguf();
        g.tensor(name, &[64], 0, vec![0; 256]);
        g
    };
    // Of no block, of one that the model does not have, or of another family.
    for name in [
        "what",
        "blk.1.what",
        "blk.2.attn_norm.weight",
        "blk.x.attn_norm.weight",
        "blk.01.attn_norm.weight",
        "blk..attn_norm.weight",
        "blk.0.attn_q",
        "blk.0.ffn_up",
        "output_norm.bias",
        "blk.0.attn_norm.bias",
        "blk.1.attn_q_norm.weight",
        "blk.1.attn_k_norm.weight",
        "blk.0.attn_sub_norm.weight",
        "blk.0.post_attention_norm.weight",
        "blk.1.post_ffw_norm.weight",
        "blk.1.attn_qkv.bias",
        "blk.0.ffn_gate_inp.weight",
    ] {
        assert_eq!(shown(&unusable(&with(name))), ("unknown", name.into()));
    }
    // A text model has no use for these.
    for name in ["v.blk.0.attn_q.weight", "mm.0.weight", "mtp.norm.weight"] {
        runs(&with(name));
    }
    // Blocks that predict further tokens are not run.
    let mut g = with("blk.2.nextn.enorm.weight");
    g.set("llama.block_count", Val::U32(3)).set("llama.nextn_predict_layers", Val::U32(1));
    runs(&g);
    assert_eq!(shown(&unusable(g.tensor("blk.3.x", &[64], 0, vec![0; 256]))).0, "unknown");
}

#[test]
fn m2_vectors_that_may_be_missing_fit_if_they_are_there() {
    for (name, len, good) in [("rope_freqs.weight", 7, 8), ("blk.0.attn_q.bias", 63, 64), ("blk.1.attn_v.bias", 64, 32)]
    {
        let vector =
            |len: usize| (vec![len as u64], [1f32; 64][..len].iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>());
        let mut g = Tiny::default().gguf();
        let (dims, data) = vector(len);
        assert_eq!(shown(&unusable(g.tensor(name, &dims, 0, data))), ("shape", name.into()));
        g.tensors.pop();
        let (dims, data) = vector(good);
        runs(g.tensor(name, &dims, 0, data));
    }
}

#[test]
fn m2_types_without_kernels_are_named() {
    let wide = || Tiny { n_embd: 256, n_heads: 16, ..Tiny::default() }.gguf();
    runs(&wide());
    for (kind, name, block) in
        [(16, "IQ2_XXS", 66), (21, "IQ3_S", 110), (29, "IQ1_M", 56), (28, "F64", 8 * 256), (26, "I32", 1024)]
    {
        let mut g = wide();
        let t = g.tensors.iter_mut().find(|t| t.name == "blk.1.ffn_up.weight").unwrap();
        (t.kind, t.data) = (kind, vec![0; block * 96]);
        let error = unusable(&g);
        assert_eq!(shown(&error), ("type", format!("blk.1.ffn_up.weight {name}")));
        assert!(error.to_string().contains("blk.1.ffn_up.weight") && error.to_string().contains(name));
    }
    // Any matrix may have any format.
    for info in FORMATS {
        let mut g = wide();
        for t in g.tensors.iter_mut().filter(|t| t.name.ends_with("ffn_up.weight") || t.name == "token_embd.weight") {
            let rows = t.dims[1] as usize;
            (t.kind, t.data) = (info.gguf_id, vec![0; info.dtype.row_bytes(256).unwrap() * rows]);
        }
        runs(&g);
    }
    // Norms are F32 only.
    let g = with_tensor("output_norm.weight", |t| (t.kind, t.data) = (1, vec![0; 128]));
    assert_eq!(shown(&unusable(&g)), ("type", "output_norm.weight F16".into()));
}

/// Products are scaled by a number; what is not one, or would scale the rows of an embedding, is refused.
#[test]
fn m2_scales_of_tensors() {
    let with = |untied: bool, name: &str, kind: u32, data: &[f32]| {
        let mut g = Tiny { tied: !untied, ..Tiny::default() }.gguf();
        let data: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        g.tensor(name, &[data.len() as u64 / [4, 2][kind as usize]], kind, data);
        g
    };
    for name in ["blk.0.attn_q.scale", "blk.1.ffn_down.scale", "output.scale"] {
        runs(&with(true, name, 0, &[0.5]));
        assert_eq!(shown(&unusable(&with(true, name, 0, &[0.5, 0.5]))), ("shape", name.into()));
        assert_eq!(shown(&unusable(&with(true, name, 1, &[0.5]))), ("type", format!("{name} F16")));
    }
    // For hardware that quantises activations to NVFP4; it changes no product here.
    runs(&with(true, "blk.0.attn_q.input_scale", 0, &[0.5]));
    for (untied, name) in [(true, "token_embd.scale"), (false, "token_embd.scale"), (false, "output.scale")] {
        assert_eq!(shown(&unusable(&with(untied, name, 0, &[0.5]))), ("scale", name.into()));
    }
}

/// A packed tiny model, with `change` made to one tensor.
fn packed(name: &str, change: impl Fn(&mut crate::common::gguf::TensorSpec)) -> Gguf {
    let mut g = Tiny { dtype: armlet::quant::DType::Q8_0, ..Tiny::default() }.gguf().packed();
    change(g.tensors.iter_mut().find(|t| t.name == name).unwrap());
    g
}

#[test]
fn m2_only_matrices_are_packed() {
    const PANELS: u32 = 0x4150_0008;
    runs(&packed("blk.0.attn_q.weight", |t| assert_eq!(t.kind, PANELS)));
    for name in ["output_norm.weight", "blk.0.attn_norm.weight", "blk.1.ffn_norm.weight"] {
        let g = packed(name, |t| (t.kind, t.dims, t.data) = (PANELS, vec![64, 1], vec![0; 16 * 68]));
        let error = unusable(&g).to_string();
        assert!(error.contains(name) && error.contains("Q8_0 in panels") && error.contains("original"), "{error}");
        // One-dimensional, it is not even a file.
        let g = packed(name, |t| (t.kind, t.data) = (PANELS, vec![0; 16 * 68]));
        assert!(matches!(untrusted::digest(&g.build()), Outcome::Malformed(_)));
    }
    // The shape counts without the padding: 67 rows, though there are bytes for 80, and not for one more.
    for rows in [48, 65, 66, 68, 80] {
        assert_eq!(shown(&unusable(&packed("token_embd.weight", |t| t.dims[1] = rows))).0, "shape");
    }
    let g = packed("token_embd.weight", |t| t.dims[1] = 81);
    assert!(matches!(untrusted::digest(&g.build()), Outcome::Malformed(_)));
    // Rows and panels mix, as the file has them.
    let plain = Tiny { dtype: armlet::quant::DType::Q8_0, ..Tiny::default() }.gguf();
    for name in ["token_embd.weight", "blk.1.attn_k.weight", "blk.1.ffn_up.weight"] {
        let original = plain.tensors.iter().find(|t| t.name == name).unwrap();
        runs(&packed(name, |t| *t = original.clone()));
    }
}

#[test]
fn m2_panels_have_a_version() {
    const KEY: &str = "armlet.pack.version";
    let any = || packed("output_norm.weight", |_| {});
    for version in [0, 2, u32::MAX] {
        let error = unusable(any().set(KEY, Val::U32(version)));
        assert_eq!(error, ModelError::PackVersion(version.into()));
        assert!(error.to_string().contains("pack the original file again"));
    }
    for value in [Val::Str("1".into()), Val::F32(1.0), Val::Bool(true), Val::I32s(vec![1])] {
        assert_eq!(shown(&unusable(any().set(KEY, value))), ("key", KEY.into()));
    }
    assert_eq!(shown(&unusable(any().unset(KEY))), ("key", KEY.into()));
    runs(any().set(KEY, u64s(1)));
}

#[test]
fn m3_floats_are_positive_and_finite() {
    let f64s = |x: f64| Val::Raw(12, x.to_le_bytes().to_vec());
    for key in ["attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.scale_linear"] {
        for x in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, -1.0] {
            // Scaling by 0 is none, as in llama.cpp.
            if x == 0.0 && key == "rope.scale_linear" {
                runs(&with(key, Val::F32(x)));
                continue;
            }
            assert_eq!(shown(&unusable(&with(key, Val::F32(x)))), ("value", format!("llama.{key}")), "{x}");
            assert_eq!(shown(&unusable(&with(key, f64s(x.into())))).0, "value");
        }
        runs(&with(key, f64s(1.0)));
        runs(&with(key, Val::F32(f32::MIN_POSITIVE)));
    }
    // Finite and positive, but not as the f32 that the norm adds.
    for x in [1e-60, 1e60, f64::MAX, f64::MIN_POSITIVE] {
        let error = unusable(&with("attention.layer_norm_rms_epsilon", f64s(x)));
        assert_eq!(shown(&error), ("value", "llama.attention.layer_norm_rms_epsilon".into()));
        runs(&with("rope.freq_base", f64s(x)));
    }
}

/// Weights are not checked: what they do to the logits is found when a token is to be chosen.
#[test]
fn m4_weights_that_are_not_numbers() {
    let broken = |name: &str, x: f32| {
        let g = with_tensor(name, |t| t.data[..4].copy_from_slice(&x.to_le_bytes()));
        untrusted::digest(&g.build())
    };
    for name in ["output_norm.weight", "blk.0.attn_q.weight", "blk.1.ffn_down.weight", "token_embd.weight"] {
        assert_eq!(broken(name, f32::NAN), Outcome::Ran(Err(SampleError::NotANumber)), "{name}");
        // An infinity shows as one, as a NaN, or not at all where a softmax or a gate closes on it.
        for x in [f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            assert!(matches!(broken(name, x), Outcome::Ran(_)));
        }
    }
    // The same for scales of blocks: f16 bits of a NaN.
    let mut g = Tiny { dtype: armlet::quant::DType::Q8_0, ..Tiny::default() }.gguf();
    runs(&g);
    let t = g.tensors.iter_mut().find(|t| t.name == "blk.0.attn_v.weight").unwrap();
    t.data[..2].copy_from_slice(&0x7e00u16.to_le_bytes());
    assert_eq!(untrusted::digest(&g.build()), Outcome::Ran(Err(SampleError::NotANumber)));
    // Factors of the rotation that divide by nothing leave dimensions unrotated.
    for x in [0.0, -0.0, f32::NAN, f32::INFINITY, -1.0, 1e-45] {
        runs(Tiny::default().gguf().tensor("rope_freqs.weight", &[8], 0, x.to_le_bytes().repeat(8)));
    }
}
