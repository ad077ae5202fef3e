//! Boards that share a model by layers read a prompt as a pipeline: each is at another chunk.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::boards_run::{Step, Way, alone, on_board};
use crate::common::boards::on_eager_boards;
use crate::common::gguf::Tiny;
use crate::common::run::{prompt, with_model};
use armlet::boards::{Between, Call, Comm, CommError};
use armlet::engine::Config;
use armlet::model::Split;
use armlet::quant::DType;

/// How long a board waits for another.
const PATIENCE: Duration = Duration::from_secs(30);
/// Chunks of the prompt, and tokens of each.
const CHUNKS: usize = 5;
const CHUNK: usize = 16;

/// How many chunks each board has done, which is when it sends them on.
#[derive(Default)]
struct Done {
    chunks: Mutex<[usize; 4]>,
    more: Condvar,
}

/// A board that begins with a chunk only when the board before it has done the next one. Boards that are a pipeline can do
/// all in this order; where one waits until another is done with what it was sent, that never comes.
struct Late<'c> {
    board: &'c dyn Comm,
    done: &'c Done,
    begun: AtomicUsize,
}

impl Late<'_> {
    /// The next chunk is here.
    fn begin(&self, before: usize) -> Result<(), CommError> {
        let begun = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let done = self.done.chunks.lock().unwrap();
        let late = |done: &mut [usize; 4]| done[before] < (begun + 1).min(CHUNKS);
        let end = self.done.more.wait_timeout_while(done, PATIENCE, late).unwrap().1;
        let seconds = PATIENCE.as_secs() as u32;
        if end.timed_out() { Err(CommError::Silent { rank: before, seconds }) } else { Ok(()) }
    }
}

impl Between for Late<'_> {
    fn boards(&self) -> &dyn Comm {
        self.board
    }

    fn exchange(&self, call: Call<'_>) -> Result<(), CommError> {
        let rank = self.rank();
        match &call {
            Call::Shift { to: Some((to, _)), .. } if *to == rank + 1 => {
                self.done.chunks.lock().unwrap()[rank] += 1;
                self.done.more.notify_all();
                call.on(self.board)
            }
            Call::Shift { from: Some((from, _)), .. } if *from + 1 == rank => {
                let before = *from;
                call.on(self.board)?;
                self.begin(before)
            }
            _ => call.on(self.board),
        }
    }
}

/// Every board has a chunk in hand while the board before it is at the next one.
#[test]
fn every_board_is_at_another_chunk() {
    let gguf = Tiny { n_layers: 5, dtype: DType::Q8_0, ..Tiny::default() }.gguf();
    let config = Config { context: 128, sinks: 0, chunk: CHUNK, ..Config::default() };
    let steps = [Step::Eval(prompt(3, CHUNKS * CHUNK, 67))];
    with_model(&gguf, |model| {
        let expected = alone(model, config, &steps);
        for size in 2..=4 {
            let done = Done::default();
            let got = on_eager_boards(size, PATIENCE, |board| {
                let board = Late { board: &board, done: &done, begun: AtomicUsize::new(0) };
                on_board(&board, model, config, Way::even(Split::Layers, size), &steps)
            });
            assert_eq!(got[0].as_ref(), Ok(&expected), "{size} boards");
            assert_eq!(done.chunks.into_inner().unwrap()[..size - 1], [CHUNKS; 3][..size - 1]);
        }
    });
}
