#include "platform.h"
#include "psci.h"

const struct span board_devices[] = {{0x08000000, 0x10000000}};    /* GIC, UART, RTC, GPIO, virtio */
const size_t board_device_count = sizeof board_devices / sizeof *board_devices;

void board_init(void) {}
bool board_start_core(uint32_t core) { return psci_start_core(core); }
