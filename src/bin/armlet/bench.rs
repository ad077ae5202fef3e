//! `armlet bench`: llama-bench's tests pp and tg, its table and its JSON keys, and the fraction of the memory bandwidth
//! that decode reaches.

use std::path::Path;
use std::time::Instant;

use armlet::engine::{Config, Pattern, Plan};
use armlet::model::{Layer, Model};
use armlet::storage::Executor;

use crate::args::{Bench, Output};
use crate::bandwidth::Buffer;
use crate::clock;
use crate::doctor::system::System;
use crate::error::{Failure, print};
use crate::inspect;
use crate::interrupt;
use crate::model::{Loaded, Runner, kernels, session_memory, shared_plan, with_model};
use crate::progress::steps;
use crate::{bench_mha, bench_output, bench_report};

/// One test: prompt tokens and then generated tokens, behind so many others.
#[derive(Clone, Copy, Debug)]
struct Test {
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
}

impl Test {
    /// What the options ask for, in llama-bench's order.
    fn all(args: &Bench) -> Vec<Self> {
        let at = |n_depth: usize| {
            let prompts = args.n_prompt.iter().map(|n| (*n, 0));
            let answers = args.n_gen.iter().map(|n| (0, *n));
            let tests = prompts.chain(answers).chain(args.n_prompt_gen.iter().copied());
            tests.filter(|test| *test != (0, 0)).map(move |(n_prompt, n_gen)| Test { n_prompt, n_gen, n_depth })
        };
        args.n_depth.iter().flat_map(|depth| at(*depth)).collect()
    }

    fn tokens(self) -> usize {
        self.n_prompt + self.n_gen
    }

    fn name(self) -> String {
        let test = match self {
            Test { n_gen: 0, n_prompt, .. } => format!("pp{n_prompt}"),
            Test { n_prompt: 0, n_gen, .. } => format!("tg{n_gen}"),
            Test { n_prompt, n_gen, .. } => format!("pp{n_prompt}+tg{n_gen}"),
        };
        if self.n_depth > 0 { format!("{test} @ d{}", self.n_depth) } else { test }
    }
}

/// A test, and the time of each repetition.
struct Row {
    test: Test,
    samples_ns: Vec<u64>,
}

