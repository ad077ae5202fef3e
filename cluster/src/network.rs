//! The boards of the program `armlet-mpi`, in the place of `src/bin/armlet/network.rs`: the launcher starts the program on each
//! of them, and the first one speaks.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use armlet::arch::Kernels;
use armlet::boards::{Alone, Comm};
use armlet::engine::{Config, Plan};
use armlet::host::Pool;
use armlet::model::{Model, Share, ShareError, Shares, Split};
use armlet::storage::Executor;
use armlet_mpi::{Card, Counted, Mpi, Numbers, check as machines, launch, machine};

use crate::args::boards::Options;
use crate::args::{Args, Command};
use crate::bandwidth::{self, Buffer};
use crate::error::{Failure, print};
use crate::shares::Wanted;
use crate::visible;

/// Memory of a board beside its weights and its plan.
const BESIDE: usize = 64 << 20;

/// Whether this board is the one to say what concerns all.
pub(crate) fn speaks() -> bool {
    let job = JOB.lock().unwrap_or_else(PoisonError::into_inner);
    job.as_ref().map_or_else(launch::is_first, |job| job.boards.rank() == 0)
}

/// Says why this board's command line is refused, on another board than the first, which says what is wrong on all. Where only
/// this one refuses it, its program is another.
pub(crate) fn refuse(answer: &clap::Error) {
    if answer.use_stderr() {
        // The launcher ends the job about a second after the first one has refused it.
        std::thread::sleep(Duration::from_secs(3));
        let said = answer.to_string();
        let why = said.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let _ = Failure::new(launch::named(&machine::host()), why).report();
    }
}

/// The job that the launcher started.
struct Job {
    boards: Counted<Mpi>,
    split: Split,
    /// The model's fingerprint.
    model: AtomicU64,
    /// Threads that it was asked for; 0 if that was left to it.
    threads: AtomicUsize,
    wanted: Wanted,
    /// What the boards have, once it is known.
    shares: OnceLock<Shares>,
    /// Memory in MiB that was available before this board took any.
    available: u32,
    /// Whether the boards have shown each other their cards.
    met: AtomicBool,
    /// Whether they have agreed on what is to be run: what fails on one is not known to the others any more.
    runs: AtomicBool,
}

/// The job, while the program runs: MPI has to be told its end by the thread that began it.
static JOB: Mutex<Option<Arc<Job>>> = Mutex::new(None);

/// Runs a command on this board.
pub(crate) fn run(args: Args) -> ExitCode {
    let Options { split, shares, patience, count } = args.boards;
    let boards = match Mpi::new(Duration::from_secs(patience)) {
        Ok(mpi) => Counted::new(mpi),
        Err(why) => return Failure::Error(why).report(),
    };
    let job = Arc::new(Job {
        boards,
        split,
        model: 0.into(),
        threads: 0.into(),
        // Boards that share positions have the same weights: nothing is in proportion.
        wanted: shares.of_split(split),
        shares: OnceLock::new(),
        available: machine::available_mib(),
        met: false.into(),
        runs: false.into(),
    });
    job.boards.boards().at_end(crate::fatal::clean_up);
    let (rank, several) = (job.boards.rank(), job.boards.size() > 1);
    if rank > 0 {
        log::set_max_level(log::LevelFilter::Error);
    }
    *JOB.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&job));
    let result = match &args.command {
        _ if let Err(failure) = job.alike(&args.command, count) => Err(failure),
        // Of several boards, and not of those that are planned.
        command
            if name(command).is_some()
                && let Err(why) = shares.check(job.boards.size()) =>
        {
            Err(Failure::Usage(why))
        }
        Command::Chat(chat) if several && chat.prefix.is_some() => {
            Err(Failure::Usage("--prefix is of one board".into()))
        }
        Command::Bench(bench) if several && (bench.compare_mha || bench.models.each().len() != 1) => {
            Err(Failure::Usage("several boards measure one model at a time".into()))
        }
        command if several && name(command).is_none() => {
            Err(Failure::Usage("this command is of one board: start armlet".into()))
        }
        _ => crate::command(args),
    };
    JOB.lock().unwrap_or_else(PoisonError::into_inner).take();
    let result = job.agreed(result);
    // The others wait for what comes next, and would wait for ever.
    if let Err(Failure::Error(why) | Failure::Usage(why)) = &result
        && several
        && job.runs.load(Ordering::Relaxed)
    {
        Failure::new(job.boards.boards().board(rank), why).report();
        job.boards.boards().abort();
    }
    // What has failed on one board may have the others wait for nothing more.
    let result = match result {
        // Ctrl-C or a reader that is gone ends an answer, and the others have been told.
        Err(Failure::Interrupted | Failure::BrokenPipe) if count && job.runs.load(Ordering::Relaxed) => {
            job.count().and(result)
        }
        Ok(()) if count => job.count(),
        result => result,
    };
    let code = match result {
        // What concerns all boards is said by one.
        Err(failure) if rank > 0 => ExitCode::from(failure.code()),
        result => crate::ended(result),
    };
    // MPI's end waits for all boards. Before it, because the launcher ends the job as soon as one of them has failed: the others
    // may not have said why by then.
    drop(job);
    code
}

