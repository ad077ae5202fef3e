//! The weight formats, as the library lists them.

use std::process::Command;

use crate::process::{Failed, output};

/// A weight format.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Format {
    /// In ggml, in lower case, which is also the feature of builds for firmware: `q8_0`.
    pub(crate) name: String,
    /// Bytes of 256 weights.
    pub(crate) bytes_of_256: u32,
    /// Whether there is a layout for packed matrices.
    pub(crate) packs: bool,
    pub(crate) is_float: bool,
}

/// Every format, in the order of `quant::FORMATS`.
pub(crate) fn all() -> Result<Vec<Format>, Failed> {
    let table = output(Command::new(env!("CARGO")).args(["run", "--quiet", "--example", "formats"]))?;
    table.lines().map(|line| parse(line).ok_or_else(|| Failed(format!("no format in {line:?}")))).collect()
}

fn parse(line: &str) -> Option<Format> {
    let [name, _, len, bytes, _, packed] = line.splitn(6, ' ').collect::<Vec<_>>().try_into().ok()?;
    let (len, bytes): (u32, u32) = (len.parse().ok()?, bytes.parse().ok()?);
    let bytes_of_256 = (256 * bytes).checked_div(len)?;
    Some(Format { name: name.to_ascii_lowercase(), bytes_of_256, packs: packed != "-", is_float: len == 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_format() {
        let line = "Q6_K 14 256 210 6.5625 Q6_K in panels";
        let q6_k = Format { name: "q6_k".into(), bytes_of_256: 210, packs: true, is_float: false };
        assert_eq!(parse(line), Some(q6_k));
        assert!(parse("F16 1 1 2 16.0000 -").is_some_and(|f| f.is_float && !f.packs));
        assert_eq!(parse("F16 1"), None);
    }
}
