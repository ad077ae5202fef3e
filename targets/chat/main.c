/* Talks over the UART with the model in memory beside the image.
 *
 * The whole use of the library is here: plan (how much memory?), init (in that memory), then for each line a turn of the
 * conversation, and tokens until the model ends its own. Built with PROMPT, it answers that one prompt instead, prints
 * token ids and what they cost, one figure a line, and ends: what a test on a PC compares. */
#include <armlet.h>

#include "boot.h"
#include "console.h"
#include "exit.h"
#include "fault.h"
#include "layout.h"
#include "platform.h"
#include "smp.h"
#include "stack.h"
#include "sysreg.h"

#define LINE_BYTES 1024
#define TURN_TOKENS 1280                /* a token is at least a byte of the line, or of the chat format */
#define CTRL_C 3

static uint32_t tokens[TURN_TOKENS];

/* ---- Small things to print ---- */

static void print_figure(const char *name, uint64_t value) {
    print(name);
    print(" ");
    print_dec(value);
    print("\n");
}

static void print_status(const char *what, armlet_status status) {
    print(what);
    print(": ");
    print(armlet_status_str(status));
    print("\n");
}

static void require(const char *what, armlet_status status) {
    if (status >= 0) return;
    print_status(what, status);
    stop(EXIT_FAIL);
}

static void print_log(void *user, const char *text, size_t len) {
    (void)user;
    print_bytes(text, len);
    print("\n");
}

#ifdef PROMPT
static void print_piece(armlet_ctx *ctx, uint32_t token) {
    char piece[256];
    size_t len = 0;
    if (armlet_piece(ctx, token, piece, sizeof piece, &len) >= 0) print_bytes(piece, len);
}
#else
static void print_text(void *user, const char *text, size_t len) {
    (void)user;
    print_bytes(text, len);
}
#endif

/* Static, because GCC 12 fills and copies structs on the stack with unaligned stores, whatever -mstrict-align says
 * (its bug 103100). */
static const armlet_info *info_of(armlet_ctx *ctx) {
    static armlet_info info;
    info.struct_size = sizeof info;
    require("info", armlet_get_info(ctx, &info));
    return &info;
}

void armlet_panic(void) {
    panic("the library panicked");
}

/* ---- Memory ---- */

static armlet_ctx *start_model(const armlet_config *config) {
    const void *model = (const void *)boot.model.start;
    const size_t model_len = boot.model.end - boot.model.start;
    if (!model_len) panic("no model: see targets/README.md, \"Where the model goes\"");
    print_figure("model_bytes", model_len);

    static armlet_requirements need = ARMLET_REQUIREMENTS_INIT;
    require("plan", armlet_plan(model, model_len, config, &need));
    print_figure("arena_bytes", need.arena_bytes);
    print_figure("kv_bytes", need.kv_bytes);
    print_figure("context", need.context);
    if (need.stack_bytes > STACK_BYTES) panic("the library needs more stack: raise STACK_BYTES");

    const struct span ram = boot_free_ram();
    const uintptr_t arena = (ram.start + need.arena_align - 1) / need.arena_align * need.arena_align;
    if (arena > ram.end || need.arena_bytes > ram.end - arena) panic("not enough memory: lower KV_BUDGET");
    armlet_ctx *ctx = NULL;
    require("init", armlet_init((void *)arena, need.arena_bytes, model, model_len, config, &ctx));
    return ctx;
}

/* ---- One prompt, for tests ---- */

