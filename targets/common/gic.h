/* Registers of a GICv2 (QEMU's virt), or a GIC-400 (BCM2711). Also for start.S. */
#ifndef GIC_H
#define GIC_H

#define GICD_CTLR 0x000                 /* the distributor; those for interrupts 0 to 31 are each core's own */
#define GICD_IGROUPR0 0x080
#define GICD_ISENABLER0 0x100
#define GICD_ICENABLER0 0x180
#define GICD_IPRIORITYR0 0x400
#define GICD_SGIR 0xf00
#define GICD_ICPIDR2 0xfe8              /* bits 4 to 7: the version. Zero in a GICv3 */

#define GICC_CTLR 0x00                  /* the CPU interface: at the same address, each core its own */
#define GICC_PMR 0x04
#define GICC_IAR 0x0c
#define GICC_EOIR 0x10

#endif
