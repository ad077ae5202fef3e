#ifndef GPIO_H
#define GPIO_H

/* Pins 8 and 10 of a Raspberry Pi's header (GPIO 14 and 15) become TXD and RXD of the PL011. */
void gpio_pl011_on_header(void);

#endif
