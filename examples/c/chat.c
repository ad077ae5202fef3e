/*
 * A conversation with a model, in C99.
 *
 *     chat MODEL                                    talks on the terminal; Ctrl-C ends an answer, Ctrl-D the program
 *     chat MODEL -p "Why is the sky blue?"          one answer
 *     chat MODEL -f kitchen.session                 continues the conversation in that file, and saves it there
 *
 * The model's file is mapped, and one arena holds all else. How large that is, is known before it is there.
 */

#define _POSIX_C_SOURCE 200809L

#include <armlet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Most tokens of a turn: as many as the bytes of a text and of what a chat format adds. */
enum { TURN_TOKENS = 4096 + 192 };

/* ---- What the user chose ------------------------------------------------------------------------------------- */

struct options {
    const char *model, *prompt, *system, *session;
    uint32_t backend, context, most;
    float temperature, penalty;
    bool ids;
};

static int usage(void)
{
    fputs("usage: chat MODEL [-p PROMPT] [-s SYSTEM] [-f SESSION] [-n TOKENS] [-c CONTEXT] [-t TEMPERATURE]\n"
          "            [-r REPEAT_PENALTY] [-b best|scalar|neon|dotprod|i8mm|avx2|avx512]\n"
          "            [-i (prints ids of tokens instead of text)]\n",
          stderr);
    return 2;
}

static bool number(const char *text, uint32_t *number)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    *number = (uint32_t)value;
    return end != text && *end == '\0' && value <= UINT32_MAX;
}

static bool real(const char *text, float *real)
{
    char *end;
    *real = strtof(text, &end);
    return end != text && *end == '\0';
}

static bool backend(const char *name, uint32_t *backend)
{
    static const char *const names[] = {"best", "scalar", "neon", "dotprod", "i8mm", "avx2", "avx512"};
    for (uint32_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i]) == 0) {
            *backend = i;
            return true;
        }
    }
    return false;
}

static bool parse(int argc, char **argv, struct options *options)
{
    if (argc < 2 || argv[1][0] == '-')
        return false;
    options->model = argv[1];
    optind = 2;
    bool good = true;
    for (int option; (option = getopt(argc, argv, "p:s:f:n:c:t:r:b:i")) != -1;) {
        switch (option) {
        case 'p': options->prompt = optarg; break;
        case 's': options->system = optarg; break;
        case 'f': options->session = optarg; break;
        case 'n': good = number(optarg, &options->most) && options->most > 0 && good; break;
        case 'c': good = number(optarg, &options->context) && good; break;
        case 't': good = real(optarg, &options->temperature) && good; break;
        case 'r': good = real(optarg, &options->penalty) && good; break;
        case 'b': good = backend(optarg, &options->backend) && good; break;
        case 'i': options->ids = true; break;
        default: good = false;
        }
    }
    return good && optind == argc;
}

/* ---- Errors and interruptions -------------------------------------------------------------------------------- */

static bool broken(const char *what, const char *why)
{
    fprintf(stderr, "chat: %s: %s\n", what, why);
    return false;
}

/* Whether a call succeeded. If not, `log_line` has already said what the library knows beyond the status. */
static bool ok(const char *call, armlet_status status)
{
    return status >= ARMLET_OK || broken(call, armlet_status_str(status));
}

static volatile sig_atomic_t interrupted;

static void interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

/* ---- Files --------------------------------------------------------------------------------------------------- */

struct file {
    void *bytes;
    size_t len;
};

/* Maps a whole file for reading; if that fails, `errno` says why. */
static bool map(const char *path, struct file *file)
{
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return false;
    struct stat about;
    bool good = fstat(fd, &about) == 0;
    if (good) {
        file->len = (size_t)about.st_size;
        file->bytes = mmap(NULL, file->len, PROT_READ, MAP_PRIVATE, fd, 0);
        good = file->bytes != MAP_FAILED;
    }
    int why = errno;
    close(fd);
    errno = why;
    return good;
}

