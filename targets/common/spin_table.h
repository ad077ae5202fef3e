#ifndef SPIN_TABLE_H
#define SPIN_TABLE_H

#include <stdbool.h>
#include <stdint.h>

/* Sends a core that waits in the Raspberry Pi's armstub to secondary_entry. */
bool spin_table_start_core(uint32_t core);

#endif
