use super::*;

const DENSE: Shape = Shape { layers: 16, experts: 0, group: 2, is_70b: false };

fn wishes(preset: &str) -> Wishes<'static> {
    let preset = Preset::named(preset).unwrap();
    Wishes { preset, pure: false, output: None, embedding: None, overrides: &[], importance: false }
}

/// The matrices of a model with `n` columns, and `n_ff` in ffn_down, in a file's usual order.
fn matrices(layers: usize, n: u64, n_ff: u64, experts: u64, tied: bool) -> Vec<(String, [u64; 4])> {
    let mut out = vec![("token_embd.weight".into(), [n, 1000, 1, 1]), ("output_norm.weight".into(), [n, 1, 1, 1])];
    for i in 0..layers {
        let mut add = |name: &str, cols, matrices| out.push((format!("blk.{i}.{name}.weight"), [cols, n, matrices, 1]));
        ["attn_q", "attn_k", "attn_v", "attn_output"].iter().for_each(|name| add(name, n, 1));
        let stacked = if experts > 1 { "_exps" } else { "" };
        add(&format!("ffn_gate{stacked}"), n, experts);
        add(&format!("ffn_up{stacked}"), n, experts);
        add(&format!("ffn_down{stacked}"), n_ff, experts);
    }
    if !tied {
        out.push(("output.weight".into(), [n, 1000, 1, 1]));
    }
    out
}

fn choose_all(tensors: &[(String, [u64; 4])], shape: &Shape, wishes: &Wishes<'_>) -> Vec<Option<Choice>> {
    let named: Vec<_> = tensors.iter().map(|(name, dims)| Named { name, dims: *dims }).collect();
    choose(&named, shape, wishes)
}

/// The formats of the tensors of this name, by layer.
fn of(tensors: &[(String, [u64; 4])], choices: &[Option<Choice>], name: &str) -> Vec<DType> {
    let wanted = tensors.iter().zip(choices).filter(|((n, _), _)| n == name || n.contains(&format!(".{name}.")));
    wanted.map(|(_, choice)| choice.unwrap().dtype).collect()
}

/// The layers in which a format is used.
fn layers(formats: &[DType], dtype: DType) -> Vec<usize> {
    (0..formats.len()).filter(|i| formats[*i] == dtype).collect()
}

#[test]
fn k_m_gives_more_bits_to_values_and_down() {
    let tensors = matrices(16, 256, 512, 1, true);
    for (preset, base) in [("Q4_K_M", DType::Q4K), ("Q5_K_M", DType::Q5K)] {
        let choices = choose_all(&tensors, &DENSE, &wishes(preset));
        let of = |name| of(&tensors, &choices, name);
        assert_eq!(of("token_embd.weight"), [DType::Q6K]);
        for name in ["attn_v", "ffn_down"] {
            assert_eq!(layers(&of(name), DType::Q6K), [0, 1, 4, 7, 10, 13, 14, 15], "{name}");
            assert_eq!(layers(&of(name), base).len(), 8, "{name}");
        }
        assert_eq!(layers(&of("attn_output"), base).len(), 16);
        assert_eq!(choices[1], None, "a vector");
    }
}

