/* Puts a backend before an engine's own that says what a test wants of memory and of the ways between
 * devices, as GPUs might; the devices stay virtual ones. It closes the one behind it with itself. */
#ifndef VD_TESTS_PRETEND_H
#define VD_TESTS_PRETEND_H

#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

typedef struct pretend {
    vd_backend base;
    vd_backend *inner;
    vd_backend_memory memory;
    size_t free;         /* on each device */
    vd_route_info route; /* of every pair */
    int tested;          /* pairs connected */
} pretend;

static inline void pretend_close(vd_backend *b) {
    vd_backend *inner = ((pretend *)b)->inner;
    inner->table->close(inner);
    free(b);
}

static inline int pretend_count(const vd_backend *b) {
    (void)b;
    return VD_MAX_DEVICES;
}

static inline vd_code pretend_describe(const vd_backend *b, int ordinal, vd_device_info *out, vd_error *err) {
    (void)err;
    *out = (vd_device_info){
        .model = "NVIDIA Pretence", .node = 0, .memory = 64ull << 30, .free = ((const pretend *)b)->free};
    snprintf(out->name, sizeof out->name, "cuda:%d", ordinal);
    return VD_OK;
}

static inline vd_code pretend_connect(vd_backend *b, vd_device *from, vd_device *to, vd_p2p wish,
                                      vd_route_info *out, vd_error *err) {
    (void)from, (void)to, (void)wish, (void)err;
    *out = ((pretend *)b)->route;
    ((pretend *)b)->tested++;
    return VD_OK;
}

static inline vd_backend_memory pretend_memory(const vd_backend *b) {
    return ((const pretend *)b)->memory;
}

static inline int pretend_kernel_count(const vd_backend *b) {
    (void)b;
    return 0;
}

static inline pretend *pretend_open(vdpp_engine *engine) {
    static const vd_backend_table table = {.close = pretend_close,
                                           .count = pretend_count,
                                           .describe = pretend_describe,
                                           .connect = pretend_connect,
                                           .memory = pretend_memory,
                                           .kernel_count = pretend_kernel_count};
    pretend *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->base = (vd_backend){.table = &table, .kind = "cuda", .default_dtype = VD_F16, .own_memory = true};
    p->inner = engine->devices.backend;
    engine->devices.backend = &p->base;
    return p;
}

#endif
