//! Saved sessions and prefixes: the same bits after a restore, and an error for anything else.

use crate::common::fuzzed::save;
use crate::common::gguf::{Gguf, Tiny, Val};
use crate::common::run::{prompt, tiny, with_model};
use armlet::arch::{Kernels, KvType};
use armlet::engine::{Config, Engine, EngineError, Pattern, Plan, Prefix, Saved, Session, SnapshotError};
use armlet::host::memory;
use armlet::model::Model;
use armlet::quant::DType;
use armlet::storage::Serial;

fn model() -> Gguf {
    Tiny { dtype: DType::Q8_0, context: 1024, ..tiny("llama", (6, 2, 32, 32), (32, 64), 3) }.gguf()
}

/// A plan, and memory for its engine and some sessions.
struct Room {
    plan: Plan,
    work: Vec<memmap2::MmapMut>,
}

impl Room {
    fn new(model: &Model<'_>, config: &Config, sessions: usize) -> Self {
        let plan = Plan::new(&model.hparams, config).unwrap();
        let sizes = [plan.engine_bytes()].into_iter().chain(vec![plan.session_bytes(); sessions]);
        let work = sizes.map(|n| {
            let mut memory = memory(n).unwrap();
            memory.fill(0xff);
            memory
        });
        Room { plan, work: work.collect() }
    }

    fn open<'m>(&'m mut self, model: &'m Model<'m>) -> (Engine<'m>, Vec<Session<'m>>) {
        let plan = &self.plan;
        let mut memories = self.work.iter_mut();
        let engine = Engine::new(model, Kernels::detect(), plan, memories.next().unwrap()).unwrap();
        (engine, memories.map(|m| Session::new(model, plan, m).unwrap()).collect())
    }
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

const CONFIGS: [(Pattern, KvType, bool, usize); 5] = [
    (Pattern::Full, KvType::F16, false, 400),
    (Pattern::Sinks, KvType::Int8, true, 70),
    (Pattern::Sinks, KvType::F16, false, 333),
    (Pattern::Strided { every: 2 }, KvType::Int8, false, 200),
    (Pattern::Window, KvType::F32, false, 40),
];

fn config(i: usize) -> Config {
    let (pattern, kv, hadamard, context) = CONFIGS[i];
    Config { context, pattern, kv, hadamard, chunk: 32, ..Config::default() }
}

#[test]
fn a_restored_session_goes_on_as_the_saved_one() {
    let tokens = prompt(3, 350, 67);
    with_model(&model(), |model| {
        for config in (0..CONFIGS.len()).map(config) {
            for read in [0, 1, 39, 100, 349] {
                let mut room = Room::new(model, &config, 2);
                let (mut engine, mut sessions) = room.open(model);
                let [a, b] = &mut sessions[..] else { panic!() };
                if read > 0 {
                    engine.eval(&Serial, a, &tokens[..read]).unwrap();
                }
                // It was elsewhere.
                engine.eval(&Serial, b, &tokens[7..60]).unwrap_or_default();
                let saved = save(a, b"what the caller adds");
                assert_eq!(b.restore(&saved), Ok(&b"what the caller adds"[..]));
                assert_eq!(b.position(), read as u64);
                for token in &tokens[read..] {
                    let want = bits(engine.eval(&Serial, a, &[*token]).unwrap());
                    assert!(bits(engine.eval(&Serial, b, &[*token]).unwrap()) == want, "{config:?} {read}");
                }
                assert_eq!(save(a, b""), save(b, b""));
            }
        }
    });
}

/// Cut off anywhere, or with any byte changed: an error, and the session is as it was.
#[test]
fn no_broken_save_is_taken() {
    let tokens = prompt(3, 80, 67);
    with_model(&model(), |model| {
        let mut room = Room::new(model, &config(1), 2);
        let (mut engine, mut sessions) = room.open(model);
        let [a, b] = &mut sessions[..] else { panic!() };
        engine.eval(&Serial, a, &tokens[..5]).unwrap();
        engine.eval(&Serial, b, &tokens[10..]).unwrap();
        let (saved, before) = (save(a, b"extra"), save(b, b""));
        for n in 0..saved.len() {
            let error = b.restore(&saved[..n]).unwrap_err();
            assert!(matches!(error, SnapshotError::Magic | SnapshotError::Truncated { .. }), "{n}: {error}");
        }
        let longer = [&saved[..], &[0]].concat();
        assert!(matches!(b.restore(&longer), Err(SnapshotError::Truncated { .. })));
        for i in 0..saved.len() {
            // Padding is zeros that nobody reads, but it is checked as well.
            for flip in [1, 0x80] {
                let mut broken = saved.clone();
                broken[i] ^= flip;
                let error = b.restore(&broken).unwrap_err();
                let named = match i {
                    0..8 => error == SnapshotError::Magic,
                    8..12 => matches!(error, SnapshotError::Version(_)),
                    12..256 => error == SnapshotError::Checksum("header"),
                    _ => error == SnapshotError::Checksum("content"),
                };
                assert!(named, "byte {i}: {error}");
            }
        }
        assert_eq!(save(b, b""), before);
        assert!(b.restore(&saved).is_ok());
    });
}

