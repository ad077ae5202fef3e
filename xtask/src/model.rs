//! What the real model must say and score, on every backend and every core.
//!
//! The reference perplexities are llama.cpp's, of the same weights on the same text with the same protocol.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::process::{Failed, Steps, cargo, in_parallel, outcome, output, outputs, root, say};
use crate::qemu::CPUS;
use crate::setup::LINUX;

/// The text: GPL version 3, which Debian ships with its common licences.
pub(crate) const TEXT: &str = "/usr/share/common-licenses/GPL-3";
const TEXT_SHA256: &str = "3972dc9744f6499f0f9b2dbf76696f2ae7ad8af9b23dde66d6af86c9dfb36986";
const CHUNKS: f64 = 14.0;

/// Format and llama.cpp's perplexity; the first as the model is shipped, the others requantised from it.
const REFERENCE: [(&str, f64); 3] = [("q4_1", 18.3914), ("f16", 18.3022), ("q8_0", 18.3500)];
/// Largest relative difference from llama.cpp.
const TO_LLAMA_CPP: f64 = 0.003;
/// Presets of llama-quantize and llama.cpp's perplexity of its file, made of the F16 model.
const PRESETS: [(&str, f64); 5] =
    [("Q4_K_M", 19.0662), ("Q5_K_M", 20.0911), ("Q6_K", 18.4501), ("Q5_0", 19.4897), ("IQ4_NL", 21.2911)];
/// Largest relative difference between a preset's perplexity and that of its weights in F32, whose inputs are not rounded to
/// int8: rounding them alone costs half a percent and more (`benches/record/perplexity.md`). And how far it may be above
/// llama.cpp's.
const TO_F32: f64 = 0.008;
const ABOVE_LLAMA_CPP: f64 = 0.005;
/// Largest relative difference between backends. They give the same bits, but for a few tokens and F16 weights.
const TO_SCALAR: f64 = 0.001;
/// What an emulated core scores: one short chunk, on one thread, eight tokens a pass.
const ONE_CHUNK: [&str; 6] = ["--chunks", "1", "-t", "1", "--rows", "8"];
/// Formats that are scored there: as the model is shipped; and that which some cores multiply in binary16.
const ON_CORES: [&str; 2] = [REFERENCE[0].0, "f16"];

pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    steps.step("the text to score", check_text)?;
    let backends = ["scalar", if cfg!(target_arch = "x86_64") { "avx2" } else { "neon" }];
    for backend in backends {
        steps.step(&format!("an answer on {backend}"), || answers(|c| c.env("ARMLET_CPU", backend), None))?;
    }
    let deep = steps.deep;
    // The gate has the format that is shipped; its program, with every check on, takes a minute for floats.
    for (format, reference) in REFERENCE.into_iter().filter(|(format, _)| deep || *format == ON_CORES[0]) {
        steps.step(&format!("perplexity of {format}"), || compare_to_llama_cpp(format, reference))?;
    }
    for (preset, reference) in PRESETS.into_iter().filter(|_| deep) {
        steps.step(&format!("perplexity of {preset} beside F32"), || compare_to_f32(preset, reference))?;
    }
    steps.step("resident memory", resident_memory)?;
    if deep {
        // A change of either shows in the hashes of logits, of every cache.
        steps.step("an int8 cache beside fp16", int8_cache)?;
        steps.step("a stream beside chunks, and without sinks", stream)?;
    }
    steps.step("the program for aarch64", build_for_aarch64)?;
    steps.step("an answer on emulated cores", || {
        let cpus: Vec<&str> = CPUS.iter().map(|(cpu, _)| *cpu).filter(|cpu| deep || *cpu != "cortex-a72").collect();
        in_parallel(&cpus, |cpu| answer_on_core(cpu)).map(drop)
    })?;
    steps.step("one chunk on every backend and core", || one_chunk_everywhere(deep))
}

