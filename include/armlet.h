/*
 * armlet: language models on ARM, in memory whose size is known before the first token.
 *
 *     armlet_requirements needs = ARMLET_REQUIREMENTS_INIT;
 *     armlet_config config = ARMLET_CONFIG_INIT;
 *     armlet_plan(model, model_len, &config, &needs);           // how much memory
 *     armlet_init(arena, arena_len, model, model_len, &config, &ctx);
 *     armlet_chat_turn(ctx, ARMLET_USER, text, len, ARMLET_OPEN_ANSWER, tokens, cap, &n);
 *     armlet_prefill(ctx, tokens, n);
 *     while (armlet_generate(ctx, NULL, show, NULL, &event) == ARMLET_OK) {}   // `show` prints the text as it comes
 *
 * No function allocates, blocks, prints, or keeps anything outside the arena. None may be called from an interrupt
 * handler. All use floating-point and SIMD registers: without an operating system these must be enabled, and an RTOS must
 * save them for each task that calls armlet. Sizes are in bytes unless stated otherwise. Strings are UTF-8 with a length.
 *
 * Written by `cargo xtask header` from src/capi; do not edit.
 */

#ifndef ARMLET_H
#define ARMLET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARMLET_VERSION_MAJOR 0
#define ARMLET_VERSION_MINOR 1
#define ARMLET_VERSION_PATCH 0

/// A configuration of defaults, and structs for a function to fill.
#define ARMLET_CONFIG_INIT \
    {sizeof(armlet_config), ARMLET_ABI_VERSION, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, {0, 0, 0, 0}}
#define ARMLET_REQUIREMENTS_INIT {sizeof(armlet_requirements), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
#define ARMLET_SAMPLING_INIT {sizeof(armlet_sampling), 0, 0, 0, 0, 0, 0, 0, 0}
#define ARMLET_ANSWER_INIT {sizeof(armlet_answer), 0, NULL, NULL, 0, 0, 0, 0}
#define ARMLET_EVENT_INIT {sizeof(armlet_event), 0, 0, 0, 0, 0}
#define ARMLET_INFO_INIT {sizeof(armlet_info), 0, 0, 0, 0, 0, 0, 0, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}

/// Firmware must define this function, and it must not return: without an operating system the library calls it where
/// Rust code would panic. No function of this header is known to panic.
#ifdef __cplusplus
extern "C"
#endif
void armlet_panic(void);

/// Version of the structs and functions below. It changes when programs that were compiled against an older header stop
/// working.
#define ARMLET_ABI_VERSION 1

/// Alignment of an arena, in bytes.
#define ARMLET_ARENA_ALIGN 64

/// The most stack that any function here needs, in bytes, measured by painting it on Cortex-A53, A72 and A76. Each core
/// that `parallel_for` uses needs as much. What the caller's callbacks need comes on top.
#define ARMLET_STACK_BYTES 32768

/// The most stop strings of an answer.
#define ARMLET_MAX_STOPS 4

/// The most bytes of one.
#define ARMLET_MAX_STOP_BYTES 256

/// The most cores that `parallel_for` can use.
#define ARMLET_MAX_WORKERS 16

/// For `armlet_tokenize`: add the BOS and EOS tokens, if the model asks for them.
#define ARMLET_ADD_SPECIAL 1

/// For `armlet_tokenize`: parse text such as `<|im_end|>` as a control token. Not for text that a user wrote.
#define ARMLET_PARSE_SPECIAL 2

/// For `armlet_detokenize`: write control tokens as text instead of omitting them.
#define ARMLET_SHOW_SPECIAL 4

/// For `armlet_chat_turn`: first close the model's last answer, finished or interrupted.
#define ARMLET_CLOSE_ANSWER 8

/// For `armlet_chat_turn`: then open an answer, which `armlet_step` continues.
#define ARMLET_OPEN_ANSWER 16

