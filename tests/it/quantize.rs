//! `armlet quantize`: the formats, the options, importance matrices, and what it refuses.

use crate::cli::{Folder, armlet, fails_with, ok, stderr, tiny};
use crate::common::gguf::{Gguf, Tiny, Val};
use armlet::gguf::File;
use armlet::quant::DType;

/// Each row with 256 columns.
fn wide(f: &Folder) -> String {
    let model = Tiny { n_embd: 256, n_heads: 4, n_kv_heads: 2, head_dim: 64, n_ff: 512, ..Tiny::default() };
    f.write("wide.gguf", &model.gguf().build())
}

/// The type of a tensor in a file.
fn kind(path: &str, name: &str) -> String {
    let bytes = std::fs::read(path).unwrap();
    File::new_checked(&bytes).unwrap().tensor(name).unwrap().kind.name.to_string()
}

#[test]
fn every_preset_is_written_as_the_encoder_writes_it() {
    let f = Folder::new();
    let model = wide(&f);
    let source = std::fs::read(&model).unwrap();
    let source = File::new_checked(&source).unwrap();
    for (preset, dtype) in [
        ("F32", DType::F32),
        ("F16", DType::F16),
        ("BF16", DType::Bf16),
        ("Q8_0", DType::Q8_0),
        ("Q6_K", DType::Q6K),
        ("Q5_K_M", DType::Q5K),
        ("Q5_K_S", DType::Q5K),
        ("Q5_1", DType::Q5_1),
        ("Q5_0", DType::Q5_0),
        ("q4_k_m", DType::Q4K),
        ("q4_k_s", DType::Q4K),
        ("Q4_1", DType::Q4_1),
        ("Q4_0", DType::Q4_0),
        ("IQ4_NL", DType::Iq4Nl),
        ("IQ4_XS", DType::Iq4Xs),
        ("MXFP4", DType::Mxfp4),
        ("NVFP4", DType::Nvfp4),
        ("Q3_K_L", DType::Q3K),
        ("Q3_K_M", DType::Q3K),
        ("Q3_K_S", DType::Q3K),
        ("Q2_K", DType::Q2K),
        ("Q2_0", DType::Q2_0),
        ("TQ2_0", DType::Tq2_0),
        ("TQ1_0", DType::Tq1_0),
        ("Q1_0", DType::Q1_0),
    ] {
        let out = f.name("out");
        let shown = ok(&["quantize", &model, &out, "--type", preset]);
        assert_eq!(shown.lines().count(), source.tensors_len() + 1, "{shown}");
        let bytes = std::fs::read(&out).unwrap();
        let file = File::new_checked(&bytes).unwrap();
        assert!(file.tensors().map(|t| t.name).eq(source.tensors().map(|t| t.name)));
        let name = "blk.0.attn_q.weight";
        let (t, from) = (file.tensor(name).unwrap(), source.tensor(name).unwrap());
        assert_eq!(t.kind.format().unwrap().0, dtype);
        let weights: Vec<_> = from.data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let mut expected = vec![0; t.data.len()];
        dtype.encode_row(&weights, &mut expected).unwrap();
        assert!(t.data == expected, "{preset}");
    }
}

/// llama-quantize's other names of mixes, which with `--pure` are any single format.
#[test]
fn formats_stand_for_their_mixes() {
    let f = Folder::new();
    let model = wide(&f);
    for (short, preset) in [("Q3_K", "Q3_K_M"), ("q4_k", "Q4_K_M"), ("Q5_K", "Q5_K_M")] {
        let shown = |name| ok(&["quantize", &model, "--type", name, "--dry-run"]);
        assert_eq!(shown(short), shown(preset));
        let out = f.name("pure");
        ok(&["quantize", &model, &out, "--type", short, "--pure"]);
        assert_eq!(kind(&out, "token_embd.weight"), short.to_uppercase());
    }
}

