/* The flattened device tree, read in place. Every access is checked against the blob's own length, and that length
 * against a limit: the tree comes from whoever started us.
 * Source: Devicetree Specification v0.4, chapter 5 "Flattened Devicetree (DTB) Format". */
#include "fdt.h"

enum {
    MAGIC = 0xd00dfeed,
    MOST_BYTES = 1 << 21,               /* the limit of Linux's boot protocol */
    BEGIN_NODE = 1,
    END_NODE = 2,
    PROP = 3,
    NOP = 4,
};

/* Big-endian, byte by byte: legal at any address with the MMU off. */
static uint32_t be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

size_t fdt_bytes(const void *fdt) {
    const uint8_t *p = fdt;
    if (!p || ((uintptr_t)p & 7) || be32(p) != MAGIC) return 0;
    uint32_t total = be32(p + 4);
    return total >= 40 && total <= MOST_BYTES ? total : 0;
}

/* The length of the NUL-terminated text at p, or -1 if `end` comes first. */
static ptrdiff_t text_len(const uint8_t *p, const uint8_t *end) {
    for (const uint8_t *q = p; q < end; q++)
        if (!*q) return q - p;
    return -1;
}

static bool same(const uint8_t *text, size_t len, const char *name, bool unit_address) {
    size_t i = 0;
    while (i < len && name[i] && text[i] == (uint8_t)name[i]) i++;
    return !name[i] && (i == len || (unit_address && text[i] == '@'));
}

static const uint8_t *find(const void *fdt, const char *node, const char *property, uint32_t *bytes) {
    const uint8_t *blob = fdt;
    const size_t total = fdt_bytes(fdt);
    if (!total) return NULL;
    const uint32_t structure = be32(blob + 8), strings = be32(blob + 12);
    if (structure > total || strings > total) return NULL;

    const uint8_t *end = blob + total;
    const uint8_t *p = blob + structure;
    uint32_t depth = 0;                 /* 1 in the root, 2 in its children */
    bool here = false;
    while (end - p >= 4) {
        const uint32_t token = be32(p);
        p += 4;
        if (token == BEGIN_NODE) {
            const ptrdiff_t len = text_len(p, end);
            if (len < 0) return NULL;
            depth++;
            if (depth <= 2) here = *node ? depth == 2 && same(p, (size_t)len, node, true) : depth == 1;
            p += len + 1;
        } else if (token == END_NODE) {
            if (!depth--) return NULL;
        } else if (token == PROP) {
            if (end - p < 8) return NULL;
            const uint32_t len = be32(p), name = be32(p + 4);
            p += 8;
            if (len > (size_t)(end - p) || name > total - strings) return NULL;
            const uint8_t *text = blob + strings + name;
            const ptrdiff_t text_bytes = text_len(text, end);
            const bool of_node = here && depth == (*node ? 2 : 1);
            if (of_node && text_bytes >= 0 && same(text, (size_t)text_bytes, property, false)) {
                *bytes = len;
                return p;
            }
            p += len;
        } else if (token != NOP) {      /* the end, or nonsense */
            return NULL;
        }
        const size_t past = (size_t)(p - blob + 3) & ~(size_t)3;        /* tokens are aligned */
        if (past > total) return NULL;
        p = blob + past;
    }
    return NULL;
}

bool fdt_number(const void *fdt, const char *node, const char *property, uint32_t first, uint32_t cells,
                uint64_t *value) {
    uint32_t bytes = 0;
    const uint8_t *p = find(fdt, node, property, &bytes);
    if (!p || cells < 1 || cells > 2 || bytes / 4 < (uint64_t)first + cells) return false;
    p += 4 * (size_t)first;
    *value = cells == 1 ? be32(p) : (uint64_t)be32(p) << 32 | be32(p + 4);
    return true;
}

uint32_t fdt_property_bytes(const void *fdt, const char *node, const char *property) {
    uint32_t bytes = 0;
    return find(fdt, node, property, &bytes) ? bytes : 0;
}
