/* How much of a core's stack was ever touched. */
#ifndef STACK_H
#define STACK_H

#include <stdint.h>

uint32_t stack_used(uint32_t core);

#endif
