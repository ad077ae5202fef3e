/* The identity map: RAM cached, devices not, code read-only, data not executable, nothing below a stack.
 *
 * One table of 512 entries covers 39 bits of addresses in steps of 1 GiB (level 1: with T0SZ = 25 the walk starts
 * there). Steps of 2 MiB (level 2) and 4 KiB (level 3) exist only where an edge needs them. The most a board takes: the
 * root; level 2 for up to three partly used GiB (RAM, devices, more devices); level 3 for the blocks that the image is
 * in (two, if it is under 2 MiB) and for the two ends of RAM. That is 8; TABLES is 10, 40 KiB.
 *
 * Source: DDI 0487, "The AArch64 Virtual Memory System Architecture", "Translation table descriptor formats". */
#include "mmu.h"

#include "fault.h"
#include "layout.h"
#include "platform.h"

#define BLOCK 1ull
#define TABLE 3ull
#define PAGE 3ull
#define DEVICE (0ull << 2)              /* index in MAIR_EL1, see mmu_on */
#define NORMAL (1ull << 2)
#define READ_ONLY (2ull << 6)
#define INNER_SHAREABLE (3ull << 8)     /* ignored for devices */
#define ACCESSED (1ull << 10)
#define NO_EXEC (3ull << 53)            /* PXN, UXN */
#define ADDRESS 0x0000fffffffff000ull

#define RAM (NORMAL | INNER_SHAREABLE | ACCESSED)

extern uint64_t __tables[TABLES][512];
extern char __image_start[], __rodata_start[], __data_start[], __stacks[], __image_end[];

static uint32_t tables;

/* The table that an entry points to; a new one if the entry is empty. .bss is zero, so a new table is. */
static uint64_t *descend(uint64_t *entry) {
    if (!*entry) {
        if (tables == TABLES) panic("mmu: TABLES is too small");
        *entry = (uintptr_t)__tables[tables++] | TABLE;
    }
    return (uint64_t *)(*entry & ADDRESS);
}

/* Maps what was not mapped before, with the largest steps that fit. */
static void map(uintptr_t start, uintptr_t end, uint64_t rights) {
    while (start < end) {
        uint64_t *table = __tables[0];
        uint32_t shift = 30;
        for (;; shift -= 9) {
            const uintptr_t step = (uintptr_t)1 << shift;
            uint64_t *entry = &table[start >> shift & 511];
            if (!*entry && !(start & (step - 1)) && end - start >= step) {
                *entry = start | rights | (shift == 12 ? PAGE : BLOCK);
                break;
            }
            if (shift == 12) panic("mmu: mapped twice, or not whole pages");
            table = descend(entry);
        }
        start += (uintptr_t)1 << shift;
    }
}

void mmu_build(struct span ram) {
    const uintptr_t image = (uintptr_t)__image_start, rodata = (uintptr_t)__rodata_start;
    const uintptr_t data = (uintptr_t)__data_start, stacks = (uintptr_t)__stacks, end = (uintptr_t)__image_end;
    tables = 1;
    map(ram.start & ~(uintptr_t)4095, image, RAM | NO_EXEC);
    map(image, rodata, RAM | READ_ONLY);
    map(rodata, data, RAM | READ_ONLY | NO_EXEC);
    map(data, stacks, RAM | NO_EXEC);
    for (uintptr_t s = stacks; s < end; s += GUARD_BYTES + STACK_BYTES)
        map(s + GUARD_BYTES, s + GUARD_BYTES + STACK_BYTES, RAM | NO_EXEC);
    map(end, ram.end & ~(uintptr_t)4095, RAM | NO_EXEC);
    for (size_t i = 0; i < board_device_count; i++)
        map(board_devices[i].start, board_devices[i].end, DEVICE | ACCESSED | NO_EXEC);
}
