/* Raspberry Pi 3 and Zero 2 W (BCM2837, RP3A0); QEMU's raspi3b.
 * Sources: "BCM2835 ARM Peripherals", whose bus address 0x7e000000 is 0x3f000000 here; "BCM2836 ARM-local peripherals"
 * (QA7); config.txt in the Raspberry Pi documentation. */
#ifndef BOARD_H
#define BOARD_H

#define BOARD_NAME "raspi3b"

#define RAM_BASE 0
#define RAM_BYTES 0x1b400000            /* without a device tree: a Zero 2 W's 512 MiB less what the GPU keeps */
#define RAM_LAST 0x3f000000             /* peripherals begin */
#define IMAGE_BASE 0x80000

#define MODEL_ADDR 0x08000000           /* initramfs model.gguf 0x08000000 */
#define MODEL_BYTES_ADDR 0x7fff0

#define UART_BASE 0x3f201000
#define UART_CLOCK 48000000             /* init_uart_clock in config.txt */
#define GPIO_BASE 0x3f200000

#define QA7_BASE 0x40000000             /* timers and mailboxes of the cores */

#endif
