//! The boards that run the model with this one: none. In `armlet-mpi`, the program for several, `cluster/src/network.rs` is in its
//! place.

use armlet::arch::Kernels;
use armlet::boards::{Alone, Comm};
use armlet::engine::{Config, Plan};
use armlet::host::Pool;
use armlet::model::{Model, Share};

use crate::error::Failure;

/// Whether this board is the one to say what concerns all.
pub(crate) fn speaks() -> bool {
    true
}

/// Whether this is one of several boards.
pub(crate) fn is_job() -> bool {
    false
}

/// This board.
pub(crate) struct Boards;

impl Boards {
    /// The boards of this program.
    pub(crate) fn new() -> Self {
        Boards
    }

    /// How they exchange bytes.
    pub(crate) fn comm(&self) -> &dyn Comm {
        &Alone
    }

    /// Whether there are several.
    pub(crate) fn are_several(&self) -> bool {
        false
    }

    /// What the first board has found.
    pub(crate) fn told(&self, own: Result<Option<usize>, Failure>) -> Result<Option<usize>, Failure> {
        own
    }

    /// So many tokens of the conversation are saved.
    pub(crate) fn keep(&self, _tokens: u64) {}

    /// What is to be the same model on all.
    pub(crate) fn compare(&self, _: impl FnOnce() -> Result<u64, Failure>) -> Result<(), Failure> {
        Ok(())
    }

    /// The command line's number of threads, 0 if there is none.
    pub(crate) fn threads(&self, _asked: usize) {}

    /// What of the model this board has.
    pub(crate) fn share(&self, _: &Model<'_>, _: &Kernels, _: &Pool, _: &Config) -> Result<Share, Failure> {
        Ok(Share::WHOLE)
    }

    /// The largest context that a budget of bytes has room for.
    pub(crate) fn context_for_budget(
        &self,
        model: &Model<'_>,
        _: &Kernels,
        _: &Pool,
        config: &Config,
        budget: usize,
    ) -> Result<usize, Failure> {
        Ok(Plan::context_for_budget(&model.hparams, config, budget, 1)?)
    }

    /// Whether this board has a part of the weights.
    pub(crate) fn have_parts(&self) -> bool {
        false
    }

    /// This board's own weights, if they are not all there are.
    pub(crate) fn weights<'m>(&self, _: &Model<'m>, _: &Kernels, _: &Pool) -> Result<Option<Vec<&'m [u8]>>, Failure> {
        Ok(None)
    }

    /// Agrees with the others on what is to be run, on the pool's threads.
    pub(crate) fn meet(&self, _: &Model<'_>, _: &Kernels, _: &Pool, _: &Config, _: &Plan) -> Result<(), Failure> {
        Ok(())
    }
}
