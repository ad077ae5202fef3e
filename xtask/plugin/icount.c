/* Counts the guest instructions that QEMU executes and prints them on stderr at the end, those of each thread and their
 * sum: exact, and the same whatever else the machine is doing.
 *
 * Declares the few parts of QEMU's plugin API that it uses, so that no headers are needed. They are the same in every
 * version of the API; QEMU before 9 wants plugins of version 1, later ones of version 2 or more.
 */
#include <inttypes.h>
#include <stdio.h>

typedef uint64_t plugin_id;
struct tb;
enum cb_flags { CB_NO_REGS };

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct tb *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct tb *, void (*)(unsigned, void *), enum cb_flags, void *);
extern void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const struct tb *);

#define PUBLIC __attribute__((visibility("default")))
PUBLIC int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/* One counter for each guest thread, so that they need not be atomic; more threads than these share. */
enum { THREADS = 64 };
static uint64_t executed[THREADS];

static void on_execution(unsigned thread, void *insns) {
    executed[thread % THREADS] += (uintptr_t)insns;
}

static void on_translation(plugin_id id, struct tb *tb) {
    (void)id;
    void *insns = (void *)(uintptr_t)qemu_plugin_tb_n_insns(tb);
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_execution, CB_NO_REGS, insns);
}

static void at_exit(plugin_id id, void *data) {
    (void)id;
    (void)data;
    uint64_t sum = 0;
    for (int i = 0; i < THREADS; i++) {
        sum += executed[i];
        if (executed[i])
            fprintf(stderr, "guest instructions of thread %d: %" PRIu64 "\n", i, executed[i]);
    }
    fprintf(stderr, "guest instructions: %" PRIu64 "\n", sum);
}

PUBLIC int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
    (void)info;
    (void)argc;
    (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
