/* start.S painted the stacks; what lost its paint was used. */
#include "stack.h"

#include "layout.h"

extern const uint32_t __stacks[];

uint32_t stack_used(uint32_t core) {
    const uint32_t words = STACK_BYTES / 4;
    const volatile uint32_t *bottom = __stacks + (GUARD_BYTES + (GUARD_BYTES + STACK_BYTES) * (uintptr_t)core) / 4;
    uint32_t i = 0;
    while (i < words && bottom[i] == STACK_PAINT) i++;
    return STACK_BYTES - 4 * i;
}
