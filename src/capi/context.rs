//! A context, and the arena that it is in:
//!
//! ```text
//! context     one conversation: below
//! model       hyperparameters, and slices of the tables
//! tables      the vocabulary's index, the offsets of the tensors
//! workspace   activations and logits
//! KV cache
//! text        (text_bytes + MOST_ADDED) a turn in its chat format
//! scratch     of the tokenizer
//! ```

#![allow(unsafe_code)]

use core::ffi::c_void;

use super::armlet_status::{self, *};
use super::executor::CallbackExecutor;
use super::pointers::{self, Span};
use super::status::{CallError, Line};
use super::{ARMLET_ABI_VERSION, ARMLET_MAX_WORKERS, armlet_config, armlet_log, armlet_requirements};
use super::{ARMLET_ARENA_ALIGN, ARMLET_STACK_BYTES, armlet_keep_going};
use crate::arch::{Backend, Kernels, KvType};
use crate::engine::{Config, Engine, EngineError, Pattern, Plan, Session};
use crate::generation::Generation;
use crate::gguf::File;
use crate::model::Model;
use crate::sample::{Sampler, SamplerConfig};
use crate::storage::{ALIGN, ArenaError};
use crate::tokenizer::{Detokenizer, MOST_ADDED};

/// Marks a complete context.
const MAGIC: u64 = u64::from_le_bytes(*b"armlet 1");
/// Marks it while a function of the library uses it.
const BUSY: u64 = u64::from_le_bytes(*b"armlet b");

/// What the caller's handle points to, at the start of the arena. No reference covers the mark, so that a call from a callback
/// may read it. `repr(C)` because it must come first.
#[repr(C)]
pub(super) struct Marked {
    mark: u64,
    context: Context,
}

/// One conversation.
pub(super) struct Context {
    pub(super) model: &'static Model<'static>,
    pub(super) engine: Engine<'static>,
    pub(super) session: Session<'static>,
    pub(super) executor: CallbackExecutor,
    pub(super) caller: Caller,
    pub(super) sampler: Sampler,
    /// The answer under way.
    pub(super) generation: Generation,
    pub(super) detokenizer: Detokenizer,
    /// Whether the engine has logits for the last token.
    pub(super) ready: bool,
    pub(super) backend: u32,
    /// The longest text, in bytes.
    pub(super) text_bytes: usize,
    pub(super) text: &'static mut [u8],
    pub(super) scratch: &'static mut [u8],
    /// The arena that this context is in.
    arena: Span,
    /// The model's file.
    file: Span,
}

/// The callbacks, except `parallel_for`.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub(super) user: *mut c_void,
    log: armlet_log,
    keep_going: armlet_keep_going,
}

impl Caller {
    /// The status of a result; an error is logged.
    pub(super) fn outcome(&self, result: Result<armlet_status, CallError>) -> armlet_status {
        let error = match result {
            Ok(status) => return status,
            Err(error) => error,
        };
        if let Some(log) = self.log {
            let line = Line::new(&error);
            // SAFETY: callback; the bytes outlive the call.
            unsafe { log(self.user, line.bytes().as_ptr().cast(), line.bytes().len()) };
        }
        error.status()
    }

    pub(super) fn keeps_going(&self) -> bool {
        // SAFETY: callback.
        self.keep_going.is_none_or(|keep_going| unsafe { keep_going(self.user) })
    }
}

/// A configuration that has been checked as far as is possible without a model.
pub(super) struct Checked {
    pub(super) caller: Caller,
    given: armlet_config,
    pattern: Pattern,
    kv: KvType,
}

impl Checked {
    /// # Safety
    /// *Readable*: `config`, for as many bytes as it says. *Callback*: its functions, until the context's last use.
    pub(super) unsafe fn new(config: *const armlet_config) -> Result<Self, armlet_status> {
        // SAFETY: readable for its size.
        let given = unsafe { pointers::sized(config) }?;
        if given.abi_version != ARMLET_ABI_VERSION {
            return Err(ARMLET_ERR_ABI);
        }
        let pattern = match given.pattern {
            0 => Pattern::Sinks,
            1 => Pattern::Window,
            2 => Pattern::Full,
            _ => return Err(ARMLET_ERR_CONFIG),
        };
        let kv = match given.kv_type {
            0 => KvType::F16,
            1 => KvType::Int8,
            2 => KvType::F32,
            _ => return Err(ARMLET_ERR_CONFIG),
        };
        let alone = given.parallel_for.is_none() && given.workers > 1;
        let both = given.kv_budget > 0 && given.context > 0;
        if alone || both || given.hadamard > 1 || given.workers > ARMLET_MAX_WORKERS || given.reserved != [0; 4] {
            return Err(ARMLET_ERR_CONFIG);
        }
        let caller = Caller { user: given.user, log: given.log, keep_going: given.keep_going };
        Ok(Checked { caller, given, pattern, kv })
    }

