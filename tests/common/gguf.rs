//! Writes GGUF files for tests: byte by byte where a test wants a broken one, whole tiny models where it wants a run.

use armlet::model::Weights;
use armlet::quant::{DType, Layout, PACK_VERSION, PANEL_ROWS};

/// A metadata value.
#[derive(Clone, Debug)]
pub enum Val {
    U32(u32),
    U64(u64),
    F32(f32),
    Bool(bool),
    Str(String),
    Strs(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
    /// Type number and bytes, as they are.
    Raw(u32, Vec<u8>),
}

impl Val {
    fn bytes(&self) -> (u32, Vec<u8>) {
        let string = |s: &String| [&(s.len() as u64).to_le_bytes(), s.as_bytes()].concat();
        let list = |kind: u32, n: usize, items: Vec<u8>| {
            (9, [&kind.to_le_bytes()[..], &(n as u64).to_le_bytes(), &items].concat())
        };
        match self {
            Val::U32(x) => (4, x.to_le_bytes().to_vec()),
            Val::U64(x) => (10, x.to_le_bytes().to_vec()),
            Val::F32(x) => (6, x.to_le_bytes().to_vec()),
            Val::Bool(x) => (7, vec![u8::from(*x)]),
            Val::Str(s) => (8, string(s)),
            Val::Strs(v) => list(8, v.len(), v.iter().flat_map(string).collect()),
            Val::F32s(v) => list(6, v.len(), v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Val::I32s(v) => list(5, v.len(), v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Val::Raw(kind, bytes) => (*kind, bytes.clone()),
        }
    }
}

/// A tensor to write.
#[derive(Clone, Debug)]
pub struct TensorSpec {
    pub name: String,
    pub dims: Vec<u64>,
    pub kind: u32,
    pub data: Vec<u8>,
}

/// A file to write.
#[derive(Clone, Debug)]
pub struct Gguf {
    pub version: u32,
    pub alignment: usize,
    pub metadata: Vec<(String, Val)>,
    pub tensors: Vec<TensorSpec>,
}

impl Default for Gguf {
    fn default() -> Self {
        Gguf { version: 3, alignment: 32, metadata: Vec::new(), tensors: Vec::new() }
    }
}

impl Gguf {
    /// Sets a key, replacing one of the same name.
    pub fn set(&mut self, key: &str, value: Val) -> &mut Self {
        self.unset(key).metadata.push((key.into(), value));
        self
    }

    pub fn unset(&mut self, key: &str) -> &mut Self {
        self.metadata.retain(|(k, _)| k != key);
        self
    }

    pub fn tensor(&mut self, name: &str, dims: &[u64], kind: u32, data: Vec<u8>) -> &mut Self {
        self.tensors.push(TensorSpec { name: name.into(), dims: dims.into(), kind, data });
        self
    }

    /// The file, with offsets as a careful writer would choose them.
    pub fn build(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            let (kind, bytes) = value.bytes();
            out.extend((key.len() as u64).to_le_bytes());
            out.extend(key.as_bytes());
            out.extend(kind.to_le_bytes());
            out.extend(bytes);
        }
        let mut offset = 0u64;
        for t in &self.tensors {
            out.extend((t.name.len() as u64).to_le_bytes());
            out.extend(t.name.as_bytes());
            out.extend((t.dims.len() as u32).to_le_bytes());
            t.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(t.kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset = (offset + t.data.len() as u64).next_multiple_of(self.alignment as u64);
        }
        for t in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&t.data);
        }
        out
    }
}

impl Gguf {
    /// The same file as `armlet pack` writes it.
    pub fn packed(&self) -> Gguf {
        let mut g = self.clone();
        g.alignment = g.alignment.max(64);
        g.set("general.alignment", Val::U32(g.alignment as u32)).set("armlet.pack.version", Val::U32(PACK_VERSION));
        for t in g.tensors.iter_mut().filter(|t| t.dims.len() == 2 && Weights::is_matrix(&t.name)) {
            let Some(dtype) = DType::from_gguf(t.kind).filter(|d| d.packs()) else { continue };
            let bytes = PANEL_ROWS * dtype.row_bytes(t.dims[0] as usize).unwrap();
            let mut data = vec![0; t.data.len().next_multiple_of(bytes)];
            for (rows, panel) in t.data.chunks(bytes).zip(data.chunks_mut(bytes)) {
                dtype.pack_panel(rows, panel);
            }
            (t.kind, t.data) = (Layout::Panels.gguf_id(dtype).unwrap(), data);
        }
        g
    }
}

/// Sizes of a tiny model with random weights.
#[derive(Clone, Debug)]
pub struct Tiny {
    pub arch: &'static str,
    pub vocab: usize,
    pub n_embd: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub rope_dims: usize,
    pub n_ff: usize,
    pub context: usize,
    pub rope_base: f32,
    pub tied: bool,
    pub bias: bool,
    pub rope_factors: bool,
    pub dtype: DType,
    pub seed: u64,
}

impl Default for Tiny {
    fn default() -> Self {
        Tiny {
            arch: "llama",
            vocab: 67,
            n_embd: 64,
            n_layers: 2,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 16,
            rope_dims: 16,
            n_ff: 96,
            context: 256,
            rope_base: 10_000.0,
            tied: true,
            bias: false,
            rope_factors: false,
            dtype: DType::F32,
            seed: 1,
        }
    }
}

/// Numbers in −1..1 from a seed (xorshift).
pub fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    // The first few are still small.
    std::iter::repeat_with(&mut next).skip(8).take(n).collect()
}

