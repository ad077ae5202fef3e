//! The regexes of llama.cpp's pre-tokenisers, and the names that files have for them.

use super::rule::Rule::{
    self, Between, Cased, CasedContracted, Contracted, Contraction, ContractionInAnyCase, DigitsFromRight, Lines,
    NumberFromRight, Phrase, Runs, Spaces, SpacesAtEnd, SpacesByPowers,
};
use super::rule::{Enclosed, LEAD, Run};
use super::set::{
    ANY, ASCII_SIGN, ASCII_SYMBOL, BLANK, DIGIT, FEED, GRAVE, LETTER, LINE_END, LOWER, MARK, NUMBER, PUNCTUATION,
    SLASH, SPACE, SYMBOL, Script, TAB, UPPER,
};

/// A regex: the first alternative that matches counts.
pub(super) type Stage = &'static [Rule];

/// A pre-tokeniser, and what its name says of the rest of the tokenizer.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) stages: &'static [Stage],
    /// Names in `tokenizer.ggml.pre`, with blanks between them.
    pub(super) names: &'static str,
    pub(super) whole: Whole,
    /// The default of `tokenizer.ggml.add_bos_token`.
    pub(super) add_bos: bool,
    /// Whether there is a BOS token where the file names none.
    pub(super) has_bos: bool,
    /// Whether the vocabulary spells text in characters, with `▁` for a blank, rather than in GPT-2's letters for bytes.
    pub(super) characters: bool,
    /// Whether a word may have white space in its middle.
    pub(super) across_blanks: bool,
}

/// Words that, if they are tokens as a whole, are those tokens, whatever the merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Whole {
    /// None.
    Never,
    /// Those of line feeds.
    LineFeeds,
    /// All (llama.cpp's `ignore_merges`).
    Always,
}

impl Family {
    /// Whether this is one of its names.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.as_bytes().split(|byte| *byte == b' ').any(|known| known == name.as_bytes())
    }
}

const fn family(stages: &'static [Stage], names: &'static str) -> Family {
    Family {
        stages,
        names,
        whole: Whole::Never,
        add_bos: false,
        has_bos: true,
        characters: false,
        across_blanks: false,
    }
}

const fn across_blanks(family: Family) -> Family {
    Family { across_blanks: true, ..family }
}

const fn whole(family: Family) -> Family {
    Family { whole: Whole::Always, ..family }
}

/// The pre-tokeniser of files that name none.
pub(super) static DEFAULT: Family =
    family(&[&[Runs(&[Run::some(PUNCTUATION | ASCII_SYMBOL)])], GPT2, &[NUMBERS], &[THREE_DIGITS]], "default");

