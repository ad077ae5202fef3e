//! The scheduler: whatever else it runs, an answer has the bits that it has alone.

use std::collections::BTreeMap;

use crate::common::deep;
use crate::common::gguf::Tiny;
use crate::common::run::{with_model, with_session};
use armlet::arch::Kernels;
use armlet::engine::{Config, Engine, Pattern, Plan, Prefix, Session};
use armlet::generation::{
    Clients, End, Event, Generation, Limits, Load, MAX_DRAFT, Place, Run, Scheduler, Slot, Speculation, SubmitError,
    Tick,
};
use armlet::host::memory;
use armlet::model::Model;
use armlet::quant::DType;
use armlet::sample::{Rules, Sampler, SamplerConfig};
use armlet::storage::Serial;

/// Room for the tokens of a conversation.
const ROOM: usize = 64;
const VOCAB: u64 = 67;

/// A request that is made again and again.
#[derive(Clone, Debug)]
struct Request {
    prompt: Vec<u32>,
    sampling: SamplerConfig,
    tokens: usize,
    /// Whether the answer is of a few tokens, so that it repeats itself soon.
    few: bool,
}

/// What sessions are of: a model and a plan, and the prefix that they share, if they do.
#[derive(Clone, Copy)]
struct Sessions<'m> {
    model: &'m Model<'m>,
    plan: &'m Plan,
    config: Config,
    prefix: Option<&'m Prefix<'m>>,
}

impl<'m> Sessions<'m> {
    fn session(&self, memory: &'m mut [u8]) -> Session<'m> {
        match self.prefix {
            Some(prefix) => Session::with_prefix(self.model, self.plan, prefix, memory).unwrap(),
            None => Session::new(self.model, self.plan, memory).unwrap(),
        }
    }

    /// The tokens of the prefix.
    fn first(&self) -> &'static [u32] {
        PREFIX.get(..self.prefix.map_or(0, Prefix::len)).unwrap()
    }
}

/// Tokens that sessions may share.
const PREFIX: [u32; 10] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3];

/// Requests whose prompts share beginnings of many lengths; greedy ones, seeded ones, and some whose answers repeat themselves.
fn requests(random: &mut Random, first: &[u32]) -> Vec<Request> {
    let base: Vec<u32> = (0..30).map(|_| random.below(VOCAB) as u32).collect();
    let request = |i: u64, random: &mut Random| {
        let mut prompt = [first, &base[..random.below(31) as usize]].concat();
        prompt.extend((0..1 + random.below(12)).map(|_| random.below(VOCAB) as u32));
        let few = i.is_multiple_of(4);
        let temperature = if i.is_multiple_of(2) { 0.0 } else { 1.1 };
        let repeat_penalty = if few { 1.0 } else { 1.2 };
        let sampling = SamplerConfig { temperature, seed: i, repeat_penalty, ..SamplerConfig::default() };
        let tokens = random.below(14) as usize + if few { 20 } else { 0 };
        Request { prompt, sampling, tokens, few }
    };
    (0..16).map(|i| request(i, random)).collect()
}

/// xorshift
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % n
    }
}

/// An answer in the making, as its client sees it.
struct Client {
    sampler: Sampler,
    generation: Generation,
    speculation: Speculation,
    limit: usize,
    few: bool,
    tokens: Vec<u32>,
    /// Logits behind each token, as bits of the first few.
    logits: Vec<[u32; 4]>,
    end: Option<End>,
}

impl Client {
    fn new(request: &Request) -> Self {
        let mut sampler = Sampler::new(request.sampling);
        request.prompt.iter().for_each(|t| sampler.accept(*t));
        let (generation, speculation) = (Generation::new(), Speculation::new(MAX_DRAFT));
        let Request { tokens: limit, few, .. } = *request;
        Client { sampler, generation, speculation, limit, few, tokens: vec![], logits: vec![], end: None }
    }

    fn limits(&self) -> Limits<'static> {
        Limits { tokens: self.limit, stops: &[] }
    }

    fn rules(&self) -> Rules<'static> {
        let few = Rules { adjust: &|token, logit| (token < 8).then_some(logit), most_raised: 0.0, lowers: None };
        if self.few { few } else { Rules::NONE }
    }
}

