//! What the fuzz targets do with any bytes, as plain functions: `tests/fuzz` gives them to libFuzzer, and `tests/it/fuzz.rs`
//! feeds them damaged seeds, without nightly.

use std::sync::LazyLock;

use armlet::arch::{Kernels, KvType};
use armlet::engine::{Config, Engine, Pattern, Plan, Prefix, Saved, Session};
use armlet::gguf::File;
use armlet::model::Model;
use armlet::storage::Serial;
use armlet::tokenizer::{Detokenizer, EncodeOptions, Tokenizer};

use super::gguf::byte_level_model;
use super::untrusted::{self, Memory};

/// Any bytes as a file: checked, walked, and its model run.
pub fn gguf(bytes: &[u8]) {
    untrusted::digest(bytes);
}

/// Made once: an index takes longer than an input.
static VOCABULARIES: LazyLock<[Tokenizer<'static>; 2]> = LazyLock::new(|| {
    [&include_bytes!("../golden/bpe.gguf")[..], include_bytes!("../golden/spm.gguf")].map(untrusted::leaked_tokenizer)
});

/// Any text through the two vocabularies of the golden tests, with every setting, there and back. The first byte chooses the
/// vocabulary and the settings, the second where what is literal starts.
pub fn tokenizer(input: &[u8]) {
    let [choice, literal, text @ ..] = input else { return };
    let text = &*String::from_utf8_lossy(text);
    let is_bpe = choice & 1 == 0;
    let rest = usize::from(*literal)..text.len();
    let literal = if choice & 8 == 0 { &[] } else { std::slice::from_ref(&rest) };
    let options = EncodeOptions { add_special: choice & 2 != 0, parse_special: choice & 4 != 0, literal };
    let t = &VOCABULARIES[usize::from(!is_bpe)];
    let tokens = untrusted::encode(t, text, options);
    assert!(tokens.len() <= t.max_tokens(text.len()));
    assert!(tokens.iter().all(|id| (*id as usize) < t.len()));
    let back = untrusted::decode(t, &tokens);
    // Without tokens that were added, bytes come back as they were: all of them for a byte-level vocabulary; for
    // SentencePiece but for blanks, which it adds before a text and after each special token.
    if !options.add_special {
        let visible = |s: &str| s.chars().filter(|c| !matches!(c, ' ' | '▁')).collect::<String>();
        assert!(back == text || (!is_bpe && visible(&back) == visible(text)), "{text:?} came back as {back:?}");
    }
}

/// Any bytes, cut anywhere, against the standard library's idea of their text; and any token ids as text.
pub fn detokenizer(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else { return };
    let (mut text, mut d) = (String::new(), Detokenizer::new());
    for part in bytes.chunks(usize::from(*first).max(1)) {
        d.push(part.iter().copied(), |s| {
            assert!(!s.is_empty());
            text.push_str(s);
        });
    }
    d.finish(|s| text.push_str(s));
    assert_eq!(text, String::from_utf8_lossy(bytes));

    // Ids near and far beyond the vocabulary too.
    let tokens: Vec<u32> = bytes.chunks(2).map(|b| b.iter().fold(0, |id, b| id << 8 | u32::from(*b))).collect();
    let tokens = [tokens, vec![u32::MAX, u32::MAX - u32::from(*first)]].concat();
    let t = &VOCABULARIES[usize::from(*first & 1)];
    let longest = tokens.iter().map(|id| t.text(*id).len()).sum::<usize>();
    // At worst each byte becomes a U+FFFD of three.
    assert!(untrusted::decode(t, &tokens).len() <= 3 * longest);
}

/// A model for the rest of the program.
static MODEL: LazyLock<Model<'static>> = LazyLock::new(|| {
    let bytes: &'static [u8] = byte_level_model(3).leak();
    let file: &'static File<'static> = Box::leak(Box::new(File::new_checked(bytes).unwrap()));
    let memory = Box::leak(Box::new(Memory::new(Model::required_bytes(file).unwrap())));
    Model::new(file, memory.get()).unwrap()
});