    fn kernels(&self) -> Result<Kernels, armlet_status> {
        let forced = match self.given.backend {
            0 => return Ok(Kernels::detect()),
            n => Backend::ALL.get(n as usize - 1),
        };
        forced.and_then(|backend| Kernels::for_backend(*backend)).ok_or(ARMLET_ERR_BACKEND)
    }

    /// The engine's configuration for a model.
    fn config(&self, model: &Model<'_>) -> Result<Config, CallError> {
        let given = &self.given;
        let or = |value: u32, default: usize| if value == 0 { default } else { value as usize };
        let default = Config::default();
        let mut config = Config {
            context: or(given.context, default.context.min(model.hparams.context_length)),
            pattern: self.pattern,
            sinks: or(given.sinks, default.sinks),
            slack: given.slack as usize,
            chunk: or(given.chunk, default.chunk),
            kv: self.kv,
            hadamard: given.hadamard == 1,
            ..default
        };
        if given.kv_budget > 0 {
            let budget = usize::try_from(given.kv_budget).unwrap_or(usize::MAX);
            config.context = Plan::context_for_budget(&model.hparams, &config, budget, 1)?;
        }
        Ok(config)
    }
}

/// The sizes of the parts of an arena, in order.
pub(super) struct Layout {
    plan: Plan,
    tables: usize,
    text_bytes: usize,
    text: usize,
    scratch: usize,
    vocab: usize,
}

/// Bytes of a part that holds one value.
const fn part<T>() -> usize {
    size_of::<T>().next_multiple_of(ALIGN)
}

impl Layout {
    pub(super) fn new(file: &File<'_>, checked: &Checked) -> Result<Self, CallError> {
        // The tables are not built, so the model is good for sizes only.
        let (model, tables) = Model::sizes(file)?;
        let plan = Plan::new(&model.hparams, &checked.config(&model)?)?;
        let text_bytes = if checked.given.text_bytes == 0 { 4096 } else { checked.given.text_bytes as usize };
        let text = (text_bytes + MOST_ADDED).next_multiple_of(ALIGN);
        let scratch = model.tokenizer.most_scratch_bytes(text)?;
        Ok(Layout { plan, tables, text_bytes, text, scratch, vocab: model.hparams.vocab })
    }

