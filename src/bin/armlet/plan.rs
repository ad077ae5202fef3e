//! `armlet plan`: how much memory a model needs, from its header alone, and how much it would with as many KV heads as
//! query heads (multi-head attention) or with one (multi-query attention).

use std::fmt::Write as _;

use armlet::engine::{Config, EngineError, Plan};
use armlet::model::{Hparams, Model};
use armlet::storage::Region;

use crate::args;
use crate::atomic_file::replace;
use crate::error::{Failure, print, print_json};
use crate::inspect::{bytes_of, memory_line};
use crate::model::{resolve, with_file};

/// A kind of attention, and the memory of a session with it.
struct Kind {
    name: &'static str,
    kv_heads: usize,
    /// KV cache bytes of a token.
    token: usize,
    /// Bytes of a session.
    session: usize,
    /// Sessions that fit in the budget.
    sessions: usize,
    /// What a session takes, for contexts up to the trained one.
    curve: Vec<Point>,
}

/// A point of a curve.
#[derive(Clone, Copy)]
struct Point {
    context: usize,
    /// Bytes of a session.
    session: usize,
}

/// Everything that is printed.
struct Shown {
    /// Bytes of the model's file.
    file: u64,
    tables: usize,
    context: usize,
    budget: usize,
    plan: Plan,
    regions: Vec<Region>,
    kinds: Vec<Kind>,
}

pub(crate) fn run(args: &args::Plan) -> Result<(), Failure> {
    let path = resolve(args.model.as_deref())?;
    let (file, tables, h) = with_file(&path, &args.metadata.override_kv, |source| {
        let tables = Model::required_bytes(&source.file).map_err(|e| Failure::file(&path, e))?;
        let h = Hparams::new(&source.file).map_err(|e| Failure::file(&path, e))?;
        Ok((bytes_of(source.paths), tables, h))
    })?;
    let shown = shown(&h, args, file, tables)?;
    if let Some(svg) = &args.svg {
        replace(svg, |out| out.write_all(drawing(&shown).as_bytes()))?;
    }
    if args.json { print_json(&json(&shown, args), true) } else { print(table(&shown, args).as_bytes()) }
}

fn shown(h: &Hparams, args: &args::Plan, file: u64, tables: usize) -> Result<Shown, Failure> {
    args.cache.kv.check()?;
    let (config, sessions) = (args.cache.config(), args.sessions);
    let context = match (args.cache.context, args.cache.kv_budget) {
        (Some(tokens), _) => tokens,
        (None, Some(budget)) => Plan::context_for_budget(h, &config, budget, sessions)?,
        (None, None) => config.context.min(h.context_length),
    };
    let config = args.cache.kv.with_context(config, context);
    let plan = Plan::new(h, &config)?;
    let budget = args.cache.kv_budget.unwrap_or(plan.session_bytes().saturating_mul(sessions));
    let mut regions = Vec::new();
    plan.regions(h, &mut |r| regions.push(r))?;
    let kinds = [("MHA", h.n_heads), ("GQA, as trained", h.n_kv_heads), ("MQA", 1)];
    let kinds = kinds.into_iter().map(|(name, kv_heads)| kind(name, kv_heads, h, &config, budget));
    Ok(Shown { file, tables, context, budget, plan, regions, kinds: kinds.collect::<Result<_, _>>()? })
}

fn kind(name: &'static str, kv_heads: usize, h: &Hparams, config: &Config, budget: usize) -> Result<Kind, EngineError> {
    let h = Hparams { n_kv_heads: kv_heads, ..*h };
    let session = |context| Ok::<_, EngineError>(Plan::new(&h, &Config { context, ..*config })?.session_bytes());
    let bytes = session(config.context)?;
    // Up to the context that the model was trained with.
    let contexts = (1..=64).map(|i| h.context_length * i / 64);
    let curve = contexts.filter_map(|context| Some(Point { context, session: session(context).ok()? })).collect();
    let row = |layer| h.head_of(layer).dim * config.kv.bytes() + config.kv.scale_bytes();
    let token = 2 * kv_heads * (0..h.n_layers).map(row).sum::<usize>();
    Ok(Kind { name, kv_heads, token, session: bytes, sessions: budget / bytes, curve })
}