/// Tokens that sessions start with.
const START: [u32; 5] = [7, 70, 77, 170, 255];

fn config(choice: u8) -> Config {
    let pattern =
        [Pattern::Sinks, Pattern::Full, Pattern::Window, Pattern::Strided { every: 2 }][usize::from(choice >> 1 & 3)];
    let kv = [KvType::F16, KvType::Int8, KvType::F32][usize::from(choice >> 3 & 3) % 3];
    Config { context: 70, chunk: 4, sinks: START.len(), pattern, kv, ..Config::default() }
}

/// CRC-32 bit by bit, as the standard has it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |c, byte| {
        (0..8).fold(c ^ u32::from(*byte), |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 })
    })
}

/// With right checksums, what is behind them is reached.
fn with_checksums(choice: u8, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if choice & 1 == 1 && bytes.len() >= 256 {
        let content = crc32(&bytes[256..]);
        bytes[248..252].copy_from_slice(&content.to_le_bytes());
        let header = crc32(&bytes[..252]);
        bytes[252..256].copy_from_slice(&header.to_le_bytes());
    }
    bytes
}

/// The file of a session.
pub fn save(session: &Session<'_>, extra: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let sink = |part: &[u8]| -> Result<(), ()> {
        out.extend_from_slice(part);
        Ok(())
    };
    session.save(extra, sink).unwrap();
    assert_eq!(out.len() as u64, session.saved_bytes(extra.len()));
    out
}

/// Calls `f` with an engine and a session that has read a few tokens.
fn with_session<T>(config: &Config, f: impl FnOnce(&mut Engine<'_>, &mut Session<'_>) -> T) -> T {
    let plan = Plan::new(&MODEL.hparams, config).unwrap();
    let (mut work, mut cache) = (Memory::new(plan.engine_bytes()), Memory::new(plan.session_bytes()));
    let mut engine = Engine::new(&MODEL, Kernels::detect(), &plan, work.get()).unwrap();
    let mut session = Session::new(&MODEL, &plan, cache.get()).unwrap();
    engine.eval(&Serial, &mut session, &START).unwrap();
    f(&mut engine, &mut session)
}

/// Goes on from where any file has brought a session: the cache may hold anything, also what is no number.
fn go_on(engine: &mut Engine<'_>, session: &mut Session<'_>) {
    let position = session.position();
    for token in START.into_iter().take(session.remaining().min(5) as usize) {
        assert_eq!(engine.eval(&Serial, session, &[token]).unwrap().len(), MODEL.hparams.vocab);
    }
    let _ = session.rewind(position);
    let _ = session.rewind(0);
}

/// A saved session; behind a byte that chooses the configuration, and whether the checksums are made right.
pub fn restore(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else { return };
    let bytes = with_checksums(*choice, bytes);
    with_session(&config(*choice), |engine, session| {
        let before = save(session, b"");
        let said = Saved::new_checked(&bytes);
        match session.restore(&bytes) {
            Ok(extra) => {
                assert_eq!(said.unwrap().position, session.position());
                assert_eq!(save(session, extra).len(), bytes.len());
                go_on(engine, session);
            }
            Err(e) => {
                assert!(!e.to_string().is_empty());
                assert!(save(session, b"") == before, "{e}: the session is not as it was");
                go_on(engine, session);
            }
        }
    });
}

