/* Faults: reports, and probes that survive one. */
#ifndef FAULT_H
#define FAULT_H

#include <stdint.h>

/* Stops with a message. */
_Noreturn void panic(const char *why);

/* After fault_expect(), the next synchronous exception of this image is not reported; its instruction is skipped.
 * fault_taken() gives that exception's ESR_EL1, or 0 if there was none, and ends the expectation. */
void fault_expect(void);
uint64_t fault_taken(void);

#endif
