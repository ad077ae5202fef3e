#ifndef PSCI_H
#define PSCI_H

#include <stdbool.h>
#include <stdint.h>

/* Starts a core at secondary_entry; false if there is no such core, or no PSCI. True also if it is running already. */
bool psci_start_core(uint32_t core);

#endif
