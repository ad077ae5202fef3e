/* PL011, polled. Source: "PrimeCell UART (PL011) Technical Reference Manual" (DDI 0183), chapter 3. */
#include "uart.h"

enum {
    DR = 0x00,
    FR = 0x18,
    IBRD = 0x24,
    FBRD = 0x28,
    LCR_H = 0x2c,
    CR = 0x30,
    IMSC = 0x38,
    ICR = 0x44,
    FR_BUSY = 1 << 3,
    FR_RXFE = 1 << 4,
    FR_TXFF = 1 << 5,
    LCR_FIFO = 1 << 4,
    LCR_8BIT = 3 << 5,
    CR_ENABLE = 1 << 0 | 1 << 8 | 1 << 9,       /* UART, transmitter, receiver */
};

static volatile uint32_t *reg(uintptr_t base, uint32_t offset) { return (volatile uint32_t *)(base + offset); }

void uart_init(uintptr_t base, uint32_t clock, uint32_t baud) {
    uint32_t divisor = (8 * clock / baud + 1) / 2;      /* clock / (16 * baud), in 64ths, rounded */
    uart_flush(base);
    *reg(base, CR) = 0;
    *reg(base, IMSC) = 0;
    *reg(base, ICR) = 0x7ff;
    *reg(base, IBRD) = divisor >> 6;
    *reg(base, FBRD) = divisor & 63;
    *reg(base, LCR_H) = LCR_FIFO | LCR_8BIT;            /* also latches the divisor */
    *reg(base, CR) = CR_ENABLE;
}

void uart_putc(uintptr_t base, uint8_t c) {
    while (*reg(base, FR) & FR_TXFF) {}
    *reg(base, DR) = c;
}

int uart_getc(uintptr_t base) {
    if (*reg(base, FR) & FR_RXFE) return -1;
    return *reg(base, DR) & 0xff;
}

void uart_flush(uintptr_t base) {
    while (*reg(base, FR) & FR_BUSY) {}
}