/// Builds the program for aarch64: in the gate with what is tested there, which asks more features of some dependencies, so
/// that the library is compiled once for both.
pub(crate) fn build_for_aarch64() -> Result<(), Failed> {
    match is_only_test() {
        true => cargo(&[&["test", "--no-run", "--target", LINUX][..], &EMULATED].concat()),
        false => cargo(&["build", "--release", "--target", LINUX]),
    }
}

/// A model that `armlet pull` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    SmolLm2,
    Gemma3,
}

impl Known {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Known::SmolLm2 => "smollm2",
            Known::Gemma3 => "gemma3-270m",
        }
    }

    /// Its file.
    pub(crate) fn file(self) -> Result<PathBuf, Failed> {
        Ok(PathBuf::from(output(native().args(["pull", self.name()]))?.trim()))
    }

    /// A question as its chat format has it.
    fn turn(self, question: &str) -> String {
        match self {
            Known::SmolLm2 => format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"),
            Known::Gemma3 => format!("<start_of_turn>user\n{question}<end_of_turn>\n<start_of_turn>model\n"),
        }
    }
}

/// The token ids of a question and those of its greedy answer, as the program for this machine has them.
pub(crate) fn greedy_ids(known: Known, question: &str, n: usize) -> Result<[String; 2], Failed> {
    let (file, prompt) = (known.file()?, known.turn(question));
    let run = |args: &[&str]| output(native().env("ARMLET_MODEL", &file).args(args));
    let ids = |text: &str, more: &[&str]| -> Result<String, Failed> {
        let listed = run(&[&["tokenize", "--ids", "-p", text], more].concat())?;
        Ok(listed.trim().trim_matches(['[', ']']).replace(',', ""))
    };
    let answer = run(&["complete", "--parse-special", "-p", &prompt, "-n", &n.to_string(), "--temp", "0"])?;
    Ok([ids(&prompt, &[])?, ids(answer.trim_end(), &["--no-bos", "--no-parse-special"])?])
}

fn check_text() -> Result<(), Failed> {
    let sum = output(Command::new("sha256sum").arg(TEXT))?;
    if sum.starts_with(TEXT_SHA256) {
        return Ok(());
    }
    Err(Failed(format!("{TEXT} is not the text that the reference figures are of: sha256 {sum}")))
}

/// The profile of programs for aarch64 that are tested and not measured.
pub(crate) const TESTED: &str = "ci";

/// What emulated cores run, built by one command, because a second one would wait for it: the tests of the library and of the
/// hashes of logits, and the program with them, without the server and grammars, which have no code of their own for a CPU.
pub(crate) const EMULATED: [&str; 8] =
    ["--lib", "--test", "logit_hashes", "--profile", TESTED, "--no-default-features", "--features", "cli,capi"];

/// Whether the gate says that programs are tested, and not measured.
static ONLY_TEST: OnceLock<bool> = OnceLock::new();

/// Has the programs built for tests alone.
pub(crate) fn only_test() {
    ONLY_TEST.get_or_init(|| true);
}

fn is_only_test() -> bool {
    *ONLY_TEST.get_or_init(|| false)
}

/// What is tested together, so that what both need is built once: the program, and that of several boards.
pub(crate) const PACKAGES: [&str; 4] = ["--package", "armlet", "--package", "armlet-mpi"];

/// Builds the program for this machine: in the gate with its tests, every check on, so that all is compiled once.
pub(crate) fn build() -> Result<(), Failed> {
    if is_only_test() {
        cargo(&[&["test", "--no-run"], &PACKAGES[..]].concat())
    } else {
        cargo(&["build", "--release"])
    }
}

pub(crate) fn native_program() -> PathBuf {
    root().join("target").join(if is_only_test() { "debug" } else { "release" }).join("armlet")
}

/// The program on this machine.
pub(crate) fn native() -> Command {
    let mut command = Command::new(native_program());
    command.env_remove("ARMLET_CPU").env_remove("ARMLET_MODEL");
    command
}

pub(crate) fn aarch64_program() -> PathBuf {
    root().join("target").join(LINUX).join(if is_only_test() { TESTED } else { "release" }).join("armlet")
}

