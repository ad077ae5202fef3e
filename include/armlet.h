/*
 * armlet: language models in memory that is known before the first token.
 *
 *     armlet_requirements needs = ARMLET_REQUIREMENTS_INIT;
 *     armlet_config config = ARMLET_CONFIG_INIT;
 *     armlet_plan(model, model_len, &config, &needs);           // how much memory
 *     armlet_init(arena, arena_len, model, model_len, &config, &ctx);
 *     armlet_chat_turn(ctx, ARMLET_USER, text, len, ARMLET_OPEN_ANSWER, tokens, cap, &n);
 *     armlet_prefill(ctx, tokens, n);
 *     while (armlet_step(ctx, &token) == ARMLET_OK)
 *         armlet_piece(ctx, token, out, sizeof out, &len);      // then print out
 *
 * No function allocates, blocks, prints, or keeps anything outside the arena. None is for interrupt handlers. All use
 * floating-point and SIMD registers, so an RTOS must save them for the tasks that call; and without an operating system
 * those registers must be on. Sizes are in bytes if nothing else is said. Strings are UTF-8, with a length.
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

/// A configuration of all defaults, and structs that are to be filled.
#define ARMLET_CONFIG_INIT \
    {sizeof(armlet_config), ARMLET_ABI_VERSION, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, {0, 0, 0, 0}}
#define ARMLET_REQUIREMENTS_INIT {sizeof(armlet_requirements), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
#define ARMLET_SAMPLING_INIT {sizeof(armlet_sampling), 0, 0, 0, 0, 0, 0}
#define ARMLET_INFO_INIT {sizeof(armlet_info), 0, 0, 0, 0, 0, 0, 0, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}

/// To be defined by firmware, and not to return: the library without an operating system calls it where the Rust language
/// would end a program. No call is known to do so.
#ifdef __cplusplus
extern "C"
#endif
void armlet_panic(void);

/// Version of the structs and functions below. It changes when a program that was compiled against an older header
/// would no longer work.
#define ARMLET_ABI_VERSION 1

/// Alignment of an arena, in bytes.
#define ARMLET_ARENA_ALIGN 64

/// Stack that any function here needs at most, in bytes, measured on Cortex-A53, A72 and A76 by painting it; on each
/// core that runs a share of the work as well. What the caller's callbacks need comes on top.
#define ARMLET_STACK_BYTES 32768

/// Most cores that `parallel_for` may use.
#define ARMLET_MAX_WORKERS 16

/// For `armlet_tokenize`: add the tokens that the model wants at the start and the end of a text.
#define ARMLET_ADD_SPECIAL 1

/// For `armlet_tokenize`: let text such as `<|im_end|>` become a control token. Not for text that a user wrote.
#define ARMLET_PARSE_SPECIAL 2

/// For `armlet_detokenize`: write control tokens as text instead of leaving them out.
#define ARMLET_SHOW_SPECIAL 4

/// For `armlet_chat_turn`: first close the answer that the model has given or was interrupted in.
#define ARMLET_CLOSE_ANSWER 8

/// For `armlet_chat_turn`: then open an answer, which `armlet_step` goes on with.
#define ARMLET_OPEN_ANSWER 16

/// For `armlet_piece`: no token; what is left of a character comes out.
#define ARMLET_NO_TOKEN UINT32_MAX

/// What a function has to say: 0 is success, positive numbers are news, negative ones errors.
///
/// The numbers never change. After an error nothing has happened, and the context is as usable as before, if the
/// function does not say otherwise.
enum armlet_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
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
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum armlet_status armlet_status;
#else
typedef int32_t armlet_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/// Which of the tokens before it a token looks at.
enum armlet_pattern
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /// The first few and the last ones: text without end (StreamingLLM, arXiv 2309.17453).
    ARMLET_SINKS = 0,
    /// The last ones.
    ARMLET_WINDOW = 1,
    /// All, until the context is full.
    ARMLET_FULL = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum armlet_pattern armlet_pattern;
#else
typedef uint32_t armlet_pattern;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/// How keys and values are stored.
enum armlet_kv_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /// binary16.
    ARMLET_F16 = 0,
    /// int8 with a scale for each token and head: little more than half of that.
    ARMLET_INT8 = 1,
    /// binary32.
    ARMLET_F32 = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum armlet_kv_type armlet_kv_type;
#else
typedef uint32_t armlet_kv_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/// Which instructions compute.
enum armlet_backend
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
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
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum armlet_backend armlet_backend;
#else
typedef uint32_t armlet_backend;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/// Who speaks, for `armlet_chat_turn`.
enum armlet_role
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /// Instructions.
    ARMLET_SYSTEM = 0,
    /// The person.
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

/// Everything of one conversation: it lies in the arena that `armlet_init` was given.
///
/// One thread at a time may use it. Different contexts are independent, and may share a model.
typedef struct armlet_ctx armlet_ctx;

/// Takes a line of text, not ended by a 0: why the function that is being called will return an error.
typedef void (*armlet_log)(void *user, const char *text, size_t len);

/// Whether to go on.
typedef bool (*armlet_keep_going)(void *user);

/// A share of the work of a pass: the second argument of `parallel_for`'s `work`.
typedef void (*armlet_work)(void *arg, uint32_t core);

/// Calls `work(arg, core)` for each `core` from 0 to `workers - 1`, once each and best at the same time, and returns
/// when all those calls have returned. What they wrote must then be visible to the caller.
typedef void (*armlet_parallel_for)(void *user, uint32_t workers, armlet_work work, void *arg);

/// What a caller chooses. All zeros but for the first two is a good choice; see `ARMLET_CONFIG_INIT`.
///
/// Callbacks run on the thread of the function that was called, `work` aside. They must not call functions of the same
/// context, and must return: no `longjmp`, no exception.
typedef struct {
    /// `sizeof(armlet_config)`.
    uint32_t struct_size;
    /// `ARMLET_ABI_VERSION`.
    uint32_t abi_version;
    /// Bytes for keys and values; then `context` is computed and must be 0. 0: as `context` says.
    uint64_t kv_budget;
    /// Tokens that a token looks at, at most. 0: 4096, or what the model was trained with if that is less.
    uint32_t context;
    /// An `armlet_pattern`.
    uint32_t pattern;
    /// With `ARMLET_SINKS`, how many of the first tokens stay. 0: 4.
    uint32_t sinks;
    /// Tokens that can surely be rewound when older ones have been given up.
    uint32_t slack;
    /// Most tokens of a prompt that are read in one pass: more are faster and take more memory. 0: 128.
    uint32_t chunk;
    /// An `armlet_kv_type`.
    uint32_t kv_type;
    /// 1: keys are stored in a basis that spreads outliers, which makes int8 more precise.
    uint32_t hadamard;
    /// Most bytes of a text for `armlet_tokenize` and `armlet_chat_turn`. 0: 4096.
    uint32_t text_bytes;
    /// An `armlet_backend`.
    uint32_t backend;
    /// Cores that `parallel_for` runs, at most `ARMLET_MAX_WORKERS`. 0 or 1: the calling one alone.
    uint32_t workers;
    /// Given to every callback.
    void *user;
    /// Or NULL.
    armlet_log log;
    /// Asked before each pass: a step, or `chunk` tokens of a prompt. Or NULL.
    armlet_keep_going keep_going;
    /// Needed if `workers` is more than 1.
    armlet_parallel_for parallel_for;
    /// 0.
    uint64_t reserved[4];
} armlet_config;

/// What a configuration takes.
typedef struct {
    /// `sizeof(armlet_requirements)`, set by the caller.
    uint32_t struct_size;
    /// Alignment of the arena: `ARMLET_ARENA_ALIGN`.
    uint32_t arena_align;
    /// Bytes of the arena: the exact sum of those below.
    uint64_t arena_bytes;
    /// Of those, keys and values.
    uint64_t kv_bytes;
    /// Of those, tables of the model: its vocabulary's index, where its tensors lie.
    uint64_t table_bytes;
    /// Of those, activations and logits of a pass.
    uint64_t workspace_bytes;
    /// Of those, the context itself and room for texts.
    uint64_t text_bytes;
    /// Tokens that a token looks at, at most.
    uint32_t context;
    /// Tokens in the vocabulary.
    uint32_t vocab;
    /// Stack that a function needs: `ARMLET_STACK_BYTES`.
    uint32_t stack_bytes;
    /// 0.
    uint32_t reserved;
} armlet_requirements;

/// What a context is and has done.
typedef struct {
    /// `sizeof(armlet_info)`, set by the caller.
    uint32_t struct_size;
    /// An `armlet_backend`, never `ARMLET_BEST`.
    uint32_t backend;
    /// Tokens read so far.
    uint64_t position;
    /// Tokens that still fit; `UINT64_MAX` where there is no end.
    uint64_t remaining;
    /// Tokens in the vocabulary.
    uint32_t vocab;
    /// The token that starts a text, or `ARMLET_NO_TOKEN`.
    uint32_t bos;
    /// The token that ends a text, or `ARMLET_NO_TOKEN`.
    uint32_t eos;
    /// The largest difference, in any part of any pass, between the tiles that two workers computed.
    uint32_t imbalance;
    /// Tiles (of rows, heads or tokens) that each worker has computed; not counted for one that is alone.
    uint64_t tiles[ARMLET_MAX_WORKERS];
} armlet_info;

/// How a token is chosen. All zeros: the likeliest.
typedef struct {
    /// `sizeof(armlet_sampling)`.
    uint32_t struct_size;
    /// Divides the logits before the choice; 0 chooses the likeliest token.
    float temperature;
    /// Keep this many of the likeliest tokens; 0 keeps all, up to 1024.
    uint32_t top_k;
    /// Keep the likeliest tokens up to this share of probability; 0 or 1 keeps all.
    float top_p;
    /// Keep tokens at least this likely relative to the likeliest; 0 keeps all.
    float min_p;
    /// Logits of the last 64 tokens are divided (if positive) or multiplied by this; 0 or 1 changes nothing.
    float repeat_penalty;
    /// Start of the random numbers.
    uint64_t seed;
} armlet_sampling;

/// Takes the next bytes of a saved state; false stops. Like all callbacks it must not call functions of the context.
typedef bool (*armlet_write)(void *user, const void *bytes, size_t len);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/// The version of this library's interface; compare it with `ARMLET_ABI_VERSION`.
uint32_t armlet_abi_version(void);

/// The library's version, such as "0.1.0". The string is constant.
const char *armlet_version(void);

/// What a status means, in a few words. The string is constant; never NULL, whatever the number.
const char *armlet_status_str(int32_t status);

/// How much memory a model takes with this configuration, before any is given: reads the file's header alone.
///
/// `model`: the whole GGUF file, `model_len` bytes; at an even address where alignment is checked, else at any. `out->struct_size` is to be set.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, STRUCT, ABI, CONFIG, BUDGET, MODEL, UNSUPPORTED; `out` is then unchanged.
armlet_status armlet_plan(const void *model,
                          size_t model_len,
                          const armlet_config *config,
                          armlet_requirements *out);

/// Makes a context in an arena.
///
/// `arena`: `armlet_requirements.arena_bytes` or more, at a multiple of `ARMLET_ARENA_ALIGN`. It and the model are lent until the context is no longer used; there is nothing to close. The model may be in flash, and
/// shared by any number of contexts. Nothing outside the arena is ever written but what a function's arguments say.
///
/// Errors: those of `armlet_plan`, ARENA, BACKEND; `*out` is then NULL, but after NULL, ALIGN and OVERLAP of `out`
/// itself or OVERLAP of others; and the arena's contents are of no use.
armlet_status armlet_init(void *arena,
                          size_t arena_len,
                          const void *model,
                          size_t model_len,
                          const armlet_config *config,
                          armlet_ctx **out);

/// Forgets everything that was read; the configuration stays, and how tokens are chosen, from the same seed.
///
/// Errors: NULL, ALIGN, HANDLE.
armlet_status armlet_reset(armlet_ctx *ctx);

/// Forgets all but the first `position` tokens, and which were the last ones, for the repeat penalty; a position that has
/// not been reached changes nothing. Read at least one token before the next step.
///
/// Errors: NULL, ALIGN, HANDLE, GONE: the context is as before.
armlet_status armlet_rewind(armlet_ctx *ctx,
                            uint64_t position);

/// What a context is and has done. `out->struct_size` is to be set.
///
/// Errors: NULL, ALIGN, OVERLAP, HANDLE, STRUCT.
armlet_status armlet_get_info(armlet_ctx *ctx, armlet_info *out);

/// Reads `n` tokens, in passes of at most `chunk`, and computes what may follow the last.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, HANDLE, EMPTY, TOKEN, FULL: nothing was read. STOPPED: some were, see
/// `armlet_info.position`; read the rest to go on.
armlet_status armlet_prefill(armlet_ctx *ctx, const uint32_t *tokens, size_t n);

/// Chooses the next token, writes it to `*token`, and reads it: one pass over the weights.
///
/// END: the token is one that ends the model's turn; it was not read. A next turn begins with `armlet_chat_turn` and `ARMLET_CLOSE_ANSWER`.
///
/// Errors: NULL, ALIGN, OVERLAP, HANDLE, ORDER, FULL, NUMBER: nothing has changed, and `*token` is `ARMLET_NO_TOKEN` if it
/// can be. STOPPED: the token was written but not read; `armlet_prefill` can do that.
armlet_status armlet_step(armlet_ctx *ctx,
                          uint32_t *token);

/// How tokens are chosen from now on; the random numbers start anew. NULL: the likeliest, as after `armlet_init`.
///
/// Errors: NULL (`ctx`), ALIGN, HANDLE, STRUCT, CONFIG (a value that is negative, infinite or not a number).
armlet_status armlet_set_sampling(armlet_ctx *ctx, const armlet_sampling *sampling);

/// The logits of what may follow the last token read: `*logits` points to `*n`, one for each token of the vocabulary,
/// in the arena, until the next call that reads tokens.
///
/// Errors: NULL, ALIGN, OVERLAP, HANDLE, ORDER.
armlet_status armlet_logits(armlet_ctx *ctx, const float **logits, size_t *n);

/// Text to tokens. `flags`: `ARMLET_ADD_SPECIAL`, `ARMLET_PARSE_SPECIAL`.
///
/// `text`: `len` bytes of UTF-8, no 0 needed. `tokens` has room for `cap`; `*n` is how many there are. On BUFFER, `*n`
/// is a number that surely suffices.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, HANDLE, CONFIG (flags), TEXT, BUFFER.
armlet_status armlet_tokenize(armlet_ctx *ctx,
                              const char *text,
                              size_t len,
                              uint32_t flags,
                              uint32_t *tokens,
                              size_t cap,
                              size_t *n);

/// The tokens of a turn in the model's chat format, one of those built in: ChatML, Llama 3, Gemma, Zephyr.
///
/// `role`: an `armlet_role`. `flags`: `ARMLET_CLOSE_ANSWER`, `ARMLET_OPEN_ANSWER`. What looks like a control token in
/// `text` stays text. At position 0 the token that starts a text comes first. Otherwise as `armlet_tokenize`.
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

/// The bytes of `n` tokens, one after another. `flags`: `ARMLET_SHOW_SPECIAL`.
///
/// `text` has room for `cap` bytes; no 0 is added. `*len` is how many there are, or on BUFFER would be. They are UTF-8
/// if the tokens are those of a whole text; a token alone may hold a part of a character: see `armlet_piece`.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, HANDLE, CONFIG (flags), TOKEN, BUFFER.
armlet_status armlet_detokenize(armlet_ctx *ctx,
                                const uint32_t *tokens,
                                size_t n,
                                uint32_t flags,
                                char *text,
                                size_t cap,
                                size_t *len);

/// What `token` adds to a text that is shown as it comes: whole characters only, the rest is kept for the next token.
///
/// `ARMLET_NO_TOKEN` ends the text. Control tokens add nothing. `text` has room for `cap` bytes; no 0 is added; `*len`
/// is how many there are, or on BUFFER would be: then nothing is kept and the call can be repeated.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, HANDLE, TOKEN, BUFFER.
armlet_status armlet_piece(armlet_ctx *ctx, uint32_t token, char *text, size_t cap, size_t *len);

/// Bytes that `armlet_save` would write now.
///
/// Errors: NULL, ALIGN, OVERLAP, HANDLE.
armlet_status armlet_saved_bytes(armlet_ctx *ctx, uint64_t *bytes);

/// Writes what was read, as keys and values, part by part: to flash, a file, a network. `user` goes to `write`.
///
/// What is written has checksums, so that a state that was cut off is refused later and not used.
///
/// Errors: NULL, ALIGN, HANDLE, STOPPED: `write` said so.
armlet_status armlet_save(armlet_ctx *ctx, armlet_write write, void *user);

/// Becomes what was saved in `state`, `len` bytes, with the same model and configuration; the bytes are copied. Read at
/// least one token before the next step.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, HANDLE, STATE, OTHER_STATE: the context is as before.
armlet_status armlet_restore(armlet_ctx *ctx, const void *state, size_t len);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* ARMLET_H */
