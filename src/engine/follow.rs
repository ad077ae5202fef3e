//! An engine on one of several boards: the first tells the others what to run, and they follow.

use super::boards::{At, Command, FEW, WORDS};
use super::{Engine, EngineError, Session};
use crate::boards::CommError;
use crate::model::{Caches, KvCache, Split};
use crate::storage::{Executor, bytes_of_mut};
use crate::util::SliceExt;

impl Engine<'_> {
    /// What comes before a pass: none after a failure, and of several boards one session, of which the first tells the others.
    pub(super) fn start(
        &mut self,
        sessions: &dyn Caches<'_>,
        tokens: &[u32],
        outputs: usize,
    ) -> Result<(), EngineError> {
        self.boards.had = self.boards.needed.filter(|_| self.sizes.share.is(Split::Rows));
        if self.sizes.share.is_whole() {
            let is_whole = |i| sessions.get(i).is_none_or(|cache| cache.shape().share.is_whole());
            return if (0..sessions.len()).all(is_whole) { Ok(()) } else { Err(EngineError::Shared) };
        }
        let (1, Some(cache)) = (sessions.len(), sessions.get(0)) else {
            return Err(EngineError::SharedSessions(sessions.len()));
        };
        self.take_session(cache, cache.position() == 0)?;
        let at = At { position: cache.position(), written: cache.written() };
        let result = self.tell(at, tokens, outputs);
        Ok(result.inspect_err(|e| self.boards.failed = Some(*e))?)
    }

    /// Takes a session for the one of all boards, which has the same plan everywhere. It must be that already, unless it is `new`.
    pub(super) fn take_session(&mut self, cache: &KvCache<'_>, new: bool) -> Result<(), EngineError> {
        self.can_go_on()?;
        let known = self.boards.session.filter(|_| !new);
        if *cache.shape() != self.boards.cache || known.is_some_and(|known| known != cache.id()) {
            return Err(EngineError::Shared);
        }
        self.boards.session = Some(cache.id());
        Ok(())
    }

    /// Nothing is exchanged after a failure.
    pub(super) fn can_go_on(&self) -> Result<(), EngineError> {
        self.boards.failed.map_or(Ok(()), |failed| Err(failed.into()))
    }

    /// What comes behind a pass: after a failure the caches may have lost what the next tokens would attend to.
    pub(super) fn end(
        &mut self,
        result: Result<(), CommError>,
        sessions: &mut dyn Caches<'_>,
        tokens: usize,
    ) -> Result<(), EngineError> {
        if let Err(e) = result {
            self.boards.failed = Some(e);
            if let Some(cache) = sessions.get_mut(0) {
                cache.set_position(cache.position(), cache.written().max(cache.position() + tokens as u64));
            }
        }
        Ok(result?)
    }

    /// Tells the other boards what comes next, if this is the first of several.
    pub(super) fn tell(&mut self, at: At, tokens: &[u32], outputs: usize) -> Result<(), CommError> {
        let share = self.sizes.share;
        if share.is_whole() || share.rank() > 0 {
            return Ok(());
        }
        let command = Command::Pass { at, tokens: tokens.len(), outputs, best: self.boards.needed };
        self.boards.comm.listen(0, bytes_of_mut(&mut command.words(tokens)))?;
        self.boards.comm.begin(tokens.len());
        if tokens.len() > FEW {
            let all = self.buffers.tokens.first_n_mut(tokens.len());
            all.iter_mut().zip(tokens).for_each(|(to, token)| *to = *token);
            self.boards.comm.broadcast(0, bytes_of_mut(all))?;
        }
        Ok(())
    }

    /// Tells the other boards that there is nothing more to do: their [`follow`](Engine::follow) ends.
    ///
    /// # Errors
    /// [`EngineError::Boards`].
    pub fn dismiss(&mut self) -> Result<(), EngineError> {
        if !self.sizes.share.is_whole() && self.sizes.share.rank() == 0 && self.boards.failed.is_none() {
            self.boards.comm.listen(0, bytes_of_mut(&mut Command::End.words(&[])))?;
        }
        Ok(())
    }

    /// Runs what the first board runs, in a session of the same plan, until it [dismisses](Engine::dismiss) the others.
    ///
    /// # Errors
    /// [`EngineError::Boards`]; [`EngineError::Gone`] and those of [`Engine::eval`] where the first board has a session that is
    /// not like this one.
    pub fn follow(&mut self, exec: &dyn Executor, session: &mut Session<'_>) -> Result<(), EngineError> {
        loop {
            let mut words = [0; WORDS];
            self.boards.comm.listen(0, bytes_of_mut(&mut words))?;
            let (at, tokens, outputs) = match Command::parse(&words) {
                Command::Pass { at, tokens, outputs, best } => {
                    self.boards.needed = best;
                    (at, tokens, outputs)
                }
                Command::End => return Ok(()),
                part => {
                    self.follow_snapshot(session, part)?;
                    continue;
                }
            };
            self.boards.comm.begin(tokens);
            session.go_to(at)?;
            let [_, _, _, _, _, _, first @ ..] = words;
            let mut few = first;
            // No token has logits twice.
            if tokens > self.sizes.pass || outputs > tokens {
                return Err(EngineError::Shared);
            }
            let buffer = core::mem::take(&mut self.buffers.tokens);
            let tokens = if tokens > FEW { buffer.first_n_mut(tokens) } else { few.first_n_mut(tokens) };
            let result = self.follow_pass(exec, session, tokens, outputs);
            self.buffers.tokens = buffer;
            result?;
        }
    }

    fn follow_pass(
        &mut self,
        exec: &dyn Executor,
        session: &mut Session<'_>,
        tokens: &mut [u32],
        outputs: usize,
    ) -> Result<(), EngineError> {
        if tokens.len() > FEW {
            self.boards.comm.broadcast(0, bytes_of_mut(tokens))?;
        }
        self.can_read(session, tokens)?;
        self.can_keep(outputs)?;
        self.pass(exec, &mut &mut [session][..], tokens, outputs)
    }
}
