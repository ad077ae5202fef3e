//! The boards of an engine, and what the first of them tells the others.

use crate::boards::{Comm, CommError};
use crate::model::{CacheShape, Field, Hparams, Run};

/// The boards of an engine.
pub(super) struct Boards<'e> {
    pub(super) comm: &'e dyn Comm,
    /// Sizes of what this board computes.
    pub(super) own: Hparams,
    /// Size and format of their session.
    pub(super) cache: CacheShape,
    /// The first board's session, by its memory, once there is one.
    pub(super) session: Option<usize>,
    /// The model's, once a session was saved or restored.
    pub(super) fingerprint: Option<u64>,
    /// How many of the best logits are enough behind the next passes; none where all are needed.
    pub(super) needed: Option<u16>,
    /// How many were, behind the last one.
    pub(super) had: Option<u16>,
    /// What has ended their work together.
    pub(super) failed: Option<CommError>,
}

/// Tokens that are part of a [`Command`]: a pass of so few, as each of an answer is, costs one exchange less.
pub(super) const FEW: usize = 8;
/// Words of a command.
pub(super) const WORDS: usize = 6 + FEW;

/// Where a session is: how many tokens it has read, and how many positions were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) position: u64,
    /// At least as many; few enough more that what the next token attends to is still there.
    pub(super) written: u64,
}

/// What the first board tells the others. What is of a session says where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Run so many tokens, and compute the logits of the last `outputs`, of which the `best` are enough if there is such a number.
    Pass { at: At, tokens: usize, outputs: usize, best: Option<u16> },
    /// Who has this part of the session: send it.
    Give { at: At, run: Run },
    /// Who has this part of the session: it comes.
    Take { at: At, run: Run },
    /// Another session is restored: it is there, and its parts come.
    Place { at: At },
    /// Take the model's fingerprint with all boards.
    Fingerprint,
    /// There is nothing more to do.
    End,
}

impl Command {
    /// As words: `[what, two of its own, written - position, position, its others or the first tokens]`.
    pub(super) fn words(self, tokens: &[u32]) -> [u32; WORDS] {
        let (what, at, two) = match self {
            Command::Pass { at, tokens, outputs, best } => {
                (PASS, at, [tokens as u32, outputs as u32 | u32::from(best.unwrap_or(0)) << OUTPUTS])
            }
            Command::Give { at, run } => (SESSION, at, [kind_of(&run, GIVE), run.slots as u32]),
            Command::Take { at, run } => (SESSION, at, [kind_of(&run, TAKE), run.slots as u32]),
            Command::Place { at } => (SESSION, at, [PLACE, 0]),
            Command::Fingerprint => (FINGERPRINT, At { position: 0, written: 0 }, [0; 2]),
            Command::End => return [0; WORDS],
        };
        let [low, high] = halves(at.position);
        let head = [what, two[0], two[1], (at.written - at.position) as u32, low, high];
        let rest = match self {
            Command::Give { run, .. } | Command::Take { run, .. } => {
                let [low, high] = halves(run.first);
                [run.layer as u32, run.head as u32, low, high]
            }
            _ => [0; 4],
        };
        let rest: &[u32] = if what == PASS { tokens } else { &rest };
        let mut words = [0; WORDS];
        words.iter_mut().zip(head.iter().chain(rest)).for_each(|(word, x)| *word = *x);
        words
    }

    pub(super) fn parse(words: &[u32; WORDS]) -> Self {
        let [what, first, second, ahead, low, high, layer, head, run_low, run_high, ..] = *words;
        let long = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let position = long(low, high);
        let at = At { position, written: position.saturating_add(u64::from(ahead)) };
        let run = || {
            let field = Field::ALL.into_iter().find(|field| *field as u32 == first % SINKS)?;
            let (layer, head, sinks) = (layer as usize, head as usize, first & SINKS != 0);
            Some(Run { field, layer, head, sinks, first: long(run_low, run_high), slots: second as usize })
        };
        match (what, first & (GIVE | TAKE | PLACE), run()) {
            (PASS, ..) => {
                let (outputs, best) = (second % (1 << OUTPUTS), (second >> OUTPUTS) as u16);
                let best = (best > 0).then_some(best);
                Command::Pass { at, tokens: first as usize, outputs: outputs as usize, best }
            }
            (SESSION, GIVE, Some(run)) => Command::Give { at, run },
            (SESSION, TAKE, Some(run)) => Command::Take { at, run },
            (SESSION, PLACE, _) => Command::Place { at },
            (FINGERPRINT, ..) => Command::Fingerprint,
            _ => Command::End,
        }
    }
}

/// The first word of a command by which a pass begins, of one of a session, and of one of the model.
const PASS: u32 = 1;
const SESSION: u32 = 2;
const FINGERPRINT: u32 = 3;
/// Bits of how many tokens of a pass have logits, which are no more than a chunk has.
const OUTPUTS: u32 = 16;
/// Bits of the second word of one of a session, beside the field.
const SINKS: u32 = 4;
const GIVE: u32 = 8;
const TAKE: u32 = 16;
const PLACE: u32 = 32;

fn kind_of(run: &Run, what: u32) -> u32 {
    what | run.field as u32 | if run.sinks { SINKS } else { 0 }
}

fn halves(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_as_they_were_sent() {
        let at = At { position: 5 << 32 | 7, written: (5 << 32) + 19 };
        for (outputs, best) in [(0, None), (4096, Some(1)), (2, Some(u16::MAX))] {
            let pass = Command::Pass { at, tokens: 300, outputs, best };
            assert_eq!(Command::parse(&pass.words(&[9; 300])), pass);
        }
        let pass = Command::Pass { at, tokens: 300, outputs: 2, best: None };
        assert_eq!(pass.words(&[9; 300])[6..], [9; FEW]);
        assert_eq!(pass.words(&[4, 5])[6..], [4, 5, 0, 0, 0, 0, 0, 0]);
        for (field, sinks) in Field::ALL.into_iter().flat_map(|field| [(field, false), (field, true)]) {
            let run = Run { field, layer: 29, head: 2, sinks, first: 3 << 33 | 1, slots: 4096 };
            for command in [Command::Give { at, run }, Command::Take { at, run }, Command::Place { at }] {
                assert_eq!(Command::parse(&command.words(&[])), command);
            }
        }
        for command in [Command::Fingerprint, Command::End] {
            assert_eq!(Command::parse(&command.words(&[])), command);
        }
    }
}