/// For `armlet_piece`: the text ends; an incomplete character is written as U+FFFD. Also: "no such token".
#define ARMLET_NO_TOKEN UINT32_MAX

/// Result of a call: 0 is success, positive values carry information, negative values are errors.
///
/// The numbers never change. After an error the context is as it was before the call, unless the function says
/// otherwise.
enum armlet_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
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
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum armlet_status armlet_status;
#else
typedef int32_t armlet_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/// Attention pattern: which of the preceding tokens a token attends to.
enum armlet_pattern
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /// The first few (attention sinks) and the most recent ones: text of unlimited length (StreamingLLM, arXiv
    /// 2309.17453).
    ARMLET_SINKS = 0,
    /// The most recent ones.
    ARMLET_WINDOW = 1,
    /// All of them, until the context is full.
    ARMLET_FULL = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum armlet_pattern armlet_pattern;
#else
typedef uint32_t armlet_pattern;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/// Format of the KV cache.
enum armlet_kv_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /// binary16.
    ARMLET_F16 = 0,
    /// int8 with a scale for each token and head: little more than half the size of F16.
    ARMLET_INT8 = 1,
    /// binary32, for tests of precision. Without an operating system it is a feature of the library, `kv_f32`; else CONFIG.
    ARMLET_F32 = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum armlet_kv_type armlet_kv_type;
#else
typedef uint32_t armlet_kv_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/// Instruction set of the kernels.
enum armlet_backend
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
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
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum armlet_backend armlet_backend;
#else
typedef uint32_t armlet_backend;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/// Author of a message, for `armlet_chat_turn`.
enum armlet_role
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /// Instructions to the model.
    ARMLET_SYSTEM = 0,
    /// The user.
    ARMLET_USER = 1,
    /// The model.
    ARMLET_ASSISTANT = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum armlet_role armlet_role;
#else
typedef uint32_t armlet_role;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/// What a step of an answer was.
enum armlet_event_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
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
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum armlet_event_kind armlet_event_kind;
#else
typedef uint32_t armlet_event_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/// One conversation, stored in the arena that `armlet_init` was given.
///
/// One thread at a time may use a context. Different contexts are independent, and may share a model.
typedef struct armlet_ctx armlet_ctx;

/// Receives a line of text, not zero-terminated: why the current call is about to return an error.
typedef void (*armlet_log)(void *user, const char *text, size_t len);

/// Returns whether to continue.
typedef bool (*armlet_keep_going)(void *user);

/// Does one core's share of a forward pass; what `parallel_for` has to call.
typedef void (*armlet_work)(void *arg, uint32_t core);

/// Calls `work(arg, core)` once for each `core` from 0 to `workers - 1`, at best in parallel, and returns when all those
/// calls have returned. What they wrote must then be visible to the calling core.
typedef void (*armlet_parallel_for)(void *user, uint32_t workers, armlet_work work, void *arg);

