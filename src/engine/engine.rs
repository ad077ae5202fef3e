//! The engine: runs tokens for sessions.

#[cfg(feature = "boards")]
use super::boards::Boards;
use super::{EngineError, Plan, Session};
use crate::arch::Kernels;
#[cfg(feature = "boards")]
use crate::boards::{Alone, Comm};
#[cfg(feature = "std")]
use crate::model::InputObserver;
use crate::model::{Batch, BufferSizes, Buffers, Caches, KvCache, Model, Pass, forward};
use crate::storage::{Arena, Executor};
use crate::tokenizer::Tokenizer;
use crate::util::SliceExt;

/// A model, the CPU's kernels, and the buffers of a forward pass: all that sessions share.
///
/// Logits do not depend, to the bit, on which sessions are decoded together (up to eight), nor on the number of
/// threads; with quantised weights, nor on how tokens are split into calls or passes. Float weights have one summation
/// order for up to eight tokens of a pass and another for more.
pub struct Engine<'e> {
    model: &'e Model<'e>,
    kernels: Kernels,
    pub(super) sizes: BufferSizes,
    pub(super) buffers: Buffers<'e>,
    used: usize,
    /// Passes so far.
    passes: u64,
    #[cfg(feature = "boards")]
    pub(super) boards: Boards<'e>,
    #[cfg(feature = "std")]
    observer: Option<InputObserver<'e>>,
}

impl<'e> Engine<'e> {
    /// An engine in the workspace `memory`, which must start at a multiple of [`ALIGN`](crate::storage::ALIGN) and have
    /// [`Plan::engine_bytes`].
    ///
    /// # Errors
    /// [`EngineError::Arena`] when the memory is misaligned or too small; [`EngineError::Shared`] for the plan of one of several
    /// boards.
    pub fn new(model: &'e Model<'e>, kernels: Kernels, plan: &Plan, memory: &'e mut [u8]) -> Result<Self, EngineError> {
        #[cfg(feature = "boards")]
        return Self::on_boards(model, kernels, plan, memory, &Alone);
        #[cfg(not(feature = "boards"))]
        Self::carve(model, kernels, plan, memory)
    }

    /// An engine on one of several boards, with the plan of its [`Share`](crate::model::Share). The first board runs what it is
    /// told as [`new`](Engine::new)'s does; the others [`follow`](Engine::follow).
    ///
    /// # Errors
    /// As [`new`](Engine::new); [`EngineError::Shared`] when the plan is not for this board of so many, and
    /// [`EngineError::Split`] for a model that cannot be shared so.
    #[cfg(feature = "boards")]
    pub fn on_boards(
        model: &'e Model<'e>,
        kernels: Kernels,
        plan: &Plan,
        memory: &'e mut [u8],
        comm: &'e dyn Comm,
    ) -> Result<Self, EngineError> {
        let share = plan.sizes().share;
        if (share.rank(), share.size()) != (comm.rank(), comm.size()) {
            return Err(EngineError::Shared);
        }
        share.check(model).map_err(EngineError::Split)?;
        let own = share.hparams(&model.hparams);
        Self::carve(
            model,
            kernels,
            plan,
            memory,
            Boards {
                comm,
                own,
                cache: *plan.cache(),
                session: None,
                fingerprint: None,
                needed: None,
                had: None,
                failed: None,
            },
        )
    }

    fn carve(
        model: &'e Model<'e>,
        kernels: Kernels,
        plan: &Plan,
        memory: &'e mut [u8],
        #[cfg(feature = "boards")] boards: Boards<'e>,
    ) -> Result<Self, EngineError> {
        let mut arena = Arena::new(memory)?;
        let sizes = *plan.sizes();
        let buffers = Buffers::new(&model.hparams, &sizes, &mut arena)?;
        Ok(Self {
            model,
            kernels,
            sizes,
            buffers,
            used: arena.used(),
            passes: 0,
            #[cfg(feature = "boards")]
            boards,
            #[cfg(feature = "std")]
            observer: None,
        })
    }

    /// Shows the input of every matrix product from now on to `observer`, as importance matrices need it. The logits stay
    /// the same.
    #[cfg(feature = "std")]
    pub fn observe_inputs(&mut self, observer: InputObserver<'e>) {
        self.observer = Some(observer);
    }

