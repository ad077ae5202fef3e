/* Proves the start-up code on the board or emulator at hand: prints a line for each thing, then takes commands over the
 * UART, one a line:
 *     echo TEXT     prints TEXT
 *     fault KIND    undefined, null, stack, text, core: must end in a report and exit code 2
 *     exit          ends, with code 0 if all was well
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "boot.h"
#include "console.h"
#include "exit.h"
#include "fault.h"
#include "fdt.h"
#include "idle.h"
#include "layout.h"
#include "platform.h"
#include "smp.h"
#include "stack.h"
#include "sysreg.h"

void *memcpy(void *to, const void *from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int byte, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

extern char __image_start[], __stacks[];

static uint32_t failures;

static void check(const char *what, bool well) {
    print(well ? "ok      " : "FAILED  ");
    print(what);
    print("\n");
    if (!well) failures++;
}

/* ---- FP/SIMD ---- */

static void test_fp(void) {
    volatile float third = 1.0f / 3.0f;
    volatile double root = 2.0;
    double result;
    __asm__("fsqrt %d0, %d1" : "=w"(result) : "w"(root));
    check("floating point computes", third * 3.0f == 1.0f && result > 1.41421356 && result < 1.41421357);
    check("FPCR is zero", READ_SYSREG(fpcr) == 0);
}

/* ---- MMU ---- */

/* What a load from `at` would go through: PAR_EL1. */
static uint64_t translate(uintptr_t at) {
    __asm__ volatile("at s1e1r, %0\n\tisb" : : "r"(at));
    return READ_SYSREG(par_el1);
}

static void test_mmu(void) {
    const uint64_t sctlr = READ_SYSREG(sctlr_el1);
    check("at EL1, on SP_EL0", READ_SYSREG(CurrentEL) == 1 << 2 && READ_SYSREG(spsel) == 0);
    check("instruction cache is on", sctlr & 1 << 12);
    if (STRICT) {
        check("MMU and data cache are off, alignment checking is on", (sctlr & 7) == 2);
        return;
    }
    check("MMU and data cache are on, alignment checking is off", (sctlr & 7) == 5);
    const uint64_t ram = translate((uintptr_t)&failures), uart = translate(UART_BASE);
    check("RAM is Normal, write-back, inner shareable", !(ram & 1) && ram >> 56 == 0xff && (ram >> 7 & 3) == 3);
    check("the UART is Device-nGnRE", !(uart & 1) && uart >> 56 == 0x04);
    check("all of RAM is mapped", !(translate(boot.ram.start) & 1) && !(translate(boot.ram.end - 4096) & 1));
    check("what is below a stack is not", translate((uintptr_t)__stacks) & 1);
}

/* ---- Faults that a probe expects ---- */

static uint64_t load_x(const void *p) {
    uint64_t v = 0;
    __asm__ volatile("ldr %0, [%1]" : "+r"(v) : "r"(p) : "memory");
    return v;
}

static void load_q(const void *p) { __asm__ volatile("ldr q0, [%0]" : : "r"(p) : "v0", "memory"); }
static void load_4s(const void *p) { __asm__ volatile("ld1 {v0.4s}, [%0]" : : "r"(p) : "v0", "memory"); }
static void load_16b(const void *p) { __asm__ volatile("ld1 {v0.16b}, [%0]" : : "r"(p) : "v0", "memory"); }
static void store_w(void *p) { __asm__ volatile("str wzr, [%0]" : : "r"(p) : "memory"); }

static uint32_t exception_class(uint64_t esr) { return (uint32_t)(esr >> 26) & 0x3f; }
static bool is_alignment_abort(uint64_t esr) { return exception_class(esr) == 0x25 && (esr & 0x3f) == 0x21; }

static void test_faults(void) {
    static _Alignas(64) uint8_t bytes[64] = {0, 1, 2, 3, 4, 5, 6, 7, 8};
    fault_expect();
    __asm__ volatile("udf #0");
    check("an undefined instruction is caught", fault_taken() >> 25 == 1);      /* EC 0, IL 1 */

    fault_expect();
    const uint64_t v = load_x(bytes + 1);
    const uint64_t esr = fault_taken();
    fault_expect();
    load_q(bytes + 3);
    const uint64_t esr_q = fault_taken();
    fault_expect();
    load_4s(bytes + 5);
    const uint64_t esr_4s = fault_taken();
    if (STRICT) {
        check("unaligned ldr x traps", is_alignment_abort(esr));
        check("unaligned ldr q traps", is_alignment_abort(esr_q));
        check("unaligned ld1 {v.4s} traps", is_alignment_abort(esr_4s));
    } else {
        check("unaligned ldr x loads", !esr && v == 0x0807060504030201);
        check("unaligned ldr q and ld1 {v.4s} load", !esr_q && !esr_4s);
    }
    fault_expect();
    load_16b(bytes + 1);
    check("ld1 {v.16b} never traps", !fault_taken());

    if (STRICT) return;
    fault_expect();
    store_w(__image_start);
    const uint64_t code = fault_taken();
    check("code is read-only", exception_class(code) == 0x25 && (code & 0x3c) == 0x0c);
    fault_expect();
    load_x(__stacks + GUARD_BYTES - 8);
    const uint64_t guard = fault_taken();
    check("guard pages trap", exception_class(guard) == 0x25 && (guard & 0x3c) == 0x04);
}