/// Configuration of a context. Zeros are good defaults, except for the first two members: see `ARMLET_CONFIG_INIT`.
///
/// Callbacks run on the thread that called the function. They must not use the same context, which would get
/// `ARMLET_ERR_BUSY`, and must return: no `longjmp`, no exception.
typedef struct {
    /// `sizeof(armlet_config)`.
    uint32_t struct_size;
    /// `ARMLET_ABI_VERSION`.
    uint32_t abi_version;
    /// Bytes for the KV cache: `context` is then the largest that fits, and must be 0 here. 0: `context` decides.
    uint64_t kv_budget;
    /// The most tokens that a token attends to. 0: 4096, or the context that the model was trained with if that is less.
    uint32_t context;
    /// An `armlet_pattern`.
    uint32_t pattern;
    /// With `ARMLET_SINKS`, how many of the first tokens are never evicted. 0: 4.
    uint32_t sinks;
    /// Tokens that can always be rewound, even when older ones have been evicted.
    uint32_t slack;
    /// The most prompt tokens of one forward pass: more are faster and take more memory. 0: 128.
    uint32_t chunk;
    /// An `armlet_kv_type`.
    uint32_t kv_type;
    /// 1: rotate keys by a Hadamard matrix before they are stored. It spreads outliers, so int8 loses less.
    uint32_t hadamard;
    /// The longest text for `armlet_tokenize` and `armlet_chat_turn`, in bytes. 0: 4096.
    uint32_t text_bytes;
    /// An `armlet_backend`.
    uint32_t backend;
    /// Cores that `parallel_for` uses, at most `ARMLET_MAX_WORKERS`. 0 or 1: only the calling one.
    uint32_t workers;
    /// Passed to every callback.
    void *user;
    /// Or NULL.
    armlet_log log;
    /// Called before each forward pass, which is a step or `chunk` tokens of a prompt. Or NULL.
    armlet_keep_going keep_going;
    /// Required if `workers` is more than 1.
    armlet_parallel_for parallel_for;
    /// 0.
    uint64_t reserved[4];
} armlet_config;

/// Memory and stack that a configuration requires.
typedef struct {
    /// `sizeof(armlet_requirements)`, set by the caller.
    uint32_t struct_size;
    /// Alignment of the arena: `ARMLET_ARENA_ALIGN`.
    uint32_t arena_align;
    /// Size of the arena: the sum of the four below.
    uint64_t arena_bytes;
    /// KV cache.
    uint64_t kv_bytes;
    /// Tables of the model: the index of its vocabulary, the offsets of its tensors.
    uint64_t table_bytes;
    /// Workspace: activations and logits of a forward pass.
    uint64_t workspace_bytes;
    /// The context itself and its text buffers.
    uint64_t text_bytes;
    /// The most tokens that a token attends to.
    uint32_t context;
    /// Tokens in the vocabulary.
    uint32_t vocab;
    /// The most stack that a function needs: `ARMLET_STACK_BYTES`.
    uint32_t stack_bytes;
    /// 0.
    uint32_t reserved;
} armlet_requirements;

/// State and statistics of a context.
typedef struct {
    /// `sizeof(armlet_info)`, set by the caller.
    uint32_t struct_size;
    /// An `armlet_backend`, never `ARMLET_BEST`.
    uint32_t backend;
    /// Tokens in the context so far, evicted ones included.
    uint64_t position;
    /// Tokens that still fit; `UINT64_MAX` if old ones are evicted.
    uint64_t remaining;
    /// Tokens in the vocabulary.
    uint32_t vocab;
    /// The BOS token, or `ARMLET_NO_TOKEN`.
    uint32_t bos;
    /// The EOS token, or `ARMLET_NO_TOKEN`.
    uint32_t eos;
    /// The largest difference between the tiles that two workers computed in one call of `parallel_for`.
    uint32_t imbalance;
    /// Tiles (of rows, heads or tokens) that each worker has computed; not counted without `parallel_for`.
    uint64_t tiles[ARMLET_MAX_WORKERS];
} armlet_info;

/// Sampling parameters. All zeros: greedy decoding.
typedef struct {
    /// `sizeof(armlet_sampling)`.
    uint32_t struct_size;
    /// Divides the logits; 0 always picks the likeliest token (greedy decoding).
    float temperature;
    /// Keep only this many of the likeliest tokens; 0: 1024, which is also the most.
    uint32_t top_k;
    /// Keep only the likeliest tokens whose probabilities sum to this; 0 or 1 keeps all.
    float top_p;
    /// Keep only tokens at least this probable relative to the likeliest; 0 keeps all.
    float min_p;
    /// Divides (if positive) or multiplies (if negative) the logits of the last 64 tokens; 0 or 1 changes nothing.
    float repeat_penalty;
    /// Subtracted from the logits of the last 64 tokens; 0 changes nothing.
    float presence_penalty;
    /// Subtracted from the logit of one of the last 64 tokens for each time that it occurs; 0 changes nothing.
    float frequency_penalty;
    /// Seed of the random numbers.
    uint64_t seed;
} armlet_sampling;

