//! Files that are in order, which damage starts from.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use armlet::quant::DType;

use crate::commands::program;
use crate::common::family_models::cases;
use crate::common::gguf::{Gguf, Tiny, Val, byte_level_model, small_formats};
use crate::rng::Rng;

/// A chat template of the usual kind.
const TEMPLATE: &str = "{%- if messages[0].role == 'system' -%}{{ '<|im_start|>system\\n' ~ messages[0].content \
~ '<|im_end|>\\n' }}{%- endif -%}{%- for m in messages if m.role != 'system' -%}{%- set n = namespace(x=loop.index) -%}\
{{ '<|im_start|>' + m['role'] + '\\n' + m.content | trim + '<|im_end|>\\n' }}{%- if m.tool_calls is defined -%}\
{{ m.tool_calls | tojson(indent=2) }}{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}\
{{ '<|im_start|>assistant\\n' }}{%- endif -%}";

/// A text to read.
pub(crate) const TEXT: &str = "Some text of a few words, in which\nnothing is said: 3.14 and \u{e9}\u{2581}\u{1f600}. ";

/// The files, in a folder: this process stays small, because what is resident in it counts for those that it starts.
pub(crate) struct Seeds {
    folder: PathBuf,
    models: usize,
}

/// SentencePiece's lists for a model of any family.
fn sentence_piece(mut gguf: Gguf, vocab: usize) -> Gguf {
    let text = |i: usize| match i {
        0..3 => ["<unk>", "<s>", "</s>"][i].into(),
        3..13 => format!("<0x{i:02X}>"),
        13 => "\u{2581}".into(),
        _ => char::from_u32(b'a' as u32 + i as u32 - 14).unwrap_or('?').to_string(),
    };
    let kind = |i: usize| [2, 3, 3, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6].get(i).copied().unwrap_or(1);
    gguf.set("tokenizer.ggml.model", Val::Str("llama".into()));
    gguf.set("tokenizer.ggml.tokens", Val::Strs((0..vocab).map(text).collect()));
    gguf.set("tokenizer.ggml.token_type", Val::I32s((0..vocab).map(kind).collect()));
    gguf.set("tokenizer.ggml.scores", Val::F32s((0..vocab).map(|i| -(i as f32)).collect()));
    gguf.set("tokenizer.ggml.bos_token_id", Val::U32(1)).set("tokenizer.ggml.add_bos_token", Val::Bool(true));
    gguf
}

fn models() -> Vec<Vec<u8>> {
    let small = Tiny { n_layers: 1, n_embd: 32, n_heads: 2, n_kv_heads: 1, n_ff: 32, context: 64, ..Tiny::default() };
    let mut models: Vec<Gguf> = cases().into_iter().filter(|c| !c.name.contains("64 layers")).map(|c| c.gguf).collect();
    models.extend(small_formats().map(|dtype| Tiny { dtype, bias: true, rope_factors: true, ..small.clone() }.gguf()));
    models.extend([DType::Q4K, DType::Q6K, DType::Q3K, DType::Iq4Xs].map(|dtype| {
        Tiny { dtype, n_embd: 256, n_heads: 4, head_dim: 64, n_ff: 256, vocab: 30, ..small.clone() }.gguf()
    }));
    models.extend([DType::Q4_0, DType::Q8_0].map(|dtype| Tiny { dtype, ..small.clone() }.gguf().packed()));
    models.extend(["llama", "gemma2", "qwen2"].map(|arch| sentence_piece(Tiny { arch, ..small.clone() }.gguf(), 67)));
    let mut chat = Tiny { dtype: DType::Q8_0, ..small }.gguf();
    chat.set("tokenizer.chat_template", Val::Str(TEMPLATE.into()));
    models.push(chat);
    let mut models: Vec<Vec<u8>> = models.iter().map(Gguf::build).collect();
    models.extend((0..4).map(byte_level_model));
    models.extend(["bpe", "spm"].map(|name| {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.gguf"))).unwrap()
    }));
    models
}

