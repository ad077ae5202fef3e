//! Speculation by prompt lookup: what an answer repeats of the conversation is read several tokens in one pass.
//!
//! A draft is what followed the conversation's last tokens where they stood before (prompt lookup decoding, Saxena 2023,
//! <https://github.com/apoorvumang/prompt-lookup-decoding>). One pass reads the answer's last token and the draft, and has the
//! logits behind each (Leviathan et al. 2023, arXiv 2211.17192). Tokens are sampled one by one as ever; as long as they are
//! those of the draft, the logits behind them are there already. So a draft changes no bit of an answer, at any temperature,
//! only its time.

use crate::engine::{Engine, EngineError, Session};
use crate::storage::Executor;
use crate::util::SliceExt;

/// Up to so many tokens of a pass, no bit depends on how many there are. With matrices of integers none ever does.
pub const MAX_BATCH: usize = 8;
/// Longest draft: with the token before it, it fits a pass of as many tokens as have the bits of one.
pub const MAX_DRAFT: usize = MAX_BATCH - 1;
/// Shortest repetition that is taken for the beginning of a longer one. Two tokens are, in prose, mostly an accident.
const MIN_MATCH: usize = 3;
/// A repetition that is longer is no better a sign.
const MAX_MATCH: usize = 16;
/// After so many failures in a row the pause between drafts grows no more: 64 tokens.
const MOST_MISSES: u32 = 6;

/// How long drafts are: longer as long as they hold, and ever rarer where they do not.
#[derive(Clone, Debug)]
pub struct Speculation {
    most: usize,
    length: usize,
    misses: u32,
    /// Tokens until the next draft.
    pause: u32,
    /// Tokens of all drafts, and those of them that held.
    drafted: usize,
    held: usize,
}

/// What drafts are made of.
pub struct Lookup<'l> {
    /// How long they are; the same for all of a conversation.
    pub speculation: &'l mut Speculation,
    /// The conversation so far: what the session has read, or its end.
    pub tokens: &'l [u32],
}

impl Speculation {
    /// Drafts of at most `most` tokens, and [`MAX_DRAFT`]; 0: none.
    pub const fn new(most: usize) -> Self {
        let most = if most < MAX_DRAFT { most } else { MAX_DRAFT };
        Speculation { most, length: 1, misses: 0, pause: 0, drafted: 0, held: 0 }
    }

    /// Tokens of all drafts that are decided, and those of them that the answer had.
    pub fn counts(&self) -> (usize, usize) {
        (self.drafted, self.held)
    }

    /// A draft of what follows `tokens` and `next`; returns its length, which is 0 where there is nothing to go by.
    fn draft(&mut self, tokens: &[u32], next: u32, draft: &mut [u32]) -> usize {
        if self.most.min(draft.len()) == 0 || self.pause > 0 {
            self.pause = self.pause.saturating_sub(1);
            return 0;
        }
        let Some(follows) = repetition(tokens, next) else { return 0 };
        let n = self.length.min(draft.len());
        for i in 0..n {
            // Behind the end of the conversation it goes on with itself.
            let from = follows + i;
            let token = match from.checked_sub(tokens.len()) {
                None => tokens.get(from),
                Some(0) => Some(&next),
                Some(own) => draft.get(own - 1),
            };
            let Some(token) = token.copied() else { return i };
            if let Some(to) = draft.get_mut(i) {
                *to = token;
            }
        }
        n
    }

    /// Takes account of a draft of which the first `held` tokens were those of the answer.
    fn has_held(&mut self, drafted: usize, held: usize) {
        (self.drafted, self.held) = (self.drafted + drafted, self.held + held);
        match held {
            _ if held == drafted => (self.length, self.misses) = ((2 * self.length).min(self.most), 0),
            0 => {
                self.misses = (self.misses + 1).min(MOST_MISSES);
                self.pause = 1 << self.misses;
                self.length = 1;
            }
            _ => (self.length, self.misses) = (held, 0),
        }
    }
}

/// Where what followed the conversation's end, `tokens` and `next`, begins in it: behind the longest of its earlier occurrences,
/// and of equals the last.
fn repetition(tokens: &[u32], next: u32) -> Option<usize> {
    let mut found = (MIN_MATCH - 1, None);
    for i in (0..tokens.len()).rev().filter(|i| tokens.get(*i) == Some(&next)) {
        let before = tokens.first_n(i).iter().rev().zip(tokens.iter().rev());
        let length = 1 + before.take(MAX_MATCH - 1).take_while(|(a, b)| a == b).count();
        if length > found.0 {
            found = (length, Some(i + 1));
        }
        if length == MAX_MATCH {
            break;
        }
    }
    found.1
}

/// A draft that a pass has read, and how much of it the answer has followed.
#[derive(Clone, Debug, Default)]
pub(super) struct Ahead {
    draft: [u32; MAX_DRAFT],
    len: usize,
    /// How many of its tokens the answer has.
    held: usize,
    /// The pass that has read it, and where its session then stood behind the last token that the answer had.
    pass: u64,
    position: u64,
}

