//! Loading: from the command line to a model that is ready to run.

use std::ffi::OsStr;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use armlet::Error;
use armlet::arch::{Backend, Kernels, KvType};
use armlet::engine::{Config, Engine, EngineError, Plan, Prefix, Saved, Session, SnapshotError};
use armlet::generation::{Event, Generation, Limits, Lookup, Run};
use armlet::gguf::File;
use armlet::host::{MapError, MappedFile, Pool, memory};
use armlet::model::{self, Model};
use armlet::sample::{Rules, SampleError, Sampler};
use armlet::storage::Executor;
use armlet::tokenizer::{EncodeOptions, Tokenizer};

use crate::args;
use crate::doctor::threads;
use crate::error::{Failure, instead_of_nan};
use crate::escape::unescape;
use crate::fatal::addresses_left;
use crate::hub;
use crate::interrupt;
use crate::network::Boards;
use crate::override_kv::{self, OverrideKv};
use crate::parts::{self, Parts, is_first, is_part};
use crate::read_ahead::ReadAhead;
use crate::{finite, pull, resident};

/// A model, its file, and the kernels and threads that it runs on.
pub(crate) struct Loaded<'m> {
    pub(crate) path: &'m Path,
    pub(crate) file: &'m File<'m>,
    pub(crate) model: Model<'m>,
    pub(crate) kernels: Kernels,
    pub(crate) pool: Pool,
    pub(crate) ahead: &'m ReadAhead<'m>,
    pub(crate) boards: Boards,
}

impl Loaded<'_> {
    /// The most tokens of a pass over a prompt of `tokens`, if they should be more than usual. Several boards have the same.
    pub(crate) fn chunk(&self, tokens: usize) -> Option<usize> {
        self.ahead.chunk(self.model.has_float_matrices(), tokens).filter(|_| !self.boards.are_several())
    }
}

/// Maps the model, builds its tables and calls `f` with it.
pub(crate) fn with_model<T>(
    args: &args::Model,
    f: impl FnOnce(&Loaded<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let kernels = kernels()?;
    let path = resolve(args.given()?)?;
    let boards = Boards::new();
    if args.resident.no_mmap && boards.have_parts() {
        let why = "--no-mmap copies all of the model, and a board has a part of it; --mlock keeps that part in memory";
        return Err(Failure::Usage(why.into()));
    }
    boards.compare(|| fingerprint(&path, &args.metadata.override_kv))?;
    with_resident(&path, args, |source| {
        let file = &source.file;
        let mut tables = tables(&path, file)?;
        let model = Model::new(file, &mut tables).map_err(|e| Failure::file(&path, e))?;
        model::warnings(file).for_each(|warning| log::warn!("{}: {warning}", path.display()));
        warn(&path, &model.tokenizer);
        boards.threads(args.threads.number);
        let cpus = Pool::cpus();
        let threads = match args.threads.number {
            0 => threads::default(),
            number => number.min(cpus),
        };
        if args.threads.number > cpus {
            log::warn!("{cpus} threads run, not {}: as many as there are CPUs for this process", args.threads.number);
        }
        let pool = Pool::new(threads);
        if pool.workers() < threads {
            log::warn!("the system refuses more threads: {} of {threads} run", pool.workers());
        }
        let on_disk = if args.resident.no_mmap || args.resident.mlock { &[][..] } else { source.paths };
        let own = boards.weights(&model, &kernels, &pool)?;
        if let Some(own) = &own {
            resident::leave_others(source.bytes, file, own);
        }
        if args.resident.mlock {
            resident::lock(own.as_deref().unwrap_or(&[source.bytes]))?;
        }
        let ahead = &ReadAhead::new(file, on_disk, own);
        let loaded = Loaded { path: &path, file, model, kernels, pool, ahead, boards };
        let result = ahead.during(|| f(&loaded));
        if let Some(peak) = peak_resident() {
            log::info!("peak resident memory {peak} KiB, the model's pages included");
        }
        result
    })
}

/// Memory for a model's tables.
fn tables(path: &Path, file: &File<'_>) -> Result<memmap2::MmapMut, Failure> {
    let needed = Model::required_bytes(file).map_err(|e| Failure::file(path, e))?;
    memory(needed).map_err(|e| Failure::new("cannot allocate the model's tables", e))
}

/// The fingerprint of a model of which a board has a part. It is taken of a mapping of its own: pages that were touched for it
/// alone do not stay this process's.
fn fingerprint(path: &Path, overrides: &[OverrideKv]) -> Result<u64, Failure> {
    with_file(path, overrides, |source| {
        parts::are_sparse(source.bytes);
        let mut tables = tables(path, &source.file)?;
        let model = Model::new(&source.file, &mut tables).map_err(|e| Failure::file(path, e))?;
        Ok(model.sparse_fingerprint())
    })
}

/// Why a file is no model: it may be another one of ours.
fn not_a_model(path: &Path, bytes: &[u8], e: armlet::gguf::GgufError) -> Failure {
    match Saved::new_checked(bytes) {
        Ok(saved) => {
            let (tokens, options) = (saved.position, saved_with(&saved));
            let what = format!("a conversation of {tokens} tokens, saved with {options}, and no model");
            Failure::file(path, what + "; chat --session goes on with it")
        }
        Err(SnapshotError::Kind(true)) => {
            Failure::file(path, "a saved system prompt, and no model; chat --prefix begins with it")
        }
        Err(_) => Failure::file(path, e),
    }
}

/// The options of a saved session, but for its sinks, which a chat takes from it.
pub(crate) fn saved_with(saved: &Saved) -> String {
    let Saved { context, every, .. } = *saved;
    match every {
        0 => format!("-c {context}"),
        // What is no whole tile of older tokens is not used.
        _ => format!("-c {context}, or up to 31 more, and --pattern strided:{every}"),
    }
}

/// A model's file, or its parts as one.
pub(crate) struct Source<'s> {
    /// All of it.
    bytes: &'s [u8],
    pub(crate) file: File<'s>,
    /// Where it was read from: one file, or several parts.
    pub(crate) paths: &'s [PathBuf],
}