/// A text, not zero-terminated.
typedef struct {
    /// UTF-8.
    const char *bytes;
    /// Length in bytes.
    size_t len;
} armlet_text;

/// What is added to the logit of a token.
typedef struct {
    /// The token.
    uint32_t token;
    /// `-INFINITY` forbids it.
    float bias;
} armlet_bias;

/// What ends an answer beside the model, and what its tokens are chosen by beside `armlet_sampling`. All zeros: nothing.
typedef struct {
    /// `sizeof(armlet_answer)`.
    uint32_t struct_size;
    /// The most tokens; 0: no limit, but for a context that can be full.
    uint32_t tokens;
    /// `n_stops` texts that end the answer, and are no part of it, of 1 to `ARMLET_MAX_STOP_BYTES` bytes each.
    const armlet_text *stops;
    /// `n_biases` of them. Several of one token add up.
    const armlet_bias *biases;
    /// At most `ARMLET_MAX_STOPS`.
    uint32_t n_stops;
    /// Number of biases. Each takes time for each token that is likely enough to be chosen.
    uint32_t n_biases;
    /// 1: events have `log_probability`, which takes an exponential function for each token of the vocabulary.
    uint32_t log_probabilities;
    /// 0.
    uint32_t reserved;
} armlet_answer;

/// Receives text of an answer, not zero-terminated: whole characters.
typedef void (*armlet_show)(void *user, const char *text, size_t len);

/// A step of an answer.
typedef struct {
    /// `sizeof(armlet_event)`, set by the caller.
    uint32_t struct_size;
    /// An `armlet_event_kind`.
    uint32_t kind;
    /// The token, also the one that ended the model's turn; else `ARMLET_NO_TOKEN`.
    uint32_t token;
    /// The number of the stop string that was found.
    uint32_t stop;
    /// Tokens of the answer so far.
    uint32_t generated;
    /// ln of the token's probability as the model gives it, before temperature, penalties and biases; 0 if not asked for.
    float log_probability;
} armlet_event;

/// Receives the next bytes of a saved state; returns false to stop. Like all callbacks it must not use the context.
typedef bool (*armlet_write)(void *user, const void *bytes, size_t len);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/// Version of this library's interface; compare it with `ARMLET_ABI_VERSION`.
uint32_t armlet_abi_version(void);

/// Version of this library, such as "0.1.0", as a constant string.
const char *armlet_version(void);

/// A status in a few words, as a constant string; never NULL, whatever the number.
const char *armlet_status_str(int32_t status);

/// Computes how much memory a model needs with a configuration. Reads only the file's header.
///
/// `model` is the whole GGUF file, `model_len` bytes. Any address will do, but where the CPU checks alignment it must be
/// even. Set `out->struct_size` before.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, STRUCT, ABI, CONFIG, BUDGET, MODEL, UNSUPPORTED; `out` is then unchanged.
armlet_status armlet_plan(const void *model,
                          size_t model_len,
                          const armlet_config *config,
                          armlet_requirements *out);

/// Makes a context in an arena.
///
/// `arena` has `armlet_requirements.arena_bytes` or more, at a multiple of `ARMLET_ARENA_ALIGN`. The context borrows it
/// and the model for as long as it is used; there is nothing to close. The model may be in flash, and any number of
/// contexts may share it. No function writes outside the arena, except where its arguments point to.
///
/// Errors: those of `armlet_plan`, ARENA, BACKEND. `*out` is then NULL, unless `out` itself is in error (NULL, ALIGN,
/// OVERLAP), and the arena's contents are undefined.
armlet_status armlet_init(void *arena,
                          size_t arena_len,
                          const void *model,
                          size_t model_len,
                          const armlet_config *config,
                          armlet_ctx **out);

