//! `cargo xtask mca`: bytes of weights per cycle of each decode loop, by llvm-mca's models of the cores.
//!
//! The loops are found, not listed. In the program of `benches/kernels.rs` for aarch64, every innermost loop that
//! multiplies vectors is looked up in the debug information. It is a decode loop if it was inlined from a function that is
//! generic over a weight format and over a number of tokens, which is 1, and that into one of [`DECODE`]. With one token each
//! weight is multiplied once, so the products of a pass tell how many weights it reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::asm::{self, Loop};
use crate::formats::{self, Format};
use crate::process::{Failed, Steps, output, record, root};
use crate::setup::{self, LINUX, Need};

/// One version, so that records can be compared: 14 has no model of the Neoverse N1, 19 is in Debian 12 and 13.
const TOOLS: [Need; 1] = [(&["llvm-mca-19", "--version"], "llvm-19")];
const OBJDUMP: &str = "llvm-objdump-19";
const SYMBOLIZER: &str = "llvm-symbolizer-19";
const MCA: &str = "llvm-mca-19";
const CPUS: [&str; 3] = ["cortex-a53", "cortex-a72", "neoverse-n1"];
/// The functions that multiply the only token of a pass: of rows in place, and of panels.
const DECODE: [&str; 2] = ["multiply_one<", "multiply_panels_by_one<"];
/// Passes that are simulated.
const PASSES: u32 = 1000;

pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    steps.step("LLVM's tools", || setup::packages(&TOOLS))?;
    let mut program = PathBuf::new();
    steps.step("the kernels for aarch64", || {
        program = build()?;
        Ok(())
    })?;
    steps.step("decode loops", || {
        let mut dump = Command::new(OBJDUMP);
        let disassembly = output(dump.args(["-d", "--no-show-raw-insn", "--mattr=+v8.6a,+fullfp16"]).arg(&program))?;
        let formats = formats::all()?;
        let loops = decode_loops(asm::loops(&disassembly), &program, &formats)?;
        if loops.is_empty() {
            return Err(Failed(
                "no decode loop was found: have the functions that multiply one token other names?".into(),
            ));
        }
        let text = table(&loops, &formats)?;
        print!("\n{text}\n");
        record("mca", "Decode loops by llvm-mca", MCA, &text)
    })
}

/// The benchmark of the kernels, with debug information; it is small, so that this takes seconds when a kernel changes.
fn build() -> Result<PathBuf, Failed> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["bench", "--no-run", "--bench", "kernels", "--no-default-features", "--features", "std"]);
    cargo.args(["--target", LINUX, "--target-dir", "target/mca", "--message-format", "json"]);
    cargo.env("CARGO_PROFILE_BENCH_DEBUG", "line-tables-only").env("CARGO_PROFILE_BENCH_STRIP", "none");
    let messages = output(&mut cargo)?;
    let path = messages.rsplit_once("\"executable\":\"").and_then(|(_, rest)| rest.split('"').next());
    path.map(PathBuf::from).ok_or(Failed("cargo did not say where the program is".into()))
}

/// A kernel and the format of its weights, by its place in the list.
type Kernel = (String, usize);

/// The decode loops by kernel; of several of one kernel that which multiplies most.
fn decode_loops(loops: Vec<Loop>, program: &Path, formats: &[Format]) -> Result<BTreeMap<Kernel, Loop>, Failed> {
    let mut symbolizer = Command::new(SYMBOLIZER);
    symbolizer.args(["--inlining", "--functions=linkage", "--obj"]).arg(program);
    let mut found: BTreeMap<Kernel, Loop> = BTreeMap::new();
    let names = output(symbolizer.args(loops.iter().flat_map(|l| &l.addresses).map(|a| format!("{a:#x}"))))?;
    // A paragraph for each address, from the innermost function to the one that all were inlined into.
    let mut paragraphs = names.split("\n\n");
    for l in loops {
        let decodes = |names: &&str| DECODE.iter().any(|function| names.contains(function));
        let names: Vec<_> = paragraphs.by_ref().take(l.addresses.len()).filter(decodes).collect();
        // Some instructions have no line, so any that has will do.
        let Some(kernel) = names.iter().flat_map(|p| p.lines()).find_map(|name| decode_kernel(name, formats)) else {
            continue;
        };
        if found.get(&kernel).is_none_or(|known| known.products < l.products) {
            found.insert(kernel, l);
        }
    }
    Ok(found)
}

