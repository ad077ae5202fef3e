/* ARM PrimeCell UART, PL011. */
#ifndef UART_H
#define UART_H

#include <stdint.h>

void uart_init(uintptr_t base, uint32_t clock, uint32_t baud);
void uart_putc(uintptr_t base, uint8_t c);
int uart_getc(uintptr_t base);          /* -1: nothing there */
void uart_flush(uintptr_t base);

#endif
