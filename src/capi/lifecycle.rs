//! Version, plan, init, reset, rewind, info.

#![allow(unsafe_code)]

use core::ffi::{c_char, c_void};

use super::armlet_status::{self, *};
use super::context::{self, Checked, Context, Layout};
use super::pointers::{self, Span};
use super::status::{self, CallError};
use super::{ARMLET_ABI_VERSION, ARMLET_NO_TOKEN, armlet_config, armlet_ctx, armlet_info, armlet_requirements};
use crate::gguf::File;
use crate::storage::ALIGN;

/// Version of this library's interface; compare it with `ARMLET_ABI_VERSION`.
#[unsafe(no_mangle)]
pub extern "C" fn armlet_abi_version() -> u32 {
    ARMLET_ABI_VERSION
}

/// Version of this library, such as "0.1.0", as a constant string.
#[unsafe(no_mangle)]
pub extern "C" fn armlet_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// A status in a few words, as a constant string; never NULL, whatever the number.
#[unsafe(no_mangle)]
pub extern "C" fn armlet_status_str(status: i32) -> *const c_char {
    status::text(status).as_ptr()
}

/// Computes how much memory a model needs with a configuration. Reads only the file's header.
///
/// `model` is the whole GGUF file, `model_len` bytes. Any address will do, but where the CPU checks alignment it must be
/// even. Set `out->struct_size` before.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, STRUCT, ABI, CONFIG, BUDGET, MODEL, UNSUPPORTED; `out` is then unchanged.
///
/// # Safety
/// *Readable*: `model` for `model_len`, `config` for its size. *Writable*: `out` for its size. *Callback*: those of
/// `config`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn armlet_plan(
    model: *const c_void,
    model_len: usize,
    config: *const armlet_config,
    out: *mut armlet_requirements,
) -> armlet_status {
    // SAFETY: `config` is readable for its size, and its callbacks are.
    let checked = match unsafe { Checked::new(config) } {
        Ok(checked) => checked,
        Err(status) => return status,
    };
    checked.caller.outcome((|| {
        // SAFETY: `model` is readable for `model_len`, `out` for its size.
        let (bytes, _) = unsafe { (pointers::input(model.cast::<u8>(), model_len)?, pointers::sized(out)?) };
        pointers::apart(&[Span::written(out, 1), Span::read(bytes.as_ptr(), bytes.len())])?;
        let requirements = Layout::new(&File::new_checked(bytes)?, &checked)?.requirements()?;
        // SAFETY: `out` is writable for its size, and apart.
        unsafe { pointers::write_out(out, requirements)? };
        Ok(ARMLET_OK)
    })())
}

/// Makes a context in an arena.
///
/// `arena` has `armlet_requirements.arena_bytes` or more, at a multiple of `ARMLET_ARENA_ALIGN`. The context borrows it
/// and the model for as long as it is used; there is nothing to close. The model may be in flash, and any number of
/// contexts may share it. No function writes outside the arena, except where its arguments point to.
///
/// Errors: those of `armlet_plan`, ARENA, BACKEND. `*out` is then NULL, unless `out` itself is in error (NULL, ALIGN,
/// OVERLAP), and the arena's contents are undefined.
///
/// # Safety
/// *Readable*: `model` for `model_len`, `config` for its size. *Writable*: `arena` for `arena_len`, `out` for one.
/// *Alive*: `arena` and `model`. *Callback*: those of `config`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn armlet_init(
    arena: *mut c_void,
    arena_len: usize,
    model: *const c_void,
    model_len: usize,
    config: *const armlet_config,
    out: *mut *mut armlet_ctx,
) -> armlet_status {
    let spans = [
        Span::written(arena.cast_const().cast::<u8>(), arena_len),
        Span::written(out.cast_const(), 1),
        Span::read(model.cast::<u8>(), model_len),
        Span::read(config, 1),
    ];
    if let Err(status) = pointers::apart(&spans) {
        return status;
    }
    // SAFETY: `out` is writable for one, and apart.
    if let Err(status) = unsafe { pointers::write_out(out, core::ptr::null_mut()) } {
        return status;
    }
    // SAFETY: `config` is readable for its size, and its callbacks are.
    let checked = match unsafe { Checked::new(config) } {
        Ok(checked) => checked,
        Err(status) => return status,
    };
    checked.caller.outcome((|| {
        // SAFETY: `arena` is writable for `arena_len`, `model` readable for `model_len`, both alive, and they are apart.
        let (arena, bytes) = unsafe {
            (pointers::output(arena.cast::<u8>(), arena_len)?, pointers::input(model.cast::<u8>(), model_len)?)
        };
        if arena.is_empty() || bytes.is_empty() {
            return Err(ARMLET_ERR_NULL.into());
        }
        if !arena.as_ptr().addr().is_multiple_of(ALIGN) {
            return Err(ARMLET_ERR_ALIGN.into());
        }
        context::unmark(arena);
        let context = Context::carve(arena, bytes, &checked)?;
        // SAFETY: `out` is writable for one, and apart.
        unsafe { pointers::write_out(out, context.cast::<armlet_ctx>())? };
        Ok(ARMLET_OK)
    })())
}

