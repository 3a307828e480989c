/* Devices with a stream and an event each, for tests of device.h's rules. The backend is the CPU's, or
 * CUDA's where VD_TEST_CUDA is defined: on a GPU all devices may be the same one. */
#ifndef VD_TESTS_LAB_H
#define VD_TESTS_LAB_H

#include "must.h"

#include "base/thread.h"
#include "device/backend.h"

#include <stdlib.h>
#include <string.h>

#ifdef VD_TEST_CUDA
#include "cuda/have_gpu.h"
#include "device/cuda_module.h"
#endif

enum { LAB_DEVICES = 4 };

typedef struct lab {
    vd_backend *backend;
    int count;
    vd_device *device[LAB_DEVICES];
    vd_stream *stream[LAB_DEVICES];
    vd_event *event[LAB_DEVICES]; /* of the same device */
    size_t weights;               /* bytes that device 0 keeps until it closes */
} lab;

#define ON(l, i, name, ...) must((l)->device[i]->table->name(__VA_ARGS__, err))

static inline vd_code lab_backend_open(vd_backend **out, vd_error *err) {
#ifdef VD_TEST_CUDA
    return vd_cuda_entry(&(vd_cuda_request){0}, out, err);
#else
    return vd_cpu_backend_open(NULL, out, err);
#endif
}

/* Virtual devices are as many as one asks for; of GPUs there may be one. */
static inline int lab_ordinal(const lab *l, int i) {
#ifdef VD_TEST_CUDA
    return i % l->backend->table->count(l->backend);
#else
    (void)l;
    return i;
#endif
}

static inline void lab_open_streams(lab *l) {
    for (int i = 0; i < l->count; i++) {
        ON(l, i, stream_open, l->device[i], "test", &l->stream[i]);
        ON(l, i, event_open, l->device[i], &l->event[i]);
    }
}

static inline void lab_open_devices(lab *l, int count) {
    int ordinals[LAB_DEVICES];
    *l = (lab){.count = count};
    must(lab_backend_open(&l->backend, err));
    for (int i = 0; i < count; i++)
        ordinals[i] = lab_ordinal(l, i);
    must(l->backend->table->open(l->backend, ordinals, count, l->device, err));
}

static inline void lab_open(lab *l, int count) {
    lab_open_devices(l, count);
    lab_open_streams(l);
}

static inline void lab_close(lab *l) {
    for (int i = 0; i < l->count; i++)
        l->device[i]->table->stream_close(l->stream[i]);
    for (int i = 0; i < l->count; i++) {
        l->device[i]->table->event_close(l->event[i]);
        assert_int_equal(atomic_load(&l->device[i]->allocated), i == 0 ? l->weights : 0);
        l->device[i]->table->close(l->device[i]);
    }
    l->backend->table->close(l->backend);
}

/* ---- holding a stream until somebody opens the gate ---- */

typedef struct gate {
    _Atomic uint32_t open;
} gate;

static inline void gate_hold(void *argument) {
    gate *g = argument;
    while (!atomic_load(&g->open))
        vd_park(&g->open, 0, -1);
}

static inline void gate_open(gate *g) {
    atomic_store(&g->open, 1);
    vd_wake_all(&g->open);
}

/* ---- notifications that know their order ---- */

typedef struct tally {
    int next, wrong;
} tally;

typedef struct tick {
    tally *tally;
    int index;
} tick;

static inline void count_tick(void *argument) {
    tick *t = argument;
    t->tally->wrong += t->tally->next++ != t->index;
}

/* ---- bytes ---- */

/* The caller frees it. */
static inline unsigned char *pattern(size_t bytes, unsigned seed) {
    unsigned char *p = malloc(bytes);
    assert_non_null(p);
    for (size_t i = 0; i < bytes; i++)
        p[i] = (unsigned char)((i * 2654435761u + seed) >> 7);
    return p;
}

/* ---- a program that takes row *index of a table of three, copies it and sums it up ---- */

static const float picker_table[3] = {10, 20, 30};

enum { PICKER_TABLE, PICKER_INDEX, PICKER_ROW, PICKER_AGAIN, PICKER_SUM, PICKER_VALUES };

typedef struct picker {
    vd_program *program;
    vd_compiled *compiled;
    vd_exec *exec;
    void *arena;
    vd_binding bindings[PICKER_VALUES];
} picker;

typedef struct picked {
    float row, again;
    uint64_t sum;
} picked;

static inline void picker_build(picker *p) {
    vd_shape one = vd_vector_shape(1);
    *p = (picker){.program = vd_program_new("picker", VD_F32)};
    vd_value rows = vd_program_external(p->program, "table", VD_F32, (vd_shape){1, 1, 3, 1});
    vd_value index = vd_program_external(p->program, "index", VD_I32, one);
    vd_value row = vd_program_external(p->program, "row", VD_F32, one);
    vd_value again = vd_program_external(p->program, "again", VD_F32, one);
    vd_value sum = vd_program_external(p->program, "sum", VD_U64, one);
    vd_program_gather_row(p->program, (vd_gather_row){rows, index, row});
    vd_program_copy(p->program, (vd_copy){row, again});
    vd_program_checksum(p->program, (vd_checksum){again, sum});
    must(vd_program_finish(p->program, err));
    vd_value values[] = {rows, index, row, again, sum};
    for (int i = 0; i < PICKER_VALUES; i++)
        p->bindings[i].value = values[i];
}

static inline vd_code picker_open(picker *p, vd_device *d, vd_error *err) {
    VD_TRY(d->table->compile(d, p->program, &p->compiled, err));
    VD_TRY(d->table->load(d, p->compiled, err));
    VD_TRY(d->table->allocate(d, vd_compiled_arena(p->compiled) + 1, &p->arena, err));
    for (int i = 0; i < PICKER_VALUES; i++)
        VD_TRY(d->table->allocate(d, 16, &p->bindings[i].memory, err));
    return d->table->exec_open(d, p->compiled, p->arena, p->bindings, PICKER_VALUES, &p->exec, err);
}

static inline void picker_close(picker *p, vd_device *d) {
    d->table->exec_close(d, p->exec);
    d->table->release(d, p->arena);
    for (int i = 0; i < PICKER_VALUES; i++)
        d->table->release(d, p->bindings[i].memory);
    d->table->compiled_close(d, p->compiled);
    vd_program_free(p->program);
}

static inline vd_code pick(const picker *p, vd_device *d, vd_stream *s, int32_t index, vd_fault *fault,
                           picked *out, vd_error *err) {
    const vd_binding *b = p->bindings;
    VD_TRY(d->table->copy(s, VD_TO_DEVICE, b[PICKER_TABLE].memory, picker_table, sizeof picker_table, NULL,
                          err));
    VD_TRY(d->table->copy(s, VD_TO_DEVICE, b[PICKER_INDEX].memory, &index, sizeof index, NULL, err));
    VD_TRY(d->table->launch(s, p->exec, fault, err));
    VD_TRY(d->table->copy(s, VD_TO_HOST, &out->row, b[PICKER_ROW].memory, sizeof out->row, NULL, err));
    VD_TRY(d->table->copy(s, VD_TO_HOST, &out->again, b[PICKER_AGAIN].memory, sizeof out->again, NULL, err));
    VD_TRY(d->table->copy(s, VD_TO_HOST, &out->sum, b[PICKER_SUM].memory, sizeof out->sum, NULL, err));
    return d->table->stream_drain(s, err);
}

#endif
