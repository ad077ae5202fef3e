/* What the firmware found when it started. */
#ifndef BOOT_H
#define BOOT_H

#include <stddef.h>
#include <stdint.h>

struct span {
    uintptr_t start, end;
};

struct boot {
    uint32_t entry_el;                  /* the exception level we were started at */
    const void *dtb;                    /* NULL: none */
    struct span ram;
    struct span model;                  /* empty: none */
};

extern struct boot boot;

/* The largest piece of RAM that holds neither image nor model nor device tree. */
struct span boot_free_ram(void);

/* The application. Its result is the exit code. */
int main(void);

#endif
