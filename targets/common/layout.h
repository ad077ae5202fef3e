/* Sizes that the linker script, the start-up code and C agree on. */
#ifndef LAYOUT_H
#define LAYOUT_H

#define CORES 4                         /* most cores that are used */
#ifndef STACK_BYTES
#define STACK_BYTES 0x10000             /* of one core; a multiple of 4096 */
#endif
#define GUARD_BYTES 0x1000              /* unmapped, below each stack */
#define FAULT_STACK_BYTES 0x1000        /* of one core, for the fault report */
#define TABLES 10                       /* translation tables, 4 KiB each; see mmu.c */
#define CACHE_LINE 64                   /* at least: what two cores write is that far apart */
#define STACK_PAINT 0xa5a5a5a5

#endif
