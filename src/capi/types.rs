//! Types of the C interface: structs, callbacks, statuses, constants.

use core::ffi::{c_char, c_void};

/// Version of the structs and functions below. It changes when programs that were compiled against an older header stop
/// working.
pub const ARMLET_ABI_VERSION: u32 = 1;

/// Alignment of an arena, in bytes.
pub const ARMLET_ARENA_ALIGN: u32 = 64;

/// The most stack that any function here needs, in bytes, measured by painting it on Cortex-A53, A72 and A76. Each core
/// that `parallel_for` uses needs as much. What the caller's callbacks need comes on top.
pub const ARMLET_STACK_BYTES: u32 = 32768;

/// The most stop strings of an answer.
pub const ARMLET_MAX_STOPS: u32 = 4;
/// The most bytes of one.
pub const ARMLET_MAX_STOP_BYTES: u32 = 256;

/// The most cores that `parallel_for` can use.
pub const ARMLET_MAX_WORKERS: u32 = 16;

/// Result of a call: 0 is success, positive values carry information, negative values are errors.
///
/// The numbers never change. After an error the context is as it was before the call, unless the function says
/// otherwise.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum armlet_status {
    /// Done.
    ARMLET_OK = 0,
    /// The answer has ended.
    ARMLET_END = 1,
    /// A pointer is NULL that must not be.
    ARMLET_ERR_NULL = -1,
    /// A pointer is not aligned as its type or its description asks.
    ARMLET_ERR_ALIGN = -2,
    /// Memory that the call writes overlaps other memory of the call, the arena or the model.
    ARMLET_ERR_OVERLAP = -3,
    /// A length exceeds the address space.
    ARMLET_ERR_LENGTH = -4,
    /// A `struct_size` differs from the size of this library's struct.
    ARMLET_ERR_STRUCT = -5,
    /// The caller was compiled for another version of this interface.
    ARMLET_ERR_ABI = -6,
    /// A value of the configuration or of an argument is out of range.
    ARMLET_ERR_CONFIG = -7,
    /// `kv_budget` is too small for even the smallest KV cache.
    ARMLET_ERR_BUDGET = -8,
    /// The arena is smaller than `armlet_plan` asks for.
    ARMLET_ERR_ARENA = -9,
    /// An output buffer is too small; the size that is needed was written.
    ARMLET_ERR_BUFFER = -10,
    /// The pointer is not a context: `armlet_init` was not called or failed, or the arena was moved.
    ARMLET_ERR_HANDLE = -11,
    /// The model's file is malformed.
    ARMLET_ERR_MODEL = -12,
    /// The model's file is well-formed, but its architecture, version or tensor types are not supported.
    ARMLET_ERR_UNSUPPORTED = -13,
    /// This CPU, or this build, has no such backend.
    ARMLET_ERR_BACKEND = -14,
    /// The text is not UTF-8, or longer than `text_bytes`.
    ARMLET_ERR_TEXT = -15,
    /// A token is not in the vocabulary.
    ARMLET_ERR_TOKEN = -16,
    /// There are no tokens to prefill.
    ARMLET_ERR_EMPTY = -17,
    /// The context is full. Only with `ARMLET_FULL`.
    ARMLET_ERR_FULL = -18,
    /// Tokens so far back have been evicted from the KV cache: reset, or rewind less far.
    ARMLET_ERR_GONE = -19,
    /// There are no logits: prefill tokens first, and after an interruption the remaining ones.
    ARMLET_ERR_ORDER = -20,
    /// A logit is NaN or infinite: the weights are damaged.
    ARMLET_ERR_NUMBER = -21,
    /// The vocabulary does not have the control tokens of any built-in chat format.
    ARMLET_ERR_CHAT = -22,
    /// The bytes are not a saved state, or a damaged or truncated one.
    ARMLET_ERR_STATE = -23,
    /// The saved state belongs to another model, configuration or version.
    ARMLET_ERR_OTHER_STATE = -24,
    /// A callback asked to stop.
    ARMLET_ERR_STOPPED = -25,
    /// A callback has called a function with the context whose call it is part of; nothing was changed.
    ARMLET_ERR_BUSY = -26,
}