/// All others. Of a name that llama.cpp knows and this list does not, the words would differ.
#[rustfmt::skip]
pub(super) static FAMILIES: [Family; 32] = [
    family(&[GPT2], "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert exaone4 mpt olmo \
        jais trillion granite-docling jina-v1-en jina-v2-code roberta-bpe"),
    family(&[&[ONE_NUMBER], GPT2], "starcoder refact codeshell exaone minerva-7b mellum2 command-r smollm"),
    Family { add_bos: true, ..whole(family(&[LLAMA3], "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 \
        jina-v5-nano")) },
    family(&[LLAMA3], "dbrx smaug-bpe"),
    Family { has_bos: false, ..family(&[LLAMA3], "chatglm-bpe") },
    Family { has_bos: false, ..whole(family(&[LLAMA3], "glm4 glm5")) },
    family(&[QWEN2], "qwen2 deepseek-r1-qwen kormo f2llmv2 hunyuan solar-open grok-2 megrez stablelm2 bailingmoe bailingmoe2 \
        llada-moe"),
    family(&[QWEN35], "qwen35"),
    family(&[UFAKZEKA], "ufakzeka"),
    family(&[SEED_CODER], "seed-coder"),
    whole(family(&[&[THREE_NUMBERS], LLAMA3], "minicpm5")),
    family(&[LINES, QWEN2], "laguna"),
    Family { add_bos: true, ..across_blanks(whole(family(&[TEKKEN], "tekken"))) },
    across_blanks(family(&[GPT4O], "gpt-4o llama4 kanana2 talkie minimax-m2")),
    across_blanks(whole(family(&[GRANITE_EMBED], "granite-embed-multi-97m"))),
    family(&[&[THREE_NUMBERS], &[Runs(&[Run::within(Script::ChineseOrKana)])], DEEPSEEK3],
        "deepseek-v3 hunyuan-dense joyai-llm hy_v4"),
    family(&[&[THREE_NUMBERS], &[Runs(&[Run::within(Script::ChineseOrKana)])], SPARK, &[ONE_NUMBER]], "spark2_5"),
    across_blanks(family(&[&[NumberFromRight], AYA], "tiny_aya cohere2moe")),
    across_blanks(whole(family(&[YOUTU_SCRIPTS, YOUTU], "youtu"))),
    family(&[&[NumberFromRight], &[Runs(&[Run::within(Script::Asian)])], DEEPSEEK3], "afmoe"),
    family(&[&[Runs(&[Run::some(PUNCTUATION | ASCII_SYMBOL | GRAVE)])], GPT2, &[THREE_DIGITS]], "falcon"),
    across_blanks(family(&[EXAONE_MOE], "exaone-moe")),
    family(&[JAIS2], "jais-2"),
    across_blanks(family(&[
        &[ONE_LINE_END],
        &[Runs(&[Run::maybe(SPACE), Run::some(LETTER)])],
        &[Runs(&[Run::maybe(SPACE), Run::some(PUNCTUATION)])],
        &[Runs(&[Run::within(Script::DeepSeekAsian)])],
        &[ONE_NUMBER],
    ], "deepseek-coder")),
    across_blanks(family(&[
        &[ONE_LINE_END],
        &[Runs(&[Run::maybe(SPACE), Run::within(Script::DeepSeekLetters)])],
        &[Runs(&[Run::maybe(SPACE), Run::within(Script::DeepSeekSigns)])],
        &[SpacesAtEnd],
        &[Runs(&[Run::within(Script::DeepSeekAsian)])],
        &[NUMBERS],
    ], "deepseek-llm")),
    across_blanks(family(&[BLOOM], "bloom poro-chat gpt3-finnish")),
    across_blanks(family(&[BLOOM, &[ONE_NUMBER]], "viking")),
    family(&[KIMI_K2], "kimi-k2"),
    across_blanks(family(&[&[NUMBERS], &[DigitsFromRight]], "superbpe")),
    Family { add_bos: true, ..family(&[
        // Sentinels, which llama.cpp cuts out first, are cut again by the stages below.
        &[Between(&Enclosed { open: "IMGIMG", run: Run::up_to_within(4, Script::AToI), close: "Z" })],
        CHAMELEON_SPACES,
        &[ONE_NUMBER],
        &[Runs(&[Run::exactly(1, PUNCTUATION | ASCII_SYMBOL | GRAVE)])],
        GPT2,
    ], "chameleon") },
    Family { characters: true, add_bos: true, whole: Whole::LineFeeds, ..family(&[LINES], "gemma4 granite-embed-multi-311m") },
    Family { characters: true, ..family(&[LINES], "sarvam-moe") },
];

/// The most stages a pre-tokeniser has.
pub(super) const MAX_STAGES: usize = 6;

/// What is no white space, no letter and no number.
const ODD: u32 = ANY & !(SPACE | LETTER | NUMBER);

const ONE_NUMBER: Rule = Runs(&[Run::exactly(1, NUMBER)]);
const THREE_NUMBERS: Rule = Runs(&[Run::up_to(3, NUMBER)]);
const NUMBERS: Rule = Runs(&[Run::some(NUMBER)]);
/// `[0-9][0-9][0-9]`: the digits of other scripts do not count here.
const THREE_DIGITS: Rule = Runs(&[Run::exactly(3, DIGIT)]);
const ONE_LINE_END: Rule = Runs(&[Run::exactly(1, LINE_END)]);
const LED_LETTERS: Rule = Runs(&[Run::maybe(LEAD), Run::some(LETTER)]);
const LED_LETTERS_AND_MARKS: Rule = Contracted(&[Run::maybe(LEAD), Run::some(LETTER | MARK)]);
const ODD_AND_LINE_ENDS: Rule = Runs(&[Run::maybe(BLANK), Run::some(ODD), Run::any(LINE_END)]);
/// Line ends and slashes in turn: such a word goes on across blanks.
const ODD_AND_SLASHES: Rule = Runs(&[Run::maybe(BLANK), Run::some(ODD), Run::any(LINE_END | SLASH)]);