#[test]
fn options_choose_formats_and_a_dry_run_writes_nothing() {
    let f = Folder::new();
    let model = wide(&f);
    let out = f.name("out");
    let shown = ok(&["quantize", &model, "--type", "Q4_K_M", "--dry-run"]);
    assert!(shown.contains("token_embd.weight") && shown.contains("F32 -> Q6_K") && shown.contains("bits per weight"));
    let down = "blk.1.ffn_down.weight";
    for (options, tensor, expected) in [
        (&["--pure"][..], "token_embd.weight", "Q4_K"),
        (&["--output-tensor-type", "q8_0"], "token_embd.weight", "Q8_0"),
        (&["--token-embedding-type", "F16"], "token_embd.weight", "F16"),
        (&["--tensor-type", r"blk\.1\.ffn=Q3_K", "--tensor-type", "ffn_down=Q5_K"], down, "Q3_K"),
        (&["--tensor-type", "ffn_up=Q5_K"], "blk.1.ffn_up.weight", "Q5_K"),
    ] {
        ok(&[&["quantize", &model, &out, "--type", "Q4_K_M"], options].concat());
        assert_eq!(kind(&out, tensor), expected, "{options:?}");
    }
    let fails = |options: &[&str], code, what| {
        fails_with(&[&["quantize", &model, &out, "--type", "Q4_0"], options].concat(), code, what);
    };
    std::fs::remove_file(&out).unwrap();
    ok(&["quantize", &model, &out, "--type", "Q4_K_M", "--dry-run"]);
    assert!(!f.path("out").exists());
    let narrow = tiny(&f);
    fails_with(
        &["quantize", &narrow, &out, "--type", "Q4_0", "--token-embedding-type", "Q6_K"],
        1,
        "token_embd.weight",
    );
    fails(&["--imatrix", "/nowhere"], 1, "/nowhere");
}

#[test]
fn weights_that_are_not_finite_or_do_not_fit_leave_no_file() {
    let f = Folder::new();
    let out = f.name("out");
    let with = |tensor: &str, value: f32| {
        let mut model = Tiny::default().gguf();
        let t = model.tensors.iter_mut().find(|t| t.name == tensor).unwrap();
        t.data[8..12].copy_from_slice(&value.to_le_bytes());
        f.write("bad.gguf", &model.build())
    };
    for (tensor, value, to, what) in [
        ("blk.0.attn_q.weight", f32::NAN, "Q8_0", "NaN"),
        ("blk.0.attn_q.weight", f32::INFINITY, "BF16", "inf"),
        ("blk.0.attn_norm.weight", f32::NAN, "Q8_0", "NaN"),
        ("blk.0.attn_q.weight", 1e6, "F16", "beyond the range of F16"),
        ("blk.0.attn_q.weight", 1e9, "Q4_0", "beyond the range of Q4_0"),
    ] {
        let model = with(tensor, value);
        for what in [&model, tensor, what] {
            fails_with(&["quantize", &model, &out, "--type", to], 1, what);
        }
        let complete = ["complete", "-m", &model, "-p", "A", "-n", "1", "--check-tensors"];
        if value.is_finite() {
            ok(&complete);
        } else {
            fails_with(&complete, 1, &format!("tensor {tensor} has a weight of {what}; the file is damaged"));
        }
        assert!(!f.path("out").exists());
    }
}

/// A weight is never cut off in silence: what does not fit a format is refused, and what is written is near it.
#[test]
fn large_weights_fit_or_are_refused() {
    let f = Folder::new();
    let (out, tensor) = (f.name("out"), "blk.0.attn_q.weight");
    let mut refused = Vec::new();
    for (source, value) in [(DType::Bf16, 1e5f32), (DType::F32, 1e5), (DType::F32, 1e7), (DType::F32, 3e38)] {
        let sizes = Tiny { n_embd: 256, n_heads: 4, n_kv_heads: 2, head_dim: 64, n_ff: 256, ..Tiny::default() };
        let mut model = Tiny { n_layers: 1, dtype: source, ..sizes }.gguf();
        let t = model.tensors.iter_mut().find(|t| t.name == tensor).unwrap();
        match source {
            DType::F32 => t.data[8..12].copy_from_slice(&value.to_le_bytes()),
            _ => t.data[4..6].copy_from_slice(&value.to_le_bytes()[2..]),
        }
        let path = f.write("large.gguf", &model.build());
        for dtype in DType::ALL {
            let set = format!("attn_q={dtype}");
            let args = ["quantize", &path, &out, "--type", "F32", "--tensor-type", &set];
            if !armlet().args(args).output().unwrap().status.success() {
                for what in [&path, tensor, &format!("beyond the range of {dtype}")] {
                    fails_with(&args, 1, what);
                }
                assert!(!f.path("out").exists(), "{dtype}");
                refused.push((dtype, value));
                continue;
            }
            let bytes = std::fs::read(&out).unwrap();
            let mut row = vec![0.0; 256];
            dtype.decode_row(File::new_checked(&bytes).unwrap().tensor(tensor).unwrap().data, &mut row);
            // One bit says the mean of 128 magnitudes.
            let share = if dtype == DType::Q1_0 { 1.0 / 128.0 } else { 1.0 };
            assert!((row[2] / (share * value) - 1.0).abs() < 0.4, "{dtype}: {} for {value}", row[2]);
            std::fs::remove_file(&out).unwrap();
        }
    }
    let formats = |value: f32| refused.iter().filter(|(_, v)| *v == value).map(|(d, _)| d.name()).collect::<Vec<_>>();
    println!("{:?} {:?} {:?}", formats(1e5), formats(1e7), formats(3e38));
    assert!(formats(1e5).contains(&"F16") && !formats(1e5).contains(&"Q8_0"));
    assert!(formats(3e38).len() > 10 && !formats(3e38).contains(&"BF16"));
}

