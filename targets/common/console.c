/* Printing and reading lines, on whatever uart.c drives. */
#include "console.h"

#include "board.h"
#include "uart.h"

void print_bytes(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\n') uart_putc(UART_BASE, '\r');
        uart_putc(UART_BASE, (uint8_t)text[i]);
    }
}

void print(const char *text) {
    size_t len = 0;
    while (text[len]) len++;
    print_bytes(text, len);
}

void print_dec(uint64_t value) {
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    print_bytes(digits + at, sizeof digits - at);
}

void print_hex(uint64_t value) {
    print("0x");
    for (int shift = 60; shift >= 0; shift -= 4) {
        const char digit = "0123456789abcdef"[value >> shift & 15];
        print_bytes(&digit, 1);
    }
}

int console_poll(void) { return uart_getc(UART_BASE); }
void console_flush(void) { uart_flush(UART_BASE); }

uint8_t console_read(void) {
    int c;
    while ((c = console_poll()) < 0) {}
    return (uint8_t)c;
}

size_t console_line(char *line, size_t cap) {
    size_t len = 0;
    for (;;) {
        char c = (char)console_read();
        if (c == '\r' || c == '\n') {
            print("\n");
            return len;
        }
        if (c == '\b' || c == 0x7f) {
            if (!len) continue;
            while (len && (line[--len] & 0xc0) == 0x80) {}      /* a whole UTF-8 character */
            print("\b \b");
        } else if (len < cap) {
            line[len++] = c;
            print_bytes(&c, 1);
        }
    }
}