/// The program for aarch64 on an emulated core.
fn emulated(cpu: &str) -> Command {
    let mut command = Command::new("qemu-aarch64");
    command.args(["-cpu", cpu]).arg(aarch64_program());
    command
}

fn answers(set: impl FnOnce(&mut Command) -> &mut Command, cpu: Option<&str>) -> Result<(), Failed> {
    let mut command = cpu.map_or_else(native, emulated);
    set(&mut command);
    let text = output(command.args(["complete", "-p", "The capital of France is", "-n", "24", "--temp", "0"]))?;
    if text.starts_with(" Paris.") { Ok(()) } else { Err(Failed(format!("the answer begins {text:?}"))) }
}

/// Perplexity and the number of chunks that it is of.
fn perplexity(command: &mut Command, args: &[&str]) -> Result<(f64, f64), Failed> {
    let json = output(command.args(["perplexity", "--json", "-f", TEXT]).args(args))?;
    number(&json, "ppl").zip(number(&json, "chunks")).ok_or(Failed(format!("no perplexity in {json:?}")))
}

/// The number of a key in a flat JSON object.
pub(crate) fn number(json: &str, key: &str) -> Option<f64> {
    let (_, rest) = json.split_once(&format!("\"{key}\":"))?;
    rest.split([',', '}']).next()?.trim().parse().ok()
}

fn close(what: &str, found: f64, expected: f64, bound: f64) -> Result<(), Failed> {
    let difference = found / expected - 1.0;
    say(format!("    {what}: {found:.4}, reference {expected:.4}, {:+.3} %", difference * 100.0));
    if difference.abs() <= bound {
        return Ok(());
    }
    Err(Failed(format!("{what} is {found:.4}, more than {} % from {expected:.4}", bound * 100.0)))
}

fn compare_to_llama_cpp(format: &str, reference: f64) -> Result<(), Failed> {
    let mut command = native();
    command.env("ARMLET_MODEL", in_format(format)?);
    let (found, chunks) = perplexity(&mut command, &["-c", "512"])?;
    if chunks != CHUNKS {
        return Err(Failed(format!("the text has {chunks} chunks, not {CHUNKS}: the tokens differ")));
    }
    close(&format!("perplexity of {format}"), found, reference, TO_LLAMA_CPP)
}

/// What is written by a mix scores as its weights do in F32, and no worse than in llama.cpp.
fn compare_to_f32(preset: &str, reference: f64) -> Result<(), Failed> {
    let quantize =
        |from: &Path, to: &Path, kind: &str| output(native().arg("quantize").args([from, to]).args(["--type", kind]));
    let source = in_format("f16")?;
    let file = made(&format!("smollm2-{preset}.gguf"), |path| quantize(&source, path, preset))?;
    // Half a gigabyte, of which one is enough.
    let floats = root().join("target/smollm2-f32.gguf");
    quantize(&file, &floats, "F32")?;
    let score = |path: &Path| Ok::<_, Failed>(perplexity(native().env("ARMLET_MODEL", path), &["-c", "512"])?.0);
    let (found, expected) = (score(&file)?, score(&floats)?);
    let what = format!("perplexity of {preset}");
    close(&format!("{what} beside F32"), found, expected, TO_F32)?;
    say(format!("    {what} in llama.cpp {reference:.4}, here {:+.3} %", (found / reference - 1.0) * 100.0));
    if found <= reference * (1.0 + ABOVE_LLAMA_CPP) {
        return Ok(());
    }
    Err(Failed(format!("{what} is {found:.4}, more than {} % above {reference:.4}", ABOVE_LLAMA_CPP * 100.0)))
}

/// The model as it is shipped.
pub(crate) fn shipped() -> Result<PathBuf, Failed> {
    Known::SmolLm2.file()
}

/// The model in a format: as it is shipped, or made of that by the program.
pub(crate) fn in_format(format: &str) -> Result<PathBuf, Failed> {
    let shipped = shipped()?;
    if format == REFERENCE[0].0 {
        return Ok(shipped);
    }
    made(&format!("smollm2-{format}.gguf"), |path| {
        output(native().args(["quantize", "--allow-requantize"]).arg(shipped).arg(path).args(["--type", format]))
    })
}

