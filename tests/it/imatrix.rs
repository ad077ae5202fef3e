//! `armlet imatrix`: its sums beside those of the model in f64, the file's form, and what `quantize` makes of it.

use std::collections::BTreeMap;

use crate::cli::{Folder, fails_with, ok};
use crate::common::gguf::{Gguf, Tiny, Val};
use crate::common::oracle::{Mistake, Oracle, Vector};
use armlet::gguf::{File, Value};
use armlet::quant::DType;

/// Tokens of a chunk.
const CHUNK: usize = 24;
/// Largest difference of a sum, relative to the largest of its tensor: of a cache of binary16, where a key half-way between
/// two numbers may round differently in f32 and f64.
const BOUND: f64 = 1e-3;

/// A model whose chunks start with BOS, the last token, and whose head is its own; each row has 256 columns.
fn model() -> Gguf {
    let sizes = Tiny { n_embd: 256, n_heads: 4, n_kv_heads: 2, head_dim: 64, n_ff: 512, ..Tiny::default() };
    let mut gguf = Tiny { tied: false, seed: 3, ..sizes }.gguf();
    gguf.set("tokenizer.ggml.bos_token_id", Val::U32(66)).set("tokenizer.ggml.add_bos_token", Val::Bool(true));
    gguf
}

/// The text of three chunks and some, and its tokens: without BOS one for each character.
fn text() -> (String, Vec<u32>) {
    let tokens: Vec<u32> = (0..3 * CHUNK as u32 + 7).map(|i| 3 + (i * i + 5 * i / 3) % 60).collect();
    (tokens.iter().map(|t| char::from(33 + *t as u8)).collect(), tokens)
}

/// The chunks that the program is to read: BOS before the text moves it, and takes the place of each first token.
fn chunks(bos: bool) -> Vec<Vec<u32>> {
    let mut all = vec![66];
    all.extend(text().1);
    let chunk = |chunk: &[u32]| {
        let mut chunk = chunk.to_vec();
        if bos {
            chunk[0] = 66;
        }
        chunk
    };
    all.chunks_exact(CHUNK).map(chunk).collect()
}

type Sums = BTreeMap<String, Vector>;

/// The sums of squares of all matrices, in f64.
fn naive(gguf: &Gguf, chunks: &[Vec<u32>], mistake: Option<Mistake>) -> Sums {
    let oracle = Oracle { half: true, mistake, ..Oracle::new(gguf) };
    for chunk in chunks {
        oracle.logits(chunk);
    }
    oracle.squares.into_inner()
}

