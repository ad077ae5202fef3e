//! What crosses the border.

use core::ffi::{c_char, c_void};

/// Version of the structs and functions below. It changes when a program that was compiled against an older header
/// would no longer work.
pub const ARMLET_ABI_VERSION: u32 = 1;

/// Alignment of an arena, in bytes.
pub const ARMLET_ARENA_ALIGN: u32 = 64;

/// Stack that any function here needs at most, in bytes, measured on Cortex-A53, A72 and A76 by painting it; on each
/// core that runs a share of the work as well. What the caller's callbacks need comes on top.
pub const ARMLET_STACK_BYTES: u32 = 32768;

/// Most cores that `parallel_for` may use.
pub const ARMLET_MAX_WORKERS: u32 = 16;

/// What a function has to say: 0 is success, positive numbers are news, negative ones errors.
///
/// The numbers never change. After an error nothing has happened, and the context is as usable as before, if the
/// function does not say otherwise.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum armlet_status {
    /// Done.
    ARMLET_OK = 0,
    /// The model ended its turn.
    ARMLET_END = 1,
    /// A pointer that must not be NULL is.
    ARMLET_ERR_NULL = -1,
    /// A pointer is not aligned as its type or its description says.
    ARMLET_ERR_ALIGN = -2,
    /// Memory that is written overlaps other memory of the call, the arena, or the model.
    ARMLET_ERR_OVERLAP = -3,
    /// A length is larger than any memory.
    ARMLET_ERR_LENGTH = -4,
    /// A `struct_size` is not that of this library's struct.
    ARMLET_ERR_STRUCT = -5,
    /// The caller was compiled for another version of this interface.
    ARMLET_ERR_ABI = -6,
    /// A value of the configuration or of an argument is out of range.
    ARMLET_ERR_CONFIG = -7,
    /// The budget holds not even the smallest cache.
    ARMLET_ERR_BUDGET = -8,
    /// The arena is smaller than `armlet_plan` said.
    ARMLET_ERR_ARENA = -9,
    /// An output has too little room; how much is needed was written.
    ARMLET_ERR_BUFFER = -10,
    /// The pointer is no context: it was never initialised, initialising it failed, or the arena was moved.
    ARMLET_ERR_HANDLE = -11,
    /// The model's file is corrupt.
    ARMLET_ERR_MODEL = -12,
    /// The model's file is sound, but of a kind that cannot be run.
    ARMLET_ERR_UNSUPPORTED = -13,
    /// This CPU, or this build, has no such backend.
    ARMLET_ERR_BACKEND = -14,
    /// The text is not UTF-8, or longer than `text_bytes`.
    ARMLET_ERR_TEXT = -15,
    /// A token is not in the vocabulary.
    ARMLET_ERR_TOKEN = -16,
    /// There are no tokens to read.
    ARMLET_ERR_EMPTY = -17,
    /// The context is full. Only with `ARMLET_FULL`.
    ARMLET_ERR_FULL = -18,
    /// What lies so far back has been given up; reset, or rewind less far.
    ARMLET_ERR_GONE = -19,
    /// There is nothing to go on from: read tokens first, and after an interruption the rest of them.
    ARMLET_ERR_ORDER = -20,
    /// The model computed something that is not a number: its weights are damaged.
    ARMLET_ERR_NUMBER = -21,
    /// The vocabulary has the control tokens of no built-in chat format.
    ARMLET_ERR_CHAT = -22,
    /// The saved state is damaged, cut off, or none.
    ARMLET_ERR_STATE = -23,
    /// The saved state is of another model, another configuration or another version.
    ARMLET_ERR_OTHER_STATE = -24,
    /// A callback asked to stop.
    ARMLET_ERR_STOPPED = -25,
}

/// Everything of one conversation: it lies in the arena that `armlet_init` was given.
///
/// One thread at a time may use it. Different contexts are independent, and may share a model.
pub struct armlet_ctx {
    _private: [u8; 0],
}

/// Which of the tokens before it a token looks at.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum armlet_pattern {
    /// The first few and the last ones: text without end (StreamingLLM, arXiv 2309.17453).
    ARMLET_SINKS = 0,
    /// The last ones.
    ARMLET_WINDOW = 1,
    /// All, until the context is full.
    ARMLET_FULL = 2,
}

/// How keys and values are stored.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum armlet_kv_type {
    /// binary16.
    ARMLET_F16 = 0,
    /// int8 with a scale for each token and head: little more than half of that.
    ARMLET_INT8 = 1,
    /// binary32.
    ARMLET_F32 = 2,
}

/// Which instructions compute.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum armlet_backend {
    /// The best that the CPU has. Without an operating system the one that the library was compiled for: the CPU is not
    /// asked.
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

/// Who speaks, for `armlet_chat_turn`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum armlet_role {
    /// Instructions.
    ARMLET_SYSTEM = 0,
    /// The person.
    ARMLET_USER = 1,
    /// The model.
    ARMLET_ASSISTANT = 2,
}

/// For `armlet_tokenize`: add the tokens that the model wants at the start and the end of a text.
pub const ARMLET_ADD_SPECIAL: u32 = 1;
/// For `armlet_tokenize`: let text such as `<|im_end|>` become a control token. Not for text that a user wrote.
pub const ARMLET_PARSE_SPECIAL: u32 = 2;
/// For `armlet_detokenize`: write control tokens as text instead of leaving them out.
pub const ARMLET_SHOW_SPECIAL: u32 = 4;
/// For `armlet_chat_turn`: first close the answer that the model has given or was interrupted in.
pub const ARMLET_CLOSE_ANSWER: u32 = 8;
/// For `armlet_chat_turn`: then open an answer, which `armlet_step` goes on with.
pub const ARMLET_OPEN_ANSWER: u32 = 16;
/// For `armlet_piece`: no token; what is left of a character comes out.
pub const ARMLET_NO_TOKEN: u32 = u32::MAX;