/// The command's name, if several boards run it.
fn name(command: &Command) -> Option<&'static str> {
    Some(match command {
        Command::Chat(_) => "chat",
        Command::Complete(_) => "complete",
        Command::Perplexity(_) => "perplexity",
        Command::Bench(_) => "bench",
        Command::Check => "check",
        _ => return None,
    })
}

impl Job {
    /// Whether all boards were asked for the same, as far as that decides what they exchange; they may be started with different
    /// command lines. What a model's plan follows from is on their cards.
    fn alike(&self, command: &Command, count: bool) -> Result<(), Failure> {
        if self.boards.size() == 1 {
            return Ok(());
        }
        let yes = |is_given: bool| if is_given { "given" } else { "not given" }.to_string();
        let spelled = |name: &Option<OsString>| name.as_ref().map_or(yes(false), |name| format!("{name:?}"));
        let mut asked = vec![
            // Versions are the same for long.
            ("the program's source", env!("ARMLET_SOURCE").to_string()),
            ("the command", name(command).unwrap_or("of one board").to_string()),
            ("--split", self.split.name().to_string()),
            ("--shares", self.wanted.to_string()),
            ("--count", yes(count)),
        ];
        if let Command::Chat(chat) = command {
            asked.extend([
                ("--session", yes(chat.session.is_some())),
                // Of a system prompt and its template so many tokens stay, which is on the cards.
                ("--system", yes(chat.system.is_some() || chat.system_file.is_some())),
                ("--chat-template", spelled(&chat.template.chat_template)),
            ]);
        }
        self.boards.boards().alike(&asked).map_err(|why| {
            self.met.store(true, Ordering::Relaxed);
            Failure::Error(why)
        })
    }

    /// What the command has come to, which all boards know if they had not met: then one of them says it.
    fn agreed(&self, result: Result<(), Failure>) -> Result<(), Failure> {
        match result {
            Ok(()) | Err(Failure::Followed) => Ok(()),
            Err(Failure::Error(why) | Failure::Usage(why))
                if self.boards.size() > 1 && !self.met.load(Ordering::Relaxed) =>
            {
                Err(Failure::Error(self.boards.boards().start(Err(why)).err().unwrap_or_default()))
            }
            result => result,
        }
    }

    /// What the boards have of the model. Where that is by their speed, each measures its own once, and shows it to the others on
    /// its card.
    fn shares(&self, card: Card, pool: &Pool) -> Result<Shares, Failure> {
        if let Some(known) = self.shares.get() {
            return Ok(*known);
        }
        let speeds = || {
            let (free, needed) = (card.available, bandwidth::needed() >> 20);
            let buffer = Buffer::new(pool, Some(u64::from(free) << 20)).ok_or_else(|| {
                format!("{free} MiB of memory are available, and to measure how fast it is takes {needed}: give the --shares")
            });
            let card = buffer.map(|buffer| Card { bandwidth: (buffer.read(pool) / 1e6) as u32, ..card });
            // Where one cannot start, all of them know.
            let cards = self.boards.boards().start(card).inspect_err(|_| self.met.store(true, Ordering::Relaxed))?;
            Ok(cards.iter().map(|card| f64::from(card.bandwidth)).collect())
        };
        let shares = self.wanted.of(self.boards.size(), speeds).map_err(Failure::Error)?;
        Ok(*self.shares.get_or_init(|| shares))
    }

