//! The boards of an engine, and what the first of them tells the others.

use crate::boards::{Comm, CommError};
use crate::model::{CacheShape, Hparams};

/// The boards of an engine.
pub(super) struct Boards<'e> {
    pub(super) comm: &'e dyn Comm,
    /// Sizes of what this board computes.
    pub(super) own: Hparams,
    /// Size and format of their session.
    pub(super) cache: CacheShape,
    /// The first board's session, by its memory, once there is one.
    pub(super) session: Option<usize>,
    /// What has ended their work together.
    pub(super) failed: Option<CommError>,
}

/// Tokens that are part of a [`Command`]: a pass of so few, as each of an answer is, costs one exchange less.
pub(super) const FEW: usize = 8;
/// Words of a command.
pub(super) const WORDS: usize = 6 + FEW;

/// What the first board tells the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Run so many tokens from a position on, and compute the logits of the last `outputs`.
    Pass { position: u64, tokens: usize, outputs: usize },
    /// There is nothing more to do.
    End,
}

impl Command {
    /// As words: `[what, tokens, outputs, 0, position, first tokens]`.
    pub(super) fn words(self, first: &[u32]) -> [u32; WORDS] {
        let mut words = [0; WORDS];
        if let Command::Pass { position, tokens, outputs } = self {
            let head = [1, tokens as u32, outputs as u32, 0, position as u32, (position >> 32) as u32];
            words.iter_mut().zip(head.iter().chain(first)).for_each(|(word, x)| *word = *x);
        }
        words
    }

    pub(super) fn parse(words: &[u32; WORDS]) -> Self {
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
