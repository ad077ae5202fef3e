//! [`Comm`] over MPI.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use armlet::boards::{Comm, CommError};
use mpi::environment::Universe;
use mpi::point_to_point::{Destination, Source};
use mpi::request::StaticScope;
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::{Tag, Threading};

use crate::agree::{agree, alike, tell};
use crate::card::Card;
use crate::exchange::{Exchange, Messages};
use crate::launch;
use crate::patience::{self, Patience};

/// Who has given up whom.
const SILENT: Tag = 1;
/// How long the launcher has to end the job before the first board does it, and before another.
const LAUNCHER: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(15)];
/// How long boards that give up tell each other.
const GRACE: Duration = Duration::from_millis(200);
/// How long an abort may take; with a cut cable MPI never comes back from it.
const ABORT: Duration = Duration::from_secs(3);
/// Nothing is saved.
const NOTHING: u64 = u64::MAX;

/// The boards of an MPI job. Only the thread that made it may use it, and one only is made.
///
/// A board that does not answer ends the program, as MPI has it: nothing can be done with a job that has lost a rank, and
/// MPI may write to a buffer for as long as it is not told that the message was given up, which it cannot be told. So
/// [`CommError::Silent`] is a message of this type's own, and no method returns it.
pub struct Mpi {
    universe: Universe,
    thread: ThreadId,
    rank: usize,
    size: usize,
    patience: Patience,
    names: OnceLock<Vec<String>>,
    kept: AtomicU64,
    /// Called before the program ends because of a board that does not answer.
    at_end: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Mpi {
    /// Joins the job that the launcher started; without a launcher, a job of one.
    ///
    /// # Errors
    /// What MPI cannot do.
    pub fn new(patience: Duration) -> Result<Self, String> {
        launch::end_with_daemon();
        let started = mpi::initialize_with_threading(Threading::Funneled);
        let (universe, threading) = started.ok_or("MPI was started already")?;
        if threading < Threading::Funneled {
            return Err(format!("this MPI library is not for programs with threads: it has {threading:?}"));
        }
        let world = universe.world();
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        if let Some(launched) = launched().filter(|launched| size == 1 && *launched > 1) {
            let library = library();
            return Err(format!(
                "the launcher has started {launched} boards, and is of another MPI than this program's, {library}"
            ));
        }
        let (patience, thread) = (Patience::new(patience, size), thread::current().id());
        let (names, kept, at_end) = (OnceLock::new(), AtomicU64::new(NOTHING), Mutex::new(None));
        Ok(Mpi { universe, thread, rank, size, patience, names, kept, at_end })
    }

    /// What comes before everything else: shows the other boards this one's card, or what keeps it from starting, and gives
    /// the cards of all.
    ///
    /// # Errors
    /// Why the boards cannot start, the same on all of them; it is one board's task to say it.
    pub fn start(&self, own: Result<Card, String>) -> Result<Vec<Card>, String> {
        let cards = self.meet(own)?;
        self.check_launch(&cards)?;
        Ok(cards)
    }

    /// Shows the other boards a text of this one, or what keeps it from starting, before they show each other their cards.
    ///
    /// # Errors
    /// As [`start`](Mpi::start).
    pub fn tell(&self, own: Result<String, String>) -> Result<Vec<String>, String> {
        tell(self, own)
    }

    /// Compares what this board was asked for with what the others were, before anything else.
    ///
    /// # Errors
    /// As [`start`](Mpi::start).
    pub fn alike(&self, own: &[(&str, String)]) -> Result<(), String> {
        alike(self, own)
    }

    /// That, however the boards were launched.
    pub(crate) fn meet(&self, own: Result<Card, String>) -> Result<Vec<Card>, String> {
        let cards = agree(self, own)?;
        self.names.get_or_init(|| cards.iter().map(|card| card.host.clone()).collect());
        Ok(cards)
    }

    /// Whether the boards with these cards were launched as they should be; else how. The first board knows, which the
    /// launcher itself has started in most cases.
    pub(crate) fn check_launch(&self, cards: &[Card]) -> Result<(), String> {
        let checked = launch::check(cards, &library(), self.patience.least(), launch::keepalive(&library()));
        let mut is_fine = [u8::from(checked.is_ok())];
        self.broadcast(0, &mut is_fine).map_err(|e| e.to_string())?;
        if self.rank == 0 { checked } else { (is_fine == [1]).then_some(()).ok_or_else(|| "not launched so".into()) }
    }

    /// So many tokens of the conversation are saved.
    pub fn keep(&self, tokens: u64) {
        self.kept.store(tokens, Ordering::Relaxed);
    }

    /// What to do before the program ends because of a board that does not answer: such as to delete its temporary files.
    pub fn at_end(&self, f: impl FnOnce() + Send + 'static) {
        *self.at_end.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(f));
    }