/// The clients of a schedule, of which some are not ready at times.
struct All<'t> {
    model: &'t Model<'t>,
    clients: BTreeMap<u64, Client>,
    random: Random,
    /// In so many of ten ticks a client is not ready.
    slow: u64,
    /// Whether there are drafts.
    drafts: bool,
    /// Tokens that the slot of the last request had already.
    kept: usize,
}

impl Clients for All<'_> {
    fn is_ready(&mut self, request: u64) -> bool {
        assert!(self.clients.contains_key(&request));
        self.random.below(10) >= self.slow
    }

    fn next(&mut self, request: u64, logits: &[f32]) -> Option<u32> {
        let client = self.clients.get_mut(&request).expect("an answer to nobody");
        assert!(client.end.is_none(), "an answer goes on after its end");
        if client.tokens.len() >= client.limit {
            client.end = Some(End::Tokens);
            return None;
        }
        client.logits.push(std::array::from_fn(|i| logits[i].to_bits()));
        let (limits, rules, sampler) = (client.limits(), client.rules(), &mut client.sampler);
        match client.generation.choose(&self.model.tokenizer, logits, sampler, limits, rules, &mut |_| ()) {
            Ok(Event::Token(token)) => {
                client.tokens.push(token);
                if client.tokens.len() == client.limit {
                    client.end = Some(End::Tokens);
                    return None;
                }
                Some(token)
            }
            Ok(Event::End(end)) => {
                client.end = Some(end);
                None
            }
            Err(e) => panic!("{e}"),
        }
    }

    fn is_full(&mut self, request: u64) {
        self.clients.get_mut(&request).expect("an end to nobody").end = Some(End::Context);
    }

    fn speculation(&mut self, request: u64) -> Option<(&mut Speculation, usize)> {
        let client = self.clients.get_mut(&request).filter(|_| self.drafts)?;
        Some((&mut client.speculation, client.limit - client.tokens.len()))
    }

    fn starts(&mut self, request: u64, kept: usize) {
        assert!(self.clients.contains_key(&request));
        self.kept = kept;
    }
}

/// What a request gets when nobody else is there.
fn alone(sessions: Sessions<'_>, request: &Request) -> Client {
    let Sessions { model, plan, .. } = sessions;
    let (mut workspace, mut cache) = (memory(plan.engine_bytes()).unwrap(), memory(plan.session_bytes()).unwrap());
    let mut engine = Engine::new(model, Kernels::detect(), plan, &mut workspace).unwrap();
    let mut session = sessions.session(&mut cache);
    let mut client = Client::new(request);
    engine.eval(&Serial, &mut session, &request.prompt[sessions.first().len()..]).unwrap();
    loop {
        let before = client.generation.generated();
        let (limits, rules) = (client.limits(), client.rules());
        let mut run = Run {
            engine: &mut engine,
            exec: &Serial,
            session: &mut session,
            sampler: &mut client.sampler,
            lookup: None,
        };
        let event = client.generation.step(&mut run, limits, rules, &mut |_| ()).unwrap();
        if client.generation.generated() > before {
            client.logits.push(std::array::from_fn(|i| engine.logits()[i].to_bits()));
        }
        match event {
            Event::Token(token) => client.tokens.push(token),
            Event::End(end) => {
                client.end = Some(end);
                return client;
            }
        }
    }
}

/// Memory that slots and places borrow.
struct Memory {
    workspace: Box<dyn std::ops::DerefMut<Target = [u8]>>,
    caches: Vec<Box<dyn std::ops::DerefMut<Target = [u8]>>>,
    tokens: Vec<Vec<u32>>,
}

impl Memory {
    fn new(plan: &Plan, slots: usize, places: usize) -> Self {
        let bytes = |n| -> Box<dyn std::ops::DerefMut<Target = [u8]>> { Box::new(memory(n).unwrap()) };
        Memory {
            workspace: bytes(plan.engine_bytes()),
            caches: (0..slots).map(|_| bytes(plan.session_bytes())).collect(),
            tokens: vec![vec![0; ROOM]; slots + places],
        }
    }