/// F32 has every value of every format: a quantised file becomes one without being asked twice, and with a warning.
#[test]
fn quantised_weights_are_kept_by_f32() {
    let f = Folder::new();
    let model = wide(&f);
    let (quantised, out) = (f.name("quantised"), f.name("out"));
    for preset in ["Q4_K_M", "Q5_0", "TQ1_0"] {
        ok(&["quantize", &model, &quantised, "--type", preset]);
        fails_with(&["quantize", &quantised, &out, "--type", "BF16"], 1, "--allow-requantize");
        let output = armlet().args(["quantize", &quantised, &out, "--type", "F32"]).output().unwrap();
        assert!(output.status.success() && stderr(&output).contains("is quantised already"), "{}", stderr(&output));
        let [from, to] = [&quantised, &out].map(|path| std::fs::read(path).unwrap());
        let [from, to] = [&from, &to].map(|bytes| File::new_checked(bytes).unwrap());
        for t in from.tensors() {
            let (dtype, cols) = (t.kind.format().unwrap().0, t.dims[0] as usize);
            let mut want = vec![0.0; cols];
            let found = to.tensor(t.name).unwrap();
            assert_eq!(found.kind.name, "F32");
            for (row, found) in t.data.chunks(dtype.row_bytes(cols).unwrap()).zip(found.data.chunks(4 * cols)) {
                dtype.decode_row(row, &mut want);
                let found = found.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b));
                assert!(found.eq(want.iter().map(|w| w.to_bits())), "{preset}: {}", t.name);
            }
        }
    }
}

/// An importance matrix of a model with more layers is of use, but hardly meant.
#[test]
fn importance_of_other_tensors_is_a_warning() {
    let f = Folder::new();
    let (model, out) = (wide(&f), f.name("out"));
    let mut both = Gguf { version: 3, alignment: 32, metadata: vec![], tensors: vec![] };
    for name in ["blk.0.attn_q.weight", "blk.7.attn_q.weight", "blk.8.attn_q.weight"] {
        both.tensor(&format!("{name}.in_sum2"), &[256], 0, [1.0f32.to_le_bytes(); 256].concat());
        both.tensor(&format!("{name}.counts"), &[1], 0, 1.0f32.to_le_bytes().to_vec());
    }
    let matrix = f.write("imatrix", &both.build());
    let output = armlet().args(["quantize", &model, &out, "--type", "Q4_K_M", "--imatrix", &matrix]).output().unwrap();
    let said = "the model has no tensor blk.7.attn_q.weight, nor 1 others";
    assert!(output.status.success() && stderr(&output).contains(said), "{}", stderr(&output));
}

/// An importance matrix of a tensor, as sums over `count` activations.
fn imatrix(tensor: &str, sums: &[f32], count: f32) -> Vec<u8> {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut file = Gguf { version: 3, alignment: 32, metadata: vec![], tensors: vec![] };
    file.set("general.type", Val::Str("imatrix".into()));
    file.tensor(&format!("{tensor}.in_sum2"), &[sums.len() as u64, 1], 0, bytes(sums));
    file.tensor(&format!("{tensor}.counts"), &[1, 1], 0, bytes(&[count]));
    file.build()
}

