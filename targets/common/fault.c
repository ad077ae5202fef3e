/* What an exception says before it stops the board. */
#include "fault.h"

#include <stdbool.h>

#include "console.h"
#include "exit.h"
#include "layout.h"
#include "sysreg.h"

extern char __stacks[], __image_end[];

static volatile uint32_t expected;
static volatile uint64_t taken;
static volatile uint32_t reporting;

void fault_expect(void) {
    taken = 0;
    expected = 1;
}

uint64_t fault_taken(void) {
    expected = 0;
    return taken;
}

/* ESR_EL1.EC, of those that happen to firmware at EL1 (DDI 0487, ESR_EL1). */
static const char *class_name(uint32_t ec) {
    switch (ec) {
    case 0x00: return "undefined instruction";
    case 0x07: return "FP/SIMD is off";
    case 0x0e: return "illegal execution state";
    case 0x15: return "svc";
    case 0x18: return "trapped system register";
    case 0x20:
    case 0x21: return "instruction abort";
    case 0x22: return "PC not aligned";
    case 0x24:
    case 0x25: return "data abort";
    case 0x26: return "SP not aligned";
    case 0x2f: return "SError";
    case 0x3c: return "breakpoint";
    default: return "other";
    }
}

/* ESR_EL1.ISS.DFSC: what kind of abort. */
static const char *abort_name(uint32_t status) {
    switch (status & 0x3c) {
    case 0x00: return "address size";
    case 0x04: return "translation (nothing is mapped there)";
    case 0x08: return "access flag";
    case 0x0c: return "permission";
    case 0x10: return "external";
    case 0x20: return status == 0x21 ? "alignment" : "other";
    default: return "other";
    }
}

/* Whether an address is in the unmapped page below a stack. */
static bool is_guard(uint64_t at) {
    const uint64_t first = (uintptr_t)__stacks;
    return at >= first && at < (uintptr_t)__image_end && (at - first) % (GUARD_BYTES + STACK_BYTES) < GUARD_BYTES;
}

/* From vectors.S: x0 to x30 and SP, and which of the sixteen vectors. */
void fault(const uint64_t registers[32], uint32_t vector);
void fault(const uint64_t registers[32], uint32_t vector) {
    static const char *const kinds[] = {"synchronous", "IRQ", "FIQ", "SError"};
    uint64_t esr = READ_SYSREG(esr_el1);
    uint32_t ec = (uint32_t)(esr >> 26) & 0x3f;

    if (expected && (vector & 3) == 0) {
        expected = 0;
        taken = esr;
        WRITE_SYSREG(elr_el1, READ_SYSREG(elr_el1) + 4);
        return;
    }
    if (reporting) park();              /* a fault in the report itself, or in the exit */
    reporting = 1;

    print("\nFAULT on core ");
    print_dec(core_number());
    print(": ");
    print(kinds[vector & 3]);
    print(", ");
    print(class_name(ec));
    if (ec == 0x20 || ec == 0x21 || ec == 0x24 || ec == 0x25) {
        print(", ");
        print(abort_name(esr & 0x3f));
        if (ec >= 0x24) print(esr & 1 << 6 ? ", on a write" : ", on a read");
        if (is_guard(READ_SYSREG(far_el1))) print(": the stack is full");
    }
    print("\n  ESR ");
    print_hex(esr);
    print("  ELR ");
    print_hex(READ_SYSREG(elr_el1));
    print("  FAR ");
    print_hex(READ_SYSREG(far_el1));
    print("\n  SPSR ");
    print_hex(READ_SYSREG(spsr_el1));
    print("  SP ");
    print_hex(registers[31]);
    for (uint32_t i = 0; i < 31; i++) {
        print(i % 4 ? "  x" : "\n  x");
        print_dec(i);
        print(i < 10 ? "  " : " ");
        print_hex(registers[i]);
    }
    print("\n");
    stop(EXIT_FAULT);
}

void panic(const char *why) {
    print("\nPANIC: ");
    print(why);
    print("\n");
    stop(EXIT_FAULT);
}