/// The short name of a function that is generic over a format and has 1 token.
fn decode_kernel(name: &str, formats: &[Format]) -> Option<Kernel> {
    // Types and numbers only: no closures, and nothing that was given a closure or an array.
    let (function, arguments) =
        name.strip_suffix('>')?.split_once('<').filter(|(_, a)| !a.contains(['<', '[', '{']))?;
    let arguments: Vec<_> = arguments.split(", ").map(|a| a.rsplit("::").next().unwrap_or(a)).collect();
    // A format's type is named as the format is, without the underscores that Rust would not have.
    let plain = |name: &str| name.replace('_', "").to_ascii_lowercase();
    let format = formats.iter().position(|f| arguments.iter().any(|a| plain(a) == plain(&f.name)))?;
    let kernel = format!("{function}<{}>", arguments.join(", "));
    let decodes = arguments.contains(&"1") && !arguments.contains(&"Scalar") && !function.starts_with('{');
    decodes.then_some((kernel, format))
}

fn table(loops: &BTreeMap<Kernel, Loop>, formats: &[Format]) -> Result<String, Failed> {
    let mut text = format!(
        "Bytes of weights per cycle when all data is in the first-level cache; – where the core lacks an instruction.\n\n\
         | kernel | instructions | weights | {} |\n|---|---:|---:|{}\n",
        CPUS.join(" | "),
        "---:|".repeat(CPUS.len())
    );
    for ((kernel, format), l) in loops {
        text += &format!("| `{kernel}` | {} | {} |", l.addresses.len(), l.products);
        for cpu in CPUS {
            let bytes = f64::from(l.products * formats[*format].bytes_of_256) / 256.0;
            let rate = cycles(cpu, &l.source)?.map(|cycles| bytes * f64::from(PASSES) / cycles);
            text += &rate.map_or(" – |".into(), |rate| format!(" {rate:.2} |"));
        }
        text.push('\n');
    }
    Ok(text)
}

/// Cycles of [`PASSES`] passes; none when the core cannot run them.
fn cycles(cpu: &str, source: &str) -> Result<Option<f64>, Failed> {
    let mut mca = Command::new(MCA);
    mca.args(["--mtriple=aarch64", "--mcpu", cpu, "--iterations", &PASSES.to_string()]);
    mca.args(["--instruction-info=false", "--resource-pressure=false"]);
    let path = root().join("target/mca/loop.s");
    std::fs::write(&path, source).map_err(|e| Failed(format!("{}: {e}", path.display())))?;
    let result = mca.arg(&path).stderr(Stdio::piped()).output().map_err(|e| Failed(format!("llvm-mca: {e}")))?;
    let (text, errors) = (String::from_utf8_lossy(&result.stdout), String::from_utf8_lossy(&result.stderr));
    match text.split_once("Total Cycles:").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok()) {
        Some(cycles) if result.status.success() => Ok(Some(cycles)),
        _ if errors.contains("instruction requires") => Ok(None),
        _ => Err(Failed(format!("llvm-mca for {cpu}: {}", errors.trim()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_kernels_are_told_by_their_type_arguments() {
        let formats = ["q4_0", "f16", "iq4_nl"].map(|name| Format {
            name: name.into(),
            bytes_of_256: 144,
            packs: false,
            is_float: false,
        });
        let decode_kernel = |name| decode_kernel(name, &formats);
        let name = "quantised_tile<armlet::arch::generic::matmul::Q4_0, armlet::arch::aarch64::neon::Neon, 1, 18>";
        assert_eq!(decode_kernel(name), Some(("quantised_tile<Q4_0, Neon, 1, 18>".into(), 0)));
        assert_eq!(
            decode_kernel("tile<a::rows::F16, a::neon::Neon, 1, 16>"),
            Some(("tile<F16, Neon, 1, 16>".into(), 1))
        );
        assert_eq!(decode_kernel("tile<a::Iq4Nl, a::Neon, 1>"), Some(("tile<Iq4Nl, Neon, 1>".into(), 2)));
        for other in [
            "tile<a::rows::Q4_0, a::neon::Neon, 4, 18>",
            "tile<a::rows::Q4_0, a::scalar::Scalar, 1, 18>",
            "{closure#6}<a::rows::Q4_0, a::neon::Neon, 1, 18>",
            "call_mut<&[u8; 18], (usize), a::tile::{closure_env#1}<a::rows::Q4_0, a::neon::Neon, 1, 18>>",
            "/src/arch/generic/matmul.rs:138:28",
        ] {
            assert_eq!(decode_kernel(other), None, "{other}");
        }
    }
}
