//! `armlet serve`: a server that speaks OpenAI's and ollama's API.
//!
//! ```text
//! connections ─ listen ─ routes ─ guard ─ openai/ollama ─ answer      a thread: HTTP, all of it asynchronous
//!                                     tokens │ ▲    request │ ▲ events
//!                                            ▼ │            ▼ │
//!                                          prepare        engine      a thread: templates, tokenizer; the main one: the model
//! ```
//!
//! Only the engine has the model's memory, which is fixed at the start. Every channel is bounded. To drop the receiver of an
//! answer's events cancels it, so that whatever ends a connection frees its slot; a client that takes events slowly has its
//! answer wait, and nobody else's.

mod about;
mod answer;
mod app;
mod clients;
mod engine;
mod event;
mod fields;
mod form;
mod format;
mod functions;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
mod guard;
mod listen;
mod messages;
mod metrics;
mod ollama;
mod openai;
mod page;
mod phase;
mod prepare;
mod problem;
mod reply;
mod responses;
mod routes;
mod settings;
mod systemd;
mod tokens;
mod wire;

use std::io::IsTerminal;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use armlet::engine::{Config, Plan, Prefix};
use armlet::model::Hparams;
use tokio::sync::{Notify, watch};

use crate::args::{Serve, many};
use crate::chat::prefix::shared;
use crate::error::Failure;
use crate::grammar;
use crate::interrupt;
use crate::model::{Loaded, map, read_file, with_model};
use crate::sampling;
use crate::terminal;
use crate::token_rules::TokenRules;
use about::About;
use app::{App, Ids, Limits, Sizes};
use engine::Slots;
use guard::Guard;
use metrics::Metrics;
use phase::Phase;
use prepare::Preparation;

/// Users, where nothing says how many: as many slots as llama-server has.
const USERS: usize = 4;
/// How long answers go on after the signal to end; and how long then all may take until the program leaves.
const DRAIN: Duration = Duration::from_millis(3500);
const LEAVE: Duration = Duration::from_millis(1000);

pub(crate) fn run(args: &Serve) -> Result<(), Failure> {
    let key = key(args)?;
    if args.others.is_some() && args.prefix.is_none() {
        return Err(Failure::Usage("--others has no effect without --prefix".into()));
    }
    let listeners = match systemd::sockets()? {
        given if !given.is_empty() => given,
        _ => listen::bind(&args.host, args.port)?,
    };
    if key.is_none() && !args.insecure {
        check_addresses(&listeners)?;
    }
    let prefix = args.prefix.as_deref().map(map).transpose()?;
    with_model(&args.model, |loaded| {
        let prefix = match (&args.prefix, &prefix) {
            (Some(path), Some(bytes)) => Some(shared(path, bytes, loaded)?),
            _ => None,
        };
        let slots = slots(&loaded.model.hparams, args, prefix)?;
        let sizes = engine::Sizes { slots, places: args.queue, drafts: args.speculate };
        sampling::config(&args.sampling, loaded.file, true)?;
        check_stops(&args.sampling.stops)?;
        TokenRules::with_form(&args.sampling, &loaded.model.tokenizer)?;
        interrupt::catch()?;
        serve(args, key.as_deref(), loaded, &sizes, listeners)
    })
}

/// The key that requests need: of the command line, a file, or the environment.
fn key(args: &Serve) -> Result<Option<String>, Failure> {
    let given = match (&args.api_key, &args.api_key_file) {
        (Some(key), _) => Some(key.clone()),
        (None, Some(path)) => Some(read_file(path)?),
        (None, None) => std::env::var("ARMLET_API_KEY").ok().filter(|key| !key.is_empty()),
    };
    let key = given.map(|key| key.trim().to_string());
    match &key {
        Some(key) if key.is_empty() => Err(Failure::Usage("the API key is empty".into())),
        Some(key) if !key.bytes().all(|b| b.is_ascii_graphic()) => {
            Err(Failure::Usage("the API key has characters that no header can have".into()))
        }
        _ => Ok(key),
    }
}