    /// What a board has of a model, in these proportions.
    fn share(&self, model: &Model<'_>, config: &Config, rank: usize, shares: Shares) -> Result<Share, ShareError> {
        let head = model.weights.head_in_layers();
        Share::uneven(&model.hparams, self.split, head, config.context, rank, shares)
    }

    /// What this board shows the others.
    fn card(&self, model: &Model<'_>, kernels: &Kernels, pool: &Pool, config: &Config) -> Card {
        Card {
            model: self.model.load(Ordering::Relaxed),
            numbers: Numbers::new(config, self.split),
            any_backend: !model.has_float_matrices(),
            threads: threads(self.threads.load(Ordering::Relaxed), pool.workers(), machine::cpus()),
            available: self.available,
            ..Card::here(kernels.backend())
        }
    }

    /// Says on the first board what each has exchanged.
    fn count(&self) -> Result<(), Failure> {
        let all = self.boards.of_all().map_err(|e| Failure::Error(e.to_string()))?;
        if self.boards.rank() == 0 {
            all.iter()
                .enumerate()
                .for_each(|(rank, counts)| eprintln!("{}: {counts}", self.boards.boards().board(rank)));
        }
        Ok(())
    }
}

/// `armlet-mpi check`.
pub(crate) fn check() -> Result<(), Failure> {
    let boards = Boards::new();
    let job = boards.0.as_ref().ok_or_else(|| Failure::Error("no job".into()))?;
    let said = machines::run(&job.boards).map_err(Failure::Error);
    job.met.store(true, Ordering::Relaxed);
    said?.map_or(Ok(()), |text| print(visible::text(&text).as_bytes()))
}

/// The boards of this program.
pub(crate) struct Boards(Option<Arc<Job>>);