/// A model in two parts.
fn split() -> [Vec<u8>; 2] {
    let whole = Tiny { dtype: DType::Q8_0, n_layers: 1, ..Tiny::default() }.gguf();
    [0, 1].map(|no: u16| {
        let (first, second) = whole.tensors.split_at(whole.tensors.len() / 2);
        let metadata = if no == 0 { whole.metadata.clone() } else { Vec::new() };
        let mut part = Gguf { metadata, tensors: [first, second][usize::from(no)].to_vec(), ..whole.clone() };
        part.set("split.no", Val::Raw(2, no.to_le_bytes().into())).set("split.count", Val::Raw(2, vec![2, 0]));
        part.set("split.tensors.count", Val::Raw(5, (whole.tensors.len() as u32).to_le_bytes().into()));
        part.build()
    })
}

/// llama-imatrix's older form, for one tensor of the model.
fn binary_importance() -> Vec<u8> {
    let name = b"blk.0.attn_q.weight";
    let numbers = |list: &[i32]| list.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let values: Vec<u8> = (0..64).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let end = [&numbers(&[3, 4])[..], b"text"].concat();
    [&numbers(&[1, name.len() as i32])[..], name, &numbers(&[3, 64]), &values, &end].concat()
}

/// Makes them, some by the program itself.
pub(crate) fn make(folder: &Path) {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_string();
    let write = |name: &str, bytes: &[u8]| std::fs::write(at(name), bytes).unwrap();
    models().iter().enumerate().for_each(|(i, model)| write(&format!("model-{i}"), model));
    split().iter().enumerate().for_each(|(i, part)| write(&format!("part-{i}"), part));
    write("model", &byte_level_model(3));
    write("text", TEXT.repeat(4).as_bytes());
    write("template", TEMPLATE.as_bytes());
    write("importance-1", &binary_importance());
    let run = |args: &[&str]| {
        let mut command = Command::new(program());
        command.args(args).args(["-m", &at("model"), "-t", "1"]).stdin(Stdio::null()).stdout(Stdio::null());
        command.env("ARMLET_CACHE", folder).env("XDG_STATE_HOME", folder);
        assert!(command.status().unwrap().success(), "{args:?}");
    };
    let talk = ["chat", "-p", "Hi", "--system", "Be brief.", "-n", "4", "--temp", "0", "-c", "64"];
    run(&[&talk[..], &["--session", &at("session")]].concat());
    run(&["prefix", "-p", "Be brief.", "-o", &at("prefix")]);
    run(&["imatrix", "-f", &at("text"), "-c", "32", "-o", &at("importance-0")]);
    let zip = "import sys,zipfile\nz=zipfile.ZipFile(sys.argv[1],'w',zipfile.ZIP_DEFLATED)\n\
               z.writestr('a/METADATA','Name: a')\nz.writestr('a/SmolLM2-135M-Instruct.Q4_1.gguf',b'GGUF'*9000)\nz.close()";
    assert!(Command::new("python3").args(["-c", zip, &at("wheel")]).status().unwrap().success());
}

impl Seeds {
    pub(crate) fn new(folder: PathBuf) -> Self {
        let models = (0..).take_while(|i| folder.join(format!("model-{i}")).exists()).count();
        Seeds { folder, models }
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.join(name)).unwrap()
    }

    /// One of the two of this name, with 0 or 1 behind it.
    pub(crate) fn one_of_two(&self, name: &str, rng: &mut Rng) -> Vec<u8> {
        self.read(&format!("{name}-{}", rng.below(2)))
    }

    /// A whole model: of any family, format and tokenizer, some of them packed.
    pub(crate) fn model(&self, rng: &mut Rng) -> Vec<u8> {
        self.read(&format!("model-{}", rng.below(self.models)))
    }
}