fn table(s: &Shown, args: &args::Plan) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "| region | bytes |\n|---|---:|\n| tables of the model | {} |", s.tables);
    for r in &s.regions {
        let _ = writeln!(out, "| {} | {} |", r.name, r.bytes);
    }
    let (engine, session) = (s.plan.engine_bytes(), s.plan.session_bytes());
    let _ = writeln!(out, "| **engine** | **{engine}** |\n| **each session** | **{session}** |");
    let _ = writeln!(
        out,
        "\nContext of {} tokens; KV budget of {} bytes for {} session{}.\n",
        s.context,
        s.budget,
        args.sessions,
        if args.sessions > 1 { "s" } else { "" }
    );
    let _ =
        writeln!(out, "| attention | KV heads | bytes for a token | bytes for a session | sessions in the budget |");
    let _ = writeln!(out, "|---|---:|---:|---:|---:|");
    for k in &s.kinds {
        let _ = writeln!(out, "| {} | {} | {} | {} | {} |", k.name, k.kv_heads, k.token, k.session, k.sessions);
    }
    let _ = writeln!(out, "\n{}", memory_line(s.file, args.resident, s.tables, &s.plan, args.sessions));
    out
}

fn json(s: &Shown, args: &args::Plan) -> serde_json::Value {
    let regions: Vec<_> =
        s.regions.iter().map(|r| serde_json::json!({ "name": r.name, "offset": r.offset, "bytes": r.bytes })).collect();
    let kind = |k: &Kind| {
        serde_json::json!({ "attention": k.name, "kv_heads": k.kv_heads, "bytes_per_token": k.token,
                            "bytes_per_session": k.session, "sessions": k.sessions })
    };
    let kinds: Vec<_> = s.kinds.iter().map(kind).collect();
    serde_json::json!({ "file": s.file, "tables": s.tables, "engine": s.plan.engine_bytes(), "session": s.plan.session_bytes(),
                        "context": s.context, "kv_budget": s.budget, "asked_sessions": args.sessions,
                        "regions": regions, "attention": kinds })
}

/// Memory of a session against its context, a line for each kind of attention and one for the budget.
fn drawing(s: &Shown) -> String {
    const WIDTH: f64 = 640.0;
    const HEIGHT: f64 = 400.0;
    const LEFT: f64 = 80.0;
    const TOP: f64 = 30.0;
    const COLOURS: [&str; 3] = ["#c0392b", "#1f6f43", "#2457a6"];
    let points = || s.kinds.iter().flat_map(|k| &k.curve);
    // The plot goes up to twice the budget.
    let near = |p: &&Point| p.session <= 2 * s.budget;
    let most_tokens = points().filter(near).map(|p| p.context).max().unwrap_or(1) as f64;
    let top = s.budget as f64 * 2.0;
    let at = |tokens: f64, bytes: f64| (LEFT + tokens / most_tokens * WIDTH, TOP + HEIGHT - bytes / top * HEIGHT);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <clipPath id=\"plot\"><rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/></clipPath>\n",
        LEFT + WIDTH + 130.0,
        TOP + HEIGHT + 60.0
    );
    for i in 0..=4 {
        let (tokens, bytes) = (most_tokens * f64::from(i) / 4.0, top * f64::from(i) / 4.0);
        let ((x, bottom), (_, y)) = (at(tokens, 0.0), at(0.0, bytes));
        let mib = bytes / f64::from(1 << 20);
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {y:.1}h{WIDTH}M{x:.1} {TOP}v{HEIGHT}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{mib:.1} MiB</text>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tokens:.0}</text>",
            LEFT - 6.0,
            y + 4.0,
            bottom + 18.0
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">context, tokens</text>",
        LEFT + WIDTH / 2.0,
        TOP + HEIGHT + 42.0
    );
    let label = |out: &mut String, (x, y): (f64, f64), colour: &str, text: &str| {
        let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{y:.1}\" fill=\"{colour}\">{text}</text>", x + 8.0);
    };
    for (k, colour) in s.kinds.iter().zip(COLOURS) {
        let line: Vec<_> = k.curve.iter().map(|p| at(p.context as f64, p.session as f64)).collect();
        let points: Vec<_> = line.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            out,
            "<polyline clip-path=\"url(#plot)\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            points.join(" ")
        );
        // At the last point within the plot.
        let inside = line.iter().rev().find(|(x, y)| *x <= LEFT + WIDTH && *y >= TOP);
        label(&mut out, inside.map_or((LEFT, TOP + 14.0), |(x, y)| (*x, y + 14.0)), colour, k.name);
    }
    let (_, y) = at(0.0, s.budget as f64);
    let _ = writeln!(out, "<path d=\"M{LEFT} {y:.1}h{WIDTH}\" stroke=\"black\" stroke-dasharray=\"6 4\"/>");
    label(&mut out, (LEFT + WIDTH, y + 4.0), "black", "budget");
    out + "</svg>\n"
}
