/* memcpy, memmove, memset, memcmp: the four functions that compilers call on their own.
 *
 * LD1 and ST1 of bytes are legal at any address, whatever SCTLR_EL1.A and the memory type are: an access must be
 * aligned to its element (DDI 0487, "Alignment of data accesses"). So one version serves with the MMU on and off.
 * Lengths that are no multiple of 16 end with a vector that overlaps the one before. Leaf functions; they use v0 to v4. */

        .macro  function name
        .section .text.\name, "ax"
        .balign 16
        .global \name
        .type   \name, %function
\name:
        .endm

/* x0 = memmove(x0 to, x1 from, x2 bytes) */
        function memcpy
        .global memmove
        .type   memmove, %function
memmove:
        sub     x3, x0, x1              /* to - from, unsigned: less than the length only if `to` is inside `from` */
        cmp     x3, x2
        b.lo    backward
        mov     x3, x0
        cmp     x2, #16
        b.lo    small_copy
        add     x4, x1, x2              /* the last 16 bytes, read before a store can overlap them */
        sub     x4, x4, #16
        ld1     {v4.16b}, [x4]
        add     x5, x0, x2
        sub     x5, x5, #16
        subs    x2, x2, #64
        b.lo    2f
1:      ld1     {v0.16b, v1.16b, v2.16b, v3.16b}, [x1], #64
        st1     {v0.16b, v1.16b, v2.16b, v3.16b}, [x3], #64
        subs    x2, x2, #64
        b.hs    1b
2:      adds    x2, x2, #(64 - 16)
        b.lo    4f
3:      ld1     {v0.16b}, [x1], #16
        st1     {v0.16b}, [x3], #16
        subs    x2, x2, #16
        b.hs    3b
4:      st1     {v4.16b}, [x5]
        ret
small_copy:
        cbz     x2, 6f
5:      ldrb    w4, [x1], #1
        strb    w4, [x3], #1
        subs    x2, x2, #1
        b.ne    5b
6:      ret

backward:
        add     x1, x1, x2
        add     x3, x0, x2
        mov     x5, #-16
        mov     x6, #-64
        subs    x2, x2, #64
        b.lo    8f
        sub     x1, x1, #64
        sub     x3, x3, #64
7:      ld1     {v0.16b, v1.16b, v2.16b, v3.16b}, [x1], x6
        st1     {v0.16b, v1.16b, v2.16b, v3.16b}, [x3], x6
        subs    x2, x2, #64
        b.hs    7b
        add     x1, x1, #64
        add     x3, x3, #64
8:      adds    x2, x2, #64
        b.eq    10f
9:      ldrb    w4, [x1, #-1]!
        strb    w4, [x3, #-1]!
        subs    x2, x2, #1
        b.ne    9b
10:     ret

/* x0 = memset(x0 to, w1 byte, x2 bytes) */
        function memset
        mov     x3, x0
        cmp     x2, #16
        b.lo    3f
        dup     v0.16b, w1
        add     x4, x0, x2
        sub     x4, x4, #16
        mov     v1.16b, v0.16b
        mov     v2.16b, v0.16b
        mov     v3.16b, v0.16b
        subs    x2, x2, #64
        b.lo    2f
1:      st1     {v0.16b, v1.16b, v2.16b, v3.16b}, [x3], #64
        subs    x2, x2, #64
        b.hs    1b
2:      adds    x2, x2, #(64 - 16)
        b.lo    5f
4:      st1     {v0.16b}, [x3], #16
        subs    x2, x2, #16
        b.hs    4b
5:      st1     {v0.16b}, [x4]
        ret
3:      cbz     x2, 7f
6:      strb    w1, [x3], #1
        subs    x2, x2, #1
        b.ne    6b
7:      ret

/* w0 = memcmp(x0, x1, x2 bytes) */
        function memcmp
        .global bcmp
        .type   bcmp, %function
bcmp:
        subs    x2, x2, #16
        b.lo    2f
1:      ld1     {v0.16b}, [x0], #16
        ld1     {v1.16b}, [x1], #16
        cmeq    v0.16b, v0.16b, v1.16b
        uminv   b0, v0.16b
        umov    w3, v0.b[0]
        cbz     w3, 5f
        subs    x2, x2, #16
        b.hs    1b
2:      adds    x2, x2, #16
        b.eq    4f
3:      ldrb    w3, [x0], #1
        ldrb    w4, [x1], #1
        subs    w3, w3, w4
        b.ne    6f
        subs    x2, x2, #1
        b.ne    3b
4:      mov     w0, #0
        ret
5:      sub     x0, x0, #16             /* these 16 differ: find where */
        sub     x1, x1, #16
        mov     x2, #16
        b       3b
6:      mov     w0, w3
        ret