    /// Runs `tokens` and returns the logits after the last: `(vocab)`.
    ///
    /// # Errors
    /// [`EngineError`]; the session is then unchanged.
    pub fn eval(
        &mut self,
        exec: &dyn Executor,
        session: &mut Session<'_>,
        tokens: &[u32],
    ) -> Result<&[f32], EngineError> {
        self.eval_while(exec, session, tokens, &mut || true)
    }

    /// Like [`eval`](Engine::eval); calls `keep_going` before each pass of at most [`chunk`](Engine::chunk) tokens.
    ///
    /// # Errors
    /// As there; [`EngineError::Stopped`] if it returns false: the session has then read the tokens of earlier passes,
    /// and there are no logits.
    pub fn eval_while(
        &mut self,
        exec: &dyn Executor,
        session: &mut Session<'_>,
        tokens: &[u32],
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<&[f32], EngineError> {
        self.can_read(session, tokens)?;
        let mut left = tokens;
        while !left.is_empty() {
            if !keep_going() {
                return Err(EngineError::Stopped);
            }
            let pass;
            (pass, left) = left.split_at_checked(self.next_pass(left.len())).unwrap_or((left, &[]));
            self.pass(exec, &mut &mut [&mut *session][..], pass, usize::from(left.is_empty()))?;
        }
        Ok(self.logits())
    }

    /// Runs `tokens`, at most [`Config::logit_rows`](super::Config), and returns the logits after each:
    /// `(tokens, vocab)`.
    ///
    /// # Errors
    /// [`EngineError`]; the session is then unchanged.
    pub fn score(
        &mut self,
        exec: &dyn Executor,
        session: &mut Session<'_>,
        tokens: &[u32],
    ) -> Result<&[f32], EngineError> {
        self.can_read(session, tokens)?;
        self.can_keep(tokens.len())?;
        self.pass(exec, &mut &mut [session][..], tokens, tokens.len())?;
        Ok(self.rows(tokens.len()))
    }

    /// Runs `tokens[i]` in `sessions[i]`, all in one pass over the weights, and returns the logits after each:
    /// `(sessions, vocab)`. At most [`Config::logit_rows`](super::Config) sessions, of any plans of the same model.
    ///
    /// # Errors
    /// [`EngineError`]; all sessions are then unchanged.
    pub fn step(
        &mut self,
        exec: &dyn Executor,
        mut sessions: &mut [&mut Session<'_>],
        tokens: &[u32],
    ) -> Result<&[f32], EngineError> {
        if sessions.len() != tokens.len() {
            return Err(EngineError::Batch { sessions: sessions.len(), tokens: tokens.len() });
        }
        if tokens.is_empty() {
            return Err(EngineError::NoTokens);
        }
        self.can_keep(tokens.len())?;
        for (session, token) in sessions.iter().zip(tokens) {
            self.can_read(session, core::slice::from_ref(token))?;
        }
        self.pass(exec, &mut sessions, tokens, tokens.len())?;
        Ok(self.rows(tokens.len()))
    }

    /// Runs a token and a draft of what follows it, which the session then forgets: it [can](Session::can_forget). The logits
    /// behind each stay until the next pass.
    ///
    /// # Errors
    /// As [`score`](Engine::score).
    pub(crate) fn verify(
        &mut self,
        exec: &dyn Executor,
        session: &mut Session<'_>,
        tokens: &[u32],
    ) -> Result<(), EngineError> {
        let position = session.position() + 1;
        self.score(exec, session, tokens)?;
        session.take_back(position)
    }

    /// Passes so far: the logits are those of the last one.
    pub(crate) fn passes(&self) -> u64 {
        self.passes
    }

    /// Runs the next tokens of a prompt in the first session, and one token in each other, at most [`chunk`](Engine::chunk)
    /// together, all of which the caller has checked. The logits after the last `outputs` of them stay. Of one board alone: of
    /// several they are NaN.
    pub(crate) fn run<'s>(
        &mut self,
        exec: &dyn Executor,
        sessions: &mut dyn Caches<'s>,
        tokens: &[u32],
        outputs: usize,
    ) {
        if self.pass(exec, sessions, tokens, outputs).is_err() {
            self.buffers.logits.fill(f32::NAN);
        }
    }

    /// Of the logits behind the next passes only so many of the best are needed, until it is said otherwise: boards that share
    /// the model by rows then send no others, which are −∞ on the first. Elsewhere all are there.
    #[cfg(feature = "boards")]
    pub(crate) fn need(&mut self, best: Option<usize>) {
        // What a command has no room for is so much that all logits may as well travel.
        self.boards.needed = best.and_then(|best| u16::try_from(best).ok());
    }

    /// Whether the logits behind the last pass are all that are needed now.
    pub(crate) fn has_needed(&self) -> bool {
        #[cfg(feature = "boards")]
        return self.boards.had.is_none_or(|had| self.boards.needed.is_some_and(|needed| needed <= had));
        #[cfg(not(feature = "boards"))]
        true
    }

    /// The logits after the `i`-th of those tokens of the last pass that have any: `(vocab)`.
    pub(crate) fn logits_of(&self, i: usize) -> &[f32] {
        self.buffers.logits.row(i, self.model.hparams.vocab)
    }

    /// The model that it runs.
    pub(crate) fn model(&self) -> &'e Model<'e> {
        self.model
    }

    /// Most tokens of one pass with logits.
    pub(crate) fn logit_rows(&self) -> usize {
        self.sizes.logit_rows
    }

    /// The logits after the last token run by [`eval`](Engine::eval): `(vocab)`. Behind a
    /// step of an answer on boards that share the model by rows, those that its sampler needs; the others are −∞.
    pub fn logits(&self) -> &[f32] {
        self.rows(1)
    }

    /// The vocabulary of its model.
    pub fn tokenizer(&self) -> &'e Tokenizer<'e> {
        &self.model.tokenizer
    }

    /// Most tokens of one pass; of a prompt that several boards divide, of each of them.
    pub fn chunk(&self) -> usize {
        self.sizes.chunk
    }

    /// Most tokens of a pass over a prompt of which no board computes more than `rows`, at most [`chunk`](Engine::chunk).
    pub fn most_tokens(&self, rows: usize) -> usize {
        self.sizes.share.most_tokens(rows.min(self.sizes.chunk)).min(self.sizes.pass)
    }

    /// How many of the next `tokens` tokens of a prompt, at least one, are a pass.
    fn next_pass(&self, tokens: usize) -> usize {
        self.sizes.share.next_pass(tokens, self.sizes.chunk.max(1)).min(self.sizes.pass.max(1))
    }

    /// Bytes of the workspace in use: exactly the plan.
    pub fn used_bytes(&self) -> usize {
        self.used
    }

    pub(super) fn can_read(&self, session: &Session<'_>, tokens: &[u32]) -> Result<(), EngineError> {
        if session.is_of(self.model) { session.fits(tokens) } else { Err(EngineError::OtherModel) }
    }

    pub(super) fn can_keep(&self, rows: usize) -> Result<(), EngineError> {
        let planned = self.sizes.logit_rows;
        if rows > planned { Err(EngineError::LogitRows { asked: rows, planned }) } else { Ok(()) }
    }

    pub(super) fn pass<'s>(
        &mut self,
        exec: &dyn Executor,
        sessions: &mut dyn Caches<'s>,
        tokens: &[u32],
        outputs: usize,
    ) -> Result<(), EngineError> {
        #[cfg(feature = "boards")]
        self.start(sessions, tokens, outputs)?;
        let pass = Pass {
            model: self.model,
            kernels: &self.kernels,
            exec,
            share: self.sizes.share,
            #[cfg(feature = "boards")]
            own: &self.boards.own,
            #[cfg(not(feature = "boards"))]
            own: &self.model.hparams,
            #[cfg(feature = "boards")]
            comm: self.boards.comm,
            #[cfg(feature = "boards")]
            best: self.boards.had.map(usize::from),
            #[cfg(feature = "std")]
            observer: self.observer,
        };
        self.passes += 1;
        let stripe = self.sizes.share.stripe(tokens.len(), outputs);
        if let Some(mut batch) = Batch::new(sessions, tokens.len()).map(|batch| batch.striped(stripe)) {
            let result = forward(pass, &mut self.buffers, &mut batch, tokens, outputs);
            #[cfg(feature = "boards")]
            self.end(result, sessions, tokens.len())?;
            #[cfg(not(feature = "boards"))]
            result?;
        }
        Ok(())
    }

    fn rows(&self, rows: usize) -> &[f32] {
        self.buffers.logits.first_n(rows * self.model.hparams.vocab)
    }
}

impl<'s> Caches<'s> for &mut [&mut Session<'s>] {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn get(&self, i: usize) -> Option<&KvCache<'s>> {
        (**self).get(i).map(|session| &session.cache)
    }

    fn get_mut(&mut self, i: usize) -> Option<&mut KvCache<'s>> {
        (**self).get_mut(i).map(|session| &mut session.cache)
    }
}
