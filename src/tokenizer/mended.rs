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

/// Keys of special tokens: BOS, that of unknown text and padding, then those that end an answer, EOS first.
pub(super) static SPECIAL: [&str; 9] = [
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.unknown_token_id",
    // Nothing here needs it, but a file that has it wrong may have more wrong.
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
];
/// Where they are in [`SPECIAL`].
pub(super) const BOS: usize = 0;
pub(super) const UNKNOWN: usize = 1;
pub(super) const EOS: usize = 3;

/// The warnings of a file, one bit each: after those of [`SPECIAL`], the others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mended(pub(super) u32);

impl Mended {
    pub(super) const NO_PRE_TOKENIZER: u32 = 1 << 16;
    pub(super) const NO_SCORES: u32 = 1 << 17;
    pub(super) const WHOLE_SCORES: u32 = 1 << 18;
    pub(super) const BOS_FOR_GEMMA_4: u32 = 1 << 19;

    /// The warnings; `instead` has the tokens that [`SPECIAL`] stands for.
    pub(super) fn warnings(self, instead: [Option<u32>; SPECIAL.len()]) -> impl Iterator<Item = TokenizerWarning> {
        let special = (0..)
            .zip(SPECIAL)
            .zip(instead)
            .map(|((bit, key), instead)| (1 << bit, TokenizerWarning::SpecialToken { key, instead }));
        let others = [
            (Self::NO_PRE_TOKENIZER, TokenizerWarning::NoPreTokenizer),
            (Self::NO_SCORES, TokenizerWarning::NoScores),
            (Self::WHOLE_SCORES, TokenizerWarning::WholeScores),
            (Self::BOS_FOR_GEMMA_4, TokenizerWarning::BosForGemma4),
        ];
        special.chain(others).filter(move |(bit, _)| self.0 & bit != 0).map(|(_, warning)| warning)
    }
}
