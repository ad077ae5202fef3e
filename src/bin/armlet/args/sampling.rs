//! The command line's settings of sampling.

use crate::numbers;

/// Sampling.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct Sampling {
    /// The most tokens to generate [default: 128 for complete, 1024 for each answer of chat].
    #[arg(short, long, alias = "predict", value_name = "N", value_parser = numbers::count)]
    pub(crate) n_predict: Option<usize>,
    /// Seed of the sampler [default: from the clock].
    #[arg(short, long, value_parser = numbers::whole::<0, { u64::MAX }, u64>)]
    pub(crate) seed: Option<u64>,
    /// Temperature; 0: greedy decoding, which gives the same bits every time [default: the file's, or 0.8].
    #[arg(long, alias = "temperature", value_name = "T", value_parser = numbers::range::<0, 100>)]
    pub(crate) temp: Option<f32>,
    /// Keep only this many of the likeliest tokens, at most 1024; 0: 1024 [default: the file's, or 40].
    #[arg(long, value_name = "K", value_parser = numbers::count)]
    pub(crate) top_k: Option<usize>,
    /// Keep only the likeliest tokens whose probabilities sum to this; 1 keeps all [default: the file's, or
    /// 0.95].
    #[arg(long, value_name = "P", value_parser = numbers::range::<0, 1>)]
    pub(crate) top_p: Option<f32>,
    /// Keep only tokens at least this probable relative to the likeliest; 0 keeps all [default: the file's, or
    /// 0.05].
    #[arg(long, value_name = "P", value_parser = numbers::range::<0, 1>)]
    pub(crate) min_p: Option<f32>,
    /// Penalty on tokens that occur among the last 64; 1 changes nothing [default: the file's, or 1; 1.1 for chats with
    /// SmolLM2, except with --temp 0].
    #[arg(long, value_name = "X", value_parser = numbers::penalty)]
    pub(crate) repeat_penalty: Option<f32>,
    /// Subtracted from the logits of tokens that occur among the last 64 [default: 0].
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = numbers::range::<-2, 2>)]
    pub(crate) presence_penalty: Option<f32>,
    /// Subtracted from the logit of a token for each time that it occurs among the last 64 [default: 0].
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = numbers::range::<-2, 2>)]
    pub(crate) frequency_penalty: Option<f32>,
    /// End the answer before this text; may be given several times.
    #[arg(long = "stop", short = 'r', alias = "reverse-prompt", value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) stops: Vec<String>,
    /// Never end an answer by itself: tokens that do so get a bias of -inf.
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Answer with a JSON document that this schema allows: a file, or the schema itself.
    #[arg(long, short = 'j', alias = "json-schema-file", value_name = "FILE|JSON", conflicts_with = "grammar")]
    pub(crate) json_schema: Option<String>,
    /// Answer with a text of this grammar, in GBNF: a file, or the grammar itself.
    #[arg(long, alias = "grammar-file", value_name = "FILE|GBNF")]
    pub(crate) grammar: Option<String>,
    /// Add a number to the logit of a token, such as 15043+1 or 15043-2.5; -inf forbids it. May be given several times.
    #[arg(long, value_name = "TOKEN±BIAS", value_parser = bias)]
    pub(crate) logit_bias: Vec<Bias>,
    /// DRY: penalty of a repetition of --dry-allowed-length tokens; 0: none [default: 0].
    #[arg(long, value_name = "X", value_parser = numbers::range::<0, 100>)]
    pub(crate) dry_multiplier: Option<f32>,
    /// DRY: how much more a repetition costs that is a token longer [default: 1.75].
    #[arg(long, value_name = "X", value_parser = numbers::range::<1, 100>)]
    pub(crate) dry_base: Option<f32>,
    /// DRY: shorter repetitions cost nothing [default: 2].
    #[arg(long, value_name = "N", value_parser = numbers::positive)]
    pub(crate) dry_allowed_length: Option<usize>,
    /// DRY: the last tokens among which repetitions are looked for [default: all].
    #[arg(long, value_name = "N", value_parser = numbers::count)]
    pub(crate) dry_penalty_last_n: Option<usize>,
    /// DRY: texts over which no repetition goes, in the place of a line end, a colon, a quotation mark and an asterisk; none: there
    /// are none. May be given several times.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) dry_sequence_breaker: Vec<String>,
}

/// What is added to a token's logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bias {
    pub(crate) token: u32,
    pub(crate) bias: f32,
}

/// Parses a token's number, a sign, and a number or `inf`.
fn bias(text: &str) -> Result<Bias, String> {
    let wrong = || "not a token's number and a bias with its sign, such as 15043+1 or 15043-inf".to_string();
    let sign = text.find(['+', '-']).ok_or_else(wrong)?;
    let (token, bias) = text.split_at(sign);
    let (token, bias): (u32, f32) = (token.parse().map_err(|_| wrong())?, bias.parse().map_err(|_| wrong())?);
    let sensible = (-1000.0..=1000.0).contains(&bias) || bias == f32::NEG_INFINITY;
    if sensible { Ok(Bias { token, bias }) } else { Err("a bias is from -1000 to 1000, or -inf".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bias_has_a_token_and_a_sign() {
        assert_eq!(bias("15043+1"), Ok(Bias { token: 15043, bias: 1.0 }));
        assert_eq!(bias("7-2.5"), Ok(Bias { token: 7, bias: -2.5 }));
        assert_eq!(bias("0-inf"), Ok(Bias { token: 0, bias: f32::NEG_INFINITY }));
        for bad in ["", "7", "7=1", "+1", "7+", "7+inf", "7-nan", "7+1e9", "-1+1", "4294967296+1"] {
            assert!(bias(bad).is_err(), "{bad}");
        }
    }
}
