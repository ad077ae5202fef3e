/* Interrupts between cores with a GICv2: software-generated interrupt 0. Sources: "ARM Generic Interrupt Controller
 * Architecture Specification", version 2.0 (IHI 0048); "CoreLink GIC-400 TRM" (DDI 0471).
 *
 * A GIC with the Security Extensions shows us, being non-secure, Group 1 alone; whoever had EL3 has put our interrupts
 * there (the Raspberry Pi's armstub, QEMU, or start.S). One without has both groups, and interrupts start out in Group 0.
 * In both, bit 0 of the control registers enables the group that ours is in, given that IGROUPR0, which the former
 * protects from us, is 0 in the latter. */
#include "gic.h"

#include "board.h"
#include "ipi.h"

#ifdef GICD_BASE
#define SGI 0                           /* secure firmware leaves 0 to 7 to the non-secure side */
#define TIMER 27                        /* the virtual timer's private interrupt */
#define SPURIOUS 1020                   /* from here on: not an interrupt */

static volatile uint32_t *gicd(uint32_t offset) { return (volatile uint32_t *)(GICD_BASE + (uintptr_t)offset); }
static volatile uint32_t *gicc(uint32_t offset) { return (volatile uint32_t *)(GICC_BASE + (uintptr_t)offset); }

bool ipi_init_core(uint32_t core) {
    (void)core;
    if ((*gicd(GICD_ICPIDR2) >> 4 & 15) != 2) return false;     /* virt,gic-version=3: no such CPU interface */
    *gicd(GICD_ICENABLER0) = ~0u;       /* whatever somebody left on would end each WFI */
    *gicd(GICD_IGROUPR0) = 0;
    *gicd(GICD_IPRIORITYR0) = 0;        /* the highest: below (more urgent than) any mask */
    *gicd(GICD_ISENABLER0) = 1 << SGI | 1 << TIMER;
    *gicd(GICD_CTLR) = 1;
    *gicc(GICC_PMR) = 0xff;
    *gicc(GICC_CTLR) = 1;
    return true;
}

/* On both boards core n is behind CPU interface n; idle_init has each core prove it. */
void ipi_send(uint32_t core) { *gicd(GICD_SGIR) = 1u << (16 + core) | SGI; }

/* An interrupt is pending once for each core that sent it. If there are more, WFI returns again. */
void ipi_clear(uint32_t core) {
    (void)core;
    const uint32_t id = *gicc(GICC_IAR);        /* no longer pending when the load returns */
    if ((id & 0x3ff) < SPURIOUS) *gicc(GICC_EOIR) = id;
}
#endif
