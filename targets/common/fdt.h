/* Just enough of the flattened device tree to find memory and a model. */
#ifndef FDT_H
#define FDT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the tree at `fdt`, or 0 if there is none. Reads its header only. */
size_t fdt_bytes(const void *fdt);

/* A property of the root (node "") or of a node directly below it, whose name is `node` or `node`@address: its first
 * `cells` 32-bit words from word `first` on, as one number. False if it is not there or is shorter. */
bool fdt_number(const void *fdt, const char *node, const char *property, uint32_t first, uint32_t cells,
                uint64_t *value);
/* Bytes of that property, or 0. */
uint32_t fdt_property_bytes(const void *fdt, const char *node, const char *property);

#endif