/// One conversation, stored in the arena that `armlet_init` was given.
///
/// One thread at a time may use a context. Different contexts are independent, and may share a model.
pub struct armlet_ctx {
    _private: [u8; 0],
}

/// Attention pattern: which of the preceding tokens a token attends to.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum armlet_pattern {
    /// The first few (attention sinks) and the most recent ones: text of unlimited length (StreamingLLM, arXiv
    /// 2309.17453).
    ARMLET_SINKS = 0,
    /// The most recent ones.
    ARMLET_WINDOW = 1,
    /// All of them, until the context is full.
    ARMLET_FULL = 2,
}

/// Format of the KV cache.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum armlet_kv_type {
    /// binary16.
    ARMLET_F16 = 0,
    /// int8 with a scale for each token and head: little more than half the size of F16.
    ARMLET_INT8 = 1,
    /// binary32, for tests of precision. Without an operating system it is a feature of the library, `kv_f32`; else CONFIG.
    ARMLET_F32 = 2,
}

/// Instruction set of the kernels.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum armlet_backend {
    /// The best that the CPU supports. Without an operating system, the one that the library was compiled for: the CPU
    /// is not probed.
    ARMLET_BEST = 0,
    /// Portable code.
    ARMLET_SCALAR = 1,
    /// Armv8.0: Cortex-A53, A72.
    ARMLET_NEON = 2,
    /// Armv8.2 dot products and binary16 arithmetic: Cortex-A55, A76.
    ARMLET_DOTPROD = 3,
    /// Armv8.6 matrix products of int8.
    ARMLET_I8MM = 4,
    /// x86-64 AVX2.
    ARMLET_AVX2 = 5,
    /// x86-64 AVX-512 with VNNI.
    ARMLET_AVX512 = 6,
}

/// Author of a message, for `armlet_chat_turn`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum armlet_role {
    /// Instructions to the model.
    ARMLET_SYSTEM = 0,
    /// The user.
    ARMLET_USER = 1,
    /// The model.
    ARMLET_ASSISTANT = 2,
}

/// For `armlet_tokenize`: add the BOS and EOS tokens, if the model asks for them.
pub const ARMLET_ADD_SPECIAL: u32 = 1;
/// For `armlet_tokenize`: parse text such as `<|im_end|>` as a control token. Not for text that a user wrote.
pub const ARMLET_PARSE_SPECIAL: u32 = 2;
/// For `armlet_detokenize`: write control tokens as text instead of omitting them.
pub const ARMLET_SHOW_SPECIAL: u32 = 4;
/// For `armlet_chat_turn`: first close the model's last answer, finished or interrupted.
pub const ARMLET_CLOSE_ANSWER: u32 = 8;
/// For `armlet_chat_turn`: then open an answer, which `armlet_step` continues.
pub const ARMLET_OPEN_ANSWER: u32 = 16;
/// For `armlet_piece`: the text ends; an incomplete character is written as U+FFFD. Also: "no such token".
pub const ARMLET_NO_TOKEN: u32 = u32::MAX;

/// Does one core's share of a forward pass; what `parallel_for` has to call.
pub type armlet_work = unsafe extern "C" fn(arg: *mut c_void, core: u32);
/// Receives text of an answer, not zero-terminated: whole characters.
pub type armlet_show = Option<unsafe extern "C" fn(user: *mut c_void, text: *const c_char, len: usize)>;
/// Receives a line of text, not zero-terminated: why the current call is about to return an error.
pub type armlet_log = Option<unsafe extern "C" fn(user: *mut c_void, text: *const c_char, len: usize)>;
/// Returns whether to continue.
pub type armlet_keep_going = Option<unsafe extern "C" fn(user: *mut c_void) -> bool>;
/// Calls `work(arg, core)` once for each `core` from 0 to `workers - 1`, at best in parallel, and returns when all those
/// calls have returned. What they wrote must then be visible to the calling core.
pub type armlet_parallel_for =
    Option<unsafe extern "C" fn(user: *mut c_void, workers: u32, work: armlet_work, arg: *mut c_void)>;
