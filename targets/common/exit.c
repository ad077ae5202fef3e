/* Semihosting: HLT #0xf000 asks the debugger, or QEMU with -semihosting, to do something for us. With neither it is an
 * undefined instruction, so builds for a board of its own leave it out.
 * Source: "Semihosting for AArch32 and AArch64" (github.com/ARM-software/abi-aa), SYS_EXIT. */
#include "exit.h"

#include <stdint.h>

#include "console.h"

void park(void) {
    for (;;) __asm__ volatile("wfi");
}

void stop(int code) {
    console_flush();
#if SEMIHOST
    const uint64_t block[2] = {0x20026 /* ADP_Stopped_ApplicationExit */, (uint64_t)code};
    register uint64_t op __asm__("x0") = 0x18;          /* SYS_EXIT */
    register const uint64_t *arg __asm__("x1") = block;
    __asm__ volatile("hlt #0xf000" : "+r"(op) : "r"(arg) : "memory");
#endif
    (void)code;
    park();
}