    fn scheduler<R>(&mut self, sessions: Sessions<'_>, f: impl FnOnce(&mut Engine<'_>, &mut Scheduler<'_>) -> R) -> R {
        let Sessions { model, plan, .. } = sessions;
        let mut engine = Engine::new(model, Kernels::detect(), plan, &mut self.workspace).unwrap();
        let (of_slots, of_places) = self.tokens.split_at_mut(self.caches.len());
        let slot = |(cache, tokens)| Slot::new(sessions.session(cache), tokens, sessions.first()).unwrap();
        let mut slots: Vec<_> = self
            .caches
            .iter_mut()
            .map(|cache| &mut ***cache)
            .zip(of_slots.iter_mut().map(|t| &mut t[..]))
            .map(slot)
            .collect();
        let mut places: Vec<_> = of_places.iter_mut().map(|tokens| Place::new(tokens)).collect();
        f(&mut engine, &mut Scheduler::new(&mut slots, &mut places))
    }
}

/// A schedule of requests that come, are cancelled, and wait, until all have ended.
fn schedule(sessions: Sessions<'_>, requests: &[(Request, Client)], seed: u64) -> [usize; 5] {
    let Sessions { model, plan, config, .. } = sessions;
    let mut random = Random(seed * 2 + 1);
    let (n_slots, n_places) = (1 + random.below(5) as usize, 1 + random.below(3) as usize);
    let mut memory = Memory::new(plan, n_slots, n_places);
    let (slow, drafts) = (random.below(6), random.below(2) == 0);
    let mut all = All { model, clients: BTreeMap::new(), random: Random(seed + 77), slow, drafts, kept: 0 };
    let (mut kinds, mut cancelled, mut refused) = (BTreeMap::new(), BTreeMap::new(), 0);
    memory.scheduler(sessions, |engine, scheduler| {
        let mut idle = 0;
        let mut left = 4 + random.below(10);
        while left > 0 || scheduler.load() != Load::default() {
            if left > 0 && random.below(3) == 0 {
                let kind = random.below(requests.len() as u64) as usize;
                let id = 1000 + left;
                match scheduler.submit(engine, id, &requests[kind].0.prompt) {
                    Ok(()) => {
                        kinds.insert(id, kind);
                        all.clients.insert(id, Client::new(&requests[kind].0));
                        left -= 1;
                    }
                    Err(e) => {
                        assert_eq!((e, scheduler.load().waiting), (SubmitError::QueueFull, n_places));
                        refused += 1;
                    }
                }
            }
            if random.below(20) == 0 {
                let open = all.clients.iter().filter(|(_, client)| client.end.is_none()).map(|(id, _)| *id);
                let open: Vec<u64> = open.collect();
                if !open.is_empty() {
                    let id = open[random.below(open.len() as u64) as usize];
                    assert!(scheduler.cancel(id) && !scheduler.cancel(id));
                    cancelled.insert(id, all.clients.remove(&id).unwrap());
                }
            }
            let load = scheduler.load();
            assert!(load.running <= n_slots && load.waiting <= n_places);
            let Tick { decoded, prefilled } = scheduler.tick(engine, &Serial, &mut all);
            assert!(decoded <= n_slots.min(config.logit_rows) && prefilled <= config.chunk);
            idle = if decoded + prefilled == 0 { idle + 1 } else { 0 };
            assert!(idle < 1000, "nothing goes on");
        }
    });
    for (id, client) in all.clients.iter().chain(&cancelled) {
        let want = &requests[kinds[id]].1;
        let n = client.tokens.len();
        assert!(
            want.tokens.starts_with(&client.tokens) && want.logits.starts_with(&client.logits),
            "seed {seed}: {id}"
        );
        if !cancelled.contains_key(id) {
            assert_eq!((n, client.end), (want.tokens.len(), want.end), "seed {seed}: {id}");
        }
    }
    let counts = all.clients.values().map(|client| client.speculation.counts());
    let (drafted, held) = counts.fold((0, 0), |(drafted, held), (a, b)| (drafted + a, held + b));
    [all.clients.len(), cancelled.len(), refused, drafted, held]
}