/// Receives the next bytes of a saved state; returns false to stop. Like all callbacks it must not use the context.
pub type armlet_write = Option<unsafe extern "C" fn(user: *mut c_void, bytes: *const c_void, len: usize) -> bool>;

/// Configuration of a context. Zeros are good defaults, except for the first two members: see `ARMLET_CONFIG_INIT`.
///
/// Callbacks run on the thread that called the function. They must not use the same context, which would get
/// `ARMLET_ERR_BUSY`, and must return: no `longjmp`, no exception.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct armlet_config {
    /// `sizeof(armlet_config)`.
    pub struct_size: u32,
    /// `ARMLET_ABI_VERSION`.
    pub abi_version: u32,
    /// Bytes for the KV cache: `context` is then the largest that fits, and must be 0 here. 0: `context` decides.
    pub kv_budget: u64,
    /// The most tokens that a token attends to. 0: 4096, or the context that the model was trained with if that is less.
    pub context: u32,
    /// An `armlet_pattern`.
    pub pattern: u32,
    /// With `ARMLET_SINKS`, how many of the first tokens are never evicted. 0: 4.
    pub sinks: u32,
    /// Tokens that can always be rewound, even when older ones have been evicted.
    pub slack: u32,
    /// The most prompt tokens of one forward pass: more are faster and take more memory. 0: 128.
    pub chunk: u32,
    /// An `armlet_kv_type`.
    pub kv_type: u32,
    /// 1: rotate keys by a Hadamard matrix before they are stored. It spreads outliers, so int8 loses less.
    pub hadamard: u32,
    /// The longest text for `armlet_tokenize` and `armlet_chat_turn`, in bytes. 0: 4096.
    pub text_bytes: u32,
    /// An `armlet_backend`.
    pub backend: u32,
    /// Cores that `parallel_for` uses, at most `ARMLET_MAX_WORKERS`. 0 or 1: only the calling one.
    pub workers: u32,
    /// Passed to every callback.
    pub user: *mut c_void,
    /// Or NULL.
    pub log: armlet_log,
    /// Called before each forward pass, which is a step or `chunk` tokens of a prompt. Or NULL.
    pub keep_going: armlet_keep_going,
    /// Required if `workers` is more than 1.
    pub parallel_for: armlet_parallel_for,
    /// 0.
    pub reserved: [u64; 4],
}

/// Memory and stack that a configuration requires.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct armlet_requirements {
    /// `sizeof(armlet_requirements)`, set by the caller.
    pub struct_size: u32,
    /// Alignment of the arena: `ARMLET_ARENA_ALIGN`.
    pub arena_align: u32,
    /// Size of the arena: the sum of the four below.
    pub arena_bytes: u64,
    /// KV cache.
    pub kv_bytes: u64,
    /// Tables of the model: the index of its vocabulary, the offsets of its tensors.
    pub table_bytes: u64,
    /// Workspace: activations and logits of a forward pass.
    pub workspace_bytes: u64,
    /// The context itself and its text buffers.
    pub text_bytes: u64,
    /// The most tokens that a token attends to.
    pub context: u32,
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// The most stack that a function needs: `ARMLET_STACK_BYTES`.
    pub stack_bytes: u32,
    /// 0.
    pub reserved: u32,
}

