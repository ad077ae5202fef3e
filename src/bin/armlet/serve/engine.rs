//! The thread that runs the model: it alone has the engine and the scheduler, in memory that is fixed at the start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::Duration;

use armlet::engine::{Engine, Plan, Prefix, Session};
use armlet::generation::{Load, Place, Scheduler, Slot, SubmitError, Tick};
use armlet::host::memory;
use memmap2::MmapMut;
use tokio::sync::{mpsc, oneshot};

use super::clients::{Answers, Ask, EVENTS};
use super::event::Event;
use super::metrics::Metrics;
use crate::error::Failure;
use crate::model::{Loaded, check_room};

/// Requests that may be on their way to the engine while a pass runs.
const ON_THEIR_WAY: usize = 64;
/// Where nothing goes on because no client takes anything, this long passes before clients are asked again.
const NAP: Duration = Duration::from_millis(50);

enum Command {
    Submit(Box<Submit>),
    /// A client took something for which an answer has waited.
    Wake,
}

struct Submit {
    ask: Ask,
    events: mpsc::Sender<Event>,
    taken: oneshot::Sender<Result<(), SubmitError>>,
}

/// The way to the engine, for as many threads as want it. The engine ends when all of these are gone.
#[derive(Clone)]
pub(super) struct Handle {
    commands: SyncSender<Command>,
    /// The engine waits for a client.
    naps: Arc<AtomicBool>,
}

/// Why a request did not get to the engine.
pub(super) enum Refused {
    Scheduler(SubmitError),
    /// Too many are on their way.
    Busy,
    /// The engine has ended.
    Gone,
}

/// The engine's end of it.
pub(super) struct Inbox {
    commands: Receiver<Command>,
    naps: Arc<AtomicBool>,
}

pub(super) fn channel() -> (Handle, Inbox) {
    let (sender, receiver) = sync_channel(ON_THEIR_WAY);
    let naps = Arc::new(AtomicBool::new(false));
    (Handle { commands: sender, naps: naps.clone() }, Inbox { commands: receiver, naps })
}

impl Handle {
    /// Sends a request, and waits until it is in the queue. What is received then are its events; to drop the receiver cancels
    /// it.
    pub(super) async fn submit(&self, ask: Ask) -> Result<mpsc::Receiver<Event>, Refused> {
        let (events, receiver) = mpsc::channel(EVENTS);
        let (taken, answer) = oneshot::channel();
        let submit = Command::Submit(Box::new(Submit { ask, events, taken }));
        self.commands.try_send(submit).map_err(|e| match e {
            TrySendError::Full(_) => Refused::Busy,
            TrySendError::Disconnected(_) => Refused::Gone,
        })?;
        match answer.await {
            Ok(Ok(())) => Ok(receiver),
            Ok(Err(e)) => Err(Refused::Scheduler(e)),
            Err(_) => Err(Refused::Gone),
        }
    }

    /// A client took an event.
    pub(super) fn taken(&self) {
        if self.naps.swap(false, SeqCst) {
            // If the channel is full, the engine wakes anyway.
            let _ = self.commands.try_send(Command::Wake);
        }
    }
}

/// Slots of one plan.
pub(super) struct Slots<'p> {
    pub(super) plan: Plan,
    pub(super) number: usize,
    /// What they start with, and its tokens.
    pub(super) prefix: Option<(Prefix<'p>, Vec<u32>)>,
}

/// How much there is of everything.
pub(super) struct Sizes<'p> {
    pub(super) slots: Vec<Slots<'p>>,
    /// Places in the queue.
    pub(super) places: usize,
    /// The most tokens that are read in advance.
    pub(super) drafts: usize,
}

impl Sizes<'_> {
    /// The slots.
    pub(super) fn number(&self) -> usize {
        self.slots.iter().map(|slots| slots.number).sum()
    }

    /// The most tokens of a prompt.
    pub(super) fn context(&self) -> usize {
        self.slots.iter().map(|slots| slots.plan.context()).min().unwrap_or(0)
    }

    /// What each slot is.
    fn each(&self) -> impl Iterator<Item = &Slots<'_>> {
        self.slots.iter().flat_map(|slots| std::iter::repeat_n(slots, slots.number))
    }

    /// Bytes of [`Memory`].
    fn bytes(&self) -> usize {
        let rooms = (self.number() + self.places) * self.context() * size_of::<u32>();
        let caches: usize = self.each().map(|slots| slots.plan.session_bytes()).sum();
        self.engine().map_or(0, Plan::engine_bytes) + caches + rooms
    }

    /// The plan whose engine can run all slots.
    fn engine(&self) -> Option<&Plan> {
        self.slots.iter().map(|slots| &slots.plan).max_by_key(|plan| plan.engine_bytes())
    }
}

/// What it works in: there before anybody is told that there is a server.
pub(super) struct Memory {
    workspace: MmapMut,
    /// Of each slot.
    caches: Vec<MmapMut>,
    /// Tokens of each slot, and of each place in the queue.
    rooms: Vec<Vec<u32>>,
}