static bool write_part(void *file, const void *bytes, size_t len)
{
    return fwrite(bytes, 1, len, file) == len;
}

/* Writes what was read to a new file, which then takes the place of the old one: never is there half of one. */
static bool save(armlet_ctx *ctx, const char *path)
{
    char fresh[4096];
    int len = snprintf(fresh, sizeof fresh, "%s.new", path);
    if (len < 0 || (size_t)len >= sizeof fresh)
        return broken(path, strerror(ENAMETOOLONG));
    FILE *file = fopen(fresh, "wb");
    if (!file)
        return broken(fresh, strerror(errno));
    bool good = ok("armlet_save", armlet_save(ctx, write_part, file));
    if (fclose(file) != 0)
        good = broken(fresh, strerror(errno));
    if (good && rename(fresh, path) != 0)
        good = broken(path, strerror(errno));
    if (!good)
        remove(fresh);
    return good;
}

static bool restore(armlet_ctx *ctx, const char *path)
{
    struct file state;
    if (!map(path, &state))
        return errno == ENOENT || broken(path, strerror(errno));
    bool good = ok("armlet_restore", armlet_restore(ctx, state.bytes, state.len));
    munmap(state.bytes, state.len);
    return good;
}

/* ---- The conversation ---------------------------------------------------------------------------------------- */

struct chat {
    const struct options *options;
    armlet_ctx *ctx;
    /* Whether an answer is under way, and may be interrupted. */
    bool answering;
    /* Whether an answer has been given, which the next turn closes. */
    bool answered;
    /* Whether nobody reads the answers. */
    bool deaf;
    uint32_t tokens[TURN_TOKENS];
};

/* A question is prefilled whole; after an answer that was interrupted the conversation continues. */
static bool keep_going(void *user)
{
    const struct chat *chat = user;
    return !(chat->answering && (interrupted || chat->deaf));
}

/* An interruption is not an error: the user asked for it. */
static void log_line(void *user, const char *text, size_t len)
{
    if (keep_going(user))
        fprintf(stderr, "armlet: %.*s\n", (int)len, text);
}

/* Reads what somebody says. */
static bool turn(struct chat *chat, uint32_t role, const char *text, size_t len, uint32_t flags)
{
    size_t n;
    if (chat->answered)
        flags |= ARMLET_CLOSE_ANSWER;
    return ok("armlet_chat_turn",
              armlet_chat_turn(chat->ctx, role, text, len, flags, chat->tokens, TURN_TOKENS, &n))
        && ok("armlet_prefill", armlet_prefill(chat->ctx, chat->tokens, n));
}

/* Prints text as it comes; what could not be printed ends the answer. */
static void show(void *user, const char *text, size_t len)
{
    struct chat *chat = user;
    if (fwrite(text, 1, len, stdout) != len || fflush(stdout) != 0)
        chat->deaf = !broken("stdout", strerror(errno));
}

/* Lets the model answer, until it ends its turn, has said enough, or is interrupted. */
static bool answer(struct chat *chat)
{
    const bool ids = chat->options->ids;
    armlet_show print = ids ? NULL : show;
    armlet_answer asked = ARMLET_ANSWER_INIT;
    asked.tokens = chat->options->most;
    armlet_event event = ARMLET_EVENT_INIT;
    armlet_status status;
    interrupted = 0;
    chat->answering = chat->answered = true;
    while ((status = armlet_generate(chat->ctx, &asked, print, chat, &event)) == ARMLET_OK) {
        if (ids)
            printf("%" PRIu32 " ", event.token);
    }
    chat->answering = false;
    if (status == ARMLET_END && event.kind == ARMLET_CONTEXT_FULL)
        fputs("\nchat: the context is full; -c makes it larger", stderr);
    if (status == ARMLET_ERR_STOPPED)
        status = armlet_finish(chat->ctx, print, chat);
    putchar('\n');
    return ok("armlet_generate", status) && !chat->deaf;
}