/// A forged header with a right checksum.
#[test]
fn a_forged_header_is_impossible() {
    with_model(&model(), |model| {
        let mut room = Room::new(model, &config(0), 1);
        let (mut engine, mut sessions) = room.open(model);
        engine.eval(&Serial, &mut sessions[0], &[1, 2, 3]).unwrap();
        let saved = save(&sessions[0], b"");
        // position, written, extra: 8-byte numbers from byte 56 on.
        for (at, value) in
            [(56, 4u64), (56, u64::MAX), (64, 2), (64, u64::MAX), (64, 401), (72, u64::MAX), (72, 1), (64, 1 << 63)]
        {
            let mut forged = saved.clone();
            forged[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let crc = crc32fast(&forged[..252]);
            forged[252..256].copy_from_slice(&crc.to_le_bytes());
            let error = sessions[0].restore(&forged).unwrap_err();
            assert!(
                matches!(
                    error,
                    SnapshotError::Impossible | SnapshotError::Truncated { .. } | SnapshotError::Checksum(_)
                ),
                "{at} {error}"
            );
            assert_eq!(save(&sessions[0], b""), saved);
        }
    });
}

/// CRC-32 bit by bit, as the standard has it.
fn crc32fast(bytes: &[u8]) -> u32 {
    let mut c = u32::MAX;
    for byte in bytes {
        c ^= u32::from(*byte);
        for _ in 0..8 {
            c = if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 };
        }
    }
    !c
}

#[test]
fn what_belongs_to_another_is_refused_by_name() {
    let tokens = prompt(3, 20, 67);
    let mut other = model();
    other.set("llama.rope.freq_base", Val::F32(500.0));
    let saved = with_model(&model(), |model| {
        let mut room = Room::new(model, &config(1), 1);
        let (mut engine, mut sessions) = room.open(model);
        engine.eval(&Serial, &mut sessions[0], &tokens).unwrap();
        save(&sessions[0], b"")
    });
    let refusal = |gguf: &Gguf, config: Config| {
        with_model(gguf, |model| {
            let mut room = Room::new(model, &config, 1);
            let (_, mut sessions) = room.open(model);
            sessions[0].restore(&saved).map(drop).map_err(|e| e.to_string())
        })
    };
    assert_eq!(refusal(&model(), config(1)), Ok(()));
    let base = config(1);
    for (config, what) in [
        (Config { kv: KvType::F16, ..base }, "--kv-type"),
        (Config { hadamard: false, ..base }, "--hadamard"),
        (Config { context: 71, ..base }, "context"),
        (Config { sinks: 5, ..base }, "context"),
        (Config { pattern: Pattern::Window, ..base }, "context"),
        (Config { slack: 100, ..base }, "context"),
    ] {
        assert!(refusal(&model(), config).unwrap_err().contains(what), "{what}");
    }
    assert!(refusal(&other, config(1)).unwrap_err().contains("another model"));
    let reseeded = Tiny { dtype: DType::Q8_0, context: 1024, ..tiny("llama", (6, 2, 32, 32), (32, 64), 4) }.gguf();
    assert!(refusal(&reseeded, config(1)).unwrap_err().contains("another model"));
}

