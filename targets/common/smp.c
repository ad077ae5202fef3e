/* The other cores: how they start, and how work gets to them.
 *
 * Work is handed over by one counter that only core 0 writes, and taken back by one counter for each core that only
 * that core writes. So loads with acquire and stores with release (LDAR, STLR) are all it takes. Exclusives would need
 * memory that is cached (DDI 0487, "Synchronization and semaphores"), which a strict build has not. How an idle core
 * waits: idle.c. */
#include "smp.h"

#include <stdatomic.h>

#include "fault.h"
#include "idle.h"
#include "layout.h"
#include "platform.h"
#include "sysreg.h"

static struct {
    _Alignas(CACHE_LINE) atomic_uint round;     /* how often work was handed out */
    void (*work)(void *arg, uint32_t core);     /* from here on: written before `round`, read after it */
    void *arg;
    uint32_t workers;
} job;

static struct {
    _Alignas(CACHE_LINE) atomic_uint round;     /* the last one this core is through with, plus one; 0: not here yet */
} done[CORES];

static atomic_uint cores = 1;           /* core 0 writes it */

static uint32_t core_count(void) { return atomic_load_explicit(&cores, memory_order_relaxed); }

/* The two things that cores wait for. */
static bool next_has_begun(const void *round) {
    return atomic_load_explicit(&job.round, memory_order_acquire) != *(const unsigned *)round;
}
static bool all_are_through(const void *round) {
    for (uint32_t core = 1; core < core_count(); core++)
        if (atomic_load_explicit(&done[core].round, memory_order_acquire) != *(const unsigned *)round + 1) return false;
    return true;
}

/* From start.S, on its own stack, caches on. The core is here for good. */
_Noreturn void smp_secondary(uint32_t core);
void smp_secondary(uint32_t core) {
    idle_init(core);
    for (unsigned round = 0;; round++) {        /* core 0 waits for us, so it cannot be ahead by two */
        atomic_store_explicit(&done[core].round, round + 1, memory_order_release);
        dsb();                                  /* of several at once, the one whose DSB is last sees all the others */
        if (all_are_through(&round)) idle_wake(0, 1);
        idle_until(core, next_has_begun, &round);
        if (core < job.workers) job.work(job.arg, core);
    }
}

uint32_t smp_start(uint32_t most) {
    if (most > CORES) most = CORES;
    idle_init(0);
    const unsigned through = atomic_load_explicit(&job.round, memory_order_relaxed) + 1;
    for (uint32_t core = core_count(); core < most; core++) {
        core_pen[core] = (uintptr_t)secondary_entry;
        clean_to_memory(&core_pen[core]);
        if (!board_start_core(core)) break;
        sev();
        const uint64_t start = ticks();
        while (atomic_load_explicit(&done[core].round, memory_order_acquire) != through)
            if (ticks() - start > ticks_per_second()) return core;      /* nobody there */
        atomic_store_explicit(&cores, core + 1, memory_order_relaxed);
    }
    return core_count();
}

void smp_parallel_for(void *user, uint32_t workers, void (*work)(void *arg, uint32_t core), void *arg) {
    (void)user;
    if (workers > core_count()) panic("parallel_for: more workers than cores");
    if (workers > 1) {
        job.work = work;
        job.arg = arg;
        job.workers = workers;
        const unsigned round = atomic_load_explicit(&job.round, memory_order_relaxed) + 1;
        atomic_store_explicit(&job.round, round, memory_order_release);
        idle_wake(1, core_count());
        work(arg, 0);
        idle_until(0, all_are_through, &round);
    } else if (workers) {
        work(arg, 0);
    }
}
