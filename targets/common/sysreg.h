/* System registers and barriers as C. */
#ifndef SYSREG_H
#define SYSREG_H

#include <stdint.h>

#define READ_SYSREG(name) ({ uint64_t v_; __asm__ volatile("mrs %0, " #name : "=r"(v_)); v_; })
#define WRITE_SYSREG(name, value) __asm__ volatile("msr " #name ", %0" : : "r"((uint64_t)(value)))

static inline void wfe(void) { __asm__ volatile("wfe" : : : "memory"); }
static inline void wfi(void) { __asm__ volatile("wfi" : : : "memory"); }
static inline void sev(void) { __asm__ volatile("sev" : : : "memory"); }
static inline void dsb(void) { __asm__ volatile("dsb sy" : : : "memory"); }

/* Makes a word visible to a core whose MMU and caches are off. */
static inline void clean_to_memory(const volatile void *p) {
    __asm__ volatile("dc civac, %0\n\tdsb sy" : : "r"(p) : "memory");
}

/* As in start.S. */
static inline uint32_t core_number(void) {
    uint64_t mpidr = READ_SYSREG(mpidr_el1);
    return (mpidr >> 24 & 1 ? mpidr >> 8 : mpidr) & 0xff;
}

/* The generic timer: ticks since some moment, and how many are a second. */
static inline uint64_t ticks(void) {
    __asm__ volatile("isb" : : : "memory");
    return READ_SYSREG(cntvct_el0);
}
static inline uint64_t ticks_per_second(void) { return READ_SYSREG(cntfrq_el0); }

#endif
