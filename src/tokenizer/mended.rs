//! What a file's tokenizer lacks or has wrong and llama.cpp mends with a warning: here it is mended and said, too.

use core::fmt;

/// Something that a file's tokenizer lacks or has wrong, and what was assumed instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum TokenizerWarning {
    /// A BPE vocabulary that does not say how text is split into words.
    NoPreTokenizer,
    /// The id of a special token that is not in the vocabulary.
    SpecialToken {
        /// Its key.
        key: &'static str,
        /// The token used instead, if there is one.
        instead: Option<u32>,
    },
    /// A SentencePiece vocabulary without scores.
    NoScores,
    /// Scores that are integers.
    WholeScores,
    /// Gemma 4's tokenizer, and a file that asks for no BOS token.
    BosForGemma4,
}

impl fmt::Display for TokenizerWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPreTokenizer => f.write_str(
                "the file has no tokenizer.ggml.pre, so text is split as by \"default\", and answers may be worse; \
                 if the model is known, --override-kv tokenizer.ggml.pre=str:NAME says which one it has",
            ),
            Self::SpecialToken { key, instead: Some(id) } => {
                write!(f, "{key} is not in the vocabulary: token {id} is used instead")
            }
            Self::SpecialToken { key, instead: None } => write!(f, "{key} is not in the vocabulary and is not used"),
            Self::NoScores => f.write_str("the file has no tokenizer.ggml.scores: all tokens count the same"),
            Self::WholeScores => f.write_str("tokenizer.ggml.scores are integers instead of floats"),
            Self::BosForGemma4 => {
                f.write_str("tokenizer.ggml.add_bos_token is false, but Gemma 4 needs a BOS token: one is added")
            }
        }
    }
}

/// The most warnings of a file: one for each special token, and the others, of which no file has all.
pub(super) const MAX_WARNINGS: usize = 12;

/// The warnings of a file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mended {
    warnings: [Option<TokenizerWarning>; MAX_WARNINGS],
}

impl Mended {
    pub(super) fn push(&mut self, warning: TokenizerWarning) {
        if let Some(slot) = self.warnings.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(warning);
        }
    }

    pub(super) fn warnings(self) -> impl Iterator<Item = TokenizerWarning> {
        self.warnings.into_iter().flatten()
    }
}
