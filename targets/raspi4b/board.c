#include "gpio.h"
#include "platform.h"
#include "spin_table.h"

const struct span board_devices[] = {{0xfc000000, 0x100000000}};   /* peripherals, cores' timers, GIC */
const size_t board_device_count = sizeof board_devices / sizeof *board_devices;

void board_init(void) { gpio_pl011_on_header(); }
bool board_start_core(uint32_t core) { return spin_table_start_core(core); }
