/* What the benchmarks of networks share: devices of either backend, networks by name, and a program loaded on
 * a device with inputs drawn for all that it reads.
 *
 * VDPP_CUDA_MODULE names a file that stands for the CUDA backend, as it does for vdpp. Where
 * XDG_CACHE_HOME is set, the tuner's choices below it are used, as vdpp uses them. */
#ifndef VD_BENCH_RIG_H
#define VD_BENCH_RIG_H

#include "device/backend.h"
#include "model/networks.h"

/* An exit is all that a benchmark can do about a failure. */
#define MUST(call)                                                                                           \
    do {                                                                                                     \
        vd_error why, *err = &why;                                                                           \
        if ((call) != VD_OK)                                                                                 \
            rig_die(err);                                                                                    \
    } while (0)
_Noreturn void rig_die(const vd_error *why);

enum { RIG_DEVICES = 2 };

/* One or two devices, of virtual CPUs or on the first GPU, a stream on each. */
typedef struct rig {
    vd_backend *backend;
    vd_device *devices[RIG_DEVICES];
    vd_stream *streams[RIG_DEVICES];
    int count;
} rig;

void rig_open(rig *r, bool cuda, int count);
void rig_close(rig *r);
/* Waits until the device has passed `e`, which is recorded; ends the program when it will not. */
void rig_await(rig *r, vd_event *e);
/* "fp32", "fp16" or "bf16"; anything else ends the program. */
vd_dtype rig_dtype(const char *name);

/* "step" (with guidance), "step1" (without), "condition", "decode" (all frames at once), "encode", "clip";
 * anything else ends the program. `guided` of the shape is the name's; `keep_out` keeps what the UNet
 * gives. */
vd_program *rig_network(vd_model *m, const char *name, vd_dtype dtype, vd_video_shape shape, bool keep_out);

/* A program on the rig's first device. */
typedef struct loaded {
    rig *rig;
    const vd_program *program;
    vd_compiled *compiled;
    vd_exec *exec;
    vd_event *begun, *ended;
    void *arena;
    vd_binding *bindings; /* of all externals */
    int binding_count;
} loaded;

/* Inputs are normal numbers, so that no arithmetic meets zeros only; the same ones for the same name. Sigmas
 * fall, counters start at 0. */
void loaded_open(loaded *l, rig *r, const vd_program *p);
/* Launches once and waits; seconds from when the stream got there until it had passed. */
double loaded_run(loaded *l);
void *loaded_read(const loaded *l, vd_value external); /* its bytes as they are; the caller frees them */
void loaded_close(loaded *l);

static inline size_t rig_bytes(const vd_value_info *v) {
    return (size_t)vd_shape_count(v->shape) * vd_dtype_bytes(v->dtype);
}

#endif