/// A prefix that is read once and used in place gives what reading it gives, in every session that shares it, also
/// when their rings are full.
#[test]
fn sessions_share_a_prefix() {
    let (system, texts) = (prompt(3, 45, 67), [prompt(4, 200, 67), prompt(5, 200, 67)]);
    with_model(&model(), |model| {
        for (kv, hadamard) in [(KvType::F16, false), (KvType::Int8, true)] {
            let own = Config { context: 120, sinks: 45, kv, hadamard, chunk: 32, logit_rows: 2, ..Config::default() };
            let mut room = Room::new(model, &own, 3);
            let (mut engine, mut sessions) = room.open(model);
            engine.eval(&Serial, &mut sessions[2], &system).unwrap();
            let mut file = Vec::new();
            let sink = |part: &[u8]| -> Result<(), ()> {
                file.extend_from_slice(part);
                Ok(())
            };
            sessions[2].save_prefix(b"hello", sink).unwrap().unwrap();
            let prefix = Prefix::new_checked(&file, model).unwrap();
            assert_eq!((prefix.len(), prefix.extra()), (45, &b"hello"[..]));

            let shared = prefix.config(Config { context: 120, chunk: 32, logit_rows: 2, ..Config::default() });
            let plan = Plan::new(&model.hparams, &shared).unwrap();
            assert!(plan.session_bytes() < room_bytes(model, &own), "the prefix is not in the session");
            let mut rooms = [(); 2].map(|()| memory(plan.session_bytes()).unwrap());
            let [a, b] = rooms.each_mut();
            let mut a = Session::with_prefix(model, &plan, &prefix, a).unwrap();
            let mut b = Session::with_prefix(model, &plan, &prefix, b).unwrap();
            for (session, text) in sessions.iter_mut().zip(&texts) {
                engine.eval(&Serial, session, &system).unwrap();
                engine.eval(&Serial, session, &text[..150]).unwrap();
            }
            engine.eval(&Serial, &mut a, &texts[0][..150]).unwrap();
            engine.eval(&Serial, &mut b, &texts[1][..150]).unwrap();
            for (n, (x, y)) in texts[0].iter().zip(&texts[1]).enumerate().skip(150) {
                let batch = [*x, *y];
                let got = bits(engine.step(&Serial, &mut [&mut a, &mut b], &batch).unwrap());
                let [c, d, _] = &mut sessions[..] else { panic!() };
                let want = bits(engine.step(&Serial, &mut [c, d], &batch).unwrap());
                assert!(got == want, "{kv:?}, {n}");
            }
            // Back to the prefix, but not into it; saved and restored beside it, but not without it.
            let saved = save(&a, b"");
            assert_eq!(b.restore(&saved), Ok(&b""[..]));
            assert!(a.rewind(45).is_ok() && a.position() == 45);
            assert_eq!(a.rewind(44), Err(EngineError::Gone { position: 44 }));
            let mut alone = memory(plan.session_bytes()).unwrap();
            assert!(matches!(Session::new(model, &plan, &mut alone), Err(EngineError::Snapshot(_))));
            // Another prefix of the same length.
            let mut other_file = Vec::new();
            sessions[2].rewind(0).unwrap();
            engine.eval(&Serial, &mut sessions[2], &texts[0][..45]).unwrap();
            let sink = |part: &[u8]| -> Result<(), ()> {
                other_file.extend_from_slice(part);
                Ok(())
            };
            sessions[2].save_prefix(b"hello", sink).unwrap().unwrap();
            let other = Prefix::new_checked(&other_file, model).unwrap();
            let mut other = Session::with_prefix(model, &plan, &other, &mut alone).unwrap();
            assert_eq!(other.restore(&saved), Err(SnapshotError::OtherShape("--prefix")));

            // What a prefix cannot be.
            assert_eq!(a.restore(&file), Err(SnapshotError::Kind(true)));
            assert!(matches!(Prefix::new_checked(&saved, model), Err(SnapshotError::Kind(false))));
            let nothing = |_: &[u8]| -> Result<(), ()> { Ok(()) };
            assert_eq!(sessions[0].save_prefix(b"", nothing), Err(SnapshotError::NotAPrefix));
            for n in 0..file.len() {
                assert!(Prefix::new_checked(&file[..n], model).is_err());
            }
            for i in (0..256).chain((256..file.len()).step_by(97)) {
                let mut broken = file.clone();
                broken[i] ^= 4;
                assert!(Prefix::new_checked(&broken, model).is_err(), "byte {i}");
            }
            let small = Plan::new(&model.hparams, &Config { context: 45, ..shared });
            assert!(small.unwrap_err().to_string().contains("prefix must be from 0 to 44"));
            let mut wrong = memory(room_bytes(model, &own)).unwrap();
            let plan = Plan::new(&model.hparams, &own).unwrap();
            assert!(matches!(Session::with_prefix(model, &plan, &prefix, &mut wrong), Err(EngineError::Snapshot(_))));
        }
    });
}

fn room_bytes(model: &Model<'_>, config: &Config) -> usize {
    Plan::new(&model.hparams, config).unwrap().session_bytes()
}

/// What a session will need is known before there is one; and no damaged header is believed.
#[test]
fn a_saved_session_says_what_it_is() {
    with_model(&model(), |model| {
        let mut room = Room::new(model, &Config { context: 70, sinks: 9, ..Config::default() }, 1);
        let (mut engine, mut sessions) = room.open(model);
        engine.eval(&Serial, &mut sessions[0], &prompt(1, 20, model.hparams.vocab)).unwrap();
        let bytes = save(&sessions[0], b"extra");
        assert_eq!(Saved::new_checked(&bytes), Ok(Saved { context: 70, every: 0, sinks: 9, position: 20 }));
        for at in 0..256 {
            assert!(Saved::new_checked(&bytes[..at]).is_err(), "{at}");
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x20;
            assert!(Saved::new_checked(&damaged).is_err(), "{at}");
        }
    });
}
