/* Pins of the Raspberry Pi. Source: "BCM2835 ARM Peripherals", 6.1 "Register View" and 6.2 "Alternative Function
 * Assignments"; the same in "BCM2711 ARM Peripherals", chapter 5. Only boards that have GPIO_BASE use this file. */
#include "gpio.h"

#include <stdint.h>

#include "board.h"

#ifdef GPIO_BASE
void gpio_pl011_on_header(void) {
    volatile uint32_t *select1 = (volatile uint32_t *)(GPIO_BASE + 0x04);   /* GPFSEL1: pins 10 to 19, 3 bits each */
    const uint32_t alt0 = 4;
    *select1 = (*select1 & ~(077u << 12)) | alt0 << 12 | alt0 << 15;
}
#endif
