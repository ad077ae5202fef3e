//! One conversation through the C API, small enough for Miri: `tests/it/capi.rs` has the cases, this the pointers.

use core::ffi::{c_char, c_void};
use core::ptr::null_mut;
use std::vec::Vec;

use super::armlet_status::*;
use super::*;

/// Memory at a multiple of [`ARMLET_ARENA_ALIGN`].
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line(#[allow(dead_code, reason = "memory for the library")] [u8; 64]);

unsafe extern "C" fn append(user: *mut c_void, bytes: *const c_void, len: usize) -> bool {
    // SAFETY: `user` is the test's `Vec`, and the bytes are readable during this call.
    unsafe { (*user.cast::<Vec<u8>>()).extend_from_slice(core::slice::from_raw_parts(bytes.cast(), len)) };
    true
}

unsafe extern "C" fn note(user: *mut c_void, text: *const c_char, len: usize) {
    // SAFETY: as for `append`.
    unsafe { append(user, text.cast(), len) };
}

/// Prefills, samples, saves, restores and samples again, as steps and as an answer; tokenises and detokenises.
fn converse(model: &[u8]) {
    let config = armlet_config {
        struct_size: size_of::<armlet_config>() as u32,
        abi_version: ARMLET_ABI_VERSION,
        kv_budget: 0,
        context: 8,
        pattern: 0,
        sinks: 0,
        slack: 0,
        chunk: 2,
        kv_type: 0,
        hadamard: 0,
        text_bytes: 64,
        backend: 0,
        workers: 0,
        user: null_mut(),
        log: None,
        keep_going: None,
        parallel_for: None,
        reserved: [0; 4],
    };
    let mut needs =
        armlet_requirements { struct_size: size_of::<armlet_requirements>() as u32, ..armlet_requirements::default() };
    let model_at = model.as_ptr().cast();

    // SAFETY: readable and writable: every pointer is a reference's or a slice's; alive: the model and the arena outlive
    // the context; callback: `append` and `note` are as the header wants them.
    unsafe {
        assert_eq!(armlet_plan(model_at, model.len(), &config, &mut needs), ARMLET_OK);
        let len = needs.arena_bytes as usize;
        let mut arena = vec![Line([0xa5; 64]); len.div_ceil(64)];
        let mut ctx = null_mut();
        let status = armlet_init(arena.as_mut_ptr().cast(), len, model_at, model.len(), &config, &mut ctx);
        assert_eq!(status, ARMLET_OK);

        let prompt = [3, 4, 5];
        assert_eq!(armlet_prefill(ctx, prompt.as_ptr(), prompt.len()), ARMLET_OK);
        let mut saved = Vec::<u8>::new();
        assert_eq!(armlet_save(ctx, Some(append), (&raw mut saved).cast()), ARMLET_OK);
        // A restored context has no logits: both answers begin with a token of their own.
        let answer = || {
            let mut token = ARMLET_NO_TOKEN;
            assert_eq!(armlet_prefill(ctx, [6].as_ptr(), 1), ARMLET_OK);
            assert!([ARMLET_OK, ARMLET_END].contains(&armlet_step(ctx, &mut token)));
            token
        };
        let first = answer();
        assert_eq!(armlet_restore(ctx, saved.as_ptr().cast(), saved.len()), ARMLET_OK);
        let again = answer();
        assert_eq!(first, again);

        let (stop, bias) = (armlet_text { bytes: c"~".as_ptr(), len: 1 }, armlet_bias { token: 6, bias: 1.0 });
        let asked = armlet_answer {
            struct_size: size_of::<armlet_answer>() as u32,
            tokens: 2,
            stops: &stop,
            biases: &bias,
            n_stops: 1,
            n_biases: 1,
            log_probabilities: 1,
            reserved: 0,
        };
        let (mut event, mut shown) = (armlet_event::default(), Vec::<u8>::new());
        event.struct_size = size_of::<armlet_event>() as u32;
        let show = (&raw mut shown).cast();
        while armlet_generate(ctx, &asked, Some(note), show, &mut event) == ARMLET_OK {}
        assert!(event.kind > 0 && core::str::from_utf8(&shown).is_ok());
        assert_eq!(armlet_finish(ctx, Some(note), show), ARMLET_OK);

        let (text, mut tokens, mut n) = (b"AB", [0; 8], 0);
        let at = text.as_ptr().cast();
        assert_eq!(armlet_tokenize(ctx, at, text.len(), 0, tokens.as_mut_ptr(), tokens.len(), &mut n), ARMLET_OK);
        let (mut out, mut bytes) = ([0; 16], 0);
        let status = armlet_detokenize(ctx, tokens.as_ptr(), n, 0, out.as_mut_ptr(), out.len(), &mut bytes);
        assert!(status == ARMLET_OK && n > 0, "{status:?}, {n} tokens");
    }
}

#[test]
fn a_conversation_in_byte_level_bpe() {
    converse(include_bytes!("../../tests/fuzz/seeds/gguf/byte-level"));
}

#[test]
fn a_conversation_with_a_packed_model() {
    converse(include_bytes!("../../tests/fuzz/seeds/gguf/packed"));
}

#[test]
fn a_conversation_in_sentence_piece() {
    converse(include_bytes!("../../tests/fuzz/seeds/gguf/sentence-piece"));
}
