/* QEMU's virt machine. Source: QEMU, hw/arm/virt.c, base_memmap; docs/system/arm/virt.rst. */
#ifndef BOARD_H
#define BOARD_H

#define BOARD_NAME "virt"

#define RAM_BASE 0x40000000
#define RAM_BYTES 0x08000000            /* without a device tree: QEMU's default, 128 MiB */
#define RAM_LAST 0x4000000000           /* 256 GiB: where the map of virt has PCIe */
#define IMAGE_BASE 0x40200000
#define DTB_ADDR 0x40000000             /* where QEMU puts it for an ELF file, which gets no x0 */

#define MODEL_ADDR 0x48000000           /* -device loader,...; -initrd comes here too */
#define MODEL_BYTES_ADDR 0x401ffff0

#define UART_BASE 0x09000000
#define UART_CLOCK 24000000

#define GICD_BASE 0x08000000            /* a GICv2, unless told otherwise (gic-version=3) */
#define GICC_BASE 0x08010000

#endif