/// A model of random weights in a format, all matrices alike.
pub(crate) fn random(format: &str) -> Result<PathBuf, Failed> {
    let floats = made("random-f16.gguf", |path| {
        let build = ["run", "--quiet", "--example", "tiny", "--", "--bench"];
        output(Command::new(env!("CARGO")).args(build).arg(path))
    })?;
    if format == "f16" {
        return Ok(floats);
    }
    made(&format!("random-{format}.gguf"), |path| {
        output(native().args(["quantize", "--pure"]).arg(floats).arg(path).args(["--type", format]))
    })
}

/// A model in a format of quants, packed.
pub(crate) fn packed(plain: &Path) -> Result<PathBuf, Failed> {
    let name = plain.file_stem().unwrap_or_default().to_string_lossy();
    made(&format!("{name}-packed.gguf"), |path| output(native().arg("pack").arg(plain).arg(path)))
}

/// The file that `make` writes, if it has not since the program was built.
fn made(name: &str, make: impl FnOnce(&Path) -> Result<String, Failed>) -> Result<PathBuf, Failed> {
    // Lists of steps that run beside each other ask for the same.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let path = root().join("target").join(name);
    let modified = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    if modified(&path) <= modified(&native_program()) {
        make(&path)?;
    }
    Ok(path)
}

/// How far an int8 cache may be from fp16: perplexity, and mean KL divergence of the probabilities.
const INT8: (f64, f64) = (0.003, 0.002);

/// Of the F16 model, whose activations are not rounded to int8, which would hide what the cache does.
fn int8_cache() -> Result<(), Failed> {
    let file = in_format("f16")?;
    let run = |args: &[&str]| {
        let mut command = native();
        command.env("ARMLET_MODEL", &file).args(["perplexity", "--json", "-f", TEXT, "-c", "512"]).args(args);
        let json = output(&mut command)?;
        let found = number(&json, "ppl").map(|ppl| (ppl, number(&json, "kl").unwrap_or(f64::NAN)));
        found.ok_or(Failed(format!("no perplexity in {json:?}")))
    };
    let (reference, _) = run(&[])?;
    for basis in [&[][..], &["--no-hadamard"]] {
        let (found, divergence) = run(&[&["--kv-type", "int8", "--kl", "f16"], basis].concat())?;
        close("perplexity with an int8 cache", found, reference, INT8.0)?;
        say(format!("    mean KL divergence {divergence:.5} {}", basis.join("")));
        if divergence.is_nan() || divergence > INT8.1 {
            return Err(Failed(format!("the mean KL divergence is {divergence}, more than {}", INT8.1)));
        }
    }
    Ok(())
}

/// A stream through a cache that is much shorter scores as well as pieces of the cache's length, and far worse without
/// its first tokens.
fn stream() -> Result<(), Failed> {
    let score = |args: &[&str]| {
        let mut command = native();
        command.env("ARMLET_MODEL", in_format(REFERENCE[0].0)?);
        Ok::<_, Failed>(perplexity(&mut command, &[&["-c", "256", "--skip", "2000"], args].concat())?.0)
    };
    let (pieces, sinks) = (score(&[])?, score(&["--stream"])?);
    let window = score(&["--stream", "--pattern", "window"])?;
    say(format!("    in pieces {pieces:.3}, as a stream {sinks:.3}, without sinks {window:.3}"));
    if sinks <= 1.03 * pieces && window >= 1.2 * sinks {
        return Ok(());
    }
    Err(Failed("the stream is too far from the pieces, or sinks make no difference".into()))
}

/// What a run of the program may have resident beside the file and the plan, in bytes: as it is released, and as it is tested, with
/// checks in every line, which is 10 MiB larger.
const BESIDE_THE_PLAN: [u64; 2] = [8 << 20, 16 << 20];