#ifdef PROMPT
static int answer_prompt(armlet_ctx *ctx, uint32_t cores) {
    static const char prompt[] = PROMPT;
    static uint32_t answer[TOKENS];
    size_t n = 0, got = 0;
    require("turn", armlet_chat_turn(ctx, ARMLET_USER, prompt, sizeof prompt - 1, ARMLET_OPEN_ANSWER, tokens,
                                     TURN_TOKENS, &n));
    print("prompt_ids");
    for (size_t i = 0; i < n; i++) {
        print(" ");
        print_dec(tokens[i]);
    }

    const uint64_t start = ticks();
    require("prefill", armlet_prefill(ctx, tokens, n));
    const uint64_t read = ticks();
    armlet_status status = ARMLET_OK;
    while (got < TOKENS) {
        uint32_t token;
        status = armlet_step(ctx, &token);
        require("step", status);
        if (status == ARMLET_END) break;
        answer[got++] = token;
    }
    const uint64_t end = ticks();

    print("\nanswer_ids");
    for (size_t i = 0; i < got; i++) {
        print(" ");
        print_dec(answer[i]);
    }
    print("\ntext ");
    for (size_t i = 0; i < got; i++) print_piece(ctx, answer[i]);
    print("\n");
    print_figure("ended", status == ARMLET_END);
    print_figure("prompt_tokens", n);
    print_figure("answer_tokens", got);
    print_figure("prompt_ticks", read - start);
    print_figure("answer_ticks", end - read);
    print_figure("ticks_per_second", ticks_per_second());
    const armlet_info *info = info_of(ctx);
    print_figure("uneven_tiles", info->imbalance);
    for (uint32_t core = 0; core < cores; core++) {
        print("tiles core ");
        print_dec(core);
        print_figure("", info->tiles[core]);
    }
    print_figure("stack_bytes", STACK_BYTES);
    print_figure("stack_limit", ARMLET_STACK_BYTES);
    for (uint32_t core = 0; core < cores; core++) {
        print("stack_used core ");
        print_dec(core);
        print_figure("", stack_used(core));
    }
    return EXIT_PASS;
}
#endif

/* ---- A conversation ---- */

#ifndef PROMPT
static char line[LINE_BYTES];

static void answer_line(armlet_ctx *ctx, size_t len) {
    size_t n = 0;
    const uint32_t flags = ARMLET_OPEN_ANSWER | (info_of(ctx)->position ? ARMLET_CLOSE_ANSWER : 0);
    armlet_status status = armlet_chat_turn(ctx, ARMLET_USER, line, len, flags, tokens, TURN_TOKENS, &n);
    if (status >= 0) status = armlet_prefill(ctx, tokens, n);
    static armlet_event event = ARMLET_EVENT_INIT;
    while (status == ARMLET_OK) {
        status = armlet_generate(ctx, NULL, print_text, NULL, &event);
        if (console_poll() == CTRL_C) break;    /* what else is typed meanwhile is dropped */
    }
    if (status == ARMLET_OK) status = armlet_finish(ctx, print_text, NULL);
    print("\n");
    if (status < 0) print_status("error", status);
}

static _Noreturn void converse(armlet_ctx *ctx) {
    print("Ctrl-C stops an answer; /reset begins anew.\n");
    for (;;) {
        print("> ");
        const size_t len = console_line(line, sizeof line);
        static const char reset[] = "/reset";
        size_t same = 0;
        while (same < len && line[same] == reset[same]) same++;
        if (same == sizeof reset - 1) require("reset", armlet_reset(ctx));
        else if (len) answer_line(ctx, len);
    }
}
#endif

int main(void) {
    /* With the MMU off RAM is device memory, where the library's shared counters (exclusives) need not work. */
    const uint32_t cores = STRICT ? 1 : smp_start(CORES);
    print("armlet on " BOARD_NAME "\n");
    print_figure("entry_el", boot.entry_el);
    print_figure("cores", cores);
    static armlet_config config = ARMLET_CONFIG_INIT;
    config.kv_budget = KV_BUDGET;
    config.text_bytes = LINE_BYTES;
    config.workers = cores;
    config.log = print_log;
    config.parallel_for = smp_parallel_for;
    armlet_ctx *ctx = start_model(&config);
#ifdef PROMPT
    return answer_prompt(ctx, cores);
#else
    converse(ctx);
#endif
}
