/* The CPU as a backend: as many virtual devices as anyone wants, with one copy of plans and weights. */
#include "device/cpu_backend.h"

#include "base/machine.h"
#include "base/thread.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    PINNED_LIMIT = 64,        /* devices that can have CPUs of their own */
    KERNEL_BYTES = 128 << 10, /* generated code and its library's bookkeeping: the average seen */
};

static vd_cpu_backend *cpu(vd_backend *b) {
    return (vd_cpu_backend *)b;
}

static const vd_cpu_library *library(const vd_backend *b) {
    return ((const vd_cpu_backend *)b)->library;
}

static void cpu_backend_close(vd_backend *b) {
    vd_cpu_library_close(cpu(b)->library);
    pthread_mutex_destroy(&cpu(b)->lock);
    free(b);
}

static int cpu_count(const vd_backend *b) {
    (void)b;
    return 0;
}

static vd_code cpu_describe(const vd_backend *b, int ordinal, vd_device_info *out, vd_error *err) {
    char model[64];
    (void)err;
    *out = (vd_device_info){.node = -1, .memory = vd_machine_memory(), .free = vd_machine_available()};
    snprintf(out->name, sizeof out->name, "cpu:%d", ordinal);
    snprintf(out->model, sizeof out->model, "%s, %s", vd_machine_model(model, sizeof model),
             vd_cpu_library_kernels(library(b))->isa);
    return VD_OK;
}

static vd_code cpu_open(vd_backend *b, const int *ordinals, int count, vd_device **out, vd_error *err) {
    /* With a CPU for each, devices keep to their own; more devices than CPUs share them as the system likes.
     * One device alone may roam: there is nobody to keep away from. */
    int cpus[PINNED_LIMIT];
    bool pinned = count > 1 && count <= PINNED_LIMIT && count <= vd_cpu_count() &&
                  count <= vd_usable_cpus(cpus, PINNED_LIMIT);
    for (int i = 0; i < count; i++) {
        vd_code code = vd_cpu_device_open(cpu(b), ordinals[i], pinned ? cpus[i] : VD_ANY_CPU, &out[i], err);
        if (code == VD_OK)
            continue;
        while (i-- > 0)
            out[i]->table->close(out[i]);
        return code;
    }
    return VD_OK;
}

/* One address space: whatever is written is there. */
static vd_code cpu_connect(vd_backend *b, vd_device *from, vd_device *to, vd_p2p wish, vd_route_info *out,
                           vd_error *err) {
    (void)b, (void)from, (void)to, (void)wish, (void)err;
    *out = (vd_route_info){.route = VD_ROUTE_LOCAL, .reachable = true};
    return VD_OK;
}

static vd_backend_memory cpu_memory(const vd_backend *b) {
    return (vd_backend_memory){.shared_weights = vd_cpu_library_weight_bytes(library(b)),
                               .code = (size_t)vd_cpu_library_kernel_count(library(b)) * KERNEL_BYTES};
}

static int cpu_kernel_count(const vd_backend *b) {
    return vd_cpu_library_kernel_count(library(b));
}

static const char *cpu_kernel(const vd_backend *b, int index) {
    return vd_cpu_library_kernel(library(b), index);
}

static const vd_backend_table cpu_backend_table = {
    .close = cpu_backend_close,
    .count = cpu_count,
    .describe = cpu_describe,
    .open = cpu_open,
    .connect = cpu_connect,
    .memory = cpu_memory,
    .kernel_count = cpu_kernel_count,
    .kernel = cpu_kernel,
};

vd_code vd_cpu_backend_open(const vd_log *log, vd_backend **out, vd_error *err) {
    vd_cpu_backend *b = calloc(1, sizeof *b);
    if (!b)
        return vd_fail_memory(err, "the CPU backend", sizeof *b);
    b->base = (vd_backend){.table = &cpu_backend_table, .kind = "cpu", .default_dtype = VD_F32};
    vd_code code = vd_cpu_library_open(&b->library, err);
    if (code != VD_OK) {
        free(b);
        return code;
    }
    pthread_mutex_init(&b->lock, NULL);
    vd_log_line(log, VD_LOG_DEBUG, "CPU backend: %s kernels", vd_cpu_library_kernels(b->library)->isa);
    *out = &b->base;
    return VD_OK;
}