/// The same in the older form.
fn old_imatrix(tensor: &str, sums: &[f32], count: i32) -> Vec<u8> {
    let int = |n: usize| (n as i32).to_le_bytes().to_vec();
    let values = sums.iter().flat_map(|v| v.to_le_bytes()).collect();
    [int(1), int(tensor.len()), tensor.into(), count.to_le_bytes().to_vec(), int(sums.len()), values].concat()
}

#[test]
fn importance_comes_from_both_forms_of_file() {
    let f = Folder::new();
    let model = wide(&f);
    let source = std::fs::read(&model).unwrap();
    let tensor = "blk.0.attn_q.weight";
    let t = File::new_checked(&source).unwrap().tensor(tensor).unwrap();
    let weights: Vec<_> = t.data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let sums: Vec<f32> = (0..256).map(|i| (i % 17) as f32 * 4.0).collect();
    let importance: Vec<_> = sums.iter().map(|s| s / 4.0).collect();
    let mut expected = Vec::new();
    for row in weights.chunks(256) {
        let mut bytes = vec![0; DType::Q4K.row_bytes(256).unwrap()];
        DType::Q4K.encode_row_weighted(row, Some(&importance), &mut bytes).unwrap();
        expected.extend(bytes);
    }
    for file in [imatrix(tensor, &sums, 4.0), old_imatrix(tensor, &sums, 4)] {
        let (matrix, out) = (f.write("imatrix", &file), f.name("out"));
        let shown = ok(&["quantize", &model, &out, "--type", "Q4_K_S", "--pure", "--imatrix", &matrix]);
        assert_eq!(shown.matches("without importance").count(), shown.matches(" -> ").count() - 2, "{shown}");
        let bytes = std::fs::read(&out).unwrap();
        assert!(File::new_checked(&bytes).unwrap().tensor(tensor).unwrap().data == expected);
    }
}

#[test]
fn importance_that_does_not_fit_is_refused() {
    let f = Folder::new();
    let model = wide(&f);
    let out = f.name("out");
    let tensor = "blk.0.attn_q.weight";
    let mut broken = vec![1.0f32; 256];
    broken[7] = f32::NAN;
    let (good, old) = (imatrix(tensor, &[1.0; 256], 1.0), old_imatrix(tensor, &[1.0; 256], 1));
    let cases: [(Vec<u8>, &str); 15] = [
        (imatrix(tensor, &[1.0; 128], 1.0), "blk.0.attn_q.weight has 1 × 256 columns here and 128 there"),
        (
            imatrix("blk.99.attn_q.weight", &[1.0; 256], 1.0),
            "no tensor blk.99.attn_q.weight, nor any other of the file",
        ),
        (imatrix(tensor, &broken, 1.0), "the importance of tensor blk.0.attn_q.weight is NaN in column 7"),
        (old_imatrix(tensor, &broken, 1), "the importance of tensor blk.0.attn_q.weight is NaN in column 7"),
        (imatrix(tensor, &[-1.0; 256], 1.0), "is -1 in column 0"),
        (imatrix(tensor, &broken, 0.0), "NaN in column 7"),
        (imatrix(tensor, &[1.0; 256], f32::NAN), "blk.0.attn_q.weight has a count of NaN"),
        (imatrix(tensor, &[1.0; 256], f32::INFINITY), "blk.0.attn_q.weight has a count of inf"),
        (good[..good.len() - 40].to_vec(), "the file is truncated"),
        (good[..good.len() - 40].to_vec(), "make it again with armlet imatrix"),
        (old[..old.len() - 1].to_vec(), "cut off in tensor blk.0.attn_q.weight"),
        (old[..10].to_vec(), "cut off"),
        (std::fs::read(&model).unwrap(), "not an importance matrix"),
        (b"The quick brown fox".to_vec(), "not an importance matrix"),
        (vec![0, 0, 0], "not an importance matrix"),
    ];
    for (file, what) in cases {
        let matrix = f.write("imatrix", &file);
        fails_with(&["quantize", &model, &out, "--type", "Q4_K_M", "--imatrix", &matrix], 1, what);
        assert!(!f.path("out").exists());
    }
}
