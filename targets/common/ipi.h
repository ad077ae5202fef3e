/* An interrupt from one core to another. Interrupts stay masked (PSTATE.I), so nobody takes it: all it does is to end a
 * WFI. gic.c or qa7.c has the means, whichever board.h gives an address for. */
#ifndef IPI_H
#define IPI_H

#include <stdbool.h>
#include <stdint.h>

/* On the core itself: lets such interrupts through, and the virtual timer's, and no others of the core's own. False: there
 * is no controller. */
bool ipi_init_core(uint32_t core);

/* To a core that has called ipi_init_core. Stays pending until that core clears it. */
void ipi_send(uint32_t core);

/* On the core itself. What is sent from the moment this returns is not lost. */
void ipi_clear(uint32_t core);

#endif
