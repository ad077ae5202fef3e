/* PSCI: a call to the firmware below us. Whoever gave us EL2 is at EL3 and takes SMC; whoever gave us EL1 is, as a
 * hypervisor, at EL2 and takes HVC; started at EL3, we are the firmware: nobody is there to call, and all cores came
 * with us. Source: "Arm Power State Coordination Interface" (DEN 0022), CPU_ON. */
#include "psci.h"

#include "boot.h"
#include "smp.h"
#include "sysreg.h"

#define CPU_ON_64 0xc4000003
#define ALREADY_ON (-4)

static int64_t call(uint64_t function, uint64_t a, uint64_t b, uint64_t c) {
    register uint64_t x0 __asm__("x0") = function;
    register uint64_t x1 __asm__("x1") = a;
    register uint64_t x2 __asm__("x2") = b;
    register uint64_t x3 __asm__("x3") = c;
#define CALL(instruction) /* the callee may change x0 to x17: "SMC Calling Convention" (DEN 0028) */                \
    __asm__ volatile(instruction " #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3) : : "x4", "x5", "x6", "x7", "x8",     \
                     "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17", "memory")
    if (boot.entry_el == 2) CALL("smc");
    else CALL("hvc");
#undef CALL
    return (int64_t)x0;
}

bool psci_start_core(uint32_t core) {
    if (boot.entry_el == 3) return true;
    const uint64_t mpidr = READ_SYSREG(mpidr_el1);
    const uint64_t target = (mpidr & 0xff00ff0000) | (uint64_t)core << (mpidr >> 24 & 1 ? 8 : 0);
    const int64_t result = call(CPU_ON_64, target, (uintptr_t)secondary_entry, 0);
    return result == 0 || result == ALREADY_ON;
}
