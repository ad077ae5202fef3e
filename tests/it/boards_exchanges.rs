//! What several boards exchange, counted, beside the formulas; and what becomes of bits that come to another place.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::boards_run::{Step, Way, alone, long_model, on_board};
#[cfg(feature = "cli")]
use crate::cli::{Folder, ok};
use crate::common::boards::on_boards;
use crate::common::gguf::{Gguf, Tiny};
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

/// What a board exchanges from a command of the first board on until the next: how often, and how many bytes it sends to
/// others.
type Counts = (usize, usize);

/// A board whose exchanges are counted by commands.
struct ByCommand<'c> {
    comm: &'c dyn Comm,
    counts: Mutex<Vec<Counts>>,
}

impl Between for ByCommand<'_> {
    fn boards(&self) -> &dyn Comm {
        self.comm
    }

    fn exchange(&self, call: Call<'_>) -> Result<(), CommError> {
        let mut counts = self.counts.lock().unwrap();
        if matches!(call, Call::Listen { .. }) {
            counts.push((0, 0));
        }
        let (exchanges, bytes) = counts.last_mut().unwrap();
        *exchanges += 1;
        *bytes += call.bytes(self.comm).0;
        drop(counts);
        call.on(self.comm)
    }
}

/// What boards exchange by commands, each board's for itself. The last command is the end.
fn by_command(gguf: &Gguf, config: Config, way: Way, steps: &[Step]) -> Vec<Vec<Counts>> {
    with_model(gguf, |model| {
        on_boards(way.shares.size(), |board| {
            let counting = ByCommand { comm: &board, counts: Mutex::default() };
            on_board(&counting, model, config, way, steps).unwrap();
            counting.counts.into_inner().unwrap()
        })
    })
}

/// For three boards: a KV head with two query heads each; 32 of n_embd, 64, 32 and 64 of n_ff, and 32, 32 and 3 of the
/// vocabulary.
fn model_for_three() -> Gguf {
    let heads = Tiny { n_heads: 6, n_kv_heads: 3, head_dim: 32, rope_dims: 16, n_layers: 3, ..Tiny::default() };
    Tiny { n_embd: 96, n_ff: 160, dtype: DType::Q8_0, ..heads }.gguf()
}

/// Layers, heads, and numbers of a head that are few, so that many positions are read quickly.
const SMALL: (usize, usize, usize) = (2, 2, 8);

fn small_model() -> Gguf {
    let (n_layers, n_heads, head_dim) = SMALL;
    let heads = Tiny { n_layers, n_heads, n_kv_heads: 1, head_dim, rope_dims: 8, ..Tiny::default() };
    Tiny { n_embd: 32, n_ff: 32, context: 30_000, dtype: DType::Q8_0, ..heads }.gguf()
}

/// What a board of several sends of a token, if the one with most blocks has `sums` that it attends to.
fn bytes_of_sums(boards: usize, sums: usize) -> usize {
    let (layers, heads, head_dim) = SMALL;
    (boards - 1) * sums * layers * heads * (head_dim + 2) * 4
}

