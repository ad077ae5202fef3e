//! Sessions of several boards: one file, byte for byte that of one board, wherever it is restored.

use crate::boards_run::{EXTRA, SPLITS, Step, Way, alone, long_model, of_board, on_board, run, save};
use crate::common::boards::{Board, Failing, on_boards};
use crate::common::deep;
use crate::common::gguf::Tiny;
use crate::common::run::{Reader, prompt, with_model, with_session};
use armlet::arch::{Kernels, KvType};
use armlet::boards::{Between, Call, Comm, CommError};
use armlet::engine::{Config, Engine, EngineError, Pattern, Session};
use armlet::model::Split;
use armlet::quant::DType;
use armlet::storage::LEAF;

/// The first word of a command about a session.
const SESSION: u32 = 2;

/// A conversation goes on elsewhere: what any number of boards has saved, any other number restores, with the bits of one.
#[test]
fn a_conversation_moves_between_boards() {
    let tokens = prompt(5, 2200, 67);
    let shape = Tiny { n_heads: 2, n_kv_heads: 2, head_dim: 32, rope_dims: 16, n_layers: 2, ..Tiny::default() };
    let gguf = Tiny { n_embd: 32, n_ff: 64, context: 9000, dtype: DType::Q8_0, ..shape }.gguf();
    let config = Config { context: 4100, chunk: 64, logit_rows: 5, kv: KvType::Int8, ..Config::default() };
    let first = [Step::Eval(tokens[..2100].to_vec()), Step::Save];
    with_model(&gguf, |model| {
        let all = [first.to_vec(), vec![Step::Eval(tokens[2100..].to_vec()), Step::Save]].concat();
        let expected = alone(model, config, &all);
        let bytes = |bits: &Result<Vec<u32>, EngineError>| -> Vec<u8> {
            bits.as_ref().unwrap().iter().map(|byte| *byte as u8).collect()
        };
        let goes_on = |saved: &[u8], engine: &mut Engine<'_>, session: &mut Session<'_>| {
            assert_eq!(engine.restore(session, saved), Ok(EXTRA));
            run(engine, session, &all[2..])
        };
        let moves = [(2, Split::Layers), (2, Split::Rows), (3, Split::Tokens), (2, Split::Layers)];
        for ((boards, from), (others, to)) in moves.into_iter().zip(moves.into_iter().skip(1)) {
            let saved = on_boards(boards, |board| on_board(&board, model, config, Way::even(from, boards), &first));
            let saved = bytes(&saved[0].as_ref().unwrap()[1]);
            assert!(saved == bytes(&expected[1]), "{from:?}");
            let got = on_boards(others, |board| {
                of_board(&board, model, config, Way::even(to, others), |engine, session| {
                    goes_on(&saved, engine, session)
                })
            });
            assert!(got[0].as_ref().unwrap()[..] == expected[2..], "{from:?} {to:?}");
            with_session(model, Kernels::detect(), config, |Reader { engine, session }| {
                assert!(goes_on(&saved, engine, session)[..] == expected[2..], "{from:?}");
            });
        }
    });
}

/// A file that cannot be written to its end is no trouble of the other boards, which go on.
#[test]
fn a_file_that_is_not_written_stops_nothing() {
    let gguf = Tiny { dtype: DType::Q8_0, ..Tiny::default() }.gguf();
    let config = Config { context: 64, sinks: 3, chunk: 8, ..Config::default() };
    let steps = [Step::Eval(vec![1, 2, 3, 4, 5])];
    with_model(&gguf, |model| {
        let expected = alone(model, config, &[&steps[..], &steps, &[Step::Save]].concat());
        for (split, parts) in SPLITS.into_iter().flat_map(|split| [0, 1, 3, 6, 12].map(|parts| (split, parts))) {
            let got = on_boards(2, |board| {
                of_board(&board, model, config, Way::even(split, 2), |engine, session| {
                    run(engine, session, &steps);
                    let mut left = parts;
                    let written = engine.save(session, EXTRA, |_| {
                        left = i32::checked_sub(left, 1).filter(|left| *left >= 0).ok_or("no room")?;
                        Ok(())
                    });
                    assert_eq!(written, Ok(Err("no room")));
                    run(engine, session, &[&steps[..], &[Step::Save]].concat())
                })
            });
            assert!(got[0].as_ref().unwrap()[..] == expected[1..], "{split:?} {parts}");
            assert_eq!(got[1], Ok(Vec::new()));
        }
    });
}