/// Empties the context: its KV cache, and the sampler's history. Configuration and sampling parameters stay; the random
/// numbers start again from the seed.
///
/// Errors: NULL, ALIGN, HANDLE.
armlet_status armlet_reset(armlet_ctx *ctx);

/// Drops all but the first `position` tokens, and the sampler's history for the repeat penalty. A position that has not
/// been reached changes nothing. Prefill at least one token before the next step.
///
/// Errors: NULL, ALIGN, HANDLE, GONE: the context is unchanged.
armlet_status armlet_rewind(armlet_ctx *ctx, uint64_t position);

/// Writes the state and the statistics of a context to `*out`. Set `out->struct_size` before.
///
/// Errors: NULL, ALIGN, OVERLAP, HANDLE, STRUCT.
armlet_status armlet_get_info(armlet_ctx *ctx, armlet_info *out);

/// Prefill: appends `n` tokens to the context, in forward passes of at most `chunk`, and computes the logits after the
/// last one.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, HANDLE, EMPTY, TOKEN, FULL: none was appended. STOPPED: some were, see
/// `armlet_info.position`; prefill the remaining ones to continue.
armlet_status armlet_prefill(armlet_ctx *ctx, const uint32_t *tokens, size_t n);

/// Decodes one token: samples it from the logits, writes it to `*token`, and appends it to the context, which takes one
/// forward pass.
///
/// It is `armlet_generate` without limits and text: see `armlet_piece` for that.
///
/// END: the token ends the model's turn and was not appended. The next turn starts with `armlet_chat_turn` and
/// `ARMLET_CLOSE_ANSWER`.
///
/// Errors: NULL, ALIGN, OVERLAP, HANDLE, ORDER, FULL, NUMBER, STOPPED: the context is unchanged, and `*token` is
/// `ARMLET_NO_TOKEN` if `token` itself is not in error.
armlet_status armlet_step(armlet_ctx *ctx, uint32_t *token);

/// Sets the sampling parameters; the random numbers start from the seed. NULL: greedy decoding, as after `armlet_init`.
///
/// Errors: NULL (`ctx`), ALIGN, HANDLE, STRUCT, CONFIG (a value that is negative, infinite or not a number).
armlet_status armlet_set_sampling(armlet_ctx *ctx, const armlet_sampling *sampling);

/// The logits after the last token: `*logits` points to `*n` of them, one for each token of the vocabulary. They are in
/// the arena, and valid until the next prefill, step, rewind, reset or restore.
///
/// Errors: NULL, ALIGN, OVERLAP, HANDLE, ORDER.
armlet_status armlet_logits(armlet_ctx *ctx, const float **logits, size_t *n);

/// The next token of an answer: samples it from the logits, passes on the text that has become certain, and appends the token
/// to the context, which takes one forward pass. `*event` says which token it is, or why no more come.
///
/// END: the answer has ended, `event->kind` says by what, and its text has been passed on to the end. The context has all tokens
/// that events have told of; the one that ends the model's turn, or completes a stop string, is not appended. The next call
/// begins another answer, as does `armlet_prefill`.
///
/// `answer` may differ from call to call; NULL: only the model and the context end it. `show` gets whole characters, none of
/// which can be the beginning of a stop string any more; NULL: the text is dropped.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, HANDLE, STRUCT, CONFIG (a stop string that is empty or too long, too many of them, a
/// bias that is not a number, a flag), TEXT, TOKEN (a bias), ORDER, NUMBER, STOPPED: the context is unchanged, and so is
/// `*event`.
armlet_status armlet_generate(armlet_ctx *ctx,
                              const armlet_answer *answer,
                              armlet_show show,
                              void *user,
                              armlet_event *event);

/// Ends an answer before it has ended: passes on what was held of its text because it could have been the beginning of a stop
/// string, or is an incomplete character, which becomes U+FFFD. Changes nothing where no answer is under way.
///
/// Errors: NULL, ALIGN, HANDLE.
armlet_status armlet_finish(armlet_ctx *ctx,
                            armlet_show show,
                            void *user);

