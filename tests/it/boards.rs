//! What boards may rely on when they exchange bytes, on boards that are threads; and what each of them has of a model.

use std::cell::Cell;
use std::ops::Range;

use crate::common::boards::{Failing, on_boards};
use crate::common::contract::{another_length, everything_is_heard_everywhere, gather, pieces_go_round};
use crate::common::gguf::Tiny;
use crate::common::run::{tiny, with_model};
use armlet::boards::{Alone, Comm, CommError};
use armlet::gguf::File;
use armlet::host::memory;
use armlet::model::{Hparams, Model, Share, ShareError, Shares, Split, TooManyBoards};

/// Of any number of boards.
#[test]
fn what_is_gathered_or_sent_to_all_is_the_same_everywhere() {
    for size in 1..=5 {
        on_boards(size, |board| everything_is_heard_everywhere(&board));
    }
}

/// Of any number of boards.
#[test]
fn pieces_go_round_while_boards_work() {
    for size in 2..=5 {
        on_boards(size, |board| pieces_go_round(&board, 4));
    }
}

/// Where a board fails in any exchange, all boards get an error that names a board, and none waits for ever.
#[test]
fn a_board_that_fails_is_an_error_everywhere() {
    for fails in 0..3 {
        let errors = on_boards(3, |board| {
            let exchanges = |comm: &dyn Comm| {
                gather(comm)?;
                comm.broadcast(0, &mut [1, 2])?;
                gather(comm).map(|_| ())
            };
            // The program of the board ends: its channels close.
            if board.rank() == 1 { exchanges(&Failing::new(board, fails)) } else { exchanges(&board) }
        });
        for error in errors {
            assert!(matches!(error, Err(CommError::Gone { .. } | CommError::Silent { .. })), "{fails}: {error:?}");
        }
    }
}

/// Boards that do not do the same notice it.
#[test]
fn another_length_is_an_error() {
    on_boards(3, |board| another_length(&board));
    let error = CommError::Mismatch { rank: 0, got: 4, expected: 5 };
    assert_eq!(error.to_string(), "board 0 sent 4 bytes where 5 were expected");
}

/// One board has all there is, and nobody to talk to.
#[test]
fn one_board_exchanges_nothing() {
    assert_eq!((Alone.rank(), Alone.size()), (0, 1));
    let mut data = [1, 2, 3];
    Alone.all_gather(&mut data, &[3]).unwrap();
    Alone.broadcast(0, &mut data).unwrap();
    assert_eq!(data, [1, 2, 3]);
    let worked = Cell::new(0);
    let mut work = |poll: &dyn Fn()| {
        poll();
        worked.set(worked.get() + 1);
    };
    assert_eq!(Alone.shift(None, None, &mut work), Ok(()));
    assert_eq!(Alone.shift(Some((1, &[0][..])), None, &mut work), Err(CommError::Gone { rank: 1 }));
    assert_eq!(worked.get(), 2);
}

// Shares --------------------------------------------------------------------------------------------------------------

fn sizes(layers: usize, kv_heads: usize) -> Hparams {
    let h = Tiny { n_layers: layers, ..tiny("llama", (2 * kv_heads, kv_heads, 8, 8), (32, 32), 5) }.gguf();
    with_model(&h, |model| model.hparams)
}

/// What boards have of `all` things: all of them, each once, one board's behind another's.
fn one_after_another(ranges: impl Iterator<Item = Range<usize>>, all: usize) {
    let mut end = 0;
    for range in ranges {
        assert!(range.start == end && range.end >= end, "{range:?} behind {end}");
        end = range.end;
    }
    assert_eq!(end, all);
}

