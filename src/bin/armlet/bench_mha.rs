//! `armlet bench --compare-mha`: grouped-query attention against multi-head attention, on the same model with its KV heads
//! repeated for each query head.
//!
//! Both compute the same logits, so only memory and time differ: how many sessions fit in a budget, and tokens per second
//! of one session, of eight in turn, and of eight in a batch.

use std::time::Instant;

use armlet::engine::{Config, Engine, Plan, Session};
use armlet::host::memory;
use armlet::model::{Hparams, Layer, Linear, Model, Weights};
use armlet::quant::{Layout, Matrix};
use armlet::storage::Executor;

use crate::args::{Bench, Output};
use crate::error::{Failure, print};
use crate::interrupt;
use crate::model::{Loaded, session_memory, stopped};
use crate::progress::steps;

const DEPTHS: [usize; 3] = [128, 512, 2048];
const SESSIONS: usize = 8;

/// Bytes of one layer whose KV heads are repeated.
struct LayerCopy {
    k: Vec<u8>,
    v: Vec<u8>,
    k_bias: Vec<u8>,
    v_bias: Vec<u8>,
}

/// Those of all layers.
struct Copies(Vec<LayerCopy>);

/// Repeats each of `heads` equal parts `group` times.
fn repeated(bytes: &[u8], heads: usize, group: usize) -> Vec<u8> {
    let part = (bytes.len() / heads).max(1);
    bytes.chunks(part).flat_map(|head| std::iter::repeat_n(head, group)).flatten().copied().collect()
}

impl Copies {
    fn new(model: &Model<'_>) -> Result<Self, Failure> {
        let (heads, group) = (model.hparams.n_kv_heads, model.hparams.group());
        let layers = model.weights.layers;
        if layers.iter().any(|l| !l.k_norm.is_empty()) {
            return Err(Failure::Error("--compare-mha cannot use a model that normalises keys".into()));
        }
        if layers.iter().any(|l| [l.k.weight, l.v.weight].iter().any(|m| m.layout() != Layout::Rows)) {
            return Err(Failure::Error("--compare-mha cannot use a packed file; give the original one".into()));
        }
        let copy = |bytes: &[u8]| repeated(bytes, heads, group);
        let layer = |l: &Layer<'_>| LayerCopy {
            k: copy(l.k.weight.bytes()),
            v: copy(l.v.weight.bytes()),
            k_bias: copy(l.k.bias),
            v_bias: copy(l.v.bias),
        };
        Ok(Copies(layers.iter().map(layer).collect()))
    }

    fn layers<'m>(&'m self, model: &Model<'m>) -> Option<Vec<Layer<'m>>> {
        let h = &model.hparams;
        let matrix = |m: &Matrix<'_>, data: &'m [u8]| {
            Matrix::new_checked(m.dtype(), Layout::Rows, h.n_heads * h.head.dim, h.n_embd, data)
        };
        let layers = model.weights.layers.iter().zip(&self.0).map(|(l, copy)| {
            let k = Linear { weight: matrix(&l.k.weight, &copy.k)?, bias: &copy.k_bias };
            Some(Layer { k, v: Linear { weight: matrix(&l.v.weight, &copy.v)?, bias: &copy.v_bias }, ..*l })
        });
        layers.collect()
    }
}

/// Tokens per second at a depth, for one session and for [`SESSIONS`].
struct Row {
    depth: usize,
    alone: f64,
    in_turn: f64,
    batch: f64,
}

impl Row {
    /// Keeps the faster of two measurements.
    fn keep_faster(&mut self, other: &Row) {
        self.alone = self.alone.max(other.alone);
        self.in_turn = self.in_turn.max(other.in_turn);
        self.batch = self.batch.max(other.batch);
    }
}

/// The measurements of a kind of attention.
struct Side {
    name: &'static str,
    session: usize,
    rows: Vec<Row>,
    logits: Vec<u32>,
}

pub(crate) fn run(loaded: &Loaded<'_>, args: &Bench) -> Result<(), Failure> {
    let h = &loaded.model.hparams;
    let copies = Copies::new(&loaded.model)?;
    let layers =
        copies.layers(&loaded.model).ok_or_else(|| Failure::Error("the KV heads cannot be repeated".into()))?;
    let mha = Model {
        hparams: Hparams { n_kv_heads: h.n_heads, ..*h },
        weights: Weights { layers: &layers, ..loaded.model.weights },
        tokenizer: loaded.model.tokenizer,
    };
    let mut depths: Vec<usize> = DEPTHS.into_iter().filter(|d| d + 64 <= h.context_length).collect();
    if depths.is_empty() {
        depths.push((h.context_length / 2).max(1));
    }
    let sides = [("MHA", &mha), ("GQA, as trained", &loaded.model)];
    let sides = sides.into_iter().map(|(name, model)| side(name, model, loaded, args, &depths));
    let sides = sides.collect::<Result<Vec<_>, _>>()?;
    let [a, b] = &sides[..] else { return Ok(()) };
    if a.logits != b.logits {
        return Err(Failure::Error(
            "grouped-query and multi-head attention gave different logits; this is a bug in armlet".into(),
        ));
    }
    // What eight sessions of multi-head attention take.
    let budget = b.session * SESSIONS * h.group();
    let text = match args.output {
        Output::Md => markdown(&sides, budget),
        _ => {
            let side = |s: &Side| {
                let row = |r: &Row| serde_json::json!({ "depth": r.depth, "alone_ts": r.alone, "in_turn_ts": r.in_turn, "batch_ts": r.batch });
                let rows: Vec<_> = s.rows.iter().map(row).collect();
                serde_json::json!({ "attention": s.name, "session_bytes": s.session, "sessions": budget / s.session,
                                    "depths": rows })
            };
            let sides: Vec<_> = sides.iter().map(side).collect();
            format!("{:#}\n", serde_json::json!({ "kv_budget": budget, "sides": sides, "identical_logits": true }))
        }
    };
    print(text.as_bytes())
}

