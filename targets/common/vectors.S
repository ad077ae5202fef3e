/* The exception vectors. Interrupts stay masked (they only end WFI: ipi.h), so each of the sixteen is a fault: fault() in
 * fault.c reports it and stops, or, where a probe expects it, has the instruction skipped. DDI 0487, "Exception vectors". */

        .macro  vector kind
        .balign 0x80
        sub     sp, sp, #272
        stp     x0, x1, [sp]
        mov     x1, #\kind
        b       save_and_report
        .endm

        .text
        .balign 0x800
        .global vectors
vectors:
        .irp    kind, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        vector  \kind
        .endr

        .balign 0x80
save_and_report:                        /* C keeps x19 to x28 */
        stp     x2, x3, [sp, #16]
        stp     x4, x5, [sp, #32]
        stp     x6, x7, [sp, #48]
        stp     x8, x9, [sp, #64]
        stp     x10, x11, [sp, #80]
        stp     x12, x13, [sp, #96]
        stp     x14, x15, [sp, #112]
        stp     x16, x17, [sp, #128]
        stp     x18, x19, [sp, #144]
        stp     x20, x21, [sp, #160]
        stp     x22, x23, [sp, #176]
        stp     x24, x25, [sp, #192]
        stp     x26, x27, [sp, #208]
        stp     x28, x29, [sp, #224]
        mrs     x2, sp_el0
        stp     x30, x2, [sp, #240]
        mov     x0, sp
        bl      fault                   /* returns only if the fault was expected */
        ldp     x2, x3, [sp, #16]
        ldp     x4, x5, [sp, #32]
        ldp     x6, x7, [sp, #48]
        ldp     x8, x9, [sp, #64]
        ldp     x10, x11, [sp, #80]
        ldp     x12, x13, [sp, #96]
        ldp     x14, x15, [sp, #112]
        ldp     x16, x17, [sp, #128]
        ldr     x18, [sp, #144]
        ldr     x30, [sp, #240]
        ldp     x0, x1, [sp], #272
        eret
