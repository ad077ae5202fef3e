//! A context of the C API in memory of just the planned size, and what C would hand to it.

#![allow(unsafe_code, reason = "that is how C calls")]

use std::ffi::{c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use armlet::capi::armlet_status::*;
use armlet::capi::*;
use armlet::host::memory;

/// Bytes on both sides of what is lent.
const GUARD: usize = 256;

pub fn config() -> armlet_config {
    armlet_config {
        struct_size: size_of::<armlet_config>() as u32,
        abi_version: ARMLET_ABI_VERSION,
        kv_budget: 0,
        context: 64,
        pattern: 0,
        sinks: 0,
        slack: 0,
        chunk: 8,
        kv_type: 0,
        hadamard: 0,
        text_bytes: 256,
        backend: 0,
        workers: 0,
        user: null_mut(),
        log: None,
        keep_going: None,
        parallel_for: None,
        reserved: [0; 4],
    }
}

pub fn sized<T: Default>(set: impl FnOnce(&mut T)) -> T {
    let mut value = T::default();
    set(&mut value);
    value
}

pub fn event() -> armlet_event {
    sized(|e: &mut armlet_event| e.struct_size = size_of::<armlet_event>() as u32)
}

/// What ends an answer, and what its tokens are chosen by. The caller keeps the slices.
pub fn answer(tokens: u32, stops: &[armlet_text], biases: &[armlet_bias]) -> armlet_answer {
    armlet_answer {
        struct_size: size_of::<armlet_answer>() as u32,
        tokens,
        stops: stops.as_ptr(),
        biases: biases.as_ptr(),
        n_stops: stops.len() as u32,
        n_biases: biases.len() as u32,
        log_probabilities: 0,
        reserved: 0,
    }
}

pub fn text(text: &str) -> armlet_text {
    armlet_text { bytes: text.as_ptr().cast(), len: text.len() }
}

pub fn requirements() -> armlet_requirements {
    sized(|r: &mut armlet_requirements| r.struct_size = size_of::<armlet_requirements>() as u32)
}

pub fn plan(model: &[u8], config: &armlet_config) -> Result<armlet_requirements, armlet_status> {
    let mut out = requirements();
    // SAFETY: all are references.
    match unsafe { armlet_plan(model.as_ptr().cast(), model.len(), config, &mut out) } {
        ARMLET_OK => Ok(out),
        status => Err(status),
    }
}

/// A context in an arena of just the planned size, between guards.
pub struct CContext<'m> {
    pub model: &'m [u8],
    room: Box<dyn std::ops::DerefMut<Target = [u8]>>,
    len: usize,
    pub ctx: *mut armlet_ctx,
}

impl<'m> CContext<'m> {
    pub fn new(model: &'m [u8], config: &armlet_config) -> Result<Self, armlet_status> {
        Self::with_len(model, config, plan(model, config)?.arena_bytes as usize)
    }

    pub fn with_len(model: &'m [u8], config: &armlet_config, len: usize) -> Result<Self, armlet_status> {
        let mut room = Box::new(memory(len + 2 * GUARD).unwrap());
        room.fill(0xa5);
        let (arena, mut ctx) = (room[GUARD..].as_mut_ptr(), null_mut());
        // SAFETY: the arena lives as long as the context is used.
        match unsafe { armlet_init(arena.cast(), len, model.as_ptr().cast(), model.len(), config, &mut ctx) } {
            ARMLET_OK => Ok(CContext { model, room, len, ctx }),
            status => {
                assert!(ctx.is_null());
                Err(status)
            }
        }
    }

    /// The arena's bytes.
    pub fn arena_bytes(&self) -> usize {
        self.len
    }

    /// A copy of them.
    pub fn copy(&self) -> Vec<u8> {
        self.room[GUARD..][..self.len].to_vec()
    }

    pub fn prefill(&self, tokens: &[u32]) -> armlet_status {
        // SAFETY: the context is this one's.
        unsafe { armlet_prefill(self.ctx, tokens.as_ptr(), tokens.len()) }
    }

    pub fn step(&self) -> (armlet_status, u32) {
        let mut token = ARMLET_NO_TOKEN;
        // SAFETY: as above.
        (unsafe { armlet_step(self.ctx, &mut token) }, token)
    }

    /// A step of an answer, and the text that it gave.
    pub fn generate(&self, answer: Option<&armlet_answer>) -> (armlet_status, armlet_event, String) {
        let (mut out, mut text) = (event(), String::new());
        let answer = answer.map_or(null(), std::ptr::from_ref);
        // SAFETY: as above; `note` takes a `String`, and what an answer points to is the test's.
        let status = unsafe { armlet_generate(self.ctx, answer, Some(note), (&raw mut text).cast(), &mut out) };
        (status, out, text)
    }

    pub fn finish(&self) -> String {
        let mut text = String::new();
        // SAFETY: as above.
        assert_eq!(unsafe { armlet_finish(self.ctx, Some(note), (&raw mut text).cast()) }, ARMLET_OK);
        text
    }

    pub fn steps(&self, n: usize) -> Vec<u32> {
        (0..n)
            .map(|_| {
                let (status, token) = self.step();
                assert_eq!(status, ARMLET_OK);
                token
            })
            .collect()
    }

    pub fn info(&self) -> armlet_info {
        let mut out = sized(|i: &mut armlet_info| i.struct_size = size_of::<armlet_info>() as u32);
        // SAFETY: as above.
        assert_eq!(unsafe { armlet_get_info(self.ctx, &mut out) }, ARMLET_OK);
        out
    }

