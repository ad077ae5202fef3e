/* Finds RAM and model. The device tree says where they are, if there is one; else the board's constants do, and the
 * length of the model is a word in memory that a debugger or QEMU wrote. */
#include "boot.h"

#include <stdbool.h>

#include "console.h"
#include "exit.h"
#include "fdt.h"
#include "mmu.h"
#include "platform.h"
#include "uart.h"

extern char __image_start[], __image_end[];

struct boot boot;
extern uint32_t boot_el;                /* start.S */
uint32_t boot_el;

static bool inside(uint64_t start, uint64_t bytes, struct span in) {
    return start >= in.start && start <= in.end && bytes <= in.end - start;
}

static bool is_gguf(uintptr_t at) {
    const volatile uint8_t *p = (const volatile uint8_t *)at;
    return p[0] == 'G' && p[1] == 'G' && p[2] == 'U' && p[3] == 'F';
}

/* The first range of /memory that holds the image; a Raspberry Pi with more than 1 GiB has others, which we leave. */
static struct span find_ram(void) {
    const struct span fallback = {RAM_BASE, RAM_BASE + RAM_BYTES};
    uint64_t address_cells = 2, size_cells = 1, start, bytes;
    fdt_number(boot.dtb, "", "#address-cells", 0, 1, &address_cells);
    fdt_number(boot.dtb, "", "#size-cells", 0, 1, &size_cells);
    if (address_cells - 1 > 1 || size_cells - 1 > 1) return fallback;
    const uint32_t a = (uint32_t)address_cells, s = (uint32_t)size_cells;
    for (uint32_t at = 0; at < 64; at += a + s) {
        if (!fdt_number(boot.dtb, "memory", "reg", at, a, &start)) break;
        if (!fdt_number(boot.dtb, "memory", "reg", at + a, s, &bytes)) break;
        if (start > RAM_LAST || bytes > RAM_LAST - start) continue;
        const struct span found = {start, start + bytes};
        if (inside((uintptr_t)__image_start, (size_t)(__image_end - __image_start), found)) return found;
    }
    return fallback;
}

/* Linux's name for it is the initial ram disk: what the loader puts beside the kernel. */
static struct span find_model(void) {
    const struct span none = {0, 0};
    const uint32_t from_cells = fdt_property_bytes(boot.dtb, "chosen", "linux,initrd-start") / 4;
    const uint32_t to_cells = fdt_property_bytes(boot.dtb, "chosen", "linux,initrd-end") / 4;
    uint64_t start = MODEL_ADDR, end = 0;
    if (fdt_number(boot.dtb, "chosen", "linux,initrd-start", 0, from_cells, &start) &&
        fdt_number(boot.dtb, "chosen", "linux,initrd-end", 0, to_cells, &end)) {
        if (end < start || end - start < 4 || !inside(start, end - start, boot.ram)) return none;
        return (struct span){start, end};
    }
    const uint64_t bytes = *(const volatile uint64_t *)MODEL_BYTES_ADDR;
    if (bytes < 4 || !inside(MODEL_ADDR, bytes, boot.ram) || !is_gguf(MODEL_ADDR)) return none;
    return (struct span){MODEL_ADDR, MODEL_ADDR + bytes};
}

/* From start.S, on core 0, with the MMU off. */
void boot_early(const void *dtb);
void boot_early(const void *dtb) {
    board_init();
    uart_init(UART_BASE, UART_CLOCK, 115200);
    boot.entry_el = boot_el;
    /* A loader that does not follow Linux's protocol leaves anything in x0. */
    const struct span may_be_ram = {RAM_BASE, RAM_LAST};
    if (inside((uintptr_t)dtb, 40, may_be_ram) && fdt_bytes(dtb)) boot.dtb = dtb;
#ifdef DTB_ADDR
    else if (fdt_bytes((const void *)DTB_ADDR)) boot.dtb = (const void *)DTB_ADDR;
#endif
    boot.ram = find_ram();
    boot.model = find_model();
    mmu_build(boot.ram);
}

/* From start.S, once caches are on. */
_Noreturn void boot_main(void);
void boot_main(void) { stop(main()); }

struct span boot_free_ram(void) {
    const uintptr_t dtb = (uintptr_t)boot.dtb;
    const struct span used[] = {
        {boot.ram.start, (uintptr_t)__image_end},       /* below the image: vectors and loaders' things */
        boot.model,
        {dtb, dtb + fdt_bytes(boot.dtb)},
    };
    const size_t n = sizeof used / sizeof *used;
    struct span best = {0, 0};
    for (size_t i = 0; i < n; i++) {                    /* a gap begins where something ends */
        struct span gap = {used[i].end, boot.ram.end};
        bool taken = gap.start < (uintptr_t)__image_end;
        for (size_t j = 0; j < n; j++) {
            if (used[j].start <= gap.start && gap.start < used[j].end) taken = true;
            if (used[j].start < used[j].end && gap.start <= used[j].start && used[j].start < gap.end)
                gap.end = used[j].start;
        }
        if (!taken && gap.end > gap.start && gap.end - gap.start > best.end - best.start) best = gap;
    }
    return best;
}
