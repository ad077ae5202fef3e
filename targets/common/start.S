/* From reset to C.
 *
 * Whoever starts us may do so at EL3 (a debugger, QEMU's raspi3b with an ELF file), EL2 (the Raspberry Pi's armstub,
 * any loader that follows Linux's boot protocol) or EL1 (a hypervisor, QEMU's virt). From each we drop to non-secure EL1
 * with FP/SIMD on and the MMU still off; only then a stack exists and C may run.
 *
 * Sources: Arm Architecture Reference Manual for A-profile (DDI 0487), chapters "The AArch64 System Level Programmers'
 * Model" and "AArch64 System Register Descriptions"; Linux, Documentation/arch/arm64/booting.rst.
 */
#include "board.h"
#include "gic.h"
#include "layout.h"

/* SCTLR_EL1: the bits that are RES1 in Armv8.0 (LSMAOE nTLSMD SPAN EIS TSCXT EOS), then ours. */
#define SCTLR_RES1      0x30d00800
#define SCTLR_M         (1 << 0)        /* MMU */
#define SCTLR_A         (1 << 1)        /* alignment checking */
#define SCTLR_C         (1 << 2)        /* data cache */
#define SCTLR_SA        (1 << 3)        /* SP must be a multiple of 16 */
#define SCTLR_I         (1 << 12)       /* instruction cache */

.macro  load reg, value                 /* a 32-bit constant */
        movz    \reg, #((\value) & 0xffff)
        movk    \reg, #(((\value) >> 16) & 0xffff), lsl #16
.endm

/* The number of this core: affinity level 0, or level 1 where level 0 counts threads (MPIDR_EL1.MT, Cortex-A76). */
.macro  core_number reg
        mrs     \reg, mpidr_el1
        tbz     \reg, #24, .Lcore\@
        lsr     \reg, \reg, #8
.Lcore\@:
        and     \reg, \reg, #0xff
.endm

/* The header of an arm64 Linux image. A loader that knows it (Raspberry Pi firmware, U-Boot's booti, QEMU) puts the raw
 * image where it was linked to be, keeps image_size bytes free (.bss and the stacks are not in the file) and passes the
 * flattened device tree in x0. */
        .section .head, "ax"
        .global _start
_start: b       primary_or_pen
        .long   0
        .quad   IMAGE_BASE - RAM_BASE   /* text_offset */
        .quad   __image_bytes
        .quad   0x2                     /* little endian, 4 KiB pages, RAM_BASE matters */
        .quad   0, 0, 0
        .ascii  "ARM\x64"
        .long   0

primary_or_pen:
        core_number x21
        cbnz    x21, pen

/* ---- Core 0 ---- */
/* A loader that ignores text_offset (Raspberry Pi firmware has its own kernel_address, 0x200000 by default) gets the image
 * moved to where it was linked: down, or to where it does not overlap itself. */
        adr     x1, _start
        load    x2, IMAGE_BASE
        cmp     x1, x2
        b.eq    2f
        adrp    x3, __bss_start         /* the end of this copy of the file */
        mov     x4, x2
1:      ldp     x5, x6, [x1], #16
        stp     x5, x6, [x4], #16
        cmp     x1, x3
        b.lo    1b
        dsb     sy
        ic      iallu
        dsb     sy
        isb
        br      x2

2:      mov     x20, x0                 /* the device tree, if the loader gave one */
        mrs     x22, CurrentEL
        lsr     x22, x22, #2
        bl      drop_to_el1

        adrp    x0, __bss_start         /* .bss ends on a page, so pairs of registers fit */
        adrp    x1, __bss_end
1:      cmp     x0, x1
        b.hs    2f
        stp     xzr, xzr, [x0], #16
        b       1b
