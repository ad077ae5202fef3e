/* How a core waits for another: in WFE at first, in WFI if that is not enough.
 *
 * On silicon WFE is enough. A turn there is an event, that is, somebody's SEV, and there are few of them during a wait.
 * For an emulator that runs each core in a thread of its own WFE may be a no-op (QEMU's is): a core that waits keeps a CPU
 * of the host from one that works. In WFI the thread sleeps too. It takes an interrupt to end that (ipi.h): a pending one
 * does, masked or not (DDI 0487, "Wait for Interrupt").
 *
 * No wake-up is lost. Who waits stores `asleep`, then loads what it waits for; who wakes has stored that, then loads
 * `asleep`. Between the two each has a DSB, and of these one is first: at least one of both sees the other's store
 * (Dekker). So either the waiting core does not sleep, or it is sent an interrupt, which stays pending until the core clears
 * it. It does so only between WFI and looking again, with a DSB after it, and what it then looks at was stored before
 * the interrupt was sent. An interrupt that comes too late ends the next WFI too early, no more.
 *
 * Of a board without such interrupts, and in a strict build, cores wait in WFE alone. */
#include "idle.h"

#include <stdatomic.h>

#include "ipi.h"
#include "layout.h"
#include "sysreg.h"

/* Turns of WFE before WFI: in QEMU some microseconds, less than it takes to wake a thread. */
#define TURNS 200

static struct {
    _Alignas(CACHE_LINE) atomic_bool asleep;    /* or about to be; by this core alone, as all of this */
    atomic_uint sleeps;
    bool can_sleep;
} idle[CORES];

static bool interrupt_pending(void) { return READ_SYSREG(isr_el1) >> 7 & 1; }

/* Firmware that left the controller unusable (config.txt: enable_gic=0) shall cost the sleep, not a hang: so try. */
void idle_init(uint32_t core) {
    WRITE_SYSREG(cntv_ctl_el0, 0);
    if (STRICT || !ipi_init_core(core) || interrupt_pending()) return;
    const uint64_t start = ticks();
    ipi_send(core);
    while (!interrupt_pending() && ticks() - start < ticks_per_second() / 1000) {}
    idle[core].can_sleep = interrupt_pending();
    ipi_clear(core);
}

void idle_until(uint32_t core, bool (*ready)(const void *arg), const void *arg) {
    for (uint32_t turn = 0; turn < TURNS || !idle[core].can_sleep; turn++) {
        if (ready(arg)) return;
        wfe();
    }
    atomic_store_explicit(&idle[core].asleep, true, memory_order_relaxed);
    for (;;) {
        dsb();
        if (ready(arg)) break;
        const uint32_t sleeps = idle_sleeps(core) + 1;
        atomic_store_explicit(&idle[core].sleeps, sleeps, memory_order_relaxed);
        wfi();
        ipi_clear(core);
    }
    atomic_store_explicit(&idle[core].asleep, false, memory_order_relaxed);
}

void idle_wake(uint32_t first, uint32_t end) {
    dsb();
    sev();
    for (uint32_t core = first; core < end; core++)
        if (atomic_load_explicit(&idle[core].asleep, memory_order_relaxed)) ipi_send(core);
}

uint32_t idle_sleeps(uint32_t core) { return atomic_load_explicit(&idle[core].sleeps, memory_order_relaxed); }
bool idle_can_sleep(uint32_t core) { return idle[core].can_sleep; }

/* The virtual timer interrupts from then on until it is turned off: sleeping becomes polling. */
void idle_alarm(uint32_t seconds) {
    WRITE_SYSREG(cntv_cval_el0, ticks() + seconds * ticks_per_second());
    WRITE_SYSREG(cntv_ctl_el0, seconds != 0);
}