/// Tokenizes a text. `flags`: `ARMLET_ADD_SPECIAL`, `ARMLET_PARSE_SPECIAL`.
///
/// `text` is `len` bytes of UTF-8; it need not be zero-terminated. `tokens` has room for `cap`; `*n` becomes their
/// number. On BUFFER, `*n` becomes a capacity that suffices.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, HANDLE, CONFIG (flags), TEXT, BUFFER.
armlet_status armlet_tokenize(armlet_ctx *ctx,
                              const char *text,
                              size_t len,
                              uint32_t flags,
                              uint32_t *tokens,
                              size_t cap,
                              size_t *n);

/// Tokenizes one turn of a conversation in the model's chat format: ChatML, Llama 3, Gemma, Gemma 4, Phi-3, Phi-4, Mistral,
/// Zephyr, Granite or SmolLM3. No format adds a default system prompt except SmolLM3's. Gemma has no system role: what is to
/// be its system prompt goes before the user's text. Gemma 4 and SmolLM3 open an answer with an empty thinking block.
///
/// `role`: an `armlet_role`. `flags`: `ARMLET_CLOSE_ANSWER`, `ARMLET_OPEN_ANSWER`. Control tokens in `text` are not
/// parsed: they stay text. At position 0 the BOS token comes first. Otherwise as `armlet_tokenize`.
///
/// Errors: those of `armlet_tokenize`, CONFIG (role), CHAT.
armlet_status armlet_chat_turn(armlet_ctx *ctx,
                               uint32_t role,
                               const char *text,
                               size_t len,
                               uint32_t flags,
                               uint32_t *tokens,
                               size_t cap,
                               size_t *n);

/// Writes the text of `n` tokens. `flags`: `ARMLET_SHOW_SPECIAL`.
///
/// `text` has room for `cap` bytes; no terminating zero is added. `*len` becomes the length of the text, also on BUFFER.
/// A whole text is UTF-8; a single token may be a part of a character: see `armlet_piece`.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, HANDLE, CONFIG (flags), TOKEN, BUFFER.
armlet_status armlet_detokenize(armlet_ctx *ctx,
                                const uint32_t *tokens,
                                size_t n,
                                uint32_t flags,
                                char *text,
                                size_t cap,
                                size_t *len);

/// Writes what `token` adds to a text that is streamed: whole characters only; an incomplete one is kept for the next
/// token.
///
/// `ARMLET_NO_TOKEN` ends the text. Control tokens add nothing. `text` has room for `cap` bytes; no terminating zero is
/// added; `*len` becomes the length, also on BUFFER, when the call can be repeated with more room.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, HANDLE, TOKEN, BUFFER.
armlet_status armlet_piece(armlet_ctx *ctx, uint32_t token, char *text, size_t cap, size_t *len);

/// Writes to `*bytes` how many bytes `armlet_save` would write now.
///
/// Errors: NULL, ALIGN, OVERLAP, HANDLE.
armlet_status armlet_saved_bytes(armlet_ctx *ctx, uint64_t *bytes);

/// Saves the KV cache, part by part, through `write`: to flash, a file, a network. `user` is passed to `write`.
///
/// The saved state has checksums, so a truncated one is refused when it is restored.
///
/// Errors: NULL, ALIGN, HANDLE, STOPPED: `write` returned false.
armlet_status armlet_save(armlet_ctx *ctx, armlet_write write, void *user);

/// Restores a state of `len` bytes that was saved with the same model and configuration; the bytes are copied. Prefill at
/// least one token before the next step.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, HANDLE, STATE, OTHER_STATE: the context is unchanged.
armlet_status armlet_restore(armlet_ctx *ctx,
                             const void *state,
                             size_t len);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* ARMLET_H */