impl Boards {
    pub(crate) fn new() -> Self {
        Boards(JOB.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// How they exchange bytes.
    pub(crate) fn comm(&self) -> &dyn Comm {
        self.0.as_ref().map_or(&Alone, |job| &job.boards)
    }

    /// Whether there are several.
    pub(crate) fn are_several(&self) -> bool {
        self.comm().size() > 1
    }

    /// What the first board has found, `own` there: a number, or nothing. What fails on one board does so on all.
    pub(crate) fn told(&self, own: Result<Option<usize>, Failure>) -> Result<Option<usize>, Failure> {
        let Some(job) = self.0.as_ref().filter(|_| self.are_several()) else { return own };
        let own = match own {
            Ok(found) => Ok(found.map_or_else(String::new, |n| n.to_string())),
            Err(Failure::Error(why) | Failure::Usage(why)) => Err(why),
            Err(other) => return Err(other),
        };
        let all = job.boards.boards().tell(own).map_err(|why| {
            job.met.store(true, Ordering::Relaxed);
            Failure::Error(why)
        })?;
        Ok(all.first().and_then(|first| first.parse().ok()))
    }

    /// So many tokens of the conversation are saved.
    pub(crate) fn keep(&self, tokens: u64) {
        if let Some(job) = &self.0 {
            job.boards.boards().keep(tokens);
        }
    }

    /// What is to be the same model on all: its fingerprint is taken where there are several.
    pub(crate) fn compare(&self, fingerprint: impl FnOnce() -> Result<u64, Failure>) -> Result<(), Failure> {
        if let Some(job) = self.0.as_ref().filter(|_| self.are_several()) {
            job.model.store(fingerprint()?, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The command line's number of threads, 0 if there is none.
    pub(crate) fn threads(&self, asked: usize) {
        if let Some(job) = &self.0 {
            job.threads.store(asked, Ordering::Relaxed);
        }
    }

    /// What of the model this board has.
    pub(crate) fn share(
        &self,
        model: &Model<'_>,
        kernels: &Kernels,
        pool: &Pool,
        config: &Config,
    ) -> Result<Share, Failure> {
        let Some(job) = self.0.as_ref().filter(|_| self.are_several()) else { return Ok(Share::WHOLE) };
        let shares = job.shares(job.card(model, kernels, pool, config), pool)?;
        let share = job.share(model, config, job.boards.rank(), shares).map_err(|why| {
            // The blocks of positions are as many as the context has room for.
            let of = if job.split == Split::Tokens {
                format!(" in a context of {} tokens", config.context)
            } else {
                String::new()
            };
            Failure::Error(format!("{why}{of}"))
        })?;
        // Here, where one board says it for all, and not when each has begun to run it.
        share.check(model).map_err(|why| Failure::Error(format!("--split {}: {why}", job.split.name())))?;
        Ok(share)
    }

    /// The largest context of which each board's part has room in a budget of bytes.
    pub(crate) fn context_for_budget(
        &self,
        model: &Model<'_>,
        kernels: &Kernels,
        pool: &Pool,
        config: &Config,
        budget: usize,
    ) -> Result<usize, Failure> {
        let h = &model.hparams;
        let Some(job) = self.0.as_ref().filter(|_| self.are_several()) else {
            return Ok(Plan::context_for_budget(h, config, budget, 1)?);
        };
        let shares = job.shares(job.card(model, kernels, pool, config), pool)?;
        let bytes = |config: &Config| {
            let part = |rank| match job.share(model, config, rank, shares) {
                Ok(share) => Plan::shared(h, config, &share).map(|plan| plan.session_bytes()),
                // A context too short for so many boards is not too large.
                Err(_) => Ok(0),
            };
            (0..job.boards.size()).try_fold(0, |most: usize, rank| part(rank).map(|bytes| bytes.max(most)))
        };
        Ok(Plan::largest_context(h, config, budget, &bytes)?)
    }

    /// Whether this board has a part of the weights.
    pub(crate) fn have_parts(&self) -> bool {
        self.are_several() && self.0.as_ref().is_some_and(|job| job.split != Split::Tokens)
    }

    /// This board's own weights, if they are not all there are. These follow from the split alone, not from the context.
    ///
    /// # Errors
    /// Boards that the split has no use for, or what keeps them from measuring how fast they are, where that says what each has.
    pub(crate) fn weights<'m>(
        &self,
        model: &Model<'m>,
        kernels: &Kernels,
        pool: &Pool,
    ) -> Result<Option<Vec<&'m [u8]>>, Failure> {
        if !self.have_parts() {
            return Ok(None);
        }
        let mut own = Vec::new();
        self.share(model, kernels, pool, &Config::default())?.for_each(model, &mut |weights| own.push(weights));
        Ok(Some(own))
    }

    /// Shows the others what this board is to run, and waits for theirs.
    pub(crate) fn meet(
        &self,
        model: &Model<'_>,
        kernels: &Kernels,
        pool: &Pool,
        config: &Config,
        plan: &Plan,
    ) -> Result<(), Failure> {
        let Some(job) = self.0.as_ref().filter(|_| self.are_several()) else { return Ok(()) };
        let mut needed = plan.bytes() + BESIDE;
        self.share(model, kernels, pool, config)?.for_each(model, &mut |weights| needed += weights.len());
        let needed = u32::try_from(needed.div_ceil(1 << 20)).unwrap_or(u32::MAX);
        let card = Card { needed, ..job.card(model, kernels, pool, config) };
        let cards = job.boards.boards().start(Ok(card));
        job.met.store(true, Ordering::Relaxed);
        let cards = cards.map_err(Failure::Error)?;
        job.runs.store(true, Ordering::Relaxed);
        log::info!(
            "{} boards: {}; shares {}",
            cards.len(),
            cards.iter().map(|card| card.host.as_str()).collect::<Vec<_>>().join(", "),
            job.shares.get().map_or(String::new(), Shares::to_string)
        );
        Ok(())
    }
}

/// Threads of a board that was asked for so many, or for none in particular: it has then as many as CPUs that it may use, and
/// might use those that the launcher has kept from it.
fn threads(asked: usize, workers: usize, [cpus, all]: [u16; 2]) -> u16 {
    let [asked, workers] = [asked, workers].map(|n| u16::try_from(n).unwrap_or(u16::MAX));
    match asked {
        0 if workers >= cpus => workers.max(all),
        0 => workers,
        asked => asked,
    }
}

/// Whether this is one of several boards: what is typed comes through a pipe from the launcher.
pub(crate) fn is_job() -> bool {
    Boards::new().are_several()
}