fn schedules(dtype: DType, config: Config, shared: bool, n: u64) {
    let sizes = Tiny { n_embd: 32, n_heads: 2, n_kv_heads: 1, n_ff: 64, n_layers: 2, dtype, ..Tiny::default() };
    with_model(&sizes.gguf(), |model| {
        let saved = if shared { saved_prefix(model, config) } else { vec![] };
        let mut bytes = memory(saved.len()).unwrap();
        bytes[..saved.len()].copy_from_slice(&saved);
        let prefix = shared.then(|| Prefix::new_checked(&bytes[..saved.len()], model).unwrap());
        let config = prefix.as_ref().map_or(config, |prefix| prefix.config(config));
        let plan = Plan::new(&model.hparams, &config).unwrap();
        let sessions = Sessions { model, plan: &plan, config, prefix: prefix.as_ref() };
        let requests: Vec<_> = requests(&mut Random(11), sessions.first())
            .into_iter()
            .map(|request| {
                let client = alone(sessions, &request);
                (request, client)
            })
            .collect();
        let mut sum = [0; 5];
        for seed in 0..n {
            let counts = schedule(sessions, &requests, seed);
            sum.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
        }
        let [answers, cancelled, refused, drafted, held] = sum;
        println!(
            "{dtype:?}, {shared}: {answers} answers, {cancelled} cancelled, {refused} refused; {held} of {drafted}"
        );
        assert!([answers, cancelled, refused].iter().all(|count| *count > n as usize / 2));
        assert!(held > 0 && held < drafted, "{held} of {drafted}");
    });
}

fn config() -> Config {
    Config { context: 64, chunk: 8, logit_rows: 4, ..Config::default() }
}

/// The file of a prefix with the tokens that sessions may share.
fn saved_prefix(model: &Model<'_>, config: Config) -> Vec<u8> {
    with_session(model, Kernels::detect(), Config { sinks: PREFIX.len(), ..config }, |reader| {
        reader.eval(&Serial, &PREFIX).unwrap();
        let mut saved = Vec::new();
        let sink = |part: &[u8]| {
            saved.extend(part);
            Ok::<_, ()>(())
        };
        reader.session.save_prefix(&[], sink).unwrap().unwrap();
        saved
    })
}

/// More than 1,000 in all.
#[test]
fn answers_are_those_alone_whatever_the_schedule() {
    let n = deep(2000, 334) as u64;
    schedules(DType::Q8_0, config(), false, n);
    // Floats, whose sums depend on how many tokens a pass has.
    schedules(DType::F32, Config { chunk: 12, ..config() }, false, n);
    // Contexts that end: by eviction, and by being full.
    schedules(DType::Q8_0, Config { context: 24, sinks: 4, ..config() }, false, n / 2);
    schedules(DType::Q8_0, Config { context: 44, pattern: Pattern::Full, ..config() }, false, n / 2);
    // A prefix that all share, behind which passes of floats start.
    schedules(DType::Q8_0, config(), true, n / 4);
    schedules(DType::F32, Config { chunk: 12, ..config() }, true, n / 4);
}

/// No clients yet, who are always ready.
fn all<'t>(model: &'t Model<'t>) -> All<'t> {
    All { model, clients: BTreeMap::new(), random: Random(1), slow: 0, drafts: true, kept: 0 }
}

/// A request for three tokens.
fn short() -> Request {
    Request { prompt: vec![], sampling: SamplerConfig::default(), tokens: 3, few: false }
}

/// Has a request answered; returns how many tokens of its prompt were read.
fn ask(engine: &mut Engine<'_>, scheduler: &mut Scheduler<'_>, all: &mut All<'_>, id: u64, request: &Request) -> usize {
    scheduler.submit(engine, id, &request.prompt).unwrap();
    all.clients.insert(id, Client::new(request));
    let mut read = 0;
    while scheduler.load() != Load::default() {
        read += scheduler.tick(engine, &Serial, all).prefilled;
    }
    assert_eq!(read + all.kept, request.prompt.len());
    read
}