/// Who can reach this machine could use the server: that needs a key, or a word of whoever starts it.
fn check_addresses(listeners: &[TcpListener]) -> Result<(), Failure> {
    match listeners.iter().find(|listener| !is_local(listener)) {
        None => Ok(()),
        Some(open) => {
            let address = open.local_addr().map_or_else(|e| e.to_string(), |address| address.ip().to_string());
            Err(Failure::Usage(format!(
                "{address}: whoever reaches this machine could use the server; give --api-key-file, or --insecure"
            )))
        }
    }
}

/// Refuses texts that would never end an answer.
fn check_stops(stops: &[String]) -> Result<(), Failure> {
    let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
    armlet::generation::Limits { tokens: 1, stops: &stops }.check().map_err(|e| Failure::new("--stop", e))
}

/// Whether only this machine reaches a socket.
fn is_local(listener: &TcpListener) -> bool {
    listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback())
}

/// The slots: with a prefix, those that start with it, and others.
fn slots<'p>(h: &Hparams, args: &Serve, prefix: Option<(Prefix<'p>, Vec<u32>)>) -> Result<Vec<Slots<'p>>, Failure> {
    args.kv.check()?;
    let config = Config { chunk: args.chunk, logit_rows: 1 + args.speculate, ..args.kv.config() };
    let Some((prefix, tokens)) = prefix else {
        let (plan, number) = plan(h, args, config)?;
        return Ok(vec![Slots { plan, number, prefix: None }]);
    };
    let context = args.context.unwrap_or(config.context).min(h.context_length);
    let (users, others) = (args.users.unwrap_or(USERS), args.others.unwrap_or(1));
    // Of the same format, so that who comes with the prefix and who does not are one batch.
    let shared = many(prefix.config(config), users + others);
    let plain = args.kv.with_context(Config { prefix: 0, ..shared }, context);
    let plan = |config| Plan::new(h, &config);
    Ok(vec![
        Slots { plan: plan(Config { context, ..shared })?, number: users, prefix: Some((prefix, tokens)) },
        Slots { plan: plan(plain)?, number: others, prefix: None },
    ])
}

/// The plan of each slot, and how many there are.
fn plan(h: &Hparams, args: &Serve, config: Config) -> Result<(Plan, usize), Failure> {
    if let (Some(_), Some(_), Some(_)) = (args.users, args.context, args.kv_budget) {
        let why = "--users, -c and --kv-budget cannot all be given: two of them say what the third is";
        return Err(Failure::Usage(why.into()));
    }
    let context = args.context.unwrap_or(config.context).min(h.context_length);
    let of = |slots: usize, context| Plan::new(h, &args.kv.with_context(many(config, slots), context));
    let (slots, context) = match (args.users, args.kv_budget) {
        (users, None) => (users.unwrap_or(USERS), context),
        (Some(users), Some(budget)) => (users, Plan::context_for_budget(h, &many(config, users), budget, users)?),
        (None, Some(budget)) => {
            let each = of(1, context)?.session_bytes();
            if budget < each {
                let why =
                    format!("a slot with a context of {context} tokens takes {each} bytes; a smaller -c takes less");
                return Err(Failure::new("--kv-budget", why));
            }
            (budget / each, context)
        }
    };
    Ok((of(slots, context)?, slots))
}