/* ---- memcpy and its relatives, against loops over bytes ---- */

static uint8_t mem_got[512], mem_want[512];

static bool mem_equal(void) {
    for (size_t i = 0; i < sizeof mem_got; i++)
        if (((volatile uint8_t *)mem_got)[i] != mem_want[i]) return false;
    return true;
}

static void mem_fill(void) {
    for (size_t i = 0; i < sizeof mem_got; i++) ((volatile uint8_t *)mem_got)[i] = mem_want[i] = (uint8_t)(i * 7 + i / 256);
}

static void test_mem(void) {
    bool copies = true, sets = true, compares = true;
    for (size_t len = 0; len < 200; len++) {
        for (size_t from = 128; from < 145; from += 3) {
            for (size_t to = 0; to < 300; to += to < 100 ? 97 : 5) {
                mem_fill();
                memmove(mem_got + to, mem_got + from, len);
                if (to < from)
                    for (size_t i = 0; i < len; i++) ((volatile uint8_t *)mem_want)[to + i] = mem_want[from + i];
                else
                    for (size_t i = len; i--;) ((volatile uint8_t *)mem_want)[to + i] = mem_want[from + i];
                copies = copies && mem_equal();
            }
        }
        for (size_t to = 0; to < 17; to++) {
            mem_fill();
            memset(mem_got + to, 0x1a5, len);
            for (size_t i = 0; i < len; i++) ((volatile uint8_t *)mem_want)[to + i] = 0xa5;
            sets = sets && mem_equal();
            mem_fill();
            compares = compares && memcmp(mem_got + to, mem_want + to, len) == 0;
            mem_got[to + len]++;
            compares = compares && memcmp(mem_got + to, mem_want + to, len) == 0;
            if (len) {
                mem_got[to + len / 2] = 1;
                mem_want[to + len / 2] = 0x81;
                compares = compares && memcmp(mem_got + to, mem_want + to, len) < 0 && memcmp(mem_want + to, mem_got + to, len) > 0;
            }
        }
    }
    check("memmove", copies);
    check("memset", sets);
    check("memcmp", compares);
}

/* ---- Cores ---- */

/* An emulator with fewer cores than it emulates may take long for a round, so time is a limit too. */
#define ROUNDS 2000
#define SECONDS 2
#define LOST_SECONDS 10                 /* whoever was not woken looks again then, so that the test ends, late */

static struct {
    _Alignas(CACHE_LINE) atomic_uint arrived;           /* the round this core is in */
    uint32_t calls, wrong, random;
} seen[CORES];

struct job {
    uint32_t workers, round, pause;     /* most microseconds */
    uint64_t sctlr;
};

/* Busy for a random while, of at most `most` microseconds. The events are for silicon, where nothing else ends others' WFE
 * often enough for WFI's turn to come. They end ours at once; an emulator that runs all cores in one thread goes on to
 * another core there. */
static void pause(uint32_t core, uint32_t most) {
    if (!most) return;
    const uint64_t start = ticks();
    const uint32_t random = seen[core].random = seen[core].random * 1664525 + 1013904223 + core;
    while (ticks() - start < ticks_per_second() / 1000 * ((random >> 8) % most) / 1000) {
        sev();
        wfe();
    }
}

static void set_alarm(void *arg, uint32_t core) {
    (void)core;
    idle_alarm(*(const uint32_t *)arg);
}

static bool all_arrived(const void *arg) {
    const struct job *job = arg;
    for (uint32_t core = 0; core < job->workers; core++)
        if (atomic_load_explicit(&seen[core].arrived, memory_order_acquire) < job->round) return false;
    return true;
}

/* Returns only once all workers are in it: proof that they run at the same time. */
static void meet(void *arg, uint32_t core) {
    const struct job *job = arg;
    seen[core].calls++;
    if (core != core_number()) seen[core].wrong++;
    if (READ_SYSREG(sctlr_el1) != job->sctlr || READ_SYSREG(fpcr) || READ_SYSREG(spsel)) seen[core].wrong++;
    pause(core, job->pause);
    atomic_store_explicit(&seen[core].arrived, job->round, memory_order_release);
    idle_wake(0, job->workers);
    idle_until(core, all_arrived, job);
    pause(core, job->pause);
}