/// Calls `f` with a context, and logs its error if it returns one.
///
/// # Safety
/// *Writable* and *alive*: `ctx`.
pub(super) unsafe fn with(
    ctx: *mut armlet_ctx,
    mut f: impl FnMut(&mut Context) -> Result<armlet_status, CallError>,
) -> armlet_status {
    // SAFETY: `ctx` is writable and alive.
    unsafe { Context::call(ctx.cast(), &mut f) }
}

/// Empties the context: its KV cache, and the sampler's history. Configuration and sampling parameters stay; the random
/// numbers start again from the seed.
///
/// Errors: NULL, ALIGN, HANDLE.
///
/// # Safety
/// *Writable* and *alive*: `ctx`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn armlet_reset(ctx: *mut armlet_ctx) -> armlet_status {
    let reset = |c: &mut Context| {
        c.rewind(0)?;
        c.sampler.restart();
        Ok(ARMLET_OK)
    };
    // SAFETY: `ctx` is writable and alive.
    unsafe { with(ctx, reset) }
}

/// Drops all but the first `position` tokens, and the sampler's history for the repeat penalty. A position that has not
/// been reached changes nothing. Prefill at least one token before the next step.
///
/// Errors: NULL, ALIGN, HANDLE, GONE: the context is unchanged.
///
/// # Safety
/// *Writable* and *alive*: `ctx`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn armlet_rewind(ctx: *mut armlet_ctx, position: u64) -> armlet_status {
    let rewind = |c: &mut Context| {
        if position < c.session.position() {
            c.rewind(position)?;
        }
        Ok(ARMLET_OK)
    };
    // SAFETY: `ctx` is writable and alive.
    unsafe { with(ctx, rewind) }
}

/// Writes the state and the statistics of a context to `*out`. Set `out->struct_size` before.
///
/// Errors: NULL, ALIGN, OVERLAP, HANDLE, STRUCT.
///
/// # Safety
/// *Writable* and *alive*: `ctx`. *Writable*: `out` for its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn armlet_get_info(ctx: *mut armlet_ctx, out: *mut armlet_info) -> armlet_status {
    let info = |c: &mut Context| {
        c.apart(&[Span::written(out.cast_const(), 1)])?;
        // SAFETY: `out` is writable for its size, and apart.
        unsafe {
            pointers::sized(out.cast_const())?;
            pointers::write_out(out, c.info())?;
        }
        Ok(ARMLET_OK)
    };
    // SAFETY: `ctx` is writable and alive.
    unsafe { with(ctx, info) }
}

impl Context {
    fn rewind(&mut self, position: u64) -> Result<(), CallError> {
        self.session.rewind(position)?;
        self.forget();
        Ok(())
    }

    /// Drops what depends on the last token: logits, the answer under way, an incomplete character, the sampler's history.
    pub(super) fn forget(&mut self) {
        self.ready = false;
        self.generation = crate::generation::Generation::new();
        self.detokenizer = crate::tokenizer::Detokenizer::new();
        self.sampler.forget();
    }

    fn info(&self) -> armlet_info {
        let token = |t: Option<u32>| t.unwrap_or(ARMLET_NO_TOKEN);
        armlet_info {
            struct_size: size_of::<armlet_info>() as u32,
            backend: self.backend,
            position: self.session.position(),
            remaining: self.session.remaining(),
            vocab: self.model.hparams.vocab as u32,
            bos: token(self.model.tokenizer.bos()),
            eos: token(self.model.tokenizer.eos()),
            imbalance: self.executor.imbalance(),
            tiles: self.executor.tiles(),
        }
    }
}
