/* Cores 1 to 3 of a Raspberry Pi wait, MMU off, until the word at 0xd8 + 8 * core is an address to go to.
 * Sources: armstub8.S (github.com/raspberrypi/tools, armstubs), "spin_cpu0"; cpu-release-addr in Linux's bcm2837.dtsi and
 * bcm2711.dtsi. */
#include "spin_table.h"

#include "smp.h"
#include "sysreg.h"

#define SPIN_TABLE 0xd8

bool spin_table_start_core(uint32_t core) {
    volatile uint64_t *cell = (volatile uint64_t *)(SPIN_TABLE + 8 * (uintptr_t)core);
    *cell = (uintptr_t)secondary_entry;
    clean_to_memory(cell);
    return true;
}