fn floats(file: &File<'_>, name: &str) -> Vec<f32> {
    let t = file.tensor(name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(t.kind.name, "F32");
    t.data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The sums of a file, each of `count` inputs.
fn sums(bytes: &[u8], count: usize) -> Sums {
    let file = File::new_checked(bytes).unwrap();
    let mut sums = Sums::new();
    for name in file.tensors().filter_map(|t| t.name.strip_suffix(".in_sum2")) {
        assert_eq!(floats(&file, &format!("{name}.counts")), [count as f32], "{name}");
        let values = floats(&file, &format!("{name}.in_sum2"));
        sums.insert(name.into(), values.into_iter().map(f64::from).collect());
    }
    assert_eq!(file.tensors_len(), 2 * sums.len());
    sums
}

/// The largest difference of two, which must have the same tensors.
fn difference(found: &Sums, want: &Sums) -> f64 {
    assert!(found.keys().eq(want.keys()));
    let of_tensor = |(found, want): (&Vector, &Vector)| {
        let largest = want.iter().copied().fold(0.0, f64::max);
        found.iter().zip(want).map(|(f, w)| (f - w).abs() / largest).fold(0.0, f64::max)
    };
    found.values().zip(want.values()).map(of_tensor).fold(0.0, f64::max)
}

#[test]
fn sums_match_f64_and_mistakes_show() {
    let f = Folder::new();
    let gguf = model();
    let (path, out) = (f.write("model.gguf", &gguf.build()), f.name("imatrix.gguf"));
    let text = f.write("text.txt", text().0.as_bytes());
    let base = ["imatrix", "-m", &path, "-f", &text, "-o", &out, "-c", "24"];
    let all = chunks(true);
    assert_eq!(all.len(), 3);
    for (more, n) in [(&["--process-output"][..], 3), (&["--process-output", "--chunks", "2"], 2), (&[], 3)] {
        let shown = ok(&[&base, more].concat());
        let head = more.contains(&"--process-output");
        assert!(shown.ends_with(&format!("{} tensors, {n} × 24 tokens\n", if head { 15 } else { 14 })), "{shown}");
        let found = sums(&std::fs::read(&out).unwrap(), n * CHUNK);
        let of = |chunks: &[Vec<u32>], mistake| {
            let mut want = naive(&gguf, chunks, mistake);
            want.retain(|name, _| head || name != "output.weight");
            difference(&found, &want)
        };
        let e = of(&all[..n], None);
        println!("{n} chunks, {more:?}: {e:.1e}");
        assert!(e <= BOUND, "{e:.1e}");
        let short: Vec<_> = all[..n].iter().map(|chunk| chunk[..CHUNK - 1].to_vec()).collect();
        let mut swapped = found.clone();
        swapped.insert("blk.1.attn_output.weight".into(), found["blk.1.attn_q.weight"].clone());
        for (what, e) in [
            ("another number of chunks", of(&all[..n - 1], None)),
            ("a token too few", of(&short, None)),
            ("chunks without BOS", of(&chunks(false)[..n], None)),
            ("a cache that is kept", of(&[all[..n].concat()], None)),
            ("another matrix's input", difference(&swapped, &found)),
            ("the gate of the wrong matrix", of(&all[..n], Some(Mistake::Gate))),
        ] {
            println!("{what}: {e:.1e}");
            assert!(e > 100.0 * BOUND, "{what} shows as only {e:.1e}");
        }
    }
}

#[test]
fn quantize_takes_the_file_and_says_so() {
    let f = Folder::new();
    let gguf = model();
    let source = gguf.build();
    let (path, matrix, out) = (f.write("model.gguf", &source), f.name("imatrix.gguf"), f.name("out.gguf"));
    let text = f.write("text.txt", text().0.as_bytes());
    ok(&["imatrix", "-m", &path, "-f", &text, "-o", &matrix, "-c", "24"]);
    let bytes = std::fs::read(&matrix).unwrap();
    let file = File::new_checked(&bytes).unwrap();
    let keys: Vec<&str> = file.raw_metadata().map(|(key, _)| key).collect();
    assert_eq!(keys, ["general.type", "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"]);
    assert_eq!(file.get("general.type"), Some(Value::String(b"imatrix")));
    let Some(Value::Array(names)) = file.get("imatrix.datasets") else { panic!("no datasets") };
    assert!(names.iter().eq([Value::String(text.as_bytes())]));
    let number = |file: &File<'_>, key: &str| match file.get(key) {
        Some(Value::Unsigned(n)) => n,
        other => panic!("{key} is {other:?}"),
    };
    assert_eq!(["imatrix.chunk_count", "imatrix.chunk_size"].map(|key| number(&file, key)), [3, 24]);
    assert!(file.tensors().filter_map(|t| t.name.strip_suffix(".in_sum2")).is_sorted());

    ok(&["quantize", &path, &out, "--type", "Q4_K_S", "--pure", "--imatrix", &matrix]);
    let quantised = std::fs::read(&out).unwrap();
    let quantised = File::new_checked(&quantised).unwrap();
    let string = |key: &str| quantised.get(key).map(|value| format!("{value:?}"));
    let expected = |s: &str| Some(format!("{:?}", Value::String(s.as_bytes())));
    assert_eq!(string("quantize.imatrix.file"), expected(&matrix));
    assert_eq!(string("quantize.imatrix.dataset"), expected(&text));
    let counts = ["quantize.imatrix.entries_count", "quantize.imatrix.chunks_count"];
    assert_eq!(counts.map(|key| number(&quantised, key)), [14, 3]);
    for name in ["blk.0.attn_output.weight", "blk.1.ffn_down.weight"] {
        let (sums, n) = (floats(&file, &format!("{name}.in_sum2")), floats(&file, &format!("{name}.counts"))[0]);
        let importance: Vec<f32> = sums.iter().map(|sum| sum / n).collect();
        let weights = floats(&File::new_checked(&source).unwrap(), name);
        let mut want = Vec::new();
        for row in weights.chunks(sums.len()) {
            let mut bytes = vec![0; DType::Q4K.row_bytes(row.len()).unwrap()];
            DType::Q4K.encode_row_weighted(row, Some(&importance), &mut bytes).unwrap();
            want.extend(bytes);
        }
        assert!(quantised.tensor(name).unwrap().data == want, "{name}");
    }
}

#[test]
fn what_cannot_be_measured_gets_one_line() {
    let f = Folder::new();
    let gguf = model();
    let (path, out) = (f.write("model.gguf", &gguf.build()), f.name("imatrix.gguf"));
    let text = f.write("text.txt", text().0.as_bytes());
    let fails = |model: &str, text: &str, more: &[&str], code, what: &str| {
        fails_with(&[&["imatrix", "-m", model, "-f", text, "-o", &out], more].concat(), code, what);
        assert!(!f.path("imatrix.gguf").exists());
    };
    fails(&path, &text, &[], 1, "the text has 80 tokens, too few for -c 512");
    fails(&path, "/nowhere.txt", &["-c", "24"], 1, "/nowhere.txt");
    fails(&path, &f.write("latin1.txt", b"caf\xe9"), &["-c", "24"], 1, "not UTF-8");
    let unwritable = ["imatrix", "-m", &path, "-f", &text, "-c", "24", "-o"];
    fails_with(&[&unwritable[..], &["/nowhere/imatrix.gguf"]].concat(), 1, "/nowhere/imatrix.gguf");
    fails_with(&[&unwritable[..], &["/dev/null"]].concat(), 1, "not a regular file");
    for bad in [f32::NAN, 1e30] {
        let mut broken = gguf.clone();
        let t = broken.tensors.iter_mut().find(|t| t.name == "blk.1.attn_norm.weight").unwrap();
        t.data[20..24].copy_from_slice(&bad.to_le_bytes());
        let broken = f.write("broken.gguf", &broken.build());
        fails(&broken, &text, &["-c", "24"], 1, "column 5 of tensor blk.1.attn_q.weight is multiplied with");
    }
}
