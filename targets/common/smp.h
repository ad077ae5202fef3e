/* Several cores. */
#ifndef SMP_H
#define SMP_H

#include <stdint.h>

/* Starts up to `most` cores, this one included. Returns how many there are now: cores 0 to that number less one. */
uint32_t smp_start(uint32_t most);

/* Calls work(arg, 0) ... work(arg, workers - 1), each once, at the same time, and returns when all have returned.
 * Each call on a core of its own; the caller is core 0. The signature is that of armlet_config. */
void smp_parallel_for(void *user, uint32_t workers, void (*work)(void *arg, uint32_t core), void *arg);

/* Where a core begins that someone else starts (start.S), and the cells of those that wait in our own pen. */
extern char secondary_entry[];
extern volatile uint64_t core_pen[];

#endif