impl Ahead {
    pub(super) const NONE: Ahead = Ahead { draft: [0; MAX_DRAFT], len: 0, held: 0, pass: 0, position: 0 };

    /// Has the session read `token`, the answer's last, and what is likely to follow it: at most `most` tokens of a lookup's draft.
    /// Or finds that the last pass has done so. The logits behind the token are in [`row`](Ahead::row).
    ///
    /// # Errors
    /// [`EngineError`]; the session is then unchanged.
    pub(super) fn read(
        &mut self,
        engine: &mut Engine<'_>,
        exec: &dyn Executor,
        session: &mut Session<'_>,
        token: u32,
        lookup: Option<&mut Lookup<'_>>,
        most: usize,
    ) -> Result<(), EngineError> {
        if engine.has_needed() && self.follows(token, engine.passes(), session.position()) {
            session.take_again();
            return Ok(());
        }
        let (mut tokens, mut n) = ([token; MAX_BATCH], 0);
        if let (Some(lookup), Some((_, draft))) = (lookup, tokens.split_first_mut()) {
            if let Some((drafted, held)) = self.end() {
                lookup.speculation.has_held(drafted, held);
            }
            // No longer than there are logits, and what the session can forget again.
            let most = most.min(engine.logit_rows().saturating_sub(1));
            let draft =
                draft.first_n_mut(most.min(session.remaining().saturating_sub(1).min(MAX_DRAFT as u64) as usize));
            n = lookup.speculation.draft(lookup.tokens, token, draft);
            while !session.can_forget(n) {
                n -= 1;
            }
        }
        *self = Ahead::NONE;
        if n == 0 {
            return engine.eval(exec, session, &[token]).map(drop);
        }
        engine.verify(exec, session, tokens.first_n(1 + n))?;
        let [_, draft @ ..] = tokens;
        *self = Ahead { draft, len: n, held: 0, pass: engine.passes(), position: session.position() };
        Ok(())
    }

    /// The row of that pass's logits behind the answer's last token.
    pub(super) fn row(&self) -> usize {
        self.held
    }

    /// Whether the draft's next token is `token`, the next one of a session at `position`, and the last pass is still that which
    /// has read the draft.
    fn follows(&mut self, token: u32, pass: u64, position: u64) -> bool {
        let is_next = self.draft.first_n(self.len).get(self.held) == Some(&token);
        let follows = is_next && self.pass == pass && self.position + self.held as u64 == position;
        self.held += usize::from(follows);
        follows
    }

    /// Ends the draft; how long it was, and how much of it held. None if there was none.
    fn end(&mut self) -> Option<(usize, usize)> {
        let Ahead { len, held, .. } = core::mem::replace(self, Self::NONE);
        (len > 0).then_some((len, held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn draft(tokens: &[u32], next: u32, length: usize) -> Vec<u32> {
        let mut draft = [0; MAX_DRAFT];
        let mut speculation = Speculation { length, ..Speculation::new(MAX_DRAFT) };
        let n = speculation.draft(tokens, next, &mut draft);
        draft[..n].to_vec()
    }

    #[test]
    fn a_draft_is_what_followed_before() {
        let tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2];
        assert_eq!(draft(&tokens, 3, 4), [4, 5, 6, 7]);
        // Two tokens are no repetition.
        assert_eq!(draft(&[1, 2, 9, 9, 1], 2, 4), []);
        assert_eq!(draft(&[], 3, 4), []);
        // The longest, though it is not the last; of equals the last.
        assert_eq!(draft(&[5, 1, 2, 3, 10, 1, 2, 3, 11, 5, 1, 2], 3, 1), [10]);
        assert_eq!(draft(&[1, 2, 3, 10, 1, 2, 3, 11, 5, 1, 2], 3, 1), [11]);
    }

    #[test]
    fn a_draft_goes_on_behind_the_conversation_with_itself() {
        assert_eq!(draft(&[1, 2, 1, 2, 1], 2, 7), [1, 2, 1, 2, 1, 2, 1]);
        assert_eq!(draft(&[7, 7, 7, 7], 7, 7), [7; 7]);
    }

    #[test]
    fn drafts_that_hold_grow_and_those_that_do_not_become_rare() {
        let mut speculation = Speculation::new(MAX_DRAFT);
        for length in [1, 2, 4, 7, 7] {
            assert_eq!(speculation.length, length);
            speculation.has_held(length, length);
        }
        speculation.has_held(7, 3);
        assert_eq!((speculation.length, speculation.pause), (3, 0));
        let tokens = [1; 20];
        for pause in [2, 4, 8, 16, 32, 64, 64] {
            speculation.has_held(speculation.length, 0);
            let mut tries = (0..).map(|_| speculation.draft(&tokens, 1, &mut [0; MAX_DRAFT]));
            assert_eq!(tries.position(|n| n > 0), Some(pause));
        }
        assert_eq!(Speculation::new(0).draft(&tokens, 1, &mut [0; MAX_DRAFT]), 0);
        assert_eq!(Speculation::new(1).draft(&tokens, 1, &mut [0; MAX_DRAFT]), 1);
        assert_eq!(Speculation::new(100).most, MAX_DRAFT);
    }
}
