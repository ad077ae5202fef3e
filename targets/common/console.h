/* Text on the serial line. Lines end in "\n" here, in "\r\n" on the wire. */
#ifndef CONSOLE_H
#define CONSOLE_H

#include <stddef.h>
#include <stdint.h>

void print(const char *text);
void print_bytes(const char *text, size_t len);
void print_dec(uint64_t value);
void print_hex(uint64_t value);

/* The next byte that was typed; waits. */
uint8_t console_read(void);
/* The next byte, or -1 if none is there. */
int console_poll(void);
/* A line, without its end, edited by backspace and echoed; not NUL-terminated. What exceeds `cap` is dropped. */
size_t console_line(char *line, size_t cap);
/* Waits until all has left the wire. */
void console_flush(void);

#endif