/// Maps the file at `path`, with the parts that follow it if it is the first of several, and calls `f` with it.
#[allow(unsafe_code)]
pub(crate) fn with_file<T>(
    path: &Path,
    overrides: &[OverrideKv],
    f: impl FnOnce(&Source<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let bytes = map(path)?;
    let overrides = override_kv::entries(overrides);
    let file = File::new_checked(&bytes).map_err(|e| not_a_model(path, &bytes, e))?;
    if !is_part(&file) {
        let file = override_kv::apply(file, &overrides);
        return f(&Source { bytes: &bytes, file, paths: &[path.to_path_buf()] });
    }
    // SAFETY: as in `map`.
    let parts = unsafe { Parts::open(path) }.map_err(|e| Failure::Error(e.to_string()))?;
    let file = File::new_checked(&parts).map_err(|e| Failure::file(path, e))?;
    f(&Source { bytes: &parts, file: override_kv::apply(file, &overrides), paths: parts.paths() })
}

/// The same for a command that runs the model, with its bytes where the options want them.
fn with_resident<T>(
    path: &Path,
    args: &args::Model,
    f: impl FnOnce(&Source<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (overrides, args::Resident { no_mmap, check_tensors, .. }) = (&args.metadata.override_kv, args.resident);
    let run = |source: &Source<'_>| {
        if check_tensors {
            source.file.tensors().try_for_each(|tensor| finite::check(&tensor, path))?;
        }
        f(source)
    };
    if !no_mmap {
        return with_file(path, overrides, run);
    }
    let copy = |source: &Source<'_>| Ok((resident::copied(source.bytes, source.paths)?, source.paths.to_vec()));
    let (bytes, paths) = with_file(path, &[], copy)?;
    let overrides = override_kv::entries(overrides);
    let file = File::new_checked(&bytes).map_err(|e| Failure::file(path, e))?;
    run(&Source { bytes: &bytes, file: override_kv::apply(file, &overrides), paths: &paths })
}

/// The same for a command that needs no tensors: of several parts, the first has all metadata, and no other need be there.
pub(crate) fn with_metadata<T>(
    path: &Path,
    overrides: &[OverrideKv],
    f: impl FnOnce(&File<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let bytes = map(path)?;
    let file = File::new_checked(&bytes).map_err(|e| not_a_model(path, &bytes, e))?;
    if is_part(&file) && !is_first(&file) {
        return with_file(path, overrides, |source| f(&source.file));
    }
    f(&override_kv::apply(file, &override_kv::entries(overrides)))
}

/// Says what was mended in a vocabulary.
pub(crate) fn warn(path: &Path, tokenizer: &Tokenizer<'_>) {
    tokenizer.warnings().for_each(|warning| log::warn!("{}: {warning}", path.display()));
}

/// Peak resident memory of this process in KiB, on Linux.
fn peak_resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The file of a model, given as a path, as the name of a known model, or as a repository whose files are in the Hugging Face
/// cache; the one that `ARMLET_MODEL` names, or the default model, if not given.
pub(crate) fn resolve(model: Option<&Path>) -> Result<PathBuf, Failure> {
    let named = std::env::var_os("ARMLET_MODEL").filter(|name| !name.is_empty()).map(PathBuf::from);
    let Some(path) = model.or(named.as_deref()) else { return pull::ensure(pull::DEFAULT) };
    if path.exists() {
        return Ok(path.to_path_buf());
    }
    let name = path.to_str().unwrap_or_default();
    match (pull::known(name), hub::Wanted::parse(name)) {
        (Some(known), _) => pull::ensure(known),
        (None, Some(wanted)) => wanted.find(),
        _ => Err(Failure::file(path, "no such file; give a GGUF file, or leave -m out for the default model")),
    }
}

/// Whether a word is meant to be a model: it is the name of a file or of a known model, or looks like one of a repository.
pub(crate) fn names_model(word: &Path) -> bool {
    let name = word.to_str().unwrap_or_default();
    let is_gguf = word.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
    word.exists() || is_gguf || pull::known(name).is_some() || hub::Wanted::parse(name).is_some()
}

/// Maps a file: a model, a session or a prefix.
#[allow(unsafe_code)]
pub(crate) fn map(path: &Path) -> Result<MappedFile, Failure> {
    // SAFETY: armlet itself never writes to a file in place: `atomic_file` renames a new one over it. That other
    // programs do not either is up to the user, who owns the files; a copy in memory, the only alternative, would double
    // what a model takes. llama.cpp asks for the same.
    let mapped = unsafe { MappedFile::open(path) };
    mapped.map_err(|e| match e {
        MapError::Empty => Failure::file(path, "the file is empty; fetch it again"),
        MapError::NotAFile => Failure::file(path, "not a regular file"),
        e => Failure::file(path, e),
    })
}

/// The kernels of the backend that `ARMLET_CPU` names, else the best that the CPU supports.
pub(crate) fn kernels() -> Result<Kernels, Failure> {
    let name = std::env::var_os("ARMLET_CPU").filter(|name| !name.is_empty());
    let Some(name) = name else { return Ok(Kernels::detect()) };
    let names = || Backend::ALL.map(Backend::name).join(", ");
    let name = name.to_string_lossy().into_owned();
    let backend = Backend::from_name(&name)
        .ok_or_else(|| Failure::Usage(format!("ARMLET_CPU={name} is not a backend; the backends are {}", names())))?;
    let missing = || Failure::Error(format!("ARMLET_CPU={name}: this CPU cannot run that backend; unset it"));
    Kernels::for_backend(backend).ok_or_else(missing)
}

/// The plan of one session, which starts from a prefix if there is one.
pub(crate) fn plan(loaded: &Loaded<'_>, args: &args::Cache, prefix: Option<&Prefix<'_>>) -> Result<Plan, Failure> {
    let h = &loaded.model.hparams;
    let from_prefix = |config| prefix.map_or(config, |prefix| prefix.config(config));
    args.kv.check()?;
    let config = args.config();
    let context = match (args.context, args.kv_budget) {
        (Some(tokens), _) => tokens,
        (None, Some(budget)) => {
            let Loaded { model, kernels, pool, boards, .. } = loaded;
            boards.context_for_budget(model, kernels, pool, &from_prefix(config), budget)?
        }
        (None, None) => config.context.min(h.context_length),
    };
    let plan = shared_plan(loaded, &from_prefix(args.kv.with_context(config, context)))?;
    let (engine, session) = (plan.engine_bytes(), plan.session_bytes());
    log::info!("context of {context} tokens: KV cache of {session} bytes, workspace of {engine} bytes");
    Ok(plan)
}

/// The plan of one session; of several boards, of this one's share, when all of them agree.
pub(crate) fn shared_plan(loaded: &Loaded<'_>, config: &Config) -> Result<Plan, Failure> {
    let Loaded { model, kernels, pool, boards, .. } = loaded;
    let share = boards.share(model, kernels, pool, config)?;
    let plan = Plan::shared(&model.hparams, config, &share)?;
    boards.meet(model, kernels, pool, config, &plan)?;
    Ok(plan)
}

/// Addresses that a command may take beside the model and its plan: texts, tokens, what is printed, threads that come later.
const OVERHEAD: u64 = 16 << 20;

/// Refuses the start where addresses are limited to less than these bytes and what comes later: no command ends in the middle
/// for want of memory.
pub(crate) fn check_room(bytes: usize) -> Result<(), String> {
    let needed = (bytes as u64).saturating_add(OVERHEAD);
    match addresses_left() {
        Some(left) if left < needed => {
            let more = (needed - left).div_ceil(1 << 20);
            Err(format!("the limit of addresses (ulimit -v) is {more} MiB too low"))
        }
        _ => Ok(()),
    }
}

/// Memory for an engine and a session.
pub(crate) fn session_memory(plan: &Plan) -> Result<memmap2::MmapMut, Failure> {
    let bytes = plan.bytes();
    let allocated = check_room(bytes).and_then(|()| memory(bytes).map_err(|e| e.to_string()));
    allocated.map_err(|why| {
        let why = format!("{why}; a smaller -c or --kv-budget needs less");
        Failure::new(format!("cannot allocate {} MiB for the session", bytes.div_ceil(1 << 20)), why)
    })
}

/// One session and its engine, on the program's threads.
pub(crate) struct Runner<'l> {
    pool: &'l Pool,
    pub(crate) ahead: &'l ReadAhead<'l>,
    pub(crate) engine: Engine<'l>,
    pub(crate) session: Session<'l>,
    pub(crate) kv: KvType,
    /// Tokens of a pass over a prompt when the model's pages are all there.
    pub(crate) usual: usize,
    /// The most tokens that a token attends to.
    pub(crate) context: usize,
}

impl<'l> Runner<'l> {
    /// A new session, in memory from [`session_memory`].
    pub(crate) fn new(loaded: &'l Loaded<'l>, plan: &Plan, memory: &'l mut [u8]) -> Result<Self, Failure> {
        Self::with_prefix(loaded, plan, None, memory)
    }

    /// The same, starting from a prefix if there is one.
    pub(crate) fn with_prefix(
        loaded: &'l Loaded<'l>,
        plan: &Plan,
        prefix: Option<&Prefix<'l>>,
        memory: &'l mut [u8],
    ) -> Result<Self, Failure> {
        let (engine, session) = memory.split_at_mut(plan.engine_bytes());
        let mut engine = Engine::on_boards(&loaded.model, loaded.kernels, plan, engine, loaded.boards.comm())?;
        let mut session = match prefix {
            Some(prefix) => Session::with_prefix(&loaded.model, plan, prefix, session)?,
            None => Session::new(&loaded.model, plan, session)?,
        };
        if loaded.boards.comm().rank() > 0 {
            interrupt::follow()?;
            engine.follow(&loaded.pool, &mut session)?;
            return Err(Failure::Followed);
        }
        Ok(Runner {
            pool: &loaded.pool,
            ahead: loaded.ahead,
            usual: engine.most_tokens(engine.chunk()),
            engine,
            session,
            kv: plan.kv_type(),
            context: plan.context(),
        })
    }

    /// The same, with passes of `chunk` tokens a board once the model's pages are all there; the plan's may be longer.
    pub(crate) fn with_usual(mut self, chunk: usize) -> Self {
        self.usual = self.engine.most_tokens(chunk);
        self
    }

    /// The next token of an answer.
    pub(crate) fn step(
        &mut self,
        generation: &mut Generation,
        sampler: &mut Sampler,
        limits: Limits<'_>,
        rules: Rules<'_>,
        lookup: Lookup<'_>,
        show: &mut dyn FnMut(&str),
    ) -> Result<Event, Failure> {
        let Self { engine, session, .. } = self;
        let mut run = Run { engine, exec: self.pool, session, sampler, lookup: Some(lookup) };
        generation.step(&mut run, limits, rules, show).map_err(|e| match e {
            Error::Sample(SampleError::NotANumber) => Failure::Error(format!("{e}{}", instead_of_nan(self.kv))),
            e => Failure::Error(e.to_string()),
        })
    }

    pub(crate) fn eval(&mut self, tokens: &[u32]) -> Result<&[f32], EngineError> {
        self.engine.eval(self.pool, &mut self.session, tokens)
    }

    /// The same for a command that leaves nothing: it ends between two passes, or tokens, where the program is asked to
    /// stop.
    pub(crate) fn eval_or_stop(&mut self, tokens: &[u32]) -> Result<&[f32], Failure> {
        let mut keep_going = || !interrupt::pending();
        self.engine.eval_while(self.pool, &mut self.session, tokens, &mut keep_going).map_err(stopped)
    }

    pub(crate) fn score(&mut self, tokens: &[u32]) -> Result<&[f32], EngineError> {
        self.engine.score(self.pool, &mut self.session, tokens)
    }
}

impl Drop for Runner<'_> {
    /// Lets the other boards go.
    fn drop(&mut self) {
        if let Err(e) = self.engine.dismiss() {
            log::warn!("{e}");
        }
    }
}

