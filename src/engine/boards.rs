//! An engine on one of several boards: the first tells the others what to run.

use super::{Engine, EngineError, Session};
use crate::boards::{Comm, CommError};
use crate::model::{Caches, Hparams};
use crate::storage::{Executor, bytes_of_mut};
use crate::util::SliceExt;

/// The boards of an engine.
pub(super) struct Boards<'e> {
    pub(super) comm: &'e dyn Comm,
    /// Sizes of what this board computes.
    pub(super) own: Hparams,
    /// What has ended their work together.
    pub(super) failed: Option<CommError>,
}

/// Tokens that are part of a [`Command`]: a pass of so few, as each of an answer is, costs one exchange less.
const FEW: usize = 8;
/// Words of a command.
const WORDS: usize = 6 + FEW;

/// What the first board tells the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// Run so many tokens from a position on, and compute the logits of the last `outputs`.
    Pass { position: u64, tokens: usize, outputs: usize },
    /// There is nothing more to do.
    End,
}

impl Command {
    /// As words: `[what, tokens, outputs, 0, position, first tokens]`.
    fn words(self, first: &[u32]) -> [u32; WORDS] {
        let mut words = [0; WORDS];
        if let Command::Pass { position, tokens, outputs } = self {
            let head = [1, tokens as u32, outputs as u32, 0, position as u32, (position >> 32) as u32];
            words.iter_mut().zip(head.iter().chain(first)).for_each(|(word, x)| *word = *x);
        }
        words
    }

    fn parse(words: &[u32; WORDS]) -> Self {
        match *words {
            [1, tokens, outputs, _, low, high, ..] => Command::Pass {
                position: u64::from(low) | u64::from(high) << 32,
                tokens: tokens as usize,
                outputs: outputs as usize,
            },
            _ => Command::End,
        }
    }
}

impl Engine<'_> {
    /// What comes before a pass: none after a failure, and of several boards one session, of which the first tells the others.
    pub(super) fn start(
        &mut self,
        sessions: &dyn Caches<'_>,
        tokens: &[u32],
        outputs: usize,
    ) -> Result<(), EngineError> {
        if self.sizes.share.is_whole() {
            return Ok(());
        }
        if let Some(failed) = self.boards.failed {
            return Err(failed.into());
        }
        let (1, Some(cache)) = (sessions.len(), sessions.get(0)) else {
            return Err(EngineError::SharedSessions(sessions.len()));
        };
        if cache.shape().share != self.sizes.share {
            return Err(EngineError::Shared);
        }
        let result = self.tell(cache.position(), tokens, outputs);
        Ok(result.inspect_err(|e| self.boards.failed = Some(*e))?)
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
    pub(super) fn tell(&mut self, position: u64, tokens: &[u32], outputs: usize) -> Result<(), CommError> {
        let share = self.sizes.share;
        if share.is_whole() || share.rank() > 0 {
            return Ok(());
        }
        let command = Command::Pass { position, tokens: tokens.len(), outputs };
        self.boards.comm.broadcast(0, bytes_of_mut(&mut command.words(tokens)))?;
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
        if !self.sizes.share.is_whole() && self.sizes.share.rank() == 0 {
            self.boards.comm.broadcast(0, bytes_of_mut(&mut Command::End.words(&[])))?;
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
            let Command::Pass { position, tokens, outputs } = Command::parse(&words) else { return Ok(()) };
            session.go_to(position)?;
            let [_, _, _, _, _, _, first @ ..] = words;
            let mut few = first;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_as_they_were_sent() {
        let pass = Command::Pass { position: 5 << 32 | 7, tokens: 300, outputs: 2 };
        assert_eq!(Command::parse(&pass.words(&[9; 300])), pass);
        assert_eq!(pass.words(&[9; 300])[6..], [9; FEW]);
        assert_eq!(pass.words(&[4, 5])[6..], [4, 5, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Command::parse(&Command::End.words(&[])), Command::End);
    }
}