/// A share of the work of a pass: the second argument of `parallel_for`'s `work`.
pub type armlet_work = unsafe extern "C" fn(arg: *mut c_void, core: u32);
/// Takes a line of text, not ended by a 0: why the function that is being called will return an error.
pub type armlet_log = Option<unsafe extern "C" fn(user: *mut c_void, text: *const c_char, len: usize)>;
/// Whether to go on.
pub type armlet_keep_going = Option<unsafe extern "C" fn(user: *mut c_void) -> bool>;
/// Calls `work(arg, core)` for each `core` from 0 to `workers - 1`, once each and best at the same time, and returns
/// when all those calls have returned. What they wrote must then be visible to the caller.
pub type armlet_parallel_for =
    Option<unsafe extern "C" fn(user: *mut c_void, workers: u32, work: armlet_work, arg: *mut c_void)>;
/// Takes the next bytes of a saved state; false stops. Like all callbacks it must not call functions of the context.
pub type armlet_write = Option<unsafe extern "C" fn(user: *mut c_void, bytes: *const c_void, len: usize) -> bool>;

/// What a caller chooses. All zeros but for the first two is a good choice; see `ARMLET_CONFIG_INIT`.
///
/// Callbacks run on the thread of the function that was called, `work` aside. They must not call functions of the same
/// context, and must return: no `longjmp`, no exception.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct armlet_config {
    /// `sizeof(armlet_config)`.
    pub struct_size: u32,
    /// `ARMLET_ABI_VERSION`.
    pub abi_version: u32,
    /// Bytes for keys and values; then `context` is computed and must be 0. 0: as `context` says.
    pub kv_budget: u64,
    /// Tokens that a token looks at, at most. 0: 4096, or what the model was trained with if that is less.
    pub context: u32,
    /// An `armlet_pattern`.
    pub pattern: u32,
    /// With `ARMLET_SINKS`, how many of the first tokens stay. 0: 4.
    pub sinks: u32,
    /// Tokens that can surely be rewound when older ones have been given up.
    pub slack: u32,
    /// Most tokens of a prompt that are read in one pass: more are faster and take more memory. 0: 128.
    pub chunk: u32,
    /// An `armlet_kv_type`.
    pub kv_type: u32,
    /// 1: keys are stored in a basis that spreads outliers, which makes int8 more precise.
    pub hadamard: u32,
    /// Most bytes of a text for `armlet_tokenize` and `armlet_chat_turn`. 0: 4096.
    pub text_bytes: u32,
    /// An `armlet_backend`.
    pub backend: u32,
    /// Cores that `parallel_for` runs, at most `ARMLET_MAX_WORKERS`. 0 or 1: the calling one alone.
    pub workers: u32,
    /// Given to every callback.
    pub user: *mut c_void,
    /// Or NULL.
    pub log: armlet_log,
    /// Asked before each pass: a step, or `chunk` tokens of a prompt. Or NULL.
    pub keep_going: armlet_keep_going,
    /// Needed if `workers` is more than 1.
    pub parallel_for: armlet_parallel_for,
    /// 0.
    pub reserved: [u64; 4],
}

/// What a configuration takes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct armlet_requirements {
    /// `sizeof(armlet_requirements)`, set by the caller.
    pub struct_size: u32,
    /// Alignment of the arena: `ARMLET_ARENA_ALIGN`.
    pub arena_align: u32,
    /// Bytes of the arena: the exact sum of those below.
    pub arena_bytes: u64,
    /// Of those, keys and values.
    pub kv_bytes: u64,
    /// Of those, tables of the model: its vocabulary's index, where its tensors lie.
    pub table_bytes: u64,
    /// Of those, activations and logits of a pass.
    pub workspace_bytes: u64,
    /// Of those, the context itself and room for texts.
    pub text_bytes: u64,
    /// Tokens that a token looks at, at most.
    pub context: u32,
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// Stack that a function needs: `ARMLET_STACK_BYTES`.
    pub stack_bytes: u32,
    /// 0.
    pub reserved: u32,
}

/// How a token is chosen. All zeros: the likeliest.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct armlet_sampling {
    /// `sizeof(armlet_sampling)`.
    pub struct_size: u32,
    /// Divides the logits before the choice; 0 chooses the likeliest token.
    pub temperature: f32,
    /// Keep this many of the likeliest tokens; 0 keeps all, up to 1024.
    pub top_k: u32,
    /// Keep the likeliest tokens up to this share of probability; 0 or 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this likely relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Logits of the last 64 tokens are divided (if positive) or multiplied by this; 0 or 1 changes nothing.
    pub repeat_penalty: f32,
    /// Start of the random numbers.
    pub seed: u64,
}

/// What a context is and has done.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct armlet_info {
    /// `sizeof(armlet_info)`, set by the caller.
    pub struct_size: u32,
    /// An `armlet_backend`, never `ARMLET_BEST`.
    pub backend: u32,
    /// Tokens read so far.
    pub position: u64,
    /// Tokens that still fit; `UINT64_MAX` where there is no end.
    pub remaining: u64,
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// The token that starts a text, or `ARMLET_NO_TOKEN`.
    pub bos: u32,
    /// The token that ends a text, or `ARMLET_NO_TOKEN`.
    pub eos: u32,
    /// The largest difference, in any part of any pass, between the tiles that two workers computed.
    pub imbalance: u32,
    /// Tiles (of rows, heads or tokens) that each worker has computed; not counted for one that is alone.
    pub tiles: [u64; ARMLET_MAX_WORKERS as usize],
}