/// The failure of a pass, or of those that were to follow.
pub(crate) fn stopped(e: EngineError) -> Failure {
    if e == EngineError::Stopped { Failure::Interrupted } else { e.into() }
}

/// The prompt that the options select. One line end at the end of a file or of piped text is not part of it, as in
/// llama.cpp: `echo` and editors put it there.
pub(crate) fn prompt(args: &args::Text) -> Result<String, Failure> {
    if args.prompt.is_some() { text(args) } else { text(args).map(without_line_end) }
}

/// A text without one line end at its end.
pub(crate) fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
    }
    text
}

/// The text that the options select: `-p`, `-f`, or stdin.
pub(crate) fn text(args: &args::Text) -> Result<String, Failure> {
    match (&args.prompt, &args.file) {
        (Some(text), _) => argument(text, args.escape),
        (None, Some(path)) => read_file(path),
        (None, None) => read_stdin(),
    }
}

/// The text in a file; stdin if it is `-`.
pub(crate) fn read_file(path: &Path) -> Result<String, Failure> {
    if path.as_os_str() == "-" {
        return read_stdin();
    }
    utf8(read_bytes(path)?, &path.display().to_string())
}

/// The bytes of a file or a pipe, `<(…)` of a shell for example. A device may have no end.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::os::unix::fs::FileTypeExt;
    let kind = std::fs::metadata(path).map_err(|e| Failure::file(path, e))?.file_type();
    if !kind.is_file() && !kind.is_fifo() {
        return Err(Failure::file(path, "neither a file nor a pipe"));
    }
    std::fs::read(path).map_err(|e| Failure::file(path, e))
}