/// Behind eviction, where the rings of single boards have gone round, and those of kept tiles: what was saved is restored
/// in memory that never had it, saved again, and read on.
#[test]
fn what_eviction_has_left_is_restored() {
    let base = Config { context: 4200, chunk: 512, logit_rows: 5, ..Config::default() };
    let int8 = Config { kv: KvType::Int8, hadamard: true, ..base };
    let cases = [
        (Config { sinks: 40, slack: 300, ..int8 }, 6600),
        (Config { pattern: Pattern::Window, ..base }, 6600),
        (Config { pattern: Pattern::Strided { every: 2 }, context: 2100, ..int8 }, 8500),
        (Config { pattern: Pattern::Strided { every: 2 }, ..base }, 12_700),
    ];
    for (config, n) in cases.into_iter().take(deep(4, 3)) {
        let first = [Step::Eval(prompt(3, n, 67)), Step::Rewind(100), Step::Save];
        let [few, more] = [1, 150].map(|n| Step::Eval(prompt(4, n, 67)));
        let rest = [few.clone(), more, Step::Save, Step::Rewind(30), few, Step::Save];
        with_model(&long_model(), |model| {
            let expected = alone(model, config, &[&first[..], &rest].concat());
            let saved: Vec<u8> = expected[2].as_ref().unwrap().iter().map(|byte| *byte as u8).collect();
            for size in (2..=3).filter(|size| config.context > (size - 1) * LEAF) {
                let got = on_boards(size, |board| {
                    of_board(&board, model, config, Way::even(Split::Tokens, size), |engine, session| {
                        assert_eq!(engine.restore(session, &saved), Ok(EXTRA));
                        assert!(save(engine, session).as_ref() == Ok(&saved), "{config:?}");
                        run(engine, session, &rest)
                    })
                });
                assert!(got[0].as_ref().unwrap()[..] == expected[first.len()..], "{size} boards, {config:?}");
            }
        });
    }
}

/// A board that fails while a session is saved or restored: an error for all, and nothing hangs.
#[test]
fn a_board_that_fails_beside_a_file() {
    let gguf = Tiny { dtype: DType::Q8_0, ..Tiny::default() }.gguf();
    let steps = [Step::Eval(vec![1, 2, 3]), Step::Save, Step::Restore(None), Step::Eval(vec![4])];
    let config = Config { context: 64, sinks: 0, chunk: 8, ..Config::default() };
    with_model(&gguf, |model| {
        let expected = alone(model, config, &steps);
        for (split, exchanges) in SPLITS.into_iter().flat_map(|split| (0..60).step_by(3).map(move |k| (split, k))) {
            let run = |comm: &dyn Comm| on_board(comm, model, config, Way::even(split, 2), &steps);
            let ends = on_boards(2, |board: Board| match board.rank() {
                1 => run(&Failing::new(board, exchanges)),
                _ => run(&board),
            });
            let Ok(first) = &ends[0] else { continue };
            let failed = |result: &Result<Vec<u32>, EngineError>| matches!(result, Err(EngineError::Boards(_)));
            let from = first.iter().position(failed).unwrap_or(first.len());
            // What was never saved is not restored.
            assert!(first[..from] == expected[..from], "{split:?} {exchanges}");
            let mut rest = first[from..].iter().zip(&steps[from..]);
            assert!(rest.all(|(end, step)| failed(end) || matches!(step, Step::Restore(_))));
            assert!(ends[1].is_err() || from == first.len());
        }
    });
}

/// A board that gives other positions than it is asked for.
struct Misplaced<'c>(&'c dyn Comm);

impl Between for Misplaced<'_> {
    fn boards(&self) -> &dyn Comm {
        self.0
    }

    fn exchange(&self, call: Call<'_>) -> Result<(), CommError> {
        let Call::Listen { root, data } = call else { return call.on(self.0) };
        self.0.listen(root, data)?;
        let mut words: Vec<u32> = data.chunks_exact(4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect();
        if words[0] == SESSION && self.rank() > 0 {
            // The tile behind them.
            words[8] += 32;
            data.chunks_exact_mut(4).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_ne_bytes()));
        }
        Ok(())
    }
}

/// Positions that are taken for others show.
#[test]
fn positions_in_other_places_show() {
    let tokens = prompt(3, 4000, 67);
    let steps = [Step::Eval(tokens), Step::Save];
    let config = Config { context: 4096, pattern: Pattern::Window, chunk: 512, ..Config::default() };
    with_model(&long_model(), |model| {
        let expected = alone(model, config, &steps);
        for (mistaken, same) in [(false, true), (true, false)] {
            let got = on_boards(2, |board| match mistaken {
                true => on_board(&Misplaced(&board), model, config, Way::even(Split::Tokens, 2), &steps),
                false => on_board(&board, model, config, Way::even(Split::Tokens, 2), &steps),
            });
            assert_eq!(got[0].as_ref().unwrap() == &expected, same);
        }
    });
}
