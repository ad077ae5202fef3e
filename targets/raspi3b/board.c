#include "gpio.h"
#include "platform.h"
#include "spin_table.h"

const struct span board_devices[] = {
    {0x3f000000, 0x40000000},           /* peripherals */
    {0x40000000, 0x40040000},           /* timers and mailboxes of the cores */
};
const size_t board_device_count = sizeof board_devices / sizeof *board_devices;

void board_init(void) { gpio_pl011_on_header(); }
bool board_start_core(uint32_t core) { return spin_table_start_core(core); }