/// A prefix, likewise; sessions start with it.
pub fn prefix(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else { return };
    let bytes = with_checksums(*choice, bytes);
    let prefix = match Prefix::new_checked(&bytes, &MODEL) {
        Ok(prefix) => prefix,
        Err(e) => return assert!(!e.to_string().is_empty()),
    };
    assert!(!prefix.is_empty() && prefix.extra().len() < bytes.len());
    let Ok(plan) = Plan::new(&MODEL.hparams, &prefix.config(config(*choice))) else { return };
    let (mut work, mut cache) = (Memory::new(plan.engine_bytes()), Memory::new(plan.session_bytes()));
    let mut engine = Engine::new(&MODEL, Kernels::detect(), &plan, work.get()).unwrap();
    if let Ok(mut session) = Session::with_prefix(&MODEL, &plan, &prefix, cache.get()) {
        assert_eq!(session.position(), prefix.len() as u64);
        go_on(&mut engine, &mut session);
    }
}

/// What [`restore`] and [`prefix`] start from: a saved session for each choice of a configuration, and a prefix.
pub fn saved_seeds() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let extra = b"{\"messages\":[],\"read\":[7,70,77,170,255]}";
    let sessions = (0..32u8)
        .map(|choice| with_session(&config(choice), |_, session| [&[choice][..], &save(session, extra)].concat()));
    let prefixes = (0..32u8).filter(|choice| choice & 6 == 0).map(|choice| {
        with_session(&config(choice), |_, session| {
            let mut out = vec![choice];
            let sink = |part: &[u8]| -> Result<(), ()> {
                out.extend_from_slice(part);
                Ok(())
            };
            session.save_prefix(extra, sink).unwrap().unwrap();
            out
        })
    });
    (sessions.collect(), prefixes.collect())
}

/// Calls of the C API in any order, with any numbers, and with pointers as its contract wants them.
#[cfg(feature = "capi")]
pub mod calls {
    #![allow(unsafe_code, reason = "that is how C calls")]

    use std::ptr::{null, null_mut};
    use std::sync::LazyLock;

    use armlet::capi::armlet_status::*;
    use armlet::capi::*;

    use super::super::c_context::{CContext, answer, config};
    use super::super::gguf::byte_level_model;

    static MODEL: LazyLock<Vec<u8>> = LazyLock::new(|| byte_level_model(5));