impl Memory {
    /// Refused where addresses are limited and `more` bytes, of requests and what is made of them, would not find room beside it.
    pub(super) fn new(sizes: &Sizes<'_>, more: usize) -> Result<Self, Failure> {
        let failed = |bytes: usize, why: &dyn std::fmt::Display| {
            let why = format!("{why}; fewer --users, or a smaller -c or --kv-budget, need less");
            Failure::new(format!("cannot allocate {} MiB", bytes.div_ceil(1 << 20)), why)
        };
        let allocate = |bytes: usize| memory(bytes).map_err(|e| failed(bytes, &e));
        let all = sizes.bytes();
        check_room(all.saturating_add(more)).map_err(|why| failed(all, &why))?;
        Ok(Memory {
            workspace: allocate(sizes.engine().map_or(0, Plan::engine_bytes))?,
            caches: sizes.each().map(|slots| allocate(slots.plan.session_bytes())).collect::<Result<_, _>>()?,
            rooms: vec![vec![0; sizes.context()]; sizes.number() + sizes.places],
        })
    }
}

/// Runs until all handles are gone.
pub(super) fn run<'m>(
    loaded: &'m Loaded<'_>,
    sizes: &'m Sizes<'m>,
    memory: &'m mut Memory,
    inbox: &Inbox,
    metrics: &Metrics,
) -> Result<(), Failure> {
    let Memory { workspace, caches, rooms } = memory;
    let (of_slots, of_places) = rooms.split_at_mut(sizes.number());
    let Some(plan) = sizes.engine() else { return Ok(()) };
    let mut engine = Engine::new(&loaded.model, loaded.kernels, plan, workspace)?;
    let mut slots = Vec::new();
    for ((of, cache), room) in sizes.each().zip(caches).zip(of_slots) {
        let (session, read) = match &of.prefix {
            None => (Session::new(&loaded.model, &of.plan, cache)?, &[][..]),
            Some((prefix, tokens)) => {
                (Session::with_prefix(&loaded.model, &of.plan, prefix, cache)?, tokens.as_slice())
            }
        };
        // It has read just this, for which there is room: a prefix is shorter than its plan's context.
        slots.extend(Slot::new(session, room, read));
    }
    let number = slots.len();
    let mut places: Vec<_> = of_places.iter_mut().map(|room| Place::new(room)).collect();
    let mut scheduler = Scheduler::new(&mut slots, &mut places);
    let mut answers = Answers::new(&loaded.model.tokenizer, metrics, sizes.drafts);
    let mut requests = 0;
    let mut idle = false;
    loop {
        match inbox.next(scheduler.load(), idle) {
            Next::Submit(submit) => {
                // Those that came during a pass fill the queue while slots are free.
                let Load { running, waiting } = scheduler.load();
                if waiting >= sizes.places && running < number {
                    scheduler.tick(&mut engine, &loaded.pool, &mut answers);
                }
                requests += 1;
                idle = false;
                take(&mut scheduler, &engine, &mut answers, requests, *submit);
                continue;
            }
            Next::Tick => {}
            Next::End => return Ok(()),
        }
        let Load { running, waiting } = scheduler.load();
        for request in answers.gone(waiting > 0 && running == number) {
            scheduler.cancel(request);
        }
        let tick = scheduler.tick(&mut engine, &loaded.pool, &mut answers);
        idle = tick == Tick::default();
        metrics.prefilled.add(tick.prefilled);
        let load = scheduler.load();
        metrics.running.set(load.running);
        metrics.waiting.set(load.waiting);
    }
}

/// Puts a request into the queue, and says whether there was room.
fn take(scheduler: &mut Scheduler<'_>, engine: &Engine<'_>, answers: &mut Answers<'_>, request: u64, submit: Submit) {
    let Submit { ask, events, taken } = submit;
    let result = scheduler.submit(engine, request, &ask.prompt);
    if result.is_ok() {
        answers.insert(request, ask, events);
    }
    // If nobody waits for it any more, its events have no receiver, and it is cancelled.
    let _ = taken.send(result);
}

enum Next {
    Submit(Box<Submit>),
    Tick,
    End,
}

impl Inbox {
    /// What to do next; waits as long as there is nothing.
    fn next(&self, load: Load, idle: bool) -> Next {
        if load == Load::default() {
            return match self.commands.recv() {
                Ok(Command::Submit(submit)) => Next::Submit(submit),
                Ok(Command::Wake) => Next::Tick,
                Err(_) => Next::End,
            };
        }
        if idle {
            self.naps.store(true, SeqCst);
            return match self.commands.recv_timeout(NAP) {
                Ok(Command::Submit(submit)) => Next::Submit(submit),
                Ok(Command::Wake) | Err(RecvTimeoutError::Timeout) => Next::Tick,
                Err(RecvTimeoutError::Disconnected) => Next::End,
            };
        }
        loop {
            match self.commands.try_recv() {
                Ok(Command::Submit(submit)) => return Next::Submit(submit),
                Ok(Command::Wake) => {}
                Err(TryRecvError::Empty) => return Next::Tick,
                Err(TryRecvError::Disconnected) => return Next::End,
            }
        }
    }
}