/// Sampling parameters. All zeros: greedy decoding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct armlet_sampling {
    /// `sizeof(armlet_sampling)`.
    pub struct_size: u32,
    /// Divides the logits; 0 always picks the likeliest token (greedy decoding).
    pub temperature: f32,
    /// Keep only this many of the likeliest tokens; 0: 1024, which is also the most.
    pub top_k: u32,
    /// Keep only the likeliest tokens whose probabilities sum to this; 0 or 1 keeps all.
    pub top_p: f32,
    /// Keep only tokens at least this probable relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides (if positive) or multiplies (if negative) the logits of the last 64 tokens; 0 or 1 changes nothing.
    pub repeat_penalty: f32,
    /// Subtracted from the logits of the last 64 tokens; 0 changes nothing.
    pub presence_penalty: f32,
    /// Subtracted from the logit of one of the last 64 tokens for each time that it occurs; 0 changes nothing.
    pub frequency_penalty: f32,
    /// Seed of the random numbers.
    pub seed: u64,
}

/// A text, not zero-terminated.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct armlet_text {
    /// UTF-8.
    pub bytes: *const c_char,
    /// Length in bytes.
    pub len: usize,
}

/// What is added to the logit of a token.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct armlet_bias {
    /// The token.
    pub token: u32,
    /// `-INFINITY` forbids it.
    pub bias: f32,
}

/// What ends an answer beside the model, and what its tokens are chosen by beside `armlet_sampling`. All zeros: nothing.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct armlet_answer {
    /// `sizeof(armlet_answer)`.
    pub struct_size: u32,
    /// The most tokens; 0: no limit, but for a context that can be full.
    pub tokens: u32,
    /// `n_stops` texts that end the answer, and are no part of it, of 1 to `ARMLET_MAX_STOP_BYTES` bytes each.
    pub stops: *const armlet_text,
    /// `n_biases` of them. Several of one token add up.
    pub biases: *const armlet_bias,
    /// At most `ARMLET_MAX_STOPS`.
    pub n_stops: u32,
    /// Number of biases. Each takes time for each token that is likely enough to be chosen.
    pub n_biases: u32,
    /// 1: events have `log_probability`, which takes an exponential function for each token of the vocabulary.
    pub log_probabilities: u32,
    /// 0.
    pub reserved: u32,
}

/// What a step of an answer was.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum armlet_event_kind {
    /// A token of the answer.
    ARMLET_TOKEN = 0,
    /// The end: the model ended its turn.
    ARMLET_TURN_ENDED = 1,
    /// The end: there are as many tokens as asked for.
    ARMLET_MOST_TOKENS = 2,
    /// The end: a stop string.
    ARMLET_STOP_FOUND = 3,
    /// The end: the context is full. Only with `ARMLET_FULL`.
    ARMLET_CONTEXT_FULL = 4,
}

/// A step of an answer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct armlet_event {
    /// `sizeof(armlet_event)`, set by the caller.
    pub struct_size: u32,
    /// An `armlet_event_kind`.
    pub kind: u32,
    /// The token, also the one that ended the model's turn; else `ARMLET_NO_TOKEN`.
    pub token: u32,
    /// The number of the stop string that was found.
    pub stop: u32,
    /// Tokens of the answer so far.
    pub generated: u32,
    /// ln of the token's probability as the model gives it, before temperature, penalties and biases; 0 if not asked for.
    pub log_probability: f32,
}

/// State and statistics of a context.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct armlet_info {
    /// `sizeof(armlet_info)`, set by the caller.
    pub struct_size: u32,
    /// An `armlet_backend`, never `ARMLET_BEST`.
    pub backend: u32,
    /// Tokens in the context so far, evicted ones included.
    pub position: u64,
    /// Tokens that still fit; `UINT64_MAX` if old ones are evicted.
    pub remaining: u64,
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// The BOS token, or `ARMLET_NO_TOKEN`.
    pub bos: u32,
    /// The EOS token, or `ARMLET_NO_TOKEN`.
    pub eos: u32,
    /// The largest difference between the tiles that two workers computed in one call of `parallel_for`.
    pub imbalance: u32,
    /// Tiles (of rows, heads or tokens) that each worker has computed; not counted without `parallel_for`.
    pub tiles: [u64; ARMLET_MAX_WORKERS as usize],
}
