//! Any text as a chat template, rendered as the program does it.
//!
//! The program renders in a process whose memory is bounded, because a template of a few bytes can ask for as much as it likes.
//! Here the allocator is bounded instead: what asks for more ends the rendering, and nothing else.

#![no_main]
#![cfg_attr(fuzzing, feature(alloc_error_hook))]

#[allow(dead_code, reason = "jobs are not sent")]
#[path = "../../../src/bin/armlet/template/engine.rs"]
mod engine;
#[path = "../../../src/bin/armlet/template/json.rs"]
mod json;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde_json::{Value, json};

/// The most bytes while a template is rendered.
const MOST: usize = 4 << 20;

/// The system's allocator, for so many bytes.
struct Bounded {
    left: AtomicUsize,
}

// SAFETY: memory is the system's, with the layouts that it was asked for; or there is none, which an allocator may always say.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let less = |left: usize| left.checked_sub(layout.size());
        match self.left.fetch_update(Relaxed, Relaxed, less) {
            // SAFETY: the caller's promise of `layout`.
            Ok(_) => unsafe { System.alloc(layout) },
            Err(_) => std::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let _ = self.left.fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_add(layout.size())));
        // SAFETY: what `alloc` gave is the system's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static MEMORY: Bounded = Bounded { left: AtomicUsize::new(usize::MAX) };

/// Renders a template with no more than [`MOST`] bytes: `None` if they were not enough.
fn bounded(template: &str) -> Option<Result<String, String>> {
    #[cfg(fuzzing)]
    // Unwinds without the hook of panics, by which libFuzzer would take it for a crash.
    std::alloc::set_alloc_error_hook(|_| std::panic::resume_unwind(Box::new(())));
    MEMORY.left.store(MOST, Relaxed);
    let rendered = std::panic::catch_unwind(|| job(template).render().map_err(|e| e.to_string()));
    MEMORY.left.store(usize::MAX, Relaxed);
    rendered.ok()
}

/// A conversation with a system message and a tool.
fn job(template: &str) -> engine::Job {
    let tool = json!({ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } });
    let variables = [("tools", json!([tool])), ("add_generation_prompt", json!(true)), ("bos_token", json!("<s>"))];
    let message = |role: &str, content: &str| json!({ "role": role, "content": content });
    engine::Job {
        template: template.into(),
        messages: vec![message("system", "Be kind."), message("user", "Hi <|there|>"), message("assistant", "Hello")],
        variables: variables.map(|(name, value)| (name.to_string(), value)).into_iter().collect::<serde_json::Map<_, Value>>(),
        now: Default::default(),
        stand_ins: "\u{f0000}".into(),
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let template = String::from_utf8_lossy(bytes);
    // The same conversation has the same text.
    if let (Some(first), Some(second)) = (bounded(&template), bounded(&template)) {
        assert_eq!(first, second);
    }
});
