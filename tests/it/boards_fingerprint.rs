//! The fingerprint that boards take of a model together: the number that one board finds, of which each reads what is its own.

use std::ops::Range;

use crate::boards_exchanges::Counting;
use crate::boards_run::{SPLITS, Step, Way, alone, on_board};
use crate::common::boards::{Board, Failing, on_boards};
use crate::common::gguf::{Gguf, Tiny};
use crate::common::run::{tiny, with_model, with_tensor_scales};
use armlet::boards::Comm;
use armlet::engine::{Config, EngineError};
use armlet::gguf::File;
use armlet::host::memory;
use armlet::model::{Model, Share, Shares, Split};
use armlet::quant::DType;

/// Passes of so many tokens: what is exchanged has room with them.
fn config(chunk: usize) -> Config {
    Config { context: 8192, sinks: 0, chunk, ..Config::default() }
}

/// Matrices of several steps, and with scales; an embedding of its own; biases of which a sample has more than a board.
fn models() -> [Gguf; 4] {
    let heads = (8, 4, 16, 16);
    let many = Tiny { n_layers: 5, context: 9000, dtype: DType::Q8_0, ..tiny("llama", heads, (128, 544), 3) };
    let few = Tiny { n_layers: 4, vocab: 65, context: 9000, ..tiny("qwen2", (8, 4, 8, 8), (32, 96), 5) };
    [
        many.gguf(),
        with_tensor_scales(Tiny { tied: false, dtype: DType::F16, ..many }.gguf()),
        Tiny { bias: true, dtype: DType::Q8_0, ..few }.gguf(),
        Tiny { bias: true, tied: false, dtype: DType::F16, ..few }.gguf(),
    ]
}

/// All ways to share a model with four layers and four KV heads or more, and some that are not even.
fn ways() -> Vec<Way> {
    let even = Split::ALL.into_iter().flat_map(|split| (2..=4).map(move |size| Way::even(split, size)));
    let numbers: [&[u8]; 3] = [&[1, 3], &[4, 1, 2], &[1, 2, 5, 1]];
    let uneven = |split| numbers.map(|numbers| Way { split, shares: Shares::new(numbers).unwrap() });
    even.chain(SPLITS.into_iter().flat_map(uneven)).collect()
}

/// It is in the file of a session, whatever room there is for what is exchanged.
#[test]
fn boards_find_the_fingerprint_of_one() {
    for gguf in models() {
        with_model(&gguf, |model| {
            for chunk in [64, 1] {
                let config = config(chunk);
                let expected = alone(model, config, &[Step::Save]);
                let number = model.fingerprint().to_le_bytes().map(u32::from);
                assert!(expected[0].as_ref().unwrap().windows(8).any(|words| words == number));
                for way in ways() {
                    let got = on_boards(way.shares.size(), |board| on_board(&board, model, config, way, &[Step::Save]));
                    assert!(got[0].as_ref() == Ok(&expected), "{way:?}: {:?}", got[0].as_ref().map(|bits| &bits[0]));
                    assert!(got[1..].iter().all(|end| *end == Ok(Vec::new())), "{way:?}");
                }
            }
        });
    }
}

/// Where the weights of a board are in its file: its own, and those rows of the embedding that are, if the embedding is shared.
fn weights(bytes: &[u8], model: &Model<'_>, share: &Share) -> Vec<Range<usize>> {
    let (mut ranges, embedding) = (Vec::new(), &model.weights.token_embd);
    let mut add = |weights: &[u8]| {
        let start = weights.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
        ranges.push(start..start + weights.len());
    };
    share.for_each(model, &mut add);
    if share.has_head() {
        add(embedding.rows_bytes(share.rows(embedding.rows())));
    }
    ranges.retain(|range| !range.is_empty());
    ranges
}

fn with_bytes<R>(bytes: &[u8], f: impl FnOnce(&Model<'_>) -> R) -> R {
    let file = File::new_checked(bytes).unwrap();
    let mut tables = memory(Model::required_bytes(&file).unwrap()).unwrap();
    f(&Model::new(&file, &mut tables).unwrap())
}

/// A model of which a board has its own weights only.
fn part_of(bytes: &[u8], model: &Model<'_>, share: &Share) -> Vec<u8> {
    let mut part = bytes.to_vec();
    weights(bytes, model, &Share::WHOLE).into_iter().for_each(|range| part[range].fill(0x5a));
    for range in weights(bytes, model, share) {
        part[range.clone()].copy_from_slice(&bytes[range]);
    }
    assert!(part != bytes);
    part
}

/// What other boards have is not looked at, even by a byte.
#[test]
fn no_board_reads_what_is_another_s() {
    for gguf in models() {
        let bytes = gguf.build();
        with_bytes(&bytes, |model| {
            let expected = alone(model, config(64), &[Step::Save]);
            for way in ways().into_iter().filter(|way| way.split != Split::Tokens) {
                let got = on_boards(way.shares.size(), |board| {
                    let share = way.share(model, &config(64), board.rank()).unwrap();
                    let part = part_of(&bytes, model, &share);
                    with_bytes(&part, |model| on_board(&board, model, config(64), way, &[Step::Save]))
                });
                assert!(got[0].as_ref() == Ok(&expected), "{way:?}");
            }
        });
    }
}

/// What is saved or restored again costs no exchange, if there is nothing in it; by positions the first board knows the number.
#[test]
fn the_fingerprint_is_taken_once() {
    let gguf = Tiny { context: 9000, dtype: DType::Q8_0, ..Tiny::default() }.gguf();
    with_model(&gguf, |model| {
        for split in Split::ALL {
            let exchanges = |saves: usize| {
                let counts = on_boards(2, |board| {
                    let counting = Counting::new(&board);
                    on_board(&counting, model, config(64), Way::even(split, 2), &vec![Step::Save; saves]).unwrap();
                    counting.counts().0
                });
                assert_eq!(counts[0], counts[1]);
                counts[0]
            };
            // What dismisses the others is one.
            assert_eq!(exchanges(0), 1);
            assert_eq!(exchanges(1) > 1, split != Split::Tokens, "{split:?}");
            assert_eq!(exchanges(3), exchanges(1), "{split:?}");
        }
    });
}

/// A board that fails while it is taken: an error for all, then and later, and nothing hangs.
#[test]
fn a_board_that_fails_meanwhile() {
    let gguf = Tiny { dtype: DType::Q8_0, ..Tiny::default() }.gguf();
    let config = Config { context: 64, ..config(1) };
    with_model(&gguf, |model| {
        for (split, exchanges) in SPLITS.into_iter().flat_map(|split| [0, 1, 2, 5].map(|n| (split, n))) {
            let run = |comm: &dyn Comm| on_board(comm, model, config, Way::even(split, 2), &[Step::Save, Step::Save]);
            let ends = on_boards(2, |board: Board| match board.rank() {
                1 => run(&Failing::new(board, exchanges)),
                _ => run(&board),
            });
            let failed = |e: &EngineError| matches!(e, EngineError::Boards(_));
            let saves = ends[0].as_ref().unwrap();
            assert!(saves.iter().all(|save| save.as_ref().is_err_and(failed)), "{split:?} {exchanges}");
            assert!(ends[1].as_ref().is_err_and(failed));
        }
    });
}