/// Nobody there: the whole prompt is read. The same again: only its last token is. And a prompt goes where most of it is.
#[test]
fn what_a_slot_has_is_not_read_again() {
    let sizes = Tiny { dtype: DType::Q8_0, ..Tiny::default() };
    with_model(&sizes.gguf(), |model| {
        let plan = Plan::new(&model.hparams, &config()).unwrap();
        let sessions = Sessions { model, plan: &plan, config: config(), prefix: None };
        Memory::new(&plan, 2, 2).scheduler(sessions, |engine, scheduler| {
            let mut all = all(model);
            let mut answers = BTreeMap::new();
            let mut ask = |id: u64, prompt: &[u32], answers: &mut BTreeMap<u64, Vec<u32>>| {
                let request = Request { prompt: prompt.to_vec(), ..short() };
                let read = ask(engine, scheduler, &mut all, id, &request);
                answers.insert(id, all.clients[&id].tokens.clone());
                read
            };
            let first: Vec<u32> = (0..20).collect();
            let other: Vec<u32> = (40..60).collect();
            let longer = [&first[..15], &[61, 62]].concat();
            let mut read = |id, prompt: &[u32]| ask(id, prompt, &mut answers);
            assert_eq!((read(1, &first), read(2, &first)), (20, 1));
            assert_eq!((read(3, &other), read(4, &first), read(5, &other)), (20, 1, 1));
            assert_eq!((read(6, &longer), read(7, &other), read(8, &first)), (2, 1, 5));
            // A conversation goes on behind its answer, of which all but the last token were read.
            let turn = [&other[..], &answers[&7], &[1, 2]].concat();
            assert_eq!(ask(9, &turn, &mut answers), 3);
        });
    });
}

/// A short prompt is read before the rest of a long one. And a long one that others come to pass again and again is read all the
/// same: before as many tokens of theirs were read as it has, and one prompt in each slot.
#[test]
fn a_short_prompt_passes_a_long_one_and_none_waits_for_ever() {
    let sizes = Tiny { dtype: DType::Q8_0, ..Tiny::default() };
    with_model(&sizes.gguf(), |model| {
        let config = Config { chunk: 4, ..config() };
        let plan = Plan::new(&model.hparams, &config).unwrap();
        let sessions = Sessions { model, plan: &plan, config, prefix: None };
        Memory::new(&plan, 2, 2).scheduler(sessions, |engine, scheduler| {
            let mut all = all(model);
            let submit =
                |engine: &mut Engine<'_>, scheduler: &mut Scheduler<'_>, all: &mut All<'_>, id: u32, tokens: u32| {
                    let prompt: Vec<u32> = (0..tokens).map(|i| (i + id) % VOCAB as u32).collect();
                    let request = Request { prompt, tokens: 1, ..short() };
                    scheduler.submit(engine, id.into(), &request.prompt).unwrap();
                    all.clients.insert(id.into(), Client::new(&request));
                };
            let has_begun = |all: &All<'_>, id: u64| !all.clients[&id].tokens.is_empty();
            submit(engine, scheduler, &mut all, 0, 60);
            let mut read = scheduler.tick(engine, &Serial, &mut all).prefilled;
            submit(engine, scheduler, &mut all, 1, 3);
            scheduler.tick(engine, &Serial, &mut all);
            assert!(has_begun(&all, 1) && !has_begun(&all, 0));
            let mut others = 3;
            for id in 2.. {
                if scheduler.load().waiting == 0 {
                    submit(engine, scheduler, &mut all, id, 4);
                }
                let before = all.clients.values().filter(|client| client.end.is_some()).count();
                let prefilled = scheduler.tick(engine, &Serial, &mut all).prefilled;
                let is_others = all.clients.values().filter(|client| client.end.is_some()).count() > before;
                if is_others && !has_begun(&all, 0) {
                    others += prefilled
                } else {
                    read += prefilled
                }
                if has_begun(&all, 0) {
                    break;
                }
                assert!(others <= 60 + 4, "{others} tokens of others, {read} of its own");
            }
            assert!(others >= 50, "others did not pass it: {others}");
        });
    });
}