/// Text from the command line.
pub(crate) fn argument(text: &OsStr, escape: bool) -> Result<String, Failure> {
    let text = utf8(text.as_encoded_bytes().to_vec(), "-p")?;
    if escape { unescape(&text).map_err(|e| Failure::new("-p", e)) } else { Ok(text) }
}

/// Refuses a template from stdin where something else comes from there too.
pub(crate) fn one_stdin(template: &args::Template, what: &str, instead: &str) -> Result<(), Failure> {
    if template.chat_template.as_deref().is_some_and(|name| name == "-") && !std::io::stdin().is_terminal() {
        let why = format!("--chat-template - and {what} cannot both come from stdin; give {instead}");
        return Err(Failure::Usage(why));
    }
    Ok(())
}

/// All of stdin, as text.
pub(crate) fn read_stdin() -> Result<String, Failure> {
    static READ: AtomicBool = AtomicBool::new(false);
    let mut stdin = std::io::stdin();
    if READ.swap(true, SeqCst) {
        return Err(Failure::Usage(
            "stdin can be one of the texts only; give -p TEXT or -f FILE, or a file's name".into(),
        ));
    }
    if stdin.is_terminal() {
        return Err(Failure::Usage("there is no text; give -p TEXT or -f FILE, or pipe text to stdin".into()));
    }
    let mut bytes = Vec::new();
    stdin.read_to_end(&mut bytes).map_err(|e| Failure::new("stdin", e))?;
    utf8(bytes, "stdin")
}

