/* The other cores: how they start, and how work gets to them.
 *
 * Work is handed over by one counter that only core 0 writes, and taken back by one counter for each core that only
 * that core writes. So loads with acquire and stores with release (LDAR, STLR) are all it takes. Exclusives would need
 * memory that is cached (DDI 0487, "Synchronization and semaphores"), which a strict build has not. Idle cores wait in
 * WFE. */
#include "smp.h"

#include <stdatomic.h>

#include "fault.h"
#include "layout.h"
#include "platform.h"
#include "sysreg.h"

#define CACHE_LINE 64

static struct {
    _Alignas(CACHE_LINE) atomic_uint round;     /* how often work was handed out */
    void (*work)(void *arg, uint32_t core);     /* from here on: written before `round`, read after it */
    void *arg;
    uint32_t workers;
} job;

static struct {
    _Alignas(CACHE_LINE) atomic_uint round;     /* the last one this core is through with, plus one; 0: not here yet */
} done[CORES];

static uint32_t cores = 1;

/* From start.S, on its own stack, caches on. The core is here for good. */
_Noreturn void smp_secondary(uint32_t core);
void smp_secondary(uint32_t core) {
    unsigned round = 0;
    for (;;) {
        atomic_store_explicit(&done[core].round, round + 1, memory_order_release);
        wake_cores();
        while (atomic_load_explicit(&job.round, memory_order_acquire) == round) wfe();
        round++;                                /* core 0 waits for us, so it cannot be ahead by two */
        if (core < job.workers) job.work(job.arg, core);
    }
}

uint32_t smp_start(uint32_t most) {
    if (most > CORES) most = CORES;
    for (; cores < most; cores++) {
        core_pen[cores] = (uintptr_t)secondary_entry;
        clean_to_memory(&core_pen[cores]);
        if (!board_start_core(cores)) break;
        wake_cores();
        const uint64_t start = ticks();
        while (!atomic_load_explicit(&done[cores].round, memory_order_acquire))
            if (ticks() - start > ticks_per_second()) return cores;     /* nobody there */
    }
    return cores;
}

void smp_parallel_for(void *user, uint32_t workers, void (*work)(void *arg, uint32_t core), void *arg) {
    (void)user;
    if (workers > cores) panic("parallel_for: more workers than cores");
    if (workers > 1) {
        job.work = work;
        job.arg = arg;
        job.workers = workers;
        const unsigned round = atomic_load_explicit(&job.round, memory_order_relaxed) + 1;
        atomic_store_explicit(&job.round, round, memory_order_release);
        wake_cores();
        work(arg, 0);
        for (uint32_t core = 1; core < cores; core++)
            while (atomic_load_explicit(&done[core].round, memory_order_acquire) != round + 1) wfe();
    } else if (workers) {
        work(arg, 0);
    }
}
