//! `armlet plan`: how much memory a model needs, from its header alone, and how much it would with as many KV heads as
//! query heads (multi-head attention) or with one (multi-query attention).

use std::fmt::Write as _;

use armlet::engine::{Config, EngineError, Plan};
use armlet::model::{Hparams, Model};
use armlet::storage::Region;

use crate::args;
use crate::atomic_file::{failed, replace_by};
use crate::boards::{Cluster, Sizes, speeds};
use crate::drawing::{Curve, Drawing, Point};
use crate::error::{Failure, print, print_json};
use crate::inspect::{Summary, bytes_of, memory_line};
use crate::model::{resolve, with_file};
use crate::read_ahead::LONGEST;
use crate::visible;

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

/// Everything that is printed.
struct Shown {
    /// The model's name and kind.
    model: String,
    /// Bytes of the model's file.
    file: u64,
    tables: usize,
    context: usize,
    sessions: usize,
    budget: usize,
    plan: Plan,
    config: Config,
    /// Bytes of the workspace while the model is still on the disk, if they are more.
    cold: Option<usize>,
    regions: Vec<Region>,
    kinds: Vec<Kind>,
    /// What several boards would make of it.
    cluster: Option<Cluster>,
}

pub(crate) fn run(args: &args::Plan) -> Result<(), Failure> {
    let path = resolve(args.model.as_deref().or(args.by_position.as_deref()))?;
    let (model, file, tables, h, sizes) = with_file(&path, &args.metadata.override_kv, |source| {
        let tables = Model::required_bytes(&source.file).map_err(|e| Failure::file(&path, e))?;
        let h = Hparams::new(&source.file).map_err(|e| Failure::file(&path, e))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let model = visible::line(&format!("{name}: {}", Summary::new(&source.file).kind())).into_owned();
        Ok((model, bytes_of(source.paths), tables, h, Sizes::new(&source.file)))
    })?;
    let shown = Shown { model, ..shown(&h, args, file, tables)? };
    let cluster = |boards| {
        let memory = speeds(&args.memory_speed, boards)?;
        let shares = args.shares.of(boards, || Ok(memory.clone()))?;
        Ok(Cluster { h, sizes, config: shown.config, memory, shares, wanted: args.shares, network: args.net })
    };
    let cluster = args.boards.map(cluster).transpose().map_err(Failure::Usage)?;
    let shown = Shown { cluster, ..shown };
    if let Some(svg) = &args.svg {
        replace_by(svg, |out| out.write_all(drawing(&shown, args).as_bytes()).map_err(|e| failed(svg, e)))?;
    }
    if args.json { print_json(&json(&shown), true) } else { print(table(&shown, args).as_bytes()) }
}

fn shown(h: &Hparams, args: &args::Plan, file: u64, tables: usize) -> Result<Shown, Failure> {
    args.cache.kv.check()?;
    let (sessions, config) = args.sessions();
    let context = match (args.cache.context, args.cache.kv_budget) {
        // A server has no more than the model was trained with.
        (Some(tokens), _) if args.users.is_some() => tokens.min(h.context_length),
        (Some(tokens), _) => tokens,
        (None, Some(budget)) => Plan::context_for_budget(h, &config, budget, sessions)?,
        (None, None) => config.context.min(h.context_length),
    };
    let config = args.cache.kv.with_context(config, context);
    let plan = Plan::new(h, &config)?;
    let cold = Plan::new(h, &Config { chunk: config.chunk.max(LONGEST), ..config }).map(|plan| plan.engine_bytes());
    let cold =
        cold.ok().filter(|bytes| args.cache.chunk.is_none() && args.users.is_none() && *bytes > plan.engine_bytes());
    let budget = args.cache.kv_budget.unwrap_or(plan.session_bytes().saturating_mul(sessions));
    let mut regions = Vec::new();
    plan.regions(h, &mut |r| regions.push(r))?;
    let kinds = [("MHA", h.n_heads), ("GQA, as trained", h.n_kv_heads), ("MQA", 1)];
    let kinds = kinds.into_iter().map(|(name, kv_heads)| kind(name, kv_heads, h, &config, budget));
    Ok(Shown {
        model: String::new(),
        file,
        tables,
        context,
        sessions,
        budget,
        plan,
        config,
        cold,
        regions,
        kinds: kinds.collect::<Result<_, _>>()?,
        cluster: None,
    })
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
        s.sessions,
        if s.sessions > 1 { "s" } else { "" }
    );
    let _ =
        writeln!(out, "| attention | KV heads | bytes for a token | bytes for a session | sessions in the budget |");
    let _ = writeln!(out, "|---|---:|---:|---:|---:|");
    for k in &s.kinds {
        let _ = writeln!(out, "| {} | {} | {} | {} | {} |", k.name, k.kv_heads, k.token, k.session, k.sessions);
    }
    let _ = writeln!(out, "\n{}", memory_line(s.file, args.resident, s.tables, &s.plan, s.sessions));
    if let Some(cold) = s.cold {
        let more = (cold - s.plan.engine_bytes()) as f64 / f64::from(1 << 20);
        let _ = writeln!(
            out,
            "up to {more:.1} MiB more workspace while most of the model is on the disk: the first prompt is then read in \
             passes of up to {LONGEST} tokens (--chunk {} keeps them short)",
            Config::default().chunk
        );
    }
    if let Some(cluster) = &s.cluster {
        out += &format!("\n{}", cluster.table());
    }
    out
}

fn json(s: &Shown) -> serde_json::Value {
    let regions: Vec<_> =
        s.regions.iter().map(|r| serde_json::json!({ "name": r.name, "offset": r.offset, "bytes": r.bytes })).collect();
    let kind = |k: &Kind| {
        serde_json::json!({ "attention": k.name, "kv_heads": k.kv_heads, "bytes_per_token": k.token,
                            "bytes_per_session": k.session, "sessions": k.sessions })
    };
    let kinds: Vec<_> = s.kinds.iter().map(kind).collect();
    serde_json::json!({ "file": s.file, "tables": s.tables, "engine": s.plan.engine_bytes(),
                        "engine_cold": s.cold.unwrap_or(s.plan.engine_bytes()), "session": s.plan.session_bytes(),
                        "context": s.context, "kv_budget": s.budget, "asked_sessions": s.sessions,
                        "regions": regions, "attention": kinds,
                        "boards": s.cluster.as_ref().map(Cluster::json) })
}

/// Memory of a session against its context; up to twice the budget, or twice what the plan takes.
fn drawing(s: &Shown, args: &args::Plan) -> String {
    let curves = s.kinds.iter().map(|kind| Curve { name: kind.name, points: &kind.curve }).collect();
    let set = args.cache.kv_budget;
    let top = set.unwrap_or(s.plan.session_bytes()).saturating_mul(2);
    let title = format!("{}, KV cache of {}", s.model, args.cache.kv.format.kv_type.name());
    Drawing { title: &title, curves, top, budget: set }.svg()
}