    /// The bytes of an input as what a call needs.
    struct Input<'i>(&'i [u8]);

    impl Input<'_> {
        fn byte(&mut self) -> u8 {
            self.0.split_off_first().copied().unwrap_or(0)
        }

        fn number(&mut self) -> u32 {
            u32::from_le_bytes([(); 4].map(|()| self.byte()))
        }

        /// Small most of the time.
        fn size(&mut self) -> u64 {
            match self.byte() {
                255 => u64::from(self.number()) << 31,
                n => u64::from(n),
            }
        }

        fn float(&mut self) -> f32 {
            f32::from_bits(self.number())
        }

        fn bytes(&mut self) -> Vec<u8> {
            let n = usize::from(self.byte() % 64);
            (0..n).map(|_| self.byte()).collect()
        }
    }

    /// Calls one function after another, and checks that a context that was reset is a new one.
    pub fn run(input: &[u8]) {
        let mut input = Input(input);
        let (context, chunk) = (32 + u32::from(input.byte() % 64), u32::from(input.byte() % 16));
        let config = armlet_config { context, chunk, pattern: u32::from(input.byte() % 4), ..config() };
        let Ok(c) = CContext::new(&MODEL, &config) else { return };
        let mut saved = Vec::new();
        for _ in 0..64 {
            if input.0.is_empty() {
                break;
            }
            call(&c, &mut input, &mut saved);
        }
        // SAFETY: the context is alive.
        assert_eq!(unsafe { armlet_reset(c.ctx) }, ARMLET_OK);
        assert_eq!((c.info().position, c.prefill(&[65, 66])), (0, ARMLET_OK));
        assert_eq!(c.logits().len(), 259);
    }

    fn sampling(input: &mut Input<'_>) -> armlet_sampling {
        armlet_sampling {
            struct_size: size_of::<armlet_sampling>() as u32,
            temperature: input.float(),
            top_k: input.number(),
            top_p: input.float(),
            min_p: input.float(),
            repeat_penalty: input.float(),
            presence_penalty: input.float(),
            frequency_penalty: input.float(),
            seed: input.size(),
        }
    }

    fn generate(c: &CContext<'_>, input: &mut Input<'_>) {
        let (one, other) = (input.bytes(), input.bytes());
        let stops = [&one, &other].map(|stop| armlet_text { bytes: stop.as_ptr().cast(), len: stop.len() });
        let biases = [(); 2].map(|()| armlet_bias { token: input.number() % 300, bias: input.float() });
        let (n_stops, n_biases) = (usize::from(input.byte() % 3), usize::from(input.byte() % 3));
        let asked = answer(input.size() as u32, &stops[..n_stops], &biases[..n_biases]);
        let asked = armlet_answer { log_probabilities: u32::from(input.byte() % 3), ..asked };
        let (status, event, _) = c.generate(Some(&asked));
        assert_eq!(status == ARMLET_OK, event.kind == 0 && event.generated > 0);
    }

    fn call(c: &CContext<'_>, input: &mut Input<'_>, saved: &mut Vec<u8>) {
        let (mut tokens, mut text, mut n) = ([0u32; 40], [0i8; 40], 0usize);
        let cap = usize::from(input.byte() % 41);
        // SAFETY: the context is alive, and every pointer is of a variable of the length that is given, or null.
        unsafe {
            match input.byte() % 16 {
                0 => drop(c.prefill(&input.bytes().iter().map(|b| u32::from(*b) + 20).collect::<Vec<_>>())),
                1 => drop(c.step()),
                2 => drop(c.rewind(input.size())),
                3 => *saved = c.saved(),
                4 => {
                    let mut state = saved.clone();
                    let at = input.size() as usize;
                    state.iter_mut().skip(at).take(1).for_each(|b| *b ^= input.byte());
                    state.truncate(state.len() - input.size() as usize % 3 % (state.len() + 1));
                    c.restore(&state);
                }
                5 => {
                    let sampling = sampling(input);
                    armlet_set_sampling(c.ctx, &sampling);
                }
                6 => {
                    let mut at = null();
                    armlet_logits(c.ctx, &mut at, &mut n);
                }
                7 => drop(c.info()),
                8 | 9 => {
                    let (said, flags) = (input.bytes(), input.size() as u32);
                    let status = armlet_tokenize(
                        c.ctx,
                        said.as_ptr().cast(),
                        said.len(),
                        flags,
                        tokens.as_mut_ptr(),
                        cap,
                        &mut n,
                    );
                    assert!(status != ARMLET_OK || n <= cap);
                }
                10 => {
                    let (role, said, flags) = (u32::from(input.byte() % 5), input.bytes(), input.size() as u32);
                    armlet_chat_turn(
                        c.ctx,
                        role,
                        said.as_ptr().cast(),
                        said.len(),
                        flags,
                        tokens.as_mut_ptr(),
                        cap,
                        &mut n,
                    );
                }
                11 => {
                    let ids: Vec<u32> = input.bytes().iter().map(|b| u32::from(*b) * 2).collect();
                    let flags = input.size() as u32;
                    let status =
                        armlet_detokenize(c.ctx, ids.as_ptr(), ids.len(), flags, text.as_mut_ptr().cast(), cap, &mut n);
                    assert!(status != ARMLET_OK || n <= cap);
                }
                12 => {
                    armlet_piece(c.ctx, input.number() % 300, text.as_mut_ptr().cast(), cap, &mut n);
                }
                13 => generate(c, input),
                14 => drop(c.finish()),
                _ => {
                    // Nothing is where something should be.
                    assert_eq!(armlet_step(c.ctx, null_mut()), ARMLET_ERR_NULL);
                    assert_eq!(armlet_prefill(c.ctx, null(), 3), ARMLET_ERR_NULL);
                    assert_eq!(armlet_restore(c.ctx, null(), 300), ARMLET_ERR_NULL);
                }
            }
        }
    }
}
