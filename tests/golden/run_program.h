/* Runs a program on one device, through the device table, and brings back what it wrote. The device is a
 * virtual CPU, or CUDA's first where VD_TEST_CUDA is defined. */
#ifndef VD_TESTS_RUN_PROGRAM_H
#define VD_TESTS_RUN_PROGRAM_H

#include "must.h"

#include "device/backend.h"
#ifdef VD_TEST_CUDA
#include "cuda/have_gpu.h"
#include "device/cuda_module.h"
#endif

#include <stdlib.h>

typedef struct machine {
    vd_backend *backend;
    vd_device *device;
    vd_stream *stream;
} machine;

static inline vd_code machine_backend(vd_backend **out, vd_error *err) {
#ifdef VD_TEST_CUDA
    if (!have_gpu())
        exit(77);
    return vd_cuda_entry(&(vd_cuda_request){0}, out, err);
#else
    return vd_cpu_backend_open(NULL, out, err);
#endif
}

static inline void machine_open(machine *m) {
    must(machine_backend(&m->backend, err));
    must(m->backend->table->open(m->backend, &(int){0}, 1, &m->device, err));
    must(m->device->table->stream_open(m->device, "test", &m->stream, err));
}

static inline void machine_close(machine *m) {
    m->device->table->stream_close(m->stream);
    m->device->table->close(m->device);
    m->backend->table->close(m->backend);
}

/* An external of the program and its content on the host: what goes in, and what came out. */
typedef struct external {
    const char *name;
    void *host;
} external;

enum { MAX_EXTERNALS = 16 };

static inline size_t value_bytes(const vd_program *p, vd_value v) {
    return (size_t)vd_shape_count(p->values[v].shape) * vd_dtype_bytes(p->values[v].dtype);
}

/* Externals that are not named start as zeros and are forgotten. */
static inline int bind_externals(machine *m, const vd_program *p, vd_binding *bindings) {
    int count = 0;
    for (vd_value v = 0; v < p->value_count; v++) {
        if (p->values[v].storage != VD_STORAGE_EXTERNAL)
            continue;
        assert_in_range(count, 0, MAX_EXTERNALS - 1);
        bindings[count] = (vd_binding){v, NULL};
        must(m->device->table->allocate(m->device, value_bytes(p, v), &bindings[count++].memory, err));
    }
    return count;
}

static inline void copy_externals(machine *m, const vd_program *p, vd_copy_kind kind,
                                  const vd_binding *bindings, int count, const external *externals,
                                  vd_fault *fault) {
    for (const external *e = externals; e->name; e++) {
        vd_value v = vd_program_find(p, e->name);
        if (v == VD_NONE)
            fail_msg("program %s has no '%s'", p->name, e->name);
        for (int i = 0; i < count; i++) {
            void *memory = bindings[i].memory;
            bool out = kind == VD_TO_HOST;
            if (bindings[i].value == v)
                must(m->device->table->copy(m->stream, kind, out ? e->host : memory, out ? memory : e->host,
                                            value_bytes(p, v), fault, err));
        }
    }
}

/* `externals` ends with a NULL name. */
static inline void run_program(machine *m, const vd_program *p, const external *externals) {
    const vd_device_table *table = m->device->table;
    vd_compiled *compiled;
    must(table->compile(m->device, p, &compiled, err));
    must(table->load(m->device, compiled, err));
    void *arena;
    must(table->allocate(m->device, vd_compiled_arena(compiled), &arena, err));
    vd_binding bindings[MAX_EXTERNALS];
    int count = bind_externals(m, p, bindings);
    vd_exec *exec;
    must(table->exec_open(m->device, compiled, arena, bindings, count, &exec, err));
    vd_fault fault;
    vd_fault_clear(&fault);
    copy_externals(m, p, VD_TO_DEVICE, bindings, count, externals, &fault);
    must(table->launch(m->stream, exec, &fault, err));
    copy_externals(m, p, VD_TO_HOST, bindings, count, externals, &fault);
    must(table->stream_drain(m->stream, err));
    if (vd_fault_failed(&fault))
        fail_msg("program %s: %s", p->name, fault.error.message);
    table->exec_close(m->device, exec);
    for (int i = 0; i < count; i++)
        table->release(m->device, bindings[i].memory);
    table->release(m->device, arena);
    table->compiled_close(m->device, compiled);
}

#endif