/* A sum over plain memory that core 0 wrote before and reads after. */
static uint32_t numbers[1024], sums[CORES];
static void add_up(void *arg, uint32_t core) {
    const uint32_t workers = *(const uint32_t *)arg;
    uint32_t sum = 0;
    for (uint32_t i = core; i < 1024; i += workers) sum += numbers[i];
    sums[core] = sum;
}

/* One core works until all others sleep, and then wakes them: no speed of the host's decides whether they do. */
struct nap {
    uint32_t workers, awake;
    uint32_t sleeps[CORES];             /* before it */
    atomic_bool all_slept, over;
};

static bool nap_is_over(const void *arg) { return atomic_load_explicit(&((const struct nap *)arg)->over, memory_order_acquire); }

static bool others_slept(const struct nap *nap) {
    for (uint32_t core = 0; core < nap->workers; core++)
        if (core != nap->awake && idle_sleeps(core) == nap->sleeps[core]) return false;
    return true;
}

static void take_nap(void *arg, uint32_t core) {
    struct nap *nap = arg;
    if (core != nap->awake) {
        idle_until(core, nap_is_over, nap);
        return;
    }
    const uint64_t start = ticks();
    while (!others_slept(nap) && ticks() - start < LOST_SECONDS * ticks_per_second()) {
        sev();
        wfe();
    }
    atomic_store_explicit(&nap->all_slept, others_slept(nap), memory_order_relaxed);
    atomic_store_explicit(&nap->over, true, memory_order_release);
    idle_wake(0, nap->workers);
}

/* Each core sleeps while another works, whichever that is. That take_nap returns on all of them is the waking. */
static bool all_sleep(uint32_t workers) {
    bool slept = true;
    for (uint32_t awake = 0; awake < workers; awake++) {
        struct nap nap = {.workers = workers, .awake = awake};
        for (uint32_t core = 0; core < workers; core++) nap.sleeps[core] = idle_sleeps(core);
        smp_parallel_for(NULL, workers, take_nap, &nap);
        slept = slept && atomic_load_explicit(&nap.all_slept, memory_order_relaxed);
    }
    return slept;
}

static void use_stack(void *arg, uint32_t core) {
    (void)core;
    volatile uint8_t big[8192];
    for (size_t i = 0; i < sizeof big; i += 64) big[i] = *(const uint8_t *)arg;
}

static void test_cores(void) {
    check("a stack starts almost unused", stack_used(0) < 4096);
    const uint32_t cores = smp_start(CORES);
    print("cores   ");
    print_dec(cores);
    print("\n");
    bool counts = true, sums_well = true, can_sleep = true, in_time = true;
    for (uint32_t test = 1; test <= 2 * cores; test++) {
        const uint32_t pauses = test % 2 ? 0 : 200;
        uint32_t workers = (test + 1) / 2;
        const uint64_t start = ticks();
        uint32_t rounds = 0, sleeps[CORES];
        for (uint32_t core = 0; core < CORES; core++) {
            seen[core].calls = seen[core].arrived = 0;
            sleeps[core] = idle_sleeps(core);
        }
        uint32_t lost = LOST_SECONDS;
        smp_parallel_for(NULL, cores, set_alarm, &lost);
        while (rounds < ROUNDS && ticks() - start < SECONDS * ticks_per_second()) {
            struct job job = {workers, ++rounds, pauses, READ_SYSREG(sctlr_el1)};
            pause(0, pauses);
            smp_parallel_for(NULL, workers, meet, &job);

            uint32_t want = 0, got = 0;
            for (uint32_t k = 0; k < 1024; k++) want += numbers[k] = k * rounds ^ workers;
            smp_parallel_for(NULL, workers, add_up, &workers);
            for (uint32_t core = 0; core < workers; core++) got += sums[core];
            sums_well = sums_well && got == want;
        }
        for (uint32_t core = 0; core < CORES; core++)
            counts = counts && seen[core].calls == (core < workers ? rounds : 0) && !seen[core].wrong;
        print("rounds  ");
        print_dec(2 * rounds);
        print(" of parallel_for on ");
        print_dec(workers);
        print(pauses ? " with pauses, ticks for each " : ", ticks for each ");
        print_dec((ticks() - start) / (2 * rounds));
        print(" of ");
        print_dec(ticks_per_second());
        print(" a second");
        for (uint32_t core = 0; core < cores; core++) {
            sleeps[core] = idle_sleeps(core) - sleeps[core];
            print(core ? " " : "; sleeps ");
            print_dec(sleeps[core]);
            can_sleep = can_sleep && idle_can_sleep(core);
        }
        print("\n");
        in_time = in_time && ticks() - start < LOST_SECONDS * ticks_per_second();
    }
    uint32_t never = 0;
    smp_parallel_for(NULL, cores, set_alarm, &never);
    if (can_sleep) check("idle cores sleep in WFI, and wake", all_sleep(cores));
    else print("no interrupts between all cores: they wait in WFE\n");
    check("no wake-up is lost", in_time);
    if (STRICT) check("strict: none sleeps in WFI", !idle_can_sleep(0) && !idle_can_sleep(cores - 1));
    check("parallel_for calls each worker once, at the same time, on its core", counts);
    check("what is written before and in it is seen in and after it", sums_well);

    uint32_t before[CORES];
    for (uint32_t core = 0; core < cores; core++) before[core] = stack_used(core);
    uint8_t one = 1;
    if (cores > 1) smp_parallel_for(NULL, cores, use_stack, &one);
    else use_stack(&one, 0);
    bool painted = true;
    for (uint32_t core = 0; core < cores; core++) {
        const uint32_t used = stack_used(core);
        painted = painted && before[core] && before[core] < 8192 && used >= 8192 && used < 8192 + 4096;
    }
    check("8192 bytes of stack are measured, on each core", painted);
}