/// Starts the threads, and runs the engine on this one until a signal comes.
fn serve(
    args: &Serve,
    key: Option<&str>,
    loaded: &Loaded<'_>,
    sizes: &engine::Sizes<'_>,
    listeners: Vec<TcpListener>,
) -> Result<(), Failure> {
    let metrics = Arc::new(Metrics::default());
    let (engine, engine_inbox) = engine::channel();
    let (prepare, prepare_inbox) = prepare::channel();
    let (phase, of_phase) = watch::channel(Phase::Running);
    let context = sizes.context();
    let mut preparation = Preparation::new(loaded.file, &loaded.model.tokenizer, &args.template)?;
    let app = Arc::new(App {
        about: About::new(loaded, args.model.given()?, args.alias.as_deref(), context, preparation.thinks()),
        engine,
        prepare,
        metrics: metrics.clone(),
        phase: of_phase,
        guard: Guard::new(key, &args.allow_host, &args.cors),
        sizes: app::Sizes { context, slots: sizes.number() },
        limits: Limits {
            body: args.max_body,
            time: Duration::from_secs(args.timeout),
            connections: args.connections,
            log_prompts: args.log_prompts,
        },
        sampling: args.sampling.clone(),
        form: grammar::form(&args.sampling)?,
        ids: Ids::new(),
    });
    let mut memory =
        engine::Memory::new(sizes, grammar::STACK.saturating_add(args.connections.saturating_mul(args.max_body)))?;
    let cut = phase.clone();
    thread::scope(|scope| {
        let spawn = |name: &str| thread::Builder::new().name(name.into());
        let no_thread = |e| Failure::new("cannot start a thread", e);
        spawn("prepare").spawn_scoped(scope, move || prepare_inbox.run(&mut preparation)).map_err(no_thread)?;
        let http = move || http(app, listeners, phase);
        let http = spawn("http").spawn_scoped(scope, http).map_err(no_thread)?;
        let ran = engine::run(loaded, sizes, &mut memory, &engine_inbox, &metrics);
        if ran.is_err() {
            let _ = cut.send(Phase::Cut);
        }
        drop(cut);
        // Requests that are still on their way are told so.
        drop(engine_inbox);
        let served = http.join().unwrap_or_else(|_| Err(Failure::Error("the thread of connections panicked".into())));
        ran.and(served)
    })
}

/// The thread of connections, which ends some seconds after a signal at the latest.
fn http(app: Arc<App>, listeners: Vec<TcpListener>, phase: watch::Sender<Phase>) -> Result<(), Failure> {
    let fail = |e: std::io::Error| Failure::new("the server", e);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
    let signal = Arc::new(Notify::new());
    let notify = signal.clone();
    interrupt::notify(move || notify.notify_one());
    announce(&app, &listeners);
    systemd::tell("READY=1");
    let router = routes::router(&app);
    runtime.block_on(async {
        let serving = tokio::spawn(listen::serve(app, listeners, router));
        tokio::spawn(async move {
            signal.notified().await;
            log::info!("a signal: answers have {:.1} s to end", DRAIN.as_secs_f64());
            systemd::tell("STOPPING=1");
            let _ = phase.send(Phase::Draining);
            // A pass that the engine is in may take longer than all the time there is.
            leave_after(DRAIN + LEAVE);
            tokio::time::sleep(DRAIN).await;
            let _ = phase.send(Phase::Cut);
            phase.closed().await;
        });
        serving.await.map_err(|e| Failure::new("the server", e))?.map_err(fail)
    })
}

/// Ends the program after this time, whatever its threads do.
fn leave_after(time: Duration) {
    let left = thread::Builder::new().name("leave".into()).spawn(move || {
        thread::sleep(time);
        interrupt::leave_now();
    });
    if let Err(e) = left {
        log::warn!("the program may take long to end: {e}");
    }
}

/// Says where the server is.
fn announce(app: &App, listeners: &[TcpListener]) {
    let Sizes { context, slots } = app.sizes;
    let name = crate::visible::line(app.about.name()).into_owned();
    for address in listeners.iter().filter_map(|listener| listener.local_addr().ok()) {
        terminal::note(&format!("{name} for {slots} at a time, {context} tokens each, on http://{address}"));
    }
    if !app.guard.has_key() && !listeners.iter().all(is_local) {
        log::warn!("whoever reaches this machine can use the server: it has no API key");
    }
    if std::io::stderr().is_terminal() {
        terminal::note("Ctrl-C ends it");
    }
}