impl Row {
    fn rates(&self) -> Vec<f64> {
        self.samples_ns.iter().map(|ns| self.test.tokens() as f64 * 1e9 / *ns as f64).collect()
    }
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

fn deviation(x: &[f64]) -> f64 {
    let mean = mean(x);
    let squares: f64 = x.iter().map(|x| (x - mean).powi(2)).sum();
    if x.len() > 1 { (squares / (x.len() - 1) as f64).sqrt() } else { 0.0 }
}

/// What was measured of one model.
struct Run {
    /// Architecture, size and main format.
    kind: String,
    bytes: u64,
    parameters: u64,
    path: String,
    backend: &'static str,
    threads: usize,
    rows: Vec<Row>,
    reads: Reads,
    /// When it began, as in RFC 3339.
    began: String,
    /// Of the first core.
    governor: Option<String>,
    /// At its end, in °C.
    temperature: Option<f64>,
    /// The flags of the Raspberry Pi's firmware.
    throttled: Option<u32>,
}

pub(crate) fn run(args: &Bench) -> Result<(), Failure> {
    interrupt::catch()?;
    let models = args.models.each();
    if args.compare_mha {
        let [model] = models.as_slice() else {
            return Err(Failure::Usage("--compare-mha takes one model".into()));
        };
        if !matches!(args.output, Output::Md | Output::Json) {
            return Err(Failure::Usage("--compare-mha writes md and json".into()));
        }
        return with_model(model, |loaded| bench_mha::run(loaded, args));
    }
    let tests = Test::all(args);
    if tests.is_empty() {
        return Err(Failure::Usage("nothing to measure: -p and -n are both 0".into()));
    }
    let before = args.report.then(|| System::read(Path::new("/")));
    let runs = models.iter().map(|model| with_model(model, |loaded| one(loaded, args, &tests)));
    let runs = runs.collect::<Result<Vec<_>, Failure>>()?;
    match (before, args.output) {
        (Some(before), _) => {
            let (after, kernels) = (System::read(Path::new("/")), kernels()?);
            print(bench_report::text(&before, &after, kernels.backend(), &markdown(&runs)).as_bytes())
        }
        (None, Output::Md) => print(markdown(&runs).as_bytes()),
        (None, output) => {
            let objects = runs.iter().flat_map(|run| run.rows.iter().map(|row| json(run, args, row)));
            bench_output::print_all(output, objects.collect())
        }
    }
}

fn one(loaded: &Loaded<'_>, args: &Bench, tests: &[Test]) -> Result<Run, Failure> {
    let context = tests.iter().map(|test| test.n_depth.saturating_add(test.tokens())).max().unwrap_or(0);
    let config = Config { context, chunk: args.chunk, pattern: Pattern::Full, ..args.kv.config() };
    let plan = shared_plan(loaded, &config)?;
    let began = clock::utc().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    // Before and after, because other load on the machine comes and goes. What several boards read together is none's.
    let is_measured = tests.iter().any(|test| test.n_gen > 0) && !loaded.boards.are_several();
    let buffer = if is_measured { Buffer::new(&loaded.pool, None) } else { None };
    let before = buffer.as_ref().map(|b| b.read(&loaded.pool));
    let rows = measure(loaded, args, tests, &plan)?;
    let bandwidth = buffer.map(|b| b.read(&loaded.pool)).into_iter().chain(before).reduce(f64::max);
    let (summary, system) = (inspect::Summary::new(loaded.file), System::read(Path::new("/")));
    Ok(Run {
        kind: summary.kind(),
        bytes: summary.bytes,
        parameters: summary.parameters,
        path: loaded.path.display().to_string(),
        backend: loaded.kernels.backend().name(),
        threads: loaded.pool.workers(),
        rows,
        reads: Reads { bandwidth, token: bytes_per_token(&loaded.model) },
        began,
        governor: system.cores.first().and_then(|core| core.governor.clone()),
        temperature: system.temperature,
        throttled: system.throttled,
    })
}

fn measure(loaded: &Loaded<'_>, args: &Bench, tests: &[Test], plan: &Plan) -> Result<Vec<Row>, Failure> {
    let h = &loaded.model.hparams;
    let mut memory = session_memory(plan)?;
    let mut runner = Runner::new(loaded, plan, &mut memory)?;
    // Arbitrary tokens, as in llama-bench: the time does not depend on them.
    let token = |i: usize| ((i * 7919 + 13) % h.vocab) as u32;
    let mut rows = Vec::new();
    for test in tests.iter().copied() {
        let Test { n_prompt, n_gen, n_depth } = test;
        let (before, prompt): (Vec<_>, Vec<_>) =
            ((0..n_depth).map(token).collect(), (n_depth..n_depth + n_prompt).map(token).collect());
        if n_depth > 0 {
            runner.session.rewind(0)?;
            runner.eval_or_stop(&before)?;
        }
        let mut samples_ns = Vec::new();
        // Drawn between repetitions, so that it takes no time of them.
        let bar = steps(u64::from(args.repetitions) + 1, if n_gen == 0 { "reading a prompt" } else { "generating" });
        bar.tick();
        for repetition in 0..=args.repetitions {
            runner.session.rewind(n_depth as u64)?;
            let start = Instant::now();
            if n_prompt > 0 {
                runner.eval_or_stop(&prompt)?;
            }
            for i in n_depth + n_prompt..n_depth + n_prompt + n_gen {
                runner.eval_or_stop(&[token(i)])?;
            }
            if repetition > 0 {
                samples_ns.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1));
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        rows.push(Row { test, samples_ns });
    }
    Ok(rows)
}

/// Memory bandwidth, and what decode reads.
struct Reads {
    /// Bytes per second that this machine can read; `None` if that was not measured.
    bandwidth: Option<f64>,
    /// Bytes of weights read for each token.
    token: usize,
}

impl Reads {
    /// The fraction of the bandwidth that decode alone reaches; the KV cache is not counted.
    fn fraction(&self, row: &Row) -> Option<f64> {
        let bandwidth = self.bandwidth.filter(|_| row.test.n_gen > 0 && row.test.n_prompt == 0)?;
        Some(self.token as f64 * mean(&row.rates()) / bandwidth)
    }
}

/// Each matrix is read once per token; of the embedding only one row, unless it is also the output head.
pub(crate) fn bytes_per_token(model: &Model<'_>) -> usize {
    let w = &model.weights;
    let layers = w.layers.iter().map(Layer::bytes).sum::<usize>();
    layers + w.output.weight.bytes().len() + w.output.bias.len() + w.output_norm.weight.len() + w.output_norm.bias.len()
}

fn markdown(runs: &[Run]) -> String {
    let mut out = String::from("| model | size | params | backend | threads | test | t/s |\n");
    out += "| --- | ---: | ---: | --- | ---: | --- | ---: |\n";
    for (run, row) in runs.iter().flat_map(|run| run.rows.iter().map(move |row| (run, row))) {
        let rates = row.rates();
        out += &format!(
            "| {} | {:.2} MiB | {:.2} M | {} | {} | {} | {:.2} ± {:.2} |\n",
            run.kind,
            run.bytes as f64 / f64::from(1 << 20),
            run.parameters as f64 / 1e6,
            run.backend,
            run.threads,
            row.test.name(),
            mean(&rates),
            deviation(&rates),
        );
    }
    for run in runs {
        let decode = run.rows.iter().find_map(|row| Some((row.test.name(), run.reads.fraction(row)?)));
        if let Some(((test, fraction), bandwidth)) = decode.zip(run.reads.bandwidth) {
            let model = if runs.len() > 1 { format!(" ({})", run.kind) } else { String::new() };
            let (bandwidth, token) = (bandwidth / 1e9, run.reads.token as f64 / 1e6);
            out += &format!(
                "\nmemory{model}: these threads read {bandwidth:.1} GB/s; {test} reaches {fraction:.2} of it, {token:.1} MB \
                 of weights a token\n"
            );
        }
    }
    out
}

fn json(run: &Run, args: &Bench, row: &Row) -> serde_json::Value {
    let ns: Vec<f64> = row.samples_ns.iter().map(|ns| *ns as f64).collect();
    let rates = row.rates();
    let measured = serde_json::json!({
        "build_commit": bench_report::COMMIT.unwrap_or("unknown"),
        "build_number": 0,
        "cpu_info": cpu_info(),
        "gpu_info": "",
        "backends": run.backend,
        "model_filename": run.path,
        "model_type": run.kind,
        "model_size": run.bytes,
        "model_n_params": run.parameters,
        "n_batch": args.chunk,
        "n_ubatch": args.chunk,
        "n_threads": run.threads,
        "type_k": args.kv.kv_type.name(),
        "type_v": args.kv.kv_type.name(),
        "n_prompt": row.test.n_prompt,
        "n_gen": row.test.n_gen,
        "n_depth": row.test.n_depth,
        "test": row.test.name(),
        "avg_ns": mean(&ns),
        "stddev_ns": deviation(&ns),
        "avg_ts": mean(&rates),
        "stddev_ts": deviation(&rates),
        "samples_ns": row.samples_ns,
        "samples_ts": rates,
        "read_bandwidth": run.reads.bandwidth,
        "bytes_per_token": run.reads.token,
        "bandwidth_fraction": run.reads.fraction(row),
        "test_time": run.began,
        "governor": run.governor,
        "temperature": run.temperature,
        "throttled": run.throttled,
    });
    let more = bench_output::of_llama_bench(if args.models.no_mmap() { "none" } else { "mmap" });
    [measured, more].into_iter().filter_map(|part| part.as_object().cloned()).flatten().collect()
}

/// The CPU's name, where Linux says it.
fn cpu_info() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = |line: &str| line.split_once(':').map(|(_, v)| v.trim().to_string());
    info.lines().find(|l| l.starts_with("model name") || l.starts_with("Model")).and_then(name).unwrap_or_default()
}
