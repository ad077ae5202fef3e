/* What a board provides: the constants of its board.h, and in its board.c the following. */
#ifndef PLATFORM_H
#define PLATFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "board.h"
#include "boot.h"

/* Before anything is printed, with the MMU off: what the UART needs, pins for instance. */
void board_init(void);
/* Has a core go to secondary_entry. False: there is none, or no way to tell. */
bool board_start_core(uint32_t core);

/* What to map as devices; whole pages. */
extern const struct span board_devices[];
extern const size_t board_device_count;

#endif