/// What followed the last three tokens where they were last, if they were.
fn repeated(tokens: &[u32]) -> Option<u32> {
    let (before, end) = tokens.split_at_checked(tokens.len().checked_sub(3)?)?;
    let at = tokens[..tokens.len() - 1].windows(3).rposition(|three| three == end)?;
    before.get(at + 3).copied()
}

/// The answer does not follow its draft, but the next prompt does: that token is read, because the session does not have it.
#[test]
fn a_slot_does_not_have_what_an_answer_did_not_follow() {
    let sizes = Tiny { dtype: DType::Q8_0, ..Tiny::default() };
    let config = Config { chunk: 8, logit_rows: 8, ..config() };
    with_model(&sizes.gguf(), |model| {
        let plan = Plan::new(&model.hparams, &config).unwrap();
        let sessions = Sessions { model, plan: &plan, config, prefix: None };
        let sampling = SamplerConfig { temperature: 1.0, seed: 3, repeat_penalty: 1.0, ..SamplerConfig::default() };
        let first = Request { prompt: [5, 1, 6, 2, 7, 0].repeat(4), sampling, tokens: 36, few: true };
        let want = alone(sessions, &first);
        Memory::new(&plan, 1, 1).scheduler(sessions, |engine, scheduler| {
            let (mut all, mut id, mut others) = (all(model), 0, 0);
            for n in 1..want.tokens.len() {
                let told = [&first.prompt[..], &want.tokens[..n]].concat();
                let Some(other) = repeated(&told).filter(|token| *token != want.tokens[n]) else { continue };
                id += 2;
                scheduler.submit(engine, id, &first.prompt).unwrap();
                all.clients.insert(id, Client::new(&first));
                while all.clients[&id].tokens.len() <= n {
                    scheduler.tick(engine, &Serial, &mut all);
                }
                // It ends where a draft was read that it has just left.
                assert!(all.clients[&id].tokens == want.tokens[..=n] && scheduler.cancel(id));
                let next = Request { prompt: [&told[..], &[other, 3]].concat(), ..short() };
                ask(engine, scheduler, &mut all, id + 1, &next);
                assert_eq!(all.kept, told.len());
                assert_eq!(all.clients[&(id + 1)].logits, alone(sessions, &next).logits);
                others += 1;
            }
            println!("{others} tokens of drafts that the answer did not follow");
            assert!(others > 0, "every draft was followed: {:?}", want.tokens);
        });
    });
}

#[test]
fn requests_that_cannot_be_taken_say_why() {
    let sizes = Tiny { dtype: DType::Q8_0, ..Tiny::default() };
    with_model(&sizes.gguf(), |model| {
        let plan = Plan::new(&model.hparams, &config()).unwrap();
        let sessions = Sessions { model, plan: &plan, config: config(), prefix: None };
        Memory::new(&plan, 1, 1).scheduler(sessions, |engine, scheduler| {
            assert_eq!(scheduler.submit(engine, 1, &[]), Err(SubmitError::Empty));
            assert_eq!(scheduler.submit(engine, 1, &[1, 67]), Err(SubmitError::UnknownToken(67)));
            let long = SubmitError::TooLong { tokens: ROOM + 1, most: ROOM };
            assert_eq!(scheduler.submit(engine, 1, &[1; ROOM + 1]), Err(long));
            assert_eq!(scheduler.submit(engine, 1, &[1; ROOM]), Ok(()));
            assert_eq!(scheduler.submit(engine, 1, &[1]), Err(SubmitError::Duplicate(1)));
            assert_eq!(scheduler.submit(engine, 2, &[1]), Err(SubmitError::QueueFull));
            assert_eq!(scheduler.load(), Load { running: 0, waiting: 1 });
            assert!(!scheduler.cancel(2) && scheduler.cancel(1) && !scheduler.cancel(1));
            assert_eq!(scheduler.load(), Load::default());
        });
    });
}