#[test]
fn the_other_mixes() {
    let tensors = matrices(16, 256, 512, 1, false);
    let of = |preset, name| of(&tensors, &choose_all(&tensors, &DENSE, &wishes(preset)), name);
    assert_eq!(of("Q4_K_M", "token_embd.weight"), [DType::Q4K]);
    assert_eq!(of("Q4_K_M", "output.weight"), [DType::Q6K]);
    assert_eq!(of("Q8_0", "output.weight"), [DType::Q8_0]);
    assert_eq!(of("TQ2_0", "token_embd.weight"), [DType::Q4K]);
    assert_eq!(layers(&of("Q4_K_S", "attn_v"), DType::Q5K), [0, 1, 2, 3]);
    assert_eq!(layers(&of("Q4_K_S", "ffn_down"), DType::Q5K), [0, 1]);
    assert_eq!(layers(&of("Q3_K_M", "attn_v"), DType::Q5K), [0, 1]);
    assert_eq!(layers(&of("Q3_K_M", "attn_v"), DType::Q4K).len(), 14);
    assert_eq!(layers(&of("Q3_K_M", "ffn_down"), DType::Q5K), [0]);
    assert_eq!(layers(&of("Q3_K_M", "attn_output"), DType::Q4K).len(), 16);
    assert_eq!(layers(&of("Q2_K", "attn_v"), DType::Q3K).len(), 16);
    assert_eq!(layers(&of("IQ4_XS", "ffn_down"), DType::Q5K), [0, 1]);
    assert_eq!(layers(&of("Q6_K", "attn_v"), DType::Q6K).len(), 16);
    for p in PRESETS.into_iter().filter(|p| !p.base.is_quantised()) {
        assert!(tensors.iter().zip(choose_all(&tensors, &DENSE, &wishes(p.name))).all(|(t, c)| match c {
            Some(c) => c.dtype == p.base,
            None => t.0.contains("norm"),
        }));
    }
}

#[test]
fn grouped_heads_experts_and_importance() {
    let tensors = matrices(8, 256, 256, 1, true);
    let grouped = Shape { layers: 8, group: 4, ..DENSE };
    let of_grouped = |preset, name| of(&tensors, &choose_all(&tensors, &grouped, &wishes(preset)), name);
    assert_eq!(layers(&of_grouped("Q2_K", "attn_v"), DType::Q4K).len(), 8);
    assert_eq!(layers(&of_grouped("IQ4_NL", "attn_v"), DType::Q5K).len(), 8);
    let large = Shape { is_70b: true, ..grouped };
    let choices = choose_all(&tensors, &large, &wishes("Q4_K_M"));
    assert!(!of(&tensors, &choices, "attn_v").contains(&DType::Q4K));

    let weighted = Wishes { importance: true, ..wishes("Q4_0") };
    assert_eq!(layers(&of(&tensors, &choose_all(&tensors, &grouped, &weighted), "ffn_down"), DType::Q4_1), [0]);

    let tensors = matrices(8, 256, 256, 8, true);
    let experts = Shape { layers: 8, experts: 8, ..DENSE };
    let of = |preset, name| of(&tensors, &choose_all(&tensors, &experts, &wishes(preset)), name);
    assert_eq!(of("Q4_K_M", "attn_k"), [DType::Q8_0; 8]);
    assert_eq!(of("Q4_K_M", "attn_v"), [DType::Q8_0; 8]);
    assert_eq!(of("Q4_K_M", "attn_output"), [DType::Q5K; 8]);
    assert_eq!(layers(&of("Q4_K_M", "ffn_down_exps"), DType::Q6K), [0, 3, 6, 7]);
    assert_eq!(of("MXFP4_MOE", "ffn_up_exps"), [DType::Mxfp4; 8]);
    assert_eq!(of("MXFP4_MOE", "attn_q"), [DType::Q8_0; 8]);
}