    /// Ends the job on all boards, because of what this one has said.
    pub fn abort(&self) -> ! {
        self.world().abort(1)
    }

    /// How long boards wait for each other.
    pub fn patience(&self) -> &Patience {
        &self.patience
    }

    /// A board, by name and number.
    pub fn board(&self, rank: usize) -> String {
        patience::board(rank, self.names())
    }

    fn names(&self) -> &[String] {
        self.names.get().map_or(&[], Vec::as_slice)
    }

    /// MPI's own handle of the job.
    ///
    /// # Panics
    /// On another thread than the one that joined the job: MPI was promised calls of one thread.
    pub(crate) fn world(&self) -> SimpleCommunicator {
        assert_eq!(thread::current().id(), self.thread, "MPI is for the thread that started it");
        self.universe.world()
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let rank = self.rank;
        (0..self.size).filter(move |other| *other != rank)
    }

    /// Sends and receives while `work` runs, and gives up after `limit`.
    fn exchange(
        &self,
        limit: Option<Duration>,
        messages: Messages<'_>,
        work: &mut dyn FnMut(&dyn Fn()),
    ) -> Result<(), CommError> {
        let world = self.world();
        let mut ranks = messages.to.iter().map(|(rank, _)| *rank).chain(messages.from.iter().map(|(rank, _)| *rank));
        if let Some(rank) = ranks.find(|rank| *rank >= self.size) {
            return Err(CommError::Gone { rank });
        }
        mpi::request::scope(|scope| {
            let exchange = RefCell::new(Exchange::new(&world, scope, messages));
            work(&|| exchange.borrow_mut().poll());
            let exchange = &mut *exchange.borrow_mut();
            let start = Instant::now();
            loop {
                exchange.poll();
                let waited = start.elapsed();
                let Some(rank) = exchange.waits_for() else { break };
                if limit.is_some_and(|limit| waited > limit) {
                    self.give_up(&world, rank, waited);
                }
                match patience::nap(waited).filter(|_| exchange.is_idle()) {
                    Some(nap) => thread::sleep(nap),
                    None => std::hint::spin_loop(),
                }
            }
            exchange.result()
        })
    }

    /// Ends the job because of a silent board. The launcher is waited for, because it has the better message where a host
    /// is gone, and with Open MPI before version 5 an abort beside a cut cable hangs it.
    ///
    /// Boards but the first, which is on the launcher's host, say nothing until the launcher has had its time: it may be
    /// they who are cut off, and what they say would wait in the socket of Open MPI's daemon, which looks whether the
    /// others are there only while nothing waits. It would stay for a quarter of an hour.
    fn give_up(&self, world: &SimpleCommunicator, rank: usize, waited: Duration) -> ! {
        let is_first = self.rank == 0;
        let mut accused = vec![None; self.size];
        let notice: &'static [u8; 8] = Box::leak(Box::new((rank as u64).to_le_bytes()));
        for other in self.others() {
            let board = world.process_at_rank(other as mpi::Rank);
            std::mem::forget(board.immediate_send_with_tag(StaticScope, &notice[..], SILENT));
        }
        if is_first {
            // Who waits for this board gives up at the same time, and it should not be named.
            self.hear(world, &mut accused, GRACE);
            self.say_who(rank, &accused, waited);
        }
        if let Some(f) = self.at_end.lock().unwrap_or_else(PoisonError::into_inner).take() {
            f();
        }
        if !(is_first && launch::ends_aborted(&library())) {
            self.hear(world, &mut accused, LAUNCHER[usize::from(!is_first)]);
        }
        // One says it for all.
        if !is_first && accused[..self.rank].iter().all(Option::is_none) {
            self.say_who(rank, &accused, waited);
        }
        thread::spawn(|| {
            thread::sleep(ABORT);
            std::process::abort();
        });
        world.abort(1)
    }