/* ---- Memory ---- */

static void print_span(const char *name, struct span s) {
    print(name);
    if (s.end == s.start) {
        print("none\n");
        return;
    }
    print_hex(s.start);
    print(", ");
    print_dec(s.end - s.start);
    print(" bytes\n");
}

static void test_memory(void) {
    const struct span free = boot_free_ram();
    const uintptr_t dtb = (uintptr_t)boot.dtb;
    print_span("tree    ", (struct span){dtb, dtb + fdt_bytes(boot.dtb)});
    print_span("ram     ", boot.ram);
    print_span("model   ", boot.model);
    print_span("free    ", free);
    check("free memory is in RAM, and free", free.start >= boot.ram.start && free.end <= boot.ram.end &&
          (boot.model.end <= free.start || boot.model.start >= free.end) && (dtb >= free.end || dtb < free.start));
    const uintptr_t last = free.end - 64;
    memset((void *)last, 0x5a, 64);
    check("its end can be written", *(volatile uint8_t *)last == 0x5a && *(volatile uint8_t *)(free.end - 1) == 0x5a);
}

/* ---- Commands ---- */

static bool is(const char *line, size_t len, const char *word) {
    size_t n = 0;
    while (word[n]) n++;
    return len >= n && memcmp(line, word, n) == 0;
}

static uint32_t overflow(volatile uint32_t *from) {
    volatile uint32_t here[64];
    here[0] = *from + 1;
    return here[0] < STACK_BYTES ? overflow(here) + here[0] : 0;
}

static void fault_on_last(void *arg, uint32_t core) {
    if (core == *(const uint32_t *)arg) __asm__ volatile("udf #0");
}

static void provoke(const char *kind, size_t len) {
    if (is(kind, len, "undefined")) __asm__ volatile("udf #0");
    if (is(kind, len, "null")) load_x((const void *)8);         /* flash on virt, which is not mapped; RAM on a Pi */
    if (is(kind, len, "text")) store_w(__image_start);
    if (is(kind, len, "stack")) {
        volatile uint32_t zero = 0;
        overflow(&zero);
    }
    if (is(kind, len, "core")) {
        uint32_t last = smp_start(CORES) - 1;
        smp_parallel_for(NULL, last + 1, fault_on_last, &last);
    }
    print("no fault\n");
}

int main(void) {
    print("armlet selftest: " BOARD_NAME ", ");
    print(STRICT ? "strict, " : "");
    print("entered at EL");
    print_dec(boot.entry_el);
    print(", MIDR ");
    print_hex(READ_SYSREG(midr_el1));
    print("\n");
    test_fp();
    test_mmu();
    test_faults();
    test_mem();
    test_cores();
    test_memory();
    print(failures ? "FAILED\n" : "passed\n");
    for (;;) {
        char line[80];
        const size_t len = console_line(line, sizeof line);
        if (is(line, len, "echo ")) {
            print_bytes(line + 5, len - 5);
            print("\n");
        } else if (is(line, len, "fault ")) {
            provoke(line + 6, len - 6);
        } else if (is(line, len, "exit")) {
            return failures ? EXIT_FAIL : EXIT_PASS;
        }
    }
}