/// Layers: the residual stream goes on once. Rows: four gathers a layer, of int8 with a scale for 32 where a matrix takes it so,
/// of floats else; and the logits. Beside that, what the first board tells the others.
#[test]
fn exchanges_of_a_token_are_those_of_the_formula() {
    let gguf = model_for_three();
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

/// Of a prompt in two passes, by layers and by rows: as many exchanges as of a token and one more, and as many bytes for
/// each token; what concerns logits is the last token's.
#[test]
fn exchanges_of_passes_are_those_of_the_formula() {
    let (gguf, passes) = (model_for_three(), [16, 13]);
    let config = Config { context: 64, sinks: 0, chunk: 16, ..Config::default() };
    let steps = [Step::Eval(prompt(3, 29, 67))];
    let counts = |split| by_command(&gguf, config, Way::even(split, 3), &steps);
    let (layers, rows) = (counts(Split::Layers), counts(Split::Rows));
    let row = |q: usize, ff: usize| 2 * 3 * (36 * q + 36 * ff + 2 * 4 * 32);
    let (of_rows, of_logits) = ([row(2, 2), row(2, 1), row(2, 2)], [2 * 4 * 32, 2 * 4 * 32, 2 * 4 * 3]);
    for (pass, tokens) in passes.into_iter().enumerate() {
        // The command and the tokens, to two boards each.
        let (told, commands) = (2, 2 * (56 + 4 * tokens));
        let (stream, last) = (4 * 96 * tokens, usize::from(pass == 1));
        let by_layers = [(told + 1 + last, commands + stream), (told + 2, stream), (told + 1 + last, last * 4 * 96)];
        for (rank, expected) in by_layers.into_iter().enumerate() {
            assert_eq!(layers[rank][pass], expected, "layers: pass {pass} of board {rank}");
            let bytes = if rank == 0 { commands } else { 0 } + tokens * of_rows[rank] + last * of_logits[rank];
            assert_eq!(rows[rank][pass], (told + 4 * 3 + last, bytes), "rows: pass {pass} of board {rank}");
        }
    }
}

/// By positions, an answer's tokens, and tokens too few to be divided: a gather a layer for up to eight of them, of a sum
/// for each block of the board that has most.
#[test]
fn exchanges_of_sums_are_those_of_the_formula() {
    let (gguf, layers, few) = (small_model(), SMALL.0, 20);
    // Three leaves of two boards, and of three; and two leaves in one block.
    for (size, context, read, sums) in [(2, 5000, 4100, 2), (3, 5000, 4100, 1), (2, 26_000, 2100, 1)] {
        let steps = [Step::Eval(prompt(3, read, 67)), Step::Eval(vec![5]), Step::Eval(prompt(4, few, 67))];
        let config = Config { context, pattern: Pattern::Full, chunk: 512, kv: KvType::Int8, ..Config::default() };
        let got = by_command(&gguf, config, Way::even(Split::Tokens, size), &steps);
        let of_token = bytes_of_sums(size, sums);
        for (rank, counts) in got.iter().enumerate() {
            let told = |bytes: usize| if rank == 0 { (size - 1) * bytes } else { 0 };
            let expected = [
                (layers + 1, of_token + told(56)),
                (layers * few.div_ceil(8) + 2, few * of_token + told(56 + 4 * few)),
                (1, told(56)),
            ];
            assert_eq!(counts[counts.len() - 3..], expected, "board {rank} of {size}, {context} positions");
        }
    }
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

/// What `plan` says of a token is what is counted, but for the bytes of the command: by layers those of all boards one
/// after another, else those of the board that sends or gets most.
#[cfg(feature = "cli")]
#[test]
fn plan_says_what_is_counted() {
    let f = Folder::new();
    let said = |gguf: &Gguf, boards: &str, context: &str| {
        let model = f.write("model.gguf", &gguf.build());
        let text = ok(&["plan", "-m", &model, "--boards", boards, "-c", context, "--json"]);
        let plan: serde_json::Value = serde_json::from_str(&text).unwrap();
        Split::ALL.map(|split| {
            let rows = plan["boards"]["splits"].as_array().unwrap();
            let row = rows.iter().find(|row| row["split"] == split.name()).unwrap();
            ["exchanges_per_token", "bytes_per_token"].map(|key| row[key].as_u64().unwrap_or(0) as usize)
        })
    };
    let counted = |split| {
        let config = Config { context: 64, ..Config::default() };
        let got = by_command(&model_for_three(), config, Way::even(split, 3), &[Step::Eval(vec![5])]);
        let exchanges = got.iter().map(|counts| counts[0].0).collect::<Vec<_>>();
        let mut sent = got.iter().map(|counts| counts[0].1).collect::<Vec<_>>();
        sent[0] -= 2 * 56;
        (exchanges, sent)
    };
    let [layers, rows, _] = said(&model_for_three(), "3", "64");
    let (exchanges, sent) = counted(Split::Layers);
    // Two boards have a part in each hop, and all hear the command.
    assert_eq!(layers, [exchanges.iter().map(|n| n - 1).sum::<usize>() / 2 + 1, sent.iter().sum()]);
    let (exchanges, sent) = counted(Split::Rows);
    let all: usize = sent.iter().sum();
    assert_eq!(rows, [exchanges[0], sent.iter().map(|own| *own.max(&((all - own) / 2))).max().unwrap()]);
    // These are counted in a context that is full, above.
    for (boards, sums) in [(2, 2), (3, 1)] {
        let [.., tokens] = said(&small_model(), &boards.to_string(), "5000");
        assert_eq!(tokens, [SMALL.0 + 1, bytes_of_sums(boards, sums)], "{boards} boards");
    }
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
