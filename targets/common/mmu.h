#ifndef MMU_H
#define MMU_H

#include "boot.h"

/* Builds the translation tables; called with the MMU off. mmu_on in start.S, on every core, uses them. */
void mmu_build(struct span ram);

#endif
