//! What several boards exchange, counted, beside the formulas; and what becomes of bits that come to another place.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::boards_run::{Step, Way, alone, long_model, on_board};
use crate::common::boards::on_boards;
use crate::common::gguf::Tiny;
use crate::common::run::{prompt, with_model};
use armlet::arch::KvType;
use armlet::boards::{Between, Call, Comm, CommError};
use armlet::engine::{Config, Pattern};
use armlet::model::Split;
use armlet::quant::DType;

/// What a board exchanges: how often, and how many bytes it sends to others.
pub(crate) struct Counting<'c> {
    comm: &'c dyn Comm,
    exchanges: AtomicUsize,
    bytes: AtomicUsize,
    /// Whether the parts of the first two boards are taken for each other's.
    mistaken: bool,
}

impl<'c> Counting<'c> {
    pub(crate) fn new(comm: &'c dyn Comm) -> Self {
        Counting { comm, exchanges: AtomicUsize::new(0), bytes: AtomicUsize::new(0), mistaken: false }
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.exchanges.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

impl Between for Counting<'_> {
    fn boards(&self) -> &dyn Comm {
        self.comm
    }

    fn exchange(&self, call: Call<'_>) -> Result<(), CommError> {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(call.bytes(self.comm).0, Ordering::Relaxed);
        match call {
            Call::AllGather { all, ends } if self.mistaken && ends[1] == 2 * ends[0] => {
                self.comm.all_gather(all, ends)?;
                all[..ends[1]].rotate_left(ends[0]);
                Ok(())
            }
            call => call.on(self.comm),
        }
    }
}

/// Layers: the residual stream goes on once. Rows: four gathers a layer, of int8 with a scale for 32 where a matrix takes it so,
/// of floats else; and the logits. Beside that, what the first board tells the others.
#[test]
fn exchanges_of_a_token_are_those_of_the_formula() {
    // On three boards: a KV head with two query heads each; 32 of n_embd, 64, 32 and 64 of n_ff, and 32, 32 and 3 of the vocabulary.
    let shape = Tiny {
        n_heads: 6,
        n_kv_heads: 3,
        head_dim: 32,
        rope_dims: 16,
        n_layers: 3,
        n_embd: 96,
        n_ff: 160,
        ..Tiny::default()
    };
    let gguf = Tiny { dtype: DType::Q8_0, ..shape }.gguf();
    let config = Config { context: 64, sinks: 0, chunk: 8, ..Config::default() };
    let counts = |split: Split, tokens: &[u32]| {
        let steps = [Step::Eval(tokens.to_vec())];
        with_model(&gguf, |model| {
            on_boards(3, |board| {
                let counting = Counting::new(&board);
                on_board(&counting, model, config, Way::even(split, 3), &steps).unwrap();
                counting.counts()
            })
        })
    };
    // The command and the end: 56 bytes to two boards each.
    let (told, command) = (2, 2 * 2 * 56);
    assert_eq!(counts(Split::Layers, &[5]), [(told + 2, command + 4 * 96), (told + 2, 4 * 96), (told + 2, 4 * 96)]);
    let rows = |q: usize, ff: usize, vocab: usize| 2 * (3 * (36 * q + 36 * ff + 2 * 4 * 32) + 4 * vocab);
    let expected = [rows(2, 2, 32), rows(2, 1, 32), rows(2, 2, 3)];
    let got = counts(Split::Rows, &[5]);
    assert_eq!(got.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [told + 4 * 3 + 1; 3]);
    assert_eq!(
        got.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>(),
        [command + expected[0], expected[1], expected[2]]
    );
    // Seven tokens in one pass are no more exchanges.
    assert_eq!(counts(Split::Rows, &[1, 2, 3, 4, 5, 6, 7])[1].0, told + 4 * 3 + 1);
}

/// By positions, a prompt: the keys and values of a pass in one exchange, and what was read before in pieces of 512 positions,
/// which the board that has them sends.
#[test]
fn exchanges_of_a_prompt_are_those_of_the_formula() {
    let config = Config { context: 6200, pattern: Pattern::Full, chunk: 512, kv: KvType::Int8, ..Config::default() };
    let steps = [Step::Eval(prompt(3, 3072, 67))];
    let got = with_model(&long_model(), |model| {
        on_boards(3, |board| {
            let counting = Counting::new(&board);
            on_board(&counting, model, config, Way::even(Split::Tokens, 3), &steps).unwrap();
            counting.counts()
        })
    });
    // Two passes of 1,536 tokens: a command and the tokens, and at last the end; 32 numbers and a scale for each key and value.
    let (told, commands) = (2 * 2 + 1, 2 * (2 * (56 + 4 * 1536) + 56));
    let (new, piece) = (2 * 512 * 2 * (32 + 2), 512 * 2 * (32 + 2));
    // The first board has the three pieces that the second pass attends to, and the last board passes none on.
    let exchanges = told + 2;
    assert_eq!(
        got,
        [
            (exchanges + 3, commands + 2 * new + 3 * piece),
            (exchanges + 4, 2 * new + 3 * piece),
            (exchanges + 3, 2 * new)
        ]
    );
}

/// Parts of boards that are taken for each other's show.
#[test]
fn parts_in_another_order_show() {
    let gguf = Tiny { dtype: DType::Q8_0, n_ff: 64, context: 8192, ..Tiny::default() }.gguf();
    let short = Config { context: 64, sinks: 0, chunk: 8, ..Config::default() };
    let long = Config { context: 4200, sinks: 0, chunk: 16, ..Config::default() };
    // A prompt of which each board reads every other token.
    let prompt = Step::Eval(prompt(1, 32, 67));
    let cases = [
        (Split::Rows, short, [Step::Eval(vec![1, 2, 3]), Step::Eval(vec![4])]),
        (Split::Tokens, long, [prompt, Step::Eval(vec![4])]),
    ];
    with_model(&gguf, |model| {
        for ((split, config, steps), mistaken) in cases.iter().flat_map(|case| [(case, false), (case, true)]) {
            let expected = alone(model, *config, steps);
            let got = on_boards(2, |board| {
                let counting = Counting { mistaken, ..Counting::new(&board) };
                on_board(&counting, model, *config, Way::even(*split, 2), steps)
            });
            assert_eq!(got[0] == Ok(expected), !mistaken, "{split:?}");
        }
    });
}