fn floats(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

impl Tiny {
    /// The model: a byte-level vocabulary of `vocab` tokens, and random weights of sensible size.
    pub fn gguf(&self) -> Gguf {
        let mut g = Gguf::default();
        let key = |k: &str| format!("{}.{k}", self.arch);
        g.set("general.architecture", Val::Str(self.arch.into()));
        for (k, v) in [
            ("block_count", self.n_layers),
            ("context_length", self.context),
            ("embedding_length", self.n_embd),
            ("feed_forward_length", self.n_ff),
            ("attention.head_count", self.n_heads),
            ("attention.head_count_kv", self.n_kv_heads),
            ("attention.key_length", self.head_dim),
            ("attention.value_length", self.head_dim),
            ("rope.dimension_count", self.rope_dims),
        ] {
            g.set(&key(k), Val::U32(v as u32));
        }
        g.set(&key("rope.freq_base"), Val::F32(self.rope_base));
        g.set(&key("attention.layer_norm_rms_epsilon"), Val::F32(1e-5));
        g.set("tokenizer.ggml.model", Val::Str("gpt2".into()));
        g.set("tokenizer.ggml.pre", Val::Str("gpt-2".into()));
        // Printable ASCII first, then two-letter tokens.
        let token = |i: usize| if i < 90 { char::from(33 + i as u8).to_string() } else { format!("x{i}") };
        g.set("tokenizer.ggml.tokens", Val::Strs((0..self.vocab).map(token).collect()));
        g.set("tokenizer.ggml.merges", Val::Strs(vec!["A B".into()]));
        self.tensors(&mut g);
        g
    }

    fn tensors(&self, g: &mut Gguf) {
        let (q, kv) = (self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim);
        self.matrix(g, "token_embd.weight", self.vocab, self.n_embd, 1.0);
        if !self.tied {
            self.matrix(g, "output.weight", self.vocab, self.n_embd, 1.0);
        }
        self.vector(g, "output_norm.weight", self.n_embd, 1.0);
        if self.rope_factors {
            self.vector(g, "rope_freqs.weight", self.rope_dims / 2, 2.0);
        }
        for l in 0..self.n_layers {
            let name = |n: &str| format!("blk.{l}.{n}");
            self.vector(g, &name("attn_norm.weight"), self.n_embd, 1.0);
            self.matrix(g, &name("attn_q.weight"), q, self.n_embd, 2.0);
            self.matrix(g, &name("attn_k.weight"), kv, self.n_embd, 2.0);
            self.matrix(g, &name("attn_v.weight"), kv, self.n_embd, 1.0);
            if self.bias {
                self.vector(g, &name("attn_q.bias"), q, 0.0);
                self.vector(g, &name("attn_k.bias"), kv, 0.0);
                self.vector(g, &name("attn_v.bias"), kv, 0.0);
            }
            self.matrix(g, &name("attn_output.weight"), self.n_embd, q, 1.0);
            self.vector(g, &name("ffn_norm.weight"), self.n_embd, 1.0);
            self.matrix(g, &name("ffn_gate.weight"), self.n_ff, self.n_embd, 1.0);
            self.matrix(g, &name("ffn_up.weight"), self.n_ff, self.n_embd, 1.0);
            self.matrix(g, &name("ffn_down.weight"), self.n_embd, self.n_ff, 1.0);
        }
    }

    fn noise(&self, g: &Gguf, n: usize) -> Vec<f32> {
        noise(self.seed * 1000 + g.tensors.len() as u64, n)
    }

    /// Weights of variance about `gain`² / `cols`, in the model's format.
    fn matrix(&self, g: &mut Gguf, name: &str, rows: usize, cols: usize, gain: f32) {
        let scale = gain * (3.0 / cols as f32).sqrt();
        let weights: Vec<f32> = self.noise(g, rows * cols).iter().map(|x| x * scale).collect();
        // A float format where rows are no whole number of blocks, as llama-quantize takes.
        let dtype = self.dtype.row_bytes(cols).map_or(DType::F32, |_| self.dtype);
        let bytes = dtype.row_bytes(cols).unwrap();
        let mut data = vec![0; rows * bytes];
        for (row, out) in weights.chunks(cols).zip(data.chunks_mut(bytes)) {
            dtype.encode_row(row, out).unwrap();
        }
        g.tensor(name, &[cols as u64, rows as u64], dtype.gguf_id(), data);
    }

    /// `centre` plus noise of a quarter.
    fn vector(&self, g: &mut Gguf, name: &str, n: usize, centre: f32) {
        let x: Vec<f32> = self.noise(g, n).iter().map(|x| centre + x / 4.0).collect();
        g.tensor(name, &[n as u64], 0, floats(&x));
    }
}

/// Control tokens of [`byte_level_model`]; their ids are the last.
const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// The text of each byte's token in a byte-level BPE vocabulary (GPT-2): printable bytes stand for themselves, the others
/// for characters from U+0100 on.
pub fn byte_tokens() -> impl Iterator<Item = String> {
    let mut next = '\u{100}'..;
    (0..=255u8).map(move |byte| {
        let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let shown = if printable { Some(char::from(byte)) } else { next.next() };
        shown.unwrap_or_default().to_string()
    })
}

/// The file of a tiny model that can read and write any text: one token per byte, and ChatML's control tokens.
pub fn byte_level_model(seed: u64) -> Vec<u8> {
    byte_level_model_of(Tiny { seed, ..Tiny::default() })
}

/// The same of another size.
pub fn byte_level_model_of(size: Tiny) -> Vec<u8> {
    with_vocabulary(Tiny { dtype: DType::Q8_0, ..size }, byte_tokens().collect(), "A B")
}

/// The file of a model that costs as much as one of a billion parameters would with fewer layers, and knows nothing: rows
/// are whole blocks in every format, and `a` behind a space is one token. A token reads 101 million weights, of which 50
/// million are the output head's.
pub fn bench_model(seed: u64) -> Vec<u8> {
    let size = Tiny {
        n_embd: 1024,
        n_layers: 4,
        n_heads: 16,
        n_kv_heads: 8,
        head_dim: 64,
        rope_dims: 64,
        n_ff: 3072,
        context: 4096,
        dtype: DType::F16,
        seed,
        ..Tiny::default()
    };
    let unused = (0..49_152 - 257 - CONTROL.len()).map(|i| format!("unused{i}"));
    with_vocabulary(size, byte_tokens().chain(["\u{120}a".into()]).chain(unused).collect(), "\u{120} a")
}

/// The file of a model whose vocabulary is `words` and the control tokens.
fn with_vocabulary(size: Tiny, words: Vec<String>, merge: &str) -> Vec<u8> {
    // 1 is text, 3 a control token.
    let kinds = words.iter().map(|_| 1).chain(CONTROL.map(|_| 3)).collect();
    let tokens: Vec<String> = words.into_iter().chain(CONTROL.map(String::from)).collect();
    let end = tokens.len() as u32 - 1;
    let mut model = Tiny { vocab: tokens.len(), ..size }.gguf();
    model
        .set("tokenizer.ggml.tokens", Val::Strs(tokens))
        .set("tokenizer.ggml.token_type", Val::I32s(kinds))
        .set("tokenizer.ggml.merges", Val::Strs(vec![merge.into()]))
        .set("tokenizer.ggml.eos_token_id", Val::U32(end));
    model.build()
}

/// The formats that the tiny models can have: those of blocks of at most 32 weights.
pub fn small_formats() -> impl Iterator<Item = DType> {
    DType::ALL.into_iter().filter(|dtype| dtype.block_len() <= 32)
}