    fn bytes(&self) -> Option<usize> {
        let parts = [part::<Model<'_>>(), self.tables, self.plan.bytes(), self.text, self.scratch];
        parts.into_iter().try_fold(part::<Marked>(), usize::checked_add)
    }

    pub(super) fn requirements(&self) -> Result<armlet_requirements, CallError> {
        let bytes = self.bytes().ok_or(ArenaError::Overflow("arena"))?;
        let sized = self.tables + self.plan.bytes();
        Ok(armlet_requirements {
            struct_size: size_of::<armlet_requirements>() as u32,
            arena_align: ARMLET_ARENA_ALIGN,
            arena_bytes: bytes as u64,
            kv_bytes: self.plan.session_bytes() as u64,
            table_bytes: self.tables as u64,
            workspace_bytes: self.plan.engine_bytes() as u64,
            text_bytes: (bytes - sized) as u64,
            context: self.plan.context() as u32,
            vocab: self.vocab as u32,
            stack_bytes: ARMLET_STACK_BYTES,
            reserved: 0,
        })
    }
}

/// Cuts the next `n` bytes off; `whole` is the size of the arena, for the error.
fn take(tail: &mut &'static mut [u8], n: usize, whole: usize) -> Result<&'static mut [u8], EngineError> {
    let len = tail.len();
    let (part, behind) = core::mem::take(tail).split_at_mut_checked(n).ok_or(ArenaError::TooSmall {
        name: "arena",
        needed: whole,
        len,
    })?;
    *tail = behind;
    Ok(part)
}

impl Context {
    /// Makes a context in `arena`; returns its address.
    pub(super) fn carve(
        arena: &'static mut [u8],
        bytes: &'static [u8],
        checked: &Checked,
    ) -> Result<*mut Marked, CallError> {
        const { assert!(align_of::<Marked>() <= ALIGN && align_of::<Model<'_>>() <= ALIGN) };
        let arena_span = Span::written(arena.as_ptr(), arena.len());
        let kernels = checked.kernels()?;
        let file = File::new_checked(bytes)?;
        let layout = Layout::new(&file, checked)?;
        let whole = layout.bytes().ok_or(ArenaError::Overflow("arena"))?;
        if arena.len() < whole {
            return Err(ArenaError::TooSmall { name: "arena", needed: whole, len: arena.len() }.into());
        }
        let tail = &mut { arena };
        let home = take(tail, part::<Marked>(), whole)?.as_mut_ptr().cast::<Marked>();
        let model_home = take(tail, part::<Model<'_>>(), whole)?.as_mut_ptr().cast::<Model<'static>>();
        let model = Model::new(&file, take(tail, layout.tables, whole)?)?;
        // SAFETY: `take` gave this part of the arena to nothing else; it has the size of a `Model`, and its start is a
        // multiple of `ALIGN`, as the arena's is and the sizes of all parts are.
        unsafe { model_home.write(model) };
        // SAFETY: just written, and never again; it lives as long as the arena, which is borrowed for 'static.
        let model: &'static Model<'static> = unsafe { &*model_home };
        let engine = Engine::new(model, kernels, &layout.plan, take(tail, layout.plan.engine_bytes(), whole)?)?;
        let session = Session::new(model, &layout.plan, take(tail, layout.plan.session_bytes(), whole)?)?;
        let given = &checked.given;
        let backend = Backend::ALL.iter().position(|b| *b == kernels.backend()).map_or(0, |i| i as u32 + 1);
        let context = Context {
            model,
            engine,
            session,
            executor: CallbackExecutor::new(given.user, given.parallel_for, given.workers.max(1)),
            caller: checked.caller,
            sampler: Sampler::new(SamplerConfig { temperature: 0.0, ..SamplerConfig::default() }),
            generation: Generation::new(),
            detokenizer: Detokenizer::new(),
            ready: false,
            backend,
            text_bytes: layout.text_bytes,
            text: take(tail, layout.text, whole)?,
            scratch: take(tail, layout.scratch, whole)?,
            arena: arena_span,
            file: Span::read(bytes.as_ptr(), bytes.len()),
        };
        // SAFETY: as for the model, with the size of a `Marked`.
        unsafe { home.write(Marked { mark: MAGIC, context }) };
        Ok(home)
    }

    /// Calls `f` with the context at `at`, which until then is marked as in use, and logs its error if it returns one.
    ///
    /// # Safety
    /// *Writable*: `at`, for a `Marked`. *Alive*: if a context is there, its arena and its model.
    #[inline(never)]
    pub(super) unsafe fn call(
        at: *mut Marked,
        f: &mut dyn FnMut(&mut Context) -> Result<armlet_status, CallError>,
    ) -> armlet_status {
        if at.is_null() {
            return ARMLET_ERR_NULL;
        }
        if !at.addr().is_multiple_of(ALIGN) {
            return ARMLET_ERR_ALIGN;
        }
        // SAFETY: writable for a `Marked`, of which this is the first field; aligned, as was checked.
        let mark = unsafe { &mut (*at).mark };
        match *mark {
            MAGIC => *mark = BUSY,
            BUSY => return ARMLET_ERR_BUSY,
            _ => return ARMLET_ERR_HANDLE,
        }
        // SAFETY: writable for a `Marked`, and it is one: only `carve` writes the number, after all else. What it refers to is
        // alive. No other reference to it exists: it was not marked as in use.
        let context = unsafe { &mut (*at).context };
        // A copied or moved arena refers to the memory of the original.
        let status = match context.arena.starts_at(at.addr()) {
            true => {
                let result = f(context);
                context.caller.outcome(result)
            }
            false => ARMLET_ERR_HANDLE,
        };
        // SAFETY: as above; the reference of before has ended.
        unsafe { (*at).mark = MAGIC };
        status
    }

    /// Checks that the memory of a call is apart from the arena, and what it writes also from the model and from itself.
    #[inline(never)]
    pub(super) fn apart(&self, spans: &[Span]) -> Result<(), armlet_status> {
        for span in spans {
            pointers::apart(&[*span, self.arena, self.file])?;
        }
        pointers::apart(spans)
    }
}

/// Clears the magic number at the start of an arena, so that a `carve` that fails leaves no valid context there.
pub(super) fn unmark(arena: &mut [u8]) {
    if let Some(magic) = arena.first_chunk_mut::<8>() {
        *magic = [0; 8];
    }
}