fn utf8(bytes: Vec<u8>, whence: &str) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Failure::new(whence, format!("not UTF-8 at byte {at}; convert the text with iconv"))
    })
}

/// Token ids of a prompt. More is to follow, so it does not end with EOS, whatever `tokenizer.ggml.add_eos_token` says.
pub(crate) fn encode_prompt(
    tokenizer: &Tokenizer<'_>,
    text: &str,
    options: EncodeOptions<'_>,
) -> Result<Vec<u32>, Failure> {
    let mut tokens = encode(tokenizer, text, options)?;
    if options.add_special && tokenizer.adds_eos() {
        tokens.pop();
    }
    Ok(tokens)
}

/// Token ids of `text`.
pub(crate) fn encode(tokenizer: &Tokenizer<'_>, text: &str, options: EncodeOptions<'_>) -> Result<Vec<u32>, Failure> {
    let mut scratch =
        memory(tokenizer.scratch_bytes(text)?).map_err(|e| Failure::new("cannot allocate scratch memory", e))?;
    let mut tokens = vec![0; tokenizer.max_tokens(text.len())];
    let n = tokenizer.encode(text, options, &mut scratch, &mut tokens)?;
    tokens.truncate(n);
    Ok(tokens)
}

/// Pieces of `context` tokens of a text, at most `most` of them (0: all), each of which starts with BOS if the model wants
/// that; what is left at the end is dropped.
pub(crate) fn pieces<'t>(
    tokenizer: &Tokenizer<'_>,
    tokens: &'t mut [u32],
    context: usize,
    most: usize,
) -> Result<Vec<&'t [u32]>, Failure> {
    let n = tokens.len();
    if n < context {
        return Err(Failure::Error(format!("the text has {n} tokens, too few for -c {context}; use a smaller -c")));
    }
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let piece = |piece: &'t mut [u32]| {
        if let Some((first, bos)) = piece.first_mut().zip(bos) {
            *first = bos;
        }
        &*piece
    };
    let most = if most == 0 { usize::MAX } else { most };
    Ok(tokens.chunks_exact_mut(context.max(1)).take(most).map(piece).collect())
}

/// Calls `f` with a vocabulary that has the control tokens `<s>`, `</s>`, `<|im_start|>`, `<|im_end|>` and `<|unk|>`.
#[cfg(test)]
pub(crate) fn with_tokenizer(f: impl FnOnce(&Tokenizer<'_>)) {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/bpe.gguf")).unwrap();
    let file = File::new_checked(&bytes).unwrap();
    let mut dry = armlet::storage::Arena::dry_run();
    Tokenizer::new(&file, &mut dry).unwrap();
    let mut tables = memory(dry.used()).unwrap();
    f(&Tokenizer::new(&file, &mut armlet::storage::Arena::new(&mut tables).unwrap()).unwrap());
}