/// Layers, KV heads, rows and positions of all boards are all there are, each of them once, and the boards' work is alike.
#[test]
fn shares_are_the_whole_model() {
    let shapes = [(1, 1, 32, 10usize), (4, 2, 96, 300), (30, 3, 1537, 5000), (32, 8, 4096, 70_000)];
    for (layers, kv_heads, rows, context) in shapes {
        let h = sizes(layers, kv_heads);
        for (split, size) in Split::ALL.into_iter().flat_map(|split| (1..=9).map(move |size| (split, size))) {
            let most = match split {
                Split::Layers => layers,
                Split::Rows => kv_heads,
                Split::Tokens => context.div_ceil(2048),
            };
            let shares = (0..size).map(|rank| Share::new(&h, split, 7, context, rank, size));
            let shares: Vec<Share> = match shares.collect() {
                Ok(shares) => shares,
                Err(e) => {
                    assert!(size > most && e == TooManyBoards { split, boards: size, most });
                    continue;
                }
            };
            assert!(size <= most);
            let every = |split_by: Split| if split == split_by { &shares[..] } else { &shares[..1] };
            one_after_another(every(Split::Layers).iter().map(|s| s.layers(&h)), layers);
            one_after_another(every(Split::Rows).iter().map(|s| s.kv_heads(&h)), kv_heads);
            one_after_another(every(Split::Rows).iter().map(|s| s.rows(rows)), rows);
            assert!(shares.iter().all(|s| !s.layers(&h).is_empty() && !s.kv_heads(&h).is_empty()));
            // A block of the next matrix's input is of one board.
            assert!(shares.iter().all(|s| s.rows(rows).start % 32 == 0));
            assert_eq!(every(Split::Layers).iter().filter(|s| s.has_head()).count(), 1);
            for position in (0..context as u64).step_by(97) {
                assert_eq!(every(Split::Tokens).iter().filter(|s| s.has_position(position)).count(), 1);
                let leaf = position / 2048 * 2048;
                assert!(shares.iter().all(|s| s.has_position(position) == s.has_position(leaf)));
            }
        }
    }
}

/// In any proportion, too, each board has a layer and a KV head at least, and no more of rows than its share and a block.
#[test]
fn uneven_shares_are_the_whole_model() {
    let h = sizes(9, 5);
    let numbers = (1..=5).flat_map(|size| (0..40usize).map(move |seed| (size, seed)));
    for (size, seed) in numbers {
        let numbers: Vec<u8> = (0..size).map(|i| 1 + ((seed + 7) * (i + 3) * 31 % 47) as u8).collect();
        let shares = Shares::new(&numbers).unwrap();
        let of = |split| (0..size).map(move |rank| Share::uneven(&h, split, 3, 4096, rank, shares).unwrap());
        one_after_another(of(Split::Layers).map(|s| s.layers(&h)), 9);
        one_after_another(of(Split::Rows).map(|s| s.kv_heads(&h)), 5);
        one_after_another(of(Split::Rows).map(|s| s.rows(49_157)), 49_157);
        assert!(
            of(Split::Layers).all(|s| !s.layers(&h).is_empty()) && of(Split::Rows).all(|s| !s.kv_heads(&h).is_empty())
        );
        let sum: usize = (0..size).map(|rank| shares.of(rank)).sum();
        for (rank, share) in of(Split::Rows).enumerate() {
            let (start, part) = (share.rows(49_157).start, share.rows(49_157).len() as f64);
            let wanted = (49_157 * shares.of(rank)) as f64 / sum as f64;
            assert!(start.is_multiple_of(32) && (part - wanted).abs() <= 64.0, "{shares}: board {rank} has {part}");
        }
    }
}

#[test]
fn what_cannot_be_shared_unevenly_is_refused() {
    let h = sizes(9, 3);
    let share = |split, numbers: &[u8]| Share::uneven(&h, split, 1, 70_000, 0, Shares::new(numbers).unwrap());
    let why = |split, numbers: &[u8]| share(split, numbers).map_err(|e| e.to_string());
    assert_eq!(why(Split::Tokens, &[3, 3, 2]), Err("shares 3,3,2: a split by tokens divides evenly".into()));
    assert_eq!(share(Split::Tokens, &[3, 3]), Ok(Share::new(&h, Split::Tokens, 1, 70_000, 0, 2).unwrap()));
    let many = TooManyBoards { split: Split::Rows, boards: 4, most: 3 };
    assert_eq!(share(Split::Rows, &[2, 1, 1, 1]), Err(ShareError::TooMany(many)));
}

