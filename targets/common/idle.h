/* How a core waits for another. */
#ifndef IDLE_H
#define IDLE_H

#include <stdbool.h>
#include <stdint.h>

/* On each core, before it waits: lets it sleep, if the board can wake it. */
void idle_init(uint32_t core);

/* On `core` itself: returns when ready(arg) is true. Whoever makes it true calls idle_wake afterwards. ready() loads with
 * acquire what others store. */
void idle_until(uint32_t core, bool (*ready)(const void *arg), const void *arg);

/* What was stored before is seen by cores first ... end - 1 when they look again, which they do now. */
void idle_wake(uint32_t first, uint32_t end);

/* For tests. How often a core slept in WFI; whether it can. On the core itself: look again after a time even if nobody wakes
 * it; 0: no more. */
uint32_t idle_sleeps(uint32_t core);
bool idle_can_sleep(uint32_t core);
void idle_alarm(uint32_t seconds);

#endif
