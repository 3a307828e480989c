/* Inside of the CUDA backend: its device, streams and ways between devices. All state of CUDA's lives in
 * these.
 *
 * DESIGN
 *   threads   any host thread may call; each entry makes the device current first. A stream is fed by one
 *             thread at a time.
 *   errands   what the host does when a stream gets there (notifications, completions of events, the host's
 *             half of copies) waits in a ring of the stream and is run by CUDA's own thread through
 *             cudaLaunchHostFunc. A full ring makes whoever enqueues wait, as the CPU backend's queue does.
 *   copies    ordinary host memory goes by way of a pinned piece that the stream owns: its order is the order
 *             of the stream, so one piece is enough and nobody waits. Samples spend milliseconds there, and
 *             seconds in steps.
 *   graphs    a program is captured once per exec, in relaxed mode: drivers that CUDA 13 runs on load kernels
 *             during a capture, so nothing needs a run before it that would step what the program steps.
 *   captures  a call that waits for a whole GPU (for memory, for kernels to be loaded) spoils what any thread
 *             is capturing there. So captures hold the GPU's lock for writing, and such calls for reading; it
 *             is taken last, and only for them.
 *   lost      a device that was given up and does not come to rest keeps what its pending work may touch
 *             until the process ends; nothing is freed there, for freeing would wait for it. */
#ifndef VD_DEVICE_CUDA_DEVICE_H
#define VD_DEVICE_CUDA_DEVICE_H

#include "device/backend.h"
#include "device/cuda.h"

#include <pthread.h>

typedef struct vd_cuda_block vd_cuda_block;
typedef struct vd_cuda_compiled vd_cuda_compiled;
typedef struct vd_cuda_link vd_cuda_link;

/* What the devices of a process share. */
typedef struct vd_cuda_backend {
    vd_backend base;
    const vd_log *log;
    char *cache_folder; /* NULL: none */
    bool tf32;
    int count;                 /* GPUs that there are */
    pthread_rwlock_t *capture; /* [count] */
    vd_cuda_pool *pool;
    pthread_mutex_t lock; /* guards what follows */
    struct vd_cuda_device *devices;
    vd_compiled *programs;
    char **kernels; /* "problem: plan", in the order in which they were chosen */
    int kernel_count, kernel_capacity;
} vd_cuda_backend;

/* ---- cuda_backend.c ---- */

/* Adds a line to the list of kernels of the backend `user`. */
void vd_cuda_note_kernel(void *user, const char *problem, const char *plan);

typedef struct vd_cuda_device {
    vd_device base;
    vd_cuda_backend *backend;
    struct vd_cuda_device *next; /* in the backend's list of open ones */
    int ordinal;
    int place, places;     /* among the devices that were opened together */
    cudaStream_t setup;    /* zeroing and tests; nothing of the loop */
    cudaStream_t recorder; /* for captures; longer there than `math`, whose handles remember it */
    vd_cuda_math *math;
    vd_cuda_weights *weights;
    pthread_mutex_t lock;      /* guards math, weights and its parts of programs */
    pthread_rwlock_t *capture; /* of its GPU: for reading around what may wait for all of it */
    vd_cuda_link *links;       /* tested ways to other devices; only changed while nothing runs */
    pthread_mutex_t block_lock;
    vd_cuda_block *blocks; /* allocated memory */
    _Atomic uint32_t abandoned, lost;
} vd_cuda_device;

static inline vd_cuda_device *vd_cuda_of(vd_device *d) {
    return (vd_cuda_device *)d;
}

/* The call's result as a vd_code, with the call itself as what failed. */
#define VD_CUDA(device, call) vd_cuda_check(call, (device)->base.name, #call, err)

/* Makes the device current on the calling thread. */
vd_code vd_cuda_enter(vd_cuda_device *d, vd_error *err);

/* The `place`-th of `places` devices opened together; `twin`: how many before it are on the same GPU. */
typedef struct vd_cuda_seat {
    int ordinal, twin, place, places;
} vd_cuda_seat;
vd_code vd_cuda_device_open(vd_cuda_backend *b, const vd_cuda_seat *seat, vd_device **out, vd_error *err);

/* ---- cuda_stream.c: entries of the device table ---- */

typedef struct vd_cuda_event {
    vd_event base;
    vd_cuda_device *device;
    cudaEvent_t event;
} vd_cuda_event;

vd_code vd_cuda_stream_open(vd_device *d, const char *name, vd_stream **out, vd_error *err);
void vd_cuda_stream_close(vd_stream *s);
vd_code vd_cuda_stream_drain(vd_stream *s, vd_error *err);
vd_code vd_cuda_event_open(vd_device *d, vd_event **out, vd_error *err);
void vd_cuda_event_close(vd_event *e);
vd_code vd_cuda_stream_record(vd_stream *s, vd_event *e, vd_error *err);
vd_code vd_cuda_stream_wait(vd_stream *s, vd_event *e, vd_error *err);
vd_code vd_cuda_stream_copy(vd_stream *s, vd_copy_kind kind, void *to, const void *from, size_t bytes,
                            vd_fault *fault, vd_error *err);
vd_code vd_cuda_stream_copy_peer(vd_stream *s, vd_device *to_device, void *to, const void *from, size_t bytes,
                                 vd_fault *fault, vd_error *err);
vd_code vd_cuda_stream_notify(vd_stream *s, void (*call)(void *argument), void *argument, vd_error *err);
vd_code vd_cuda_stream_launch(vd_stream *s, vd_exec *x, vd_fault *fault, vd_error *err);

/* ---- cuda_exec.c: entries of the device table ---- */

struct vd_exec {
    cudaGraphExec_t graph;
};

vd_code vd_cuda_compile(vd_device *d, const vd_program *p, vd_compiled **out, vd_error *err);
void vd_cuda_compiled_close(vd_device *d, vd_compiled *c);
vd_code vd_cuda_load(vd_device *d, vd_compiled *c, vd_error *err);
vd_code vd_cuda_exec_open(vd_device *d, vd_compiled *c, void *arena, const vd_binding *bindings, int count,
                          vd_exec **out, vd_error *err);
void vd_cuda_exec_close(vd_device *d, vd_exec *x);

/* ---- cuda_link.c: ways between devices ---- */

/* Tests the way and keeps the route that it chooses. */
vd_code vd_cuda_link_test(vd_cuda_device *from, vd_cuda_device *to, vd_p2p wish, vd_route_info *out,
                          vd_error *err);
/* Enqueues a copy on `stream` of `from`, by the tested route; by the driver's own choice where nothing was
 * tested. */
vd_code vd_cuda_link_copy(vd_cuda_device *from, vd_cuda_device *to, cudaStream_t stream, void *target,
                          const void *source, size_t bytes, vd_error *err);
void vd_cuda_links_close(vd_cuda_device *d);

#endif