    pub fn logits(&self) -> Vec<u32> {
        let (mut at, mut n) = (null(), 0);
        // SAFETY: as above; the logits stay until the next call.
        unsafe {
            assert_eq!(armlet_logits(self.ctx, &mut at, &mut n), ARMLET_OK);
            std::slice::from_raw_parts(at, n).iter().map(|l| l.to_bits()).collect()
        }
    }

    pub fn saved(&self) -> Vec<u8> {
        let (mut bytes, mut planned) = (Vec::new(), 0);
        // SAFETY: as above; `append` takes a `Vec`.
        unsafe {
            assert_eq!(armlet_save(self.ctx, Some(append), (&raw mut bytes).cast()), ARMLET_OK);
            assert_eq!(armlet_saved_bytes(self.ctx, &mut planned), ARMLET_OK);
        }
        assert_eq!(bytes.len() as u64, planned);
        bytes
    }

    pub fn rewind(&self, position: u64) -> armlet_status {
        // SAFETY: as above.
        unsafe { armlet_rewind(self.ctx, position) }
    }

    pub fn sample_at(&self, temperature: f32) -> armlet_status {
        let struct_size = size_of::<armlet_sampling>() as u32;
        // SAFETY: as above.
        unsafe { armlet_set_sampling(self.ctx, &armlet_sampling { struct_size, temperature, ..Default::default() }) }
    }

    pub fn repeat_less(&self, repeat_penalty: f32) -> armlet_status {
        let struct_size = size_of::<armlet_sampling>() as u32;
        // SAFETY: as above.
        unsafe { armlet_set_sampling(self.ctx, &armlet_sampling { struct_size, repeat_penalty, ..Default::default() }) }
    }

    pub fn restore(&self, state: &[u8]) -> armlet_status {
        // SAFETY: as above.
        unsafe { armlet_restore(self.ctx, state.as_ptr().cast(), state.len()) }
    }
}

impl Drop for CContext<'_> {
    fn drop(&mut self) {
        let (before, rest) = self.room.split_at(GUARD);
        let guards = before.iter().chain(&rest[self.len..]);
        assert!(guards.into_iter().all(|b| *b == 0xa5), "written outside the arena");
    }
}

pub unsafe extern "C" fn append(user: *mut c_void, bytes: *const c_void, len: usize) -> bool {
    // SAFETY: `user` is the test's `Vec`, and the bytes are the library's for this call.
    unsafe { (*user.cast::<Vec<u8>>()).extend_from_slice(std::slice::from_raw_parts(bytes.cast(), len)) };
    true
}

/// Calls the library with the context whose call it is part of, and notes what became of that.
pub struct Reentry {
    pub ctx: *mut armlet_ctx,
    pub seen: Vec<armlet_status>,
}

impl Reentry {
    /// # Safety
    /// `user` is a [`Reentry`], and its context alive.
    unsafe fn enter(user: *mut c_void) {
        // SAFETY: as promised.
        let this = unsafe { &mut *user.cast::<Reentry>() };
        let (mut token, ctx) = (ARMLET_NO_TOKEN, this.ctx);
        // SAFETY: the context is alive.
        let found = unsafe { [armlet_rewind(ctx, 0), armlet_reset(ctx), armlet_step(ctx, &mut token)] };
        this.seen.extend(found);
    }
}

/// As [`append`], of nothing.
pub unsafe extern "C" fn save_again(user: *mut c_void, _: *const c_void, _: usize) -> bool {
    // SAFETY: the test's.
    unsafe { Reentry::enter(user) };
    true
}

pub unsafe extern "C" fn go_on_again(user: *mut c_void) -> bool {
    // SAFETY: the test's.
    unsafe { Reentry::enter(user) };
    true
}

pub unsafe extern "C" fn log_again(user: *mut c_void, _: *const c_char, _: usize) {
    // SAFETY: the test's.
    unsafe { Reentry::enter(user) };
}

pub unsafe extern "C" fn work_again(user: *mut c_void, workers: u32, work: armlet_work, arg: *mut c_void) {
    // SAFETY: the test's; the library's work is made to be run by several cores.
    unsafe {
        Reentry::enter(user);
        (0..workers).for_each(|core| work(arg, core));
    }
}

pub unsafe extern "C" fn refuse(_: *mut c_void, _: *const c_void, _: usize) -> bool {
    false
}

/// Goes on as often as the number behind `user` says.
pub unsafe extern "C" fn count_down(user: *mut c_void) -> bool {
    // SAFETY: the test's number.
    let left = unsafe { &*user.cast::<AtomicU32>() };
    left.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_ok()
}

pub unsafe extern "C" fn note(user: *mut c_void, text: *const c_char, len: usize) {
    // SAFETY: `user` is the test's `String`, and the text the library's for this call.
    let text = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    // SAFETY: as above.
    unsafe { (*user.cast::<String>()).push_str(std::str::from_utf8(text).unwrap()) };
}

/// Threads for every run: slow, and enough to see which core does what.
pub unsafe extern "C" fn threads(_: *mut c_void, workers: u32, work: armlet_work, arg: *mut c_void) {
    struct Arg(*mut c_void);
    // SAFETY: the library's work is made to be run by several cores.
    unsafe impl Sync for Arg {}
    let arg = &Arg(arg);
    std::thread::scope(|scope| {
        for core in 0..workers {
            // SAFETY: within the call that lends `arg`.
            scope.spawn(move || unsafe { work(arg.0, core) });
        }
    });
}
