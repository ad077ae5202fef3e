/* Raspberry Pi 4, 400 and CM4 (BCM2711), with its peripherals where the firmware has them by default ("low peripheral"
 * mode: bus address 0x7e000000 is 0xfe000000 here). Source: "BCM2711 ARM Peripherals", 1.2 "Address map". */
#ifndef BOARD_H
#define BOARD_H

#define BOARD_NAME "raspi4b"

#define RAM_BASE 0
#define RAM_BYTES 0x3b400000            /* without a device tree: the first GiB less what the GPU keeps */
#define RAM_LAST 0xfc000000             /* peripherals begin */
#define IMAGE_BASE 0x80000

#define MODEL_ADDR 0x08000000           /* initramfs model.gguf 0x08000000 */
#define MODEL_BYTES_ADDR 0x7fff0

#define UART_BASE 0xfe201000
#define UART_CLOCK 48000000             /* init_uart_clock in config.txt */
#define GPIO_BASE 0xfe200000

#define GICD_BASE 0xff841000            /* a GIC-400: Linux, bcm2711.dtsi; armstub8.S */
#define GICC_BASE 0xff842000

#endif