static bool ask(struct chat *chat, const char *text, size_t len)
{
    return turn(chat, ARMLET_USER, text, len, ARMLET_OPEN_ANSWER) && answer(chat);
}

/* Asks what comes line by line. A line that is refused changes nothing: the next one may do better. */
static bool talk(struct chat *chat)
{
    bool good = true;
    char *line = NULL;
    size_t room = 0;
    for (;;) {
        if (isatty(STDIN_FILENO))
            fputs("> ", stderr);
        ssize_t len = getline(&line, &room, stdin);
        if (len < 0)
            break;
        if (len > 0 && line[len - 1] == '\n')
            len--;
        if (len > 0)
            good = ask(chat, line, (size_t)len) && good;
    }
    free(line);
    return good;
}

static bool converse(struct chat *chat)
{
    const struct options *options = chat->options;
    armlet_sampling sampling = ARMLET_SAMPLING_INIT;
    sampling.temperature = options->temperature;
    sampling.top_k = 40;
    sampling.min_p = 0.05F;
    sampling.repeat_penalty = options->penalty;
    if (!ok("armlet_set_sampling", armlet_set_sampling(chat->ctx, &sampling)))
        return false;

    if (options->session && !restore(chat->ctx, options->session))
        return false;
    armlet_info info = ARMLET_INFO_INIT;
    if (!ok("armlet_get_info", armlet_get_info(chat->ctx, &info)))
        return false;
    chat->answered = info.position > 0;
    if (!chat->answered && options->system
        && !turn(chat, ARMLET_SYSTEM, options->system, strlen(options->system), 0))
        return false;

    bool good = options->prompt ? ask(chat, options->prompt, strlen(options->prompt)) : talk(chat);
    return (!options->session || save(chat->ctx, options->session)) && good;
}

/* Plans, gives the memory, and talks. */
static bool run(const struct options *options, const struct file *model)
{
    struct chat chat = {options, NULL, false, false, false, {0}};
    armlet_config config = ARMLET_CONFIG_INIT;
    config.context = options->context;
    config.backend = options->backend;
    config.user = &chat;
    config.log = log_line;
    config.keep_going = keep_going;

    armlet_requirements needs = ARMLET_REQUIREMENTS_INIT;
    if (!ok("armlet_plan", armlet_plan(model->bytes, model->len, &config, &needs)))
        return false;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "%" PRIu64 " bytes, %" PRIu64 " of them keys and values of %" PRIu32 " tokens\n",
                needs.arena_bytes, needs.kv_bytes, needs.context);

    void *arena;
    int why = posix_memalign(&arena, needs.arena_align, (size_t)needs.arena_bytes);
    if (why != 0)
        return broken("the arena", strerror(why));
    bool good = ok("armlet_init", armlet_init(arena, (size_t)needs.arena_bytes, model->bytes, model->len, &config,
                                              &chat.ctx))
        && converse(&chat);
    free(arena);
    return good;
}

int main(int argc, char **argv)
{
    struct options options = {NULL, NULL, NULL, NULL, ARMLET_BEST, 0, 512, 0, 0, false};
    if (!parse(argc, argv, &options))
        return usage();
    if (armlet_abi_version() != ARMLET_ABI_VERSION) {
        broken(armlet_version(), armlet_status_str(ARMLET_ERR_ABI));
        return EXIT_FAILURE;
    }

    /* Without SA_RESTART, Ctrl-C at the prompt ends the program, and what was said is saved. */
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = interrupt;
    sigaction(SIGINT, &action, NULL);

    struct file model;
    if (!map(options.model, &model)) {
        broken(options.model, strerror(errno));
        return EXIT_FAILURE;
    }
    bool good = run(&options, &model);
    munmap(model.bytes, model.len);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