/// The most that is ever resident is the file, the plan and little more.
fn resident_memory() -> Result<(), Failed> {
    let file = in_format(REFERENCE[0].0)?;
    let size = file.metadata().map_err(|e| Failed(format!("{}: {e}", file.display())))?.len();
    let prompt = "The quick brown fox jumps over the lazy dog. ".repeat(40);
    let mut command = native();
    command.args(["complete", "-v", "-c", "512", "-n", "32", "--temp", "0", "-p", &prompt]).env("ARMLET_MODEL", &file);
    let (_, log) = outputs(&mut command)?;
    // "… KV cache of SESSION bytes, workspace of ENGINE bytes", "peak resident memory N KiB"
    let number = |before: &str| {
        let (_, rest) = log.split_once(before)?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    let found = number("KV cache of ").zip(number("workspace of ")).zip(number("peak resident memory "));
    let ((session, engine), peak) = found.ok_or_else(|| Failed(format!("no figures in {log:?}")))?;
    let (plan, peak) = (session + engine, peak * 1024);
    say(format!("    file {size}, plan {plan}, peak resident {peak} bytes"));
    if peak <= size + plan + BESIDE_THE_PLAN[usize::from(is_only_test())] {
        return Ok(());
    }
    Err(Failed(format!("{peak} bytes were resident, {} more than the file and the plan", peak - size - plan)))
}

/// One chunk on the scalar backend, the best one here, and emulated cores, whose scores are all the same but for products
/// of binary16.
fn one_chunk_everywhere(deep: bool) -> Result<(), Failed> {
    // That products in binary16 stay within the bound shows in full size; a few tokens say less of a mean.
    let formats = if deep { &ON_CORES[..] } else { &ON_CORES[..1] };
    let files = formats.iter().map(|format| in_format(format)).collect::<Result<Vec<_>, _>>()?;
    let (length, bound) = if deep { ("256", TO_SCALAR) } else { ("8", 5.0 * TO_SCALAR) };
    let score = |command: &mut Command, format: usize| {
        command.env("ARMLET_MODEL", &files[format]);
        Ok::<_, Failed>(perplexity(command, &[&["-c", length], &ONE_CHUNK[..]].concat())?.0)
    };
    // The slowest first.
    let formats: Vec<usize> = (0..files.len()).rev().collect();
    let mut scalar = in_parallel(&formats, |format| score(native().env("ARMLET_CPU", "scalar"), *format))?;
    scalar.reverse();
    // The Cortex-A72 has the backends of the A53.
    let scored = |cpu: &str| deep || cpu != "cortex-a72";
    let mut runs: Vec<_> = formats.iter().map(|format| (*format, None)).collect();
    for format in formats {
        runs.extend(CPUS.iter().filter(|(cpu, _)| scored(cpu)).map(|(cpu, _)| (format, Some(*cpu))));
    }
    in_parallel(&runs, |(format, cpu)| {
        let on = cpu.unwrap_or("the best backend here");
        let found = score(&mut cpu.map_or_else(native, emulated), *format)?;
        close(&format!("perplexity of one chunk of {} on {on}", ON_CORES[*format]), found, scalar[*format], bound)
    })
    .map(drop)
}

fn answer_on_core(cpu: &str) -> Result<(), Failed> {
    answers(|c| c, Some(cpu))?;
    if ["cortex-a53", "cortex-a72"].contains(&cpu) { refuses_what_it_lacks(cpu) } else { Ok(()) }
}

/// A core without the dot product refuses to be told that it has it.
fn refuses_what_it_lacks(cpu: &str) -> Result<(), Failed> {
    let mut command = emulated(cpu);
    let result = outcome(command.args(["complete", "-p", "Hi", "-n", "1"]).env("ARMLET_CPU", "dotprod"))?;
    let said = String::from_utf8_lossy(&result.stderr);
    if result.status.code() == Some(1) && said.contains("ARMLET_CPU=dotprod") {
        return Ok(());
    }
    Err(Failed(format!("{cpu} with ARMLET_CPU=dotprod ended with {} and said {said:?}", result.status)))
}