/// The first board has the matrix behind the layers, which counts as so many of these; two blocks of positions for each
/// board, as large as can be.
#[test]
fn shares_are_alike() {
    let h = Tiny { n_layers: 30, ..tiny("llama", (9, 3, 8, 8), (32, 32), 5) }.gguf();
    let h = with_model(&h, |model| model.hparams);
    let layers = |size: usize| {
        let share = |rank| Share::new(&h, Split::Layers, 8, 4096, rank, size).unwrap();
        (0..size).map(|rank| share(rank).layers(&h).len()).collect::<Vec<_>>()
    };
    assert_eq!((layers(2), layers(3), layers(4)), (vec![11, 19], vec![5, 12, 13], vec![2, 9, 10, 9]));
    let leaves = |context, size| Share::new(&h, Split::Tokens, 8, context, 0, size).unwrap().leaves();
    assert_eq!([(8192, 4), (32_768, 4), (32_768, 2), (131_072, 3)].map(|(c, n)| leaves(c, n)), [1, 2, 4, 8]);
}

/// By layers each weight is one board's own; by rows each row of a matrix is, and norms are every board's.
#[test]
fn own_weights_are_the_whole_model() {
    let gguf = Tiny { n_layers: 5, ..tiny("qwen2", (6, 3, 8, 8), (96, 64), 5) }.gguf();
    with_model(&gguf, |model| {
        let own = |shares: &[Share]| {
            let mut addresses = Vec::new();
            let mut add =
                |weights: &[u8]| addresses.extend(weights.as_ptr().addr()..weights.as_ptr().addr() + weights.len());
            shares.iter().for_each(|share| share.for_each(model, &mut add));
            addresses.sort_unstable();
            addresses
        };
        let whole = own(&[Share::WHOLE]);
        let norms = model.weights.layers.iter().map(|layer| layer.attn_norm.weight.len() + layer.ffn_norm.weight.len());
        let norms = norms.sum::<usize>() + model.weights.output_norm.weight.len();
        assert!(whole.len() > model.weights.output.weight.bytes().len() + norms);
        for (split, size) in [(Split::Layers, 4), (Split::Rows, 2), (Split::Rows, 3)] {
            let share = |rank| Share::new(&model.hparams, split, 2, 2048, rank, size).unwrap();
            let mut all = own(&(0..size).map(share).collect::<Vec<_>>());
            let twice = if split == Split::Rows { (size - 1) * norms } else { 0 };
            assert_eq!(all.len(), whole.len() + twice, "{split:?} of {size}");
            all.dedup();
            assert!(all == whole, "{split:?} of {size}");
        }
    });
}

/// Boards know another model by the first and the last bytes of any tensor.
#[test]
fn every_tensor_is_part_of_the_fingerprint() {
    let bytes = tiny("llama", (4, 2, 8, 8), (32, 32), 5).gguf().build();
    let fingerprint = |bytes: &[u8]| {
        let file = File::new_checked(bytes).unwrap();
        let mut tables = memory(Model::required_bytes(&file).unwrap()).unwrap();
        Model::new(&file, &mut tables).unwrap().sparse_fingerprint()
    };
    let own = fingerprint(&bytes);
    let file = File::new_checked(&bytes).unwrap();
    for tensor in file.tensors() {
        let start = tensor.data.as_ptr().addr() - bytes.as_ptr().addr();
        for at in [start, start + tensor.data.len() - 1] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(fingerprint(&other), own, "{}: byte {}", tensor.name, at - start);
        }
    }
}
