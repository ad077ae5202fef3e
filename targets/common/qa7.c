/* Interrupts between cores with the mailboxes of BCM2836 and BCM2837: a word for each core, which interrupts while it is
 * not zero. Source: "BCM2836 ARM-local peripherals" (QA7), "Core timers interrupts", "Core mailboxes interrupts",
 * "Core mailboxes". */
#include "board.h"
#include "ipi.h"

#ifdef QA7_BASE
static volatile uint32_t *reg(uintptr_t offset) { return (volatile uint32_t *)(QA7_BASE + offset); }
static volatile uint32_t *timers(uint32_t core) { return reg(0x40 + 4 * core); }
static volatile uint32_t *mailboxes(uint32_t core) { return reg(0x50 + 4 * core); }
static volatile uint32_t *set(uint32_t core) { return reg(0x80 + 16 * core); }      /* mailbox 0 of 4 */
static volatile uint32_t *clear(uint32_t core) { return reg(0xc0 + 16 * core); }

bool ipi_init_core(uint32_t core) {
    ipi_clear(core);
    *timers(core) = 1 << 3;             /* IRQ for the virtual timer; no FIQ, no others */
    *mailboxes(core) = 1;               /* IRQ for mailbox 0; no FIQ, no others */
    return true;
}

void ipi_send(uint32_t core) { *set(core) = 1; }

void ipi_clear(uint32_t core) {
    *clear(core) = ~0u;                 /* the bits that are written as 1 */
    (void)*clear(core);                 /* a load waits until the store before it has arrived */
}
#endif
