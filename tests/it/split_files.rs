//! Models in several files, `-00001-of-00003.gguf` and so on: the same answers and the same files come of them as of the
//! whole, and what is no part of the model is refused by name.

use crate::cli::{Folder, fails_with, ok};
use crate::common::gguf::{Gguf, Tiny, Val};
use armlet::quant::DType;

/// Parts as llama-gguf-split writes them: all metadata are in the first.
fn split(whole: &Gguf, ends: &[usize]) -> Vec<Gguf> {
    let starts = std::iter::once(&0).chain(ends);
    let part = |(no, (start, end)): (usize, (&usize, &usize))| {
        let metadata = if no == 0 { whole.metadata.clone() } else { Vec::new() };
        let mut part = Gguf { metadata, tensors: whole.tensors[*start..*end].to_vec(), ..whole.clone() };
        part.set("split.no", u16(no)).set("split.count", u16(ends.len()));
        part.set("split.tensors.count", Val::Raw(5, (whole.tensors.len() as u32).to_le_bytes().into()));
        part
    };
    starts.zip(ends).enumerate().map(part).collect()
}

fn u16(n: usize) -> Val {
    Val::Raw(2, (n as u16).to_le_bytes().into())
}

/// Writes parts; returns the path of the first.
fn write(f: &Folder, stem: &str, parts: &[Gguf]) -> String {
    let name = |i: usize| format!("{stem}-{:05}-of-{:05}.gguf", i + 1, parts.len());
    for (i, part) in parts.iter().enumerate() {
        f.write(&name(i), &part.build());
    }
    f.name(&name(0))
}

fn model() -> Gguf {
    Tiny { dtype: DType::Q8_0, tied: false, ..Tiny::default() }.gguf()
}

#[test]
fn parts_are_one_model() {
    let f = Folder::new();
    let whole = model();
    let path = f.write("whole.gguf", &whole.build());
    let n = whole.tensors.len();
    let mut parts = split(&whole, &[0, 1, 9, 9, n]);
    // Each part has an alignment of its own.
    parts[2].alignment = 8;
    parts[2].set("general.alignment", Val::U32(8));
    parts[4].alignment = 1 << 14;
    parts[4].set("general.alignment", Val::U32(1 << 14));
    let first = write(&f, "parts", &parts);

    let complete = |path: &str| ok(&["complete", "-m", path, "-p", "ABCAB", "-n", "12", "--temp", "0"]);
    assert_eq!(complete(&first), complete(&path));
    for command in ["plan", "tokenize"] {
        let run = |path: &str| match command {
            // Their headers take more.
            "plan" => ok(&["plan", "-m", path]).split("memory: ").next().unwrap().to_string(),
            _ => ok(&["tokenize", "-m", path, "-p", "ABC", "--ids"]),
        };
        assert_eq!(run(&first), run(&path), "{command}");
    }
    let shown = ok(&["inspect", &first, "--tensors"]);
    let names = |text: &str| text.lines().filter(|l| l.contains(".weight")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names(&shown), names(&ok(&["inspect", &path, "--tensors"])));
    assert!(shown.contains(&format!("tensors ({n})")) && shown.contains("runs here") && !shown.contains("split."));

    // Files made of them have the bytes of those made of the whole, and the alignment that all parts have.
    let aligned =
        f.write("aligned.gguf", &Gguf { alignment: 8, ..whole }.set("general.alignment", Val::U32(8)).build());
    let out = [f.name("1.gguf"), f.name("2.gguf")];
    for command in [&["pack"][..], &["quantize", "--allow-requantize"]] {
        for (input, out) in [&first, &aligned].into_iter().zip(&out) {
            let kind: &[&str] = if command[0] == "quantize" { &["--type", "q4_0"] } else { &[] };
            ok(&[command, &[input.as_str(), out.as_str()], kind].concat());
        }
        assert!(std::fs::read(&out[0]).unwrap() == std::fs::read(&out[1]).unwrap(), "{command:?}");
    }
    for part in [1, 5] {
        let part = f.name(&format!("parts-{part:05}-of-00005.gguf"));
        fails_with(&["pack", &first, &part], 2, "the output is the input");
    }
}

#[test]
fn what_is_no_part_of_the_model_is_named() {
    let f = Folder::new();
    let whole = model();
    let parts = split(&whole, &[5, 9, whole.tensors.len()]);
    let run = |path: &str, what: &str| {
        fails_with(&["complete", "-m", path, "-p", "A"], 1, what);
        fails_with(&["inspect", path], 1, what);
    };
    let refuse = |name: &str, what: &str, edit: &dyn Fn(&mut [Gguf])| {
        let mut parts = parts.clone();
        edit(&mut parts);
        let first = write(&f, name, &parts);
        for what in what.split(" & ") {
            run(&first, what);
        }
    };
    let good = write(&f, "good", &parts);
    ok(&["inspect", &good]);
    let second = f.name("good-00002-of-00003.gguf");
    run(&second, "good-00002-of-00003.gguf: this is part 2 of 3 of a model; give the first");

    let renamed = f.write("renamed.gguf", &parts[0].build());
    run(&renamed, "its name must end in -00001-of-00003.gguf");
    let missing = write(&f, "missing", &parts);
    std::fs::remove_file(f.path("missing-00003-of-00003.gguf")).unwrap();
    run(&missing, "missing-00003-of-00003.gguf: part 3 of 3 is missing");
    // The vocabulary is in the first.
    let ids = |path: &str| ok(&["tokenize", "-m", path, "-p", "ABC", "--ids"]);
    assert_eq!(ids(&missing), ids(&good));
    fails_with(&["tokenize", "-m", &second, "-p", "ABC"], 1, "this is part 2 of 3 of a model; give the first");
    let broken = write(&f, "broken", &parts);
    let bytes = parts[1].build();
    f.write("broken-00002-of-00003.gguf", &bytes[..bytes.len() - 100]);
    run(&broken, "broken-00002-of-00003.gguf: the file is truncated");
    f.write("broken-00002-of-00003.gguf", b"");
    run(&broken, "broken-00002-of-00003.gguf: it is empty");

    refuse("order", "order-00002-of-00003.gguf: & split.no is 2 and should be 1", &|parts| parts.swap(1, 2));
    refuse("count", "count-00003-of-00003.gguf: & split.count is 4 and should be 3", &|parts| {
        parts[2].set("split.count", u16(4));
    });
    refuse("first", "first-00001-of-00003.gguf: & this is the first of 4 parts", &|parts| {
        parts[0].set("split.count", u16(4));
    });
    refuse("total", "total-00002-of-00003.gguf: & split.tensors.count is 7 and should be", &|parts| {
        parts[1].set("split.tensors.count", Val::U32(7));
    });
    refuse("keys", "keys-00002-of-00003.gguf: & split.no is missing", &|parts| {
        parts[1].unset("split.no");
    });
    refuse("other", "other-00003-of-00003.gguf: & general.architecture is not that of the first part", &|parts| {
        parts[2].set("general.architecture", Val::Str("qwen2".into()));
    });
    refuse("twice", "twice-00003-of-00003.gguf: tensor & is in an earlier part, too", &|parts| {
        let again = parts[0].tensors[2].clone();
        parts[2].tensors[1] = again;
    });
    let n = whole.tensors.len();
    refuse("fewer", &format!("the parts have {} tensors & split.tensors.count says {n}", n - 1), &|parts| {
        parts[1].tensors.pop();
    });
    // Of one part, the first is the whole.
    let single = split(&whole, &[n]);
    ok(&["complete", "-m", &f.write("single.gguf", &single[0].build()), "-p", "A", "-n", "1"]);
}