    /// Says which board is silent, if this one waits for `rank`.
    fn say_who(&self, rank: usize, accused: &[Option<usize>], waited: Duration) {
        let rank = patience::culprit(self.rank, rank, accused);
        let kept = Some(self.kept.load(Ordering::Relaxed)).filter(|kept| *kept != NOTHING);
        let line = format!("armlet-mpi: {}\n", patience::given_up(rank, self.names(), waited, kept));
        // In one piece, beside what others say.
        eprint!("{line}");
    }

    /// Hears for some time which boards have given up which. MPI sends only while it is called, too.
    fn hear(&self, world: &SimpleCommunicator, accused: &mut [Option<usize>], time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            for other in self.others() {
                let board = world.process_at_rank(other as mpi::Rank);
                if board.immediate_probe_with_tag(SILENT).is_some() {
                    let mut notice = [0; 8];
                    board.receive_into_with_tag(&mut notice[..], SILENT);
                    accused[other] = Some(u64::from_le_bytes(notice) as usize);
                }
            }
            thread::sleep(GRACE / 20);
        }
    }

    /// An exchange of a pass: what it takes is a measure for those that follow.
    fn in_pass(&self, messages: Messages<'_>, work: &mut dyn FnMut(&dyn Fn())) -> Result<(), CommError> {
        let done = self.exchange(self.patience.limit(), messages, work);
        self.patience.answered();
        done
    }

    /// What one board sends to all others.
    fn spread<'d>(&self, root: usize, data: &'d mut [u8]) -> Messages<'d> {
        let mut messages = Messages::default();
        if root == self.rank {
            let data: &[u8] = data;
            messages.to.extend(self.others().map(|other| (other, data)));
        } else {
            messages.from.push((root, data));
        }
        messages
    }
}

/// How many boards the launcher has started, if it says.
fn launched() -> Option<usize> {
    let sizes = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"];
    sizes.iter().find_map(|name| std::env::var(name).ok()?.parse().ok())
}

/// Which MPI library this is, and which version of it; known before a job is joined.
pub fn library() -> String {
    let version = mpi::environment::library_version().unwrap_or_default();
    version.lines().next().unwrap_or_default().trim_end_matches('\0').trim().into()
}

impl Comm for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    /// Each board sends its part to each: one hop, as in `MPI_Iallgatherv` of Open MPI, and each part shows its length.
    fn all_gather(&self, all: &mut [u8], ends: &[usize]) -> Result<(), CommError> {
        if self.size == 1 {
            return Ok(());
        }
        let (mut messages, mut rest, mut start) = (Messages::default(), all, 0);
        for (rank, &end) in ends.iter().enumerate() {
            let (part, after) = rest.split_at_mut(end - start);
            (rest, start) = (after, end);
            if rank == self.rank {
                let part: &[u8] = part;
                messages.to.extend(self.others().map(|other| (other, part)));
            } else {
                messages.from.push((rank, part));
            }
        }
        self.in_pass(messages, &mut |_| ())
    }

    fn broadcast(&self, root: usize, data: &mut [u8]) -> Result<(), CommError> {
        self.in_pass(self.spread(root, data), &mut |_| ())
    }

    /// Silence has no end for who waits for a command. What comes next begins later.
    fn listen(&self, root: usize, data: &mut [u8]) -> Result<(), CommError> {
        let limit = self.patience.limit().filter(|_| root == self.rank);
        let heard = self.exchange(limit, self.spread(root, data), &mut |_| ());
        self.patience.listened();
        heard
    }

    fn begin(&self, tokens: usize) {
        self.patience.begin(tokens);
    }

    fn shift(
        &self,
        to: Option<(usize, &[u8])>,
        from: Option<(usize, &mut [u8])>,
        work: &mut dyn FnMut(&dyn Fn()),
    ) -> Result<(), CommError> {
        let messages = Messages { to: to.into_iter().collect(), from: from.into_iter().collect() };
        self.in_pass(messages, work)
    }
}
