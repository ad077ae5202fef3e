//! Save and restore.

#![allow(unsafe_code)]

use core::ffi::c_void;

use super::armlet_status::{self, *};
use super::context::Context;
use super::lifecycle::with;
use super::pointers::{self, Span};
use super::{armlet_ctx, armlet_write};
use crate::engine::EngineError;

/// Writes to `*bytes` how many bytes `armlet_save` would write now.
///
/// Errors: NULL, ALIGN, OVERLAP, HANDLE.
///
/// # Safety
/// *Writable* and *alive*: `ctx`. *Writable*: `bytes` for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn armlet_saved_bytes(ctx: *mut armlet_ctx, bytes: *mut u64) -> armlet_status {
    let count = |c: &mut Context| {
        c.apart(&[Span::written(bytes.cast_const(), 1)])?;
        // SAFETY: `bytes` is writable for one, and apart.
        unsafe { pointers::write_out(bytes, c.session.saved_bytes(0))? };
        Ok(ARMLET_OK)
    };
    // SAFETY: `ctx` is writable and alive.
    unsafe { with(ctx, count) }
}

/// Saves the KV cache, part by part, through `write`: to flash, a file, a network. `user` is passed to `write`.
///
/// The saved state has checksums, so a truncated one is refused when it is restored.
///
/// Errors: NULL, ALIGN, HANDLE, STOPPED: `write` returned false.
///
/// # Safety
/// *Writable* and *alive*: `ctx`. *Callback*: `write`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn armlet_save(ctx: *mut armlet_ctx, write: armlet_write, user: *mut c_void) -> armlet_status {
    let save = |c: &mut Context| {
        let write = write.ok_or(ARMLET_ERR_NULL)?;
        // SAFETY: callback; the bytes outlive the call.
        let sink = |part: &[u8]| unsafe {
            if write(user, part.as_ptr().cast(), part.len()) { Ok(()) } else { Err(ARMLET_ERR_STOPPED) }
        };
        c.session.save(&[], sink)?;
        Ok(ARMLET_OK)
    };
    // SAFETY: `ctx` is writable and alive.
    unsafe { with(ctx, save) }
}

/// Restores a state of `len` bytes that was saved with the same model and configuration; the bytes are copied. Prefill at
/// least one token before the next step.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, HANDLE, STATE, OTHER_STATE: the context is unchanged.
///
/// # Safety
/// *Writable* and *alive*: `ctx`. *Readable*: `state` for `len`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn armlet_restore(ctx: *mut armlet_ctx, state: *const c_void, len: usize) -> armlet_status {
    let restore = |c: &mut Context| {
        // SAFETY: `state` is readable for `len`.
        let state = unsafe { pointers::input(state.cast::<u8>(), len)? };
        c.apart(&[Span::read(state.as_ptr(), state.len())])?;
        c.session.restore(state).map_err(EngineError::from)?;
        c.forget();
        Ok(ARMLET_OK)
    };
    // SAFETY: `ctx` is writable and alive.
    unsafe { with(ctx, restore) }
}