const GPT2: Stage = &[
    Contraction,
    Runs(&[Run::maybe(BLANK), Run::some(LETTER)]),
    Runs(&[Run::maybe(BLANK), Run::some(NUMBER)]),
    Runs(&[Run::maybe(BLANK), Run::some(ODD)]),
    Spaces,
];
const LLAMA3: Stage = &[ContractionInAnyCase, LED_LETTERS, THREE_NUMBERS, ODD_AND_LINE_ENDS, Lines, Spaces];
const QWEN2: Stage = &[ContractionInAnyCase, LED_LETTERS, ONE_NUMBER, ODD_AND_LINE_ENDS, Lines, Spaces];
const QWEN35: Stage = &[
    ContractionInAnyCase,
    Runs(&[Run::maybe(LEAD), Run::some(LETTER | MARK)]),
    ONE_NUMBER,
    Runs(&[Run::maybe(BLANK), Run::some(ODD & !MARK), Run::any(LINE_END)]),
    Lines,
    Spaces,
];
const UFAKZEKA: Stage = &[LED_LETTERS, ONE_NUMBER, ODD_AND_LINE_ENDS, Lines, Spaces];
const SEED_CODER: Stage =
    &[ContractionInAnyCase, LED_LETTERS, ONE_NUMBER, Runs(&[Run::maybe(BLANK), Run::some(ODD)]), Lines, Spaces];
/// `[^\n]+|[\n]+`
const LINES: Stage = &[Runs(&[Run::some(ANY & !FEED)]), Runs(&[Run::some(FEED)])];
const TEKKEN: Stage = &[Cased(LETTER), ONE_NUMBER, ODD_AND_SLASHES, Lines, Spaces];
const GPT4O: Stage = &[CasedContracted(LETTER), THREE_NUMBERS, ODD_AND_SLASHES, Lines, Spaces];
const GRANITE_EMBED: Stage = &[CasedContracted(LETTER | MARK), THREE_NUMBERS, ODD_AND_SLASHES, Lines, Spaces];
const SIGN_AND_ASCII_WORD: Rule = Runs(&[Run::exactly(1, ASCII_SIGN), Run::some(LOWER | UPPER)]);
const WORD_AFTER_NO_SIGN: Rule =
    Runs(&[Run::maybe(ANY & !(LINE_END | LETTER | PUNCTUATION | SYMBOL)), Run::some(LETTER | MARK)]);
const DEEPSEEK3: Stage = &[
    SIGN_AND_ASCII_WORD,
    WORD_AFTER_NO_SIGN,
    Runs(&[Run::maybe(BLANK), Run::some(PUNCTUATION | SYMBOL), Run::any(LINE_END)]),
    Lines,
    Spaces,
];
const SPARK: Stage = &[
    SIGN_AND_ASCII_WORD,
    WORD_AFTER_NO_SIGN,
    Runs(&[Run::maybe(BLANK), Run::some(PUNCTUATION | SYMBOL)]),
    ONE_LINE_END,
    Spaces,
];
const AYA: Stage = &[LED_LETTERS_AND_MARKS, THREE_NUMBERS, ODD_AND_SLASHES, Lines, Spaces];
const YOUTU: Stage = &[LED_LETTERS_AND_MARKS, ONE_NUMBER, ODD_AND_SLASHES, Lines, Spaces];
const YOUTU_SCRIPTS: Stage = &[
    Runs(&[Run::within(Script::Hangul)]),
    Runs(&[Run::within(Script::ChinesePunctuation)]),
    Runs(&[Run::within(Script::Bopomofo)]),
    Runs(&[Run::within(Script::ChineseOrKana)]),
];
const EXAONE_MOE: Stage = &[
    ContractionInAnyCase,
    Phrase,
    ONE_NUMBER,
    Runs(&[Run::maybe(BLANK), Run::some(ODD), Run::maybe(LINE_END | SLASH)]),
    Lines,
    Spaces,
];
const JAIS2: Stage = &[ContractionInAnyCase, LED_LETTERS, THREE_NUMBERS, ODD_AND_LINE_ENDS, Lines, SpacesByPowers];
const BLOOM: Stage = &[Runs(&[Run::maybe(BLANK), Run::outside(Script::BloomSigns, ANY & !SPACE)])];
const KIMI_K2: Stage = &[
    Runs(&[Run::within(Script::Han)]),
    Contracted(&[Run::maybe(LEAD), Run::outside(Script::Han, LETTER)]),
    THREE_NUMBERS,
    ODD_AND_LINE_ENDS,
    Lines,
    Spaces,
];
/// `[\t\n]|    |  `
const CHAMELEON_SPACES: Stage =
    &[Runs(&[Run::exactly(1, TAB | FEED)]), Runs(&[Run::exactly(4, BLANK)]), Runs(&[Run::exactly(2, BLANK)])];