fn markdown(sides: &[Side], budget: usize) -> String {
    let mut out = format!("The logits of both have the same bits. KV budget: {budget} bytes.\n\n");
    out += "| attention | bytes of a session | sessions | depth | t/s, one | t/s, eight in turn | t/s, eight in a batch |\n";
    out += "|---|---:|---:|---:|---:|---:|---:|\n";
    for s in sides {
        for r in &s.rows {
            out += &format!(
                "| {} | {} | {} | {} | {:.1} | {:.1} | {:.1} |\n",
                s.name,
                s.session,
                budget / s.session,
                r.depth,
                r.alone,
                r.in_turn,
                r.batch
            );
        }
    }
    out
}

fn side(
    name: &'static str,
    model: &Model<'_>,
    loaded: &Loaded<'_>,
    args: &Bench,
    depths: &[usize],
) -> Result<Side, Failure> {
    let context = (depths.last().copied().unwrap_or(64) + 64).min(model.hparams.context_length);
    let config = Config { context, chunk: args.chunk.max(SESSIONS), logit_rows: SESSIONS, ..args.kv.config() };
    let plan = Plan::new(&model.hparams, &config)?;
    let mut work = session_memory(&plan)?;
    let fail = |e: std::io::Error| Failure::new("cannot allocate eight sessions", e);
    let mut rooms = (0..SESSIONS).map(|_| memory(plan.session_bytes())).collect::<Result<Vec<_>, _>>().map_err(fail)?;
    let mut engine = Engine::new(model, loaded.kernels, &plan, &mut work[..plan.engine_bytes()])?;
    let sessions = rooms.iter_mut().map(|room| Session::new(model, &plan, room));
    let mut sessions = sessions.collect::<Result<Vec<_>, _>>()?;
    let (mut rows, mut logits) = (Vec::new(), Vec::new());
    let exec: &dyn Executor = &loaded.pool;
    let token = |i: usize| ((i * 7919 + 13) % model.hparams.vocab) as u32;
    let bar = steps(depths.len() as u64 * (u64::from(args.repetitions) + 1), "measuring");
    for depth in depths {
        bar.tick();
        // One session is prefilled, the others are restored from it.
        let read = sessions[0].position() as usize;
        let prompt: Vec<u32> = (read..*depth).map(token).collect();
        let mut keep_going = || interrupt::stop().is_ok();
        let last = engine.eval_while(exec, &mut sessions[0], &prompt, &mut keep_going).map_err(stopped)?;
        logits.extend(last.iter().map(|x| x.to_bits()));
        let mut saved = Vec::new();
        sessions[0].save(&[], |part| -> Result<(), Failure> {
            saved.extend_from_slice(part);
            Ok(())
        })?;
        for session in &mut sessions[1..] {
            session.restore(&saved).map_err(|e| Failure::new("a copy of a session", e))?;
        }
        let mut fastest = Row { depth: *depth, alone: 0.0, in_turn: 0.0, batch: 0.0 };
        for repetition in 0..=args.repetitions {
            interrupt::stop()?;
            let (start, tokens) = (Instant::now(), 16);
            for i in 0..tokens {
                engine.eval(exec, &mut sessions[0], &[token(i)])?;
            }
            let alone = tokens as f64 / start.elapsed().as_secs_f64();
            let start = Instant::now();
            for i in 0..2 {
                for session in &mut sessions {
                    engine.eval(exec, session, &[token(i)])?;
                }
            }
            let in_turn = (2 * SESSIONS) as f64 / start.elapsed().as_secs_f64();
            let start = Instant::now();
            for i in 0..2 {
                let mut batch: Vec<_> = sessions.iter_mut().collect();
                let rows = engine.step(exec, &mut batch, &[token(i); SESSIONS])?;
                if repetition == 0 {
                    logits.extend(rows.iter().map(|x| x.to_bits()));
                }
            }
            let batch = (2 * SESSIONS) as f64 / start.elapsed().as_secs_f64();
            // The first warms up.
            if repetition > 0 {
                fastest.keep_faster(&Row { depth: *depth, alone, in_turn, batch });
            }
            sessions.iter_mut().try_for_each(|s| s.rewind(*depth as u64))?;
            bar.inc(1);
        }
        rows.push(fastest);
    }
    bar.finish_and_clear();
    Ok(Side { name, session: plan.session_bytes(), rows, logits })
}

#[cfg(test)]
mod tests {
    #[test]
    fn heads_are_repeated_in_place() {
        assert_eq!(super::repeated(b"aabbcc", 3, 2), b"aaaabbbbcccc");
        assert_eq!(super::repeated(b"", 3, 2), b"");
    }
}
