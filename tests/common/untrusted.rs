//! What a program does with a file, in a form that tests and fuzz targets share: everything is read, and every
//! promise that `armlet` makes of any bytes is an assertion.

use armlet::arch::{Kernels, KvType};
use armlet::engine::{Config, Engine, Pattern, Plan, Session};
use armlet::gguf::{File, GgufError, Value};
use armlet::model::{Model, ModelError};
use armlet::sample::{SampleError, Sampler, SamplerConfig};
use armlet::storage::{ALIGN, Arena, Serial};
use armlet::tokenizer::{Detokenizer, EncodeOptions, Tokenizer};

/// What became of a file.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// It is no GGUF file.
    Malformed(GgufError),
    /// It is one, but no model.
    Unusable(ModelError),
    /// Its model ran; this is what the sampler made of the logits.
    Ran(Result<u32, SampleError>),
}

/// Memory on the heap, where a sanitizer watches it, aligned as an arena wants it.
pub struct Memory {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Memory {
    pub fn new(len: usize) -> Self {
        let bytes = vec![0; len + ALIGN];
        let start = bytes.as_ptr().align_offset(ALIGN);
        Memory { bytes, start, len }
    }

    pub fn get(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
    }
}

/// Checks a file, walks it, and runs its model if it is one.
pub fn digest(bytes: &[u8]) -> Outcome {
    let file = match File::new_checked(bytes) {
        Ok(file) => file,
        Err(e) => {
            assert!(e.offset <= bytes.len() as u64, "{e} is outside the file of {} bytes", bytes.len());
            assert!(!e.to_string().is_empty());
            return Outcome::Malformed(e);
        }
    };
    walk(&file);
    let required = match Model::required_bytes(&file) {
        Ok(required) => required,
        Err(e) => {
            assert!(!e.to_string().is_empty());
            return Outcome::Unusable(e);
        }
    };
    let mut memory = Memory::new(required);
    // What the plan accepts loads, in the memory planned.
    let model = Model::new(&file, memory.get()).unwrap();
    text(&model.tokenizer, "Hello <0x0A> wörld");
    Outcome::Ran(run(&model))
}

/// Every accessor of a checked file.
pub fn walk(file: &File<'_>) {
    assert!([2, 3].contains(&file.version()) && file.alignment().is_power_of_two());
    assert_eq!(file.metadata().count(), file.metadata_len());
    assert_eq!(file.raw_metadata().count(), file.metadata_len());
    assert_eq!(file.tensors().count(), file.tensors_len());
    // Look-ups are linear: a file of thousands of keys is sampled.
    let step = 1 + file.metadata_len() / 64;
    for (i, ((key, value), (raw_key, raw))) in file.metadata().zip(file.raw_metadata()).enumerate() {
        assert!(!key.is_empty() && key == raw_key && raw.len() >= 13);
        if let Value::Array(array) = value {
            assert_eq!(array.iter().count(), array.len());
            assert_eq!(array.is_empty(), array.bytes().is_empty());
            let strings = array.strings().map(|s| s.len() + 8).sum::<usize>();
            assert!(strings == 0 || strings == array.bytes().len());
        }
        if i % step == 0 {
            // By its text, for a NaN is not equal to itself.
            assert_eq!(format!("{:?}", file.get(key)), format!("{:?}", Some(value)));
        }
    }
    for (i, t) in file.tensors().enumerate() {
        assert!((1..=4).contains(&t.n_dims) && t.dims.iter().all(|d| *d > 0) && t.elements() > 0);
        assert!(t.offset.is_multiple_of(file.alignment()) && !t.data.is_empty());
        if i % (1 + file.tensors_len() / 64) == 0 {
            assert_eq!(file.tensor(t.name).map(|t| t.offset), Some(t.offset));
        }
    }
    assert!(file.get("no.such.key").is_none() && file.tensor("no such tensor").is_none());
}

/// Three tokens through the model, and a choice from the logits.
fn run(model: &Model<'_>) -> Result<u32, SampleError> {
    let h = &model.hparams;
    let context = h.context_length.min(8);
    let config =
        Config { context, chunk: 2, logit_rows: 1, kv: KvType::F16, pattern: Pattern::Full, ..Config::default() };
    let plan = Plan::new(h, &config).unwrap();
    // Apart, so that a sanitizer sees one run into the other.
    let (mut work, mut cache) = (Memory::new(plan.engine_bytes()), Memory::new(plan.session_bytes()));
    let mut engine = Engine::new(model, Kernels::detect(), &plan, work.get()).unwrap();
    let mut session = Session::new(model, &plan, cache.get()).unwrap();
    let last = h.vocab as u32 - 1;
    assert!(engine.eval(&Serial, &mut session, &[last + 1]).is_err());
    let tokens = [0, last / 2, last];
    let logits = engine.eval(&Serial, &mut session, &tokens[..tokens.len().min(context)]).unwrap();
    assert_eq!(logits.len(), h.vocab);
    let choice = Sampler::new(SamplerConfig::default()).sample(logits);
    assert_eq!(choice.is_err(), logits.iter().any(|l| l.is_nan() || *l == f32::INFINITY));
    assert!(choice.is_err() || choice.is_ok_and(|t| t <= last));
    choice
}

/// The tokenizer of a file, and what `f` does with it.
pub fn with_tokenizer<T>(bytes: &[u8], f: impl FnOnce(&Tokenizer<'_>) -> T) -> T {
    let file = File::new_checked(bytes).unwrap();
    let mut dry = Arena::dry_run();
    Tokenizer::new(&file, &mut dry).unwrap();
    let mut memory = Memory::new(dry.used());
    f(&Tokenizer::new(&file, &mut Arena::new(memory.get()).unwrap()).unwrap())
}

/// The tokenizer of a file for the rest of the program, in memory that is never given back.
pub fn leaked_tokenizer(bytes: &'static [u8]) -> Tokenizer<'static> {
    let file = File::new_checked(bytes).unwrap();
    let mut dry = Arena::dry_run();
    Tokenizer::new(&file, &mut dry).unwrap();
    let memory = Box::leak(Box::new(Memory::new(dry.used())));
    Tokenizer::new(&file, &mut Arena::new(memory.get()).unwrap()).unwrap()
}

/// The tokens of a text, in the memory planned for it.
pub fn encode(tokenizer: &Tokenizer<'_>, text: &str, options: EncodeOptions<'_>) -> Vec<u32> {
    let mut scratch = Memory::new(tokenizer.scratch_bytes(text).unwrap());
    let mut out = vec![0; tokenizer.max_tokens(text.len())];
    let n = tokenizer.encode(text, options, scratch.get(), &mut out).unwrap();
    out.truncate(n);
    out
}

/// The text of some tokens, control tokens included.
pub fn decode(tokenizer: &Tokenizer<'_>, tokens: &[u32]) -> String {
    let (mut text, mut detokenizer) = (String::new(), Detokenizer::new());
    for token in tokens {
        detokenizer.push(tokenizer.piece(*token, true), |s| text.push_str(s));
    }
    detokenizer.finish(|s| text.push_str(s));
    text
}

/// A text there and back under both settings; gives the tokens of the plain one.
pub fn text(tokenizer: &Tokenizer<'_>, text: &str) -> Vec<u32> {
    let plain = EncodeOptions::default();
    for options in [plain, EncodeOptions { add_special: true, parse_special: true, literal: &[] }] {
        let tokens = encode(tokenizer, text, options);
        assert!(tokens.iter().all(|t| (*t as usize) < tokenizer.len()));
        decode(tokenizer, &tokens);
    }
    encode(tokenizer, text, plain)
}