2:      adrp    x0, boot_el
        str     w22, [x0, #:lo12:boot_el]

        bl      set_stacks
        mov     x0, x20
        bl      boot_early              /* finds RAM and model, builds the translation tables */

        /* The stores above went past the caches. Drop what an earlier stage may have left in them for these addresses. */
        adrp    x0, __bss_start
        adrp    x1, __image_end
        bl      invalidate_lines
        bl      mmu_on
        bl      paint_stack
        bl      boot_main
        b       .                       /* boot_main does not return */

/* ---- The other cores ----
 * Some loaders start all cores at _start. Those wait here, with the MMU off, until core 0 writes to their cell. */
pen:    adrp    x1, core_pen
        add     x1, x1, #:lo12:core_pen
        cmp     x21, #CORES
        b.hs    3f
1:      wfe
        ldr     x2, [x1, x21, lsl #3]
        cbz     x2, 1b
        b       secondary_entry
3:      wfe                             /* more cores than we were built for */
        b       3b

        .section .data.core_pen, "aw"   /* a cache line that nothing else is in: core 0 cleans it */
        .global core_pen
        .balign 64
core_pen:
        .fill   CORES, 8, 0
        .balign 64
        .previous

/* Where a core goes that is started by PSCI, by a spin table or from the pen. Until mmu_on it only touches registers:
 * what core 0 wrote may still be in its cache alone. */
        .global secondary_entry
secondary_entry:
        core_number x21
        bl      drop_to_el1
        bl      set_stacks
        bl      mmu_on
        bl      paint_stack
        mov     x0, x21
        bl      smp_secondary
        b       .

/* ---- Exception levels ----
 * Returns at EL1 (non-secure), interrupts masked, MMU and caches off, FP/SIMD on. Keeps x19 and up. */
drop_to_el1:
        mov     x9, x30
        load    x10, SCTLR_RES1
        mrs     x0, CurrentEL
        cmp     x0, #(2 << 2)
        b.lo    at_el1
        b.eq    at_el2

/* EL3: nobody prepared this core. */
        mrs     x1, midr_el1            /* Cortex-A53, A57, A72: joining coherency is the software's job (their TRMs, */
        ubfx    x1, x1, #4, #12         /* CPUECTLR_EL1.SMPEN), before caches and MMU are enabled */
        load    x2, 0xd03
        cmp     x1, x2
        b.eq    1f
        load    x2, 0xd07
        cmp     x1, x2
        b.eq    1f
        load    x2, 0xd08
        cmp     x1, x2
        b.ne    2f
1:      mrs     x1, s3_1_c15_c2_1
        orr     x1, x1, #(1 << 6)
        msr     s3_1_c15_c2_1, x1
2:
#if defined(GICD_BASE) && !STRICT       /* gic.c: only from here can interrupts be given to the non-secure side (IHI 0048, */
        load    x1, GICD_BASE           /* 4.3.4 and 4.4.2); those below 32 and the mask are each core's own */
        ldr     w2, [x1, #GICD_ICPIDR2]
        ubfx    w2, w2, #4, #4
        cmp     w2, #2
        b.ne    3f
        mov     w2, #-1
        str     w2, [x1, #GICD_IGROUPR0]
        load    x1, GICC_BASE
        mov     w2, #0xff               /* it cannot move a mask that is below 0x80 */
        str     w2, [x1, #GICC_PMR]
3:
#endif
        msr     cptr_el3, xzr           /* FP/SIMD does not trap to EL3 */
        load    x1, 0x531               /* SCR_EL3: NS, RES1 bits 4 and 5, HCE, RW (the next level is AArch64) */
        msr     scr_el3, x1
        isb
        mrs     x1, id_aa64pfr0_el1
        ubfx    x1, x1, #8, #4          /* is there an EL2? */
        mov     x2, #0x3c9              /* SPSR: D A I F masked, EL2h */
        mov     x3, #0x3c5              /* the same, EL1h */
        cmp     x1, #0
        csel    x2, x2, x3, ne
        msr     spsr_el3, x2
        adr     x3, at_el2
        adr     x4, at_el1
        csel    x3, x3, x4, ne
        msr     elr_el3, x3
        msr     sctlr_el1, x10
        eret

at_el2: mov     x0, #(1 << 31)          /* HCR_EL2: EL1 is AArch64, nothing traps, no stage 2, no VHE */
        msr     hcr_el2, x0
        isb
        mov     x0, #0x33ff             /* CPTR_EL2: its RES1 bits; FP/SIMD does not trap */
        msr     cptr_el2, x0
        msr     hstr_el2, xzr
        mrs     x0, cnthctl_el2
        orr     x0, x0, #3              /* EL1 may read the counters */
        msr     cnthctl_el2, x0
        msr     cntvoff_el2, xzr
        mrs     x0, midr_el1            /* EL1 reads the VP* copies */
        msr     vpidr_el2, x0
        mrs     x0, mpidr_el1
        msr     vmpidr_el2, x0
        msr     sctlr_el1, x10
        mov     x0, #0x3c5
        msr     spsr_el2, x0
        adr     x0, at_el1
        msr     elr_el2, x0
        eret

at_el1: msr     daifset, #0xf
        msr     sctlr_el1, x10
        mov     x0, #(3 << 20)          /* CPACR_EL1.FPEN: no FP/SIMD traps */
        msr     cpacr_el1, x0
        isb
        msr     fpcr, xzr               /* round to nearest, no flushing: the same sums on every core */
        adrp    x0, vectors
        add     x0, x0, #:lo12:vectors
        msr     vbar_el1, x0
        isb
        ret     x9

/* C runs on SP_EL0, exceptions on a small stack of their own (SP_EL1), so that even a stack overflow can be reported.
 * x21 is the core. Uses x0 to x2. */
set_stacks:
        msr     spsel, #1
        adrp    x0, __fault_stacks
        add     x1, x21, #1
        mov     x2, #FAULT_STACK_BYTES
        madd    x0, x1, x2, x0
        mov     sp, x0
        msr     spsel, #0
        adrp    x0, __stacks            /* each: a guard page, then STACK_BYTES */
        load    x2, (GUARD_BYTES + STACK_BYTES)
        madd    x0, x1, x2, x0
        mov     sp, x0
        ret

/* Fills what is below SP, so that stack_used() can tell what was never touched. */
paint_stack:
        mov     x0, sp
        load    x1, STACK_BYTES
        sub     x1, x0, x1
        load    x2, STACK_PAINT
        orr     x2, x2, x2, lsl #32
1:      stp     x2, x2, [x1], #16
        cmp     x1, x0
        b.lo    1b
        ret

/* Drops the cache lines of [x0, x1), both on page boundaries. */
invalidate_lines:
        mrs     x2, ctr_el0
        ubfx    x2, x2, #16, #4         /* DminLine: log2 of the words of the smallest line */
        mov     x3, #4
        lsl     x3, x3, x2
1:      dc      ivac, x0
        add     x0, x0, x3
        cmp     x0, x1
        b.lo    1b
        dsb     sy
        ret

/* Turns MMU and caches on, with the tables of mmu.c. Registers only; x0 to x2 change.
 * A strict build leaves the MMU off and turns alignment checking on: what a board without translation tables is like. */
mmu_on:
        load    x2, (SCTLR_RES1 | SCTLR_SA | SCTLR_I)
#if STRICT
        orr     x2, x2, #SCTLR_A
#else
        load    x0, 0xff04              /* MAIR_EL1: 0 = Device-nGnRE, 1 = Normal, write-back, allocating */
        msr     mair_el1, x0
        /* TCR_EL1: 39-bit addresses (T0SZ 25), walks cached and inner shareable, 4 KiB granule, no TTBR1 */
        load    x0, (25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23)
        mrs     x1, id_aa64mmfr0_el1
        and     x1, x1, #7              /* PARange: 5 is 48 bits */
        cmp     x1, #5
        mov     x2, #5
        csel    x1, x1, x2, lo
        bfi     x0, x1, #32, #3         /* IPS */
        msr     tcr_el1, x0
        adrp    x0, __tables
        msr     ttbr0_el1, x0
        load    x2, (SCTLR_RES1 | SCTLR_SA | SCTLR_I | SCTLR_C | SCTLR_M)
#endif
        ic      iallu
        tlbi    vmalle1
        dsb     sy
        isb
        msr     sctlr_el1, x2
        isb
        ret