/// 576 columns, as in SmolLM2-135M: its Q4_K_M is mostly Q5_0 and Q8_0.
#[test]
fn columns_that_are_not_multiples_of_256() {
    let tensors = matrices(8, 576, 1536, 1, true);
    let shape = Shape { layers: 8, group: 3, ..DENSE };
    let choices = choose_all(&tensors, &shape, &wishes("Q4_K_M"));
    let of = |name| of(&tensors, &choices, name);
    assert_eq!(of("token_embd.weight"), [DType::Q8_0]);
    assert_eq!(of("attn_q"), [DType::Q5_0; 8]);
    assert_eq!(layers(&of("attn_v"), DType::Q8_0), [0, 3, 6, 7]);
    assert_eq!(layers(&of("attn_v"), DType::Q5_0), [1, 2, 4, 5]);
    assert_eq!(layers(&of("ffn_down"), DType::Q6K), [0, 3, 6, 7]);
    assert_eq!(layers(&of("ffn_down"), DType::Q4K), [1, 2, 4, 5]);
    assert_eq!(choices[2], Some(Choice { dtype: DType::Q5_0, instead_of: Some(DType::Q4K) }));

    for (wanted, cols, dtype) in [
        (DType::Q5K, 576, DType::Q5_1),
        (DType::Q2K, 576, DType::Q4_0),
        (DType::Tq1_0, 576, DType::Q4_0),
        (DType::Q2_0, 96, DType::Q4_0),
        (DType::Iq4Xs, 576, DType::Iq4Nl),
        (DType::Q4K, 100, DType::F16),
        (DType::Q8_0, 100, DType::F16),
    ] {
        assert_eq!(fitting(wanted, cols), Choice { dtype, instead_of: Some(wanted) });
    }
}

#[test]
fn what_the_user_says_goes_first() {
    let tensors = matrices(8, 576, 1536, 1, true);
    let shape = Shape { layers: 8, ..DENSE };
    let of = |wishes: &Wishes<'_>, name| of(&tensors, &choose_all(&tensors, &shape, wishes), name);
    let pure = Wishes { pure: true, ..wishes("Q4_0") };
    assert_eq!(of(&pure, "token_embd.weight"), [DType::Q4_0]);
    let head = Wishes { output: Some(DType::F16), ..wishes("Q4_0") };
    assert_eq!(of(&head, "token_embd.weight"), [DType::F16], "the embedding is the head");
    let embedding = Wishes { embedding: Some(DType::Q5_1), ..head };
    assert_eq!(of(&embedding, "token_embd.weight"), [DType::Q5_1]);
    let down = |pattern: &str, dtype| Override { pattern: Regex::new(pattern).unwrap(), dtype };
    let overrides = [down(r"blk\.[01]\.ffn_down", DType::Q6K), down("ffn_(down|up)", DType::Q4K)];
    let overridden = Wishes { overrides: &overrides, ..wishes("Q4_0") };
    assert_eq!(layers(&of(&overridden, "ffn_down"), DType::Q6K), [0, 1]);
    assert_eq!(layers(&of(&overridden, "ffn_down"), DType::Q4K), [2, 3, 4, 5, 6, 7]);
    assert_eq!(of(&overridden, "ffn_up"), [DType::Q5_0; 8], "576 columns");
    // An override does not count in the mix.
    let overrides = [down(r"blk\.0\.attn_v", DType::F16)];
    let overridden = Wishes { overrides: &overrides, ..wishes("Q4_K_S") };
    assert_eq!(layers(&of(&overridden, "attn_v"), DType::Q5_1), [1, 2, 3, 4]);
}

#[test]
fn layers_count_in_their_own_order() {
    let mut tensors = matrices(16, 256, 512, 1, true);
    let expected = choose_all(&tensors, &DENSE, &wishes("Q4_K_M"));
    tensors.reverse();
    let mut reversed = choose_all(&tensors, &DENSE, &wishes("Q4_K_M"));
    reversed.reverse();
    assert_eq!(reversed, expected);
}

#[test]
fn small_tensors_stay() {
    let keeps = |name, dims| !is_quantised(&Named { name, dims });
    assert!(keeps("blk.0.ffn_gate_inp.weight", [256, 8, 1, 1]));
    assert!(keeps("blk.0.attn_q_norm.weight", [64, 4, 1, 1]));
    assert!(keeps("blk.0.attn_q.bias", [256, 2, 1, 1]));
    assert!(keeps("blk.0.attn_q.weight", [256, 1, 1, 1]));
    assert!(!keeps("blk.0.ffn_down_exps.weight", [256, 256, 8, 1]));
}
