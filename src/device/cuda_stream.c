/* Streams and events on CUDA (cuda_device.h DESIGN: errands, copies, lost). The device in their first members
 * may be a wrapper's (faulty.c), so they keep their own. */
#include "device/cuda_device.h"

#include "base/thread.h"

#include <stdlib.h>
#include <string.h>

enum {
    ERRANDS = 1024,             /* enqueued at a time */
    PIECE_BYTES = 4 << 20,      /* pinned, per stream */
    ROOM_POLL_NS = 1000 * 1000, /* how often a host thread that waits looks for what nobody tells it */
    REST_POLL_NS = 30 * 1000,
};

static const double PATIENCE_S = 2; /* with a device that was given up */

typedef enum errand_kind { CALL_HOST, MOVE_BYTES, COMPLETE_EVENT } errand_kind;

typedef struct errand {
    errand_kind kind;
    struct cuda_stream *stream;
    union {
        struct {
            void (*function)(void *argument);
            void *argument;
        } call;
        struct {
            void *to;
            const void *from;
            size_t bytes;
        } move;
        vd_event *event;
    };
} errand;

typedef struct cuda_stream {
    vd_stream base;
    vd_cuda_device *device;
    cudaStream_t stream;
    void *piece;          /* pinned; what lies in it is ordered by the stream */
    uint32_t given;       /* errands enqueued, by the host thread */
    _Atomic uint32_t run; /* errands passed, by CUDA's thread; parked on */
    pthread_mutex_t lock; /* held while an errand runs; guards `dropped` */
    bool dropped;         /* errands still to come are not run */
    errand errands[ERRANDS];
} cuda_stream;

static bool is_abandoned(const cuda_stream *s) {
    return atomic_load_explicit(&s->device->abandoned, memory_order_acquire) != 0;
}

static vd_code given_up(const cuda_stream *s, vd_error *err) {
    return vd_fail(err, VD_ERR_TRY_AGAIN, "device %s was given up", s->device->base.name);
}

/* What every entry that enqueues begins with. */
static vd_code enter(const cuda_stream *s, vd_error *err) {
    return is_abandoned(s) ? given_up(s, err) : vd_cuda_enter(s->device, err);
}

/* Whether all that is enqueued has been passed; an error is one that came up on the way. */
static vd_code look(const cuda_stream *s, bool *idle, vd_error *err) {
    cudaError_t result = cudaStreamQuery(s->stream);
    *idle = result == cudaSuccess;
    if (result == cudaErrorNotReady) {
        (void)cudaGetLastError();
        return VD_OK;
    }
    return vd_cuda_check(result, s->device->base.name, "a stream", err);
}

/* ---- errands ---- */

static void complete_event(vd_event *e) {
    atomic_store_explicit(&e->seconds, vd_now(), memory_order_release);
    atomic_fetch_add_explicit(&e->completed, 1, memory_order_release);
    vd_wake_all(&e->completed);
}

static void do_errand(const errand *e) {
    switch (e->kind) {
    case CALL_HOST:
        e->call.function(e->call.argument);
        break;
    case MOVE_BYTES:
        memcpy(e->move.to, e->move.from, e->move.bytes);
        break;
    case COMPLETE_EVENT:
        complete_event(e->event);
        break;
    }
}

/* On CUDA's thread. */
static void CUDART_CB run_errand(void *argument) {
    const errand *e = argument;
    cuda_stream *s = e->stream;
    pthread_mutex_lock(&s->lock);
    if (!s->dropped)
        do_errand(e);
    pthread_mutex_unlock(&s->lock);
    atomic_fetch_add_explicit(&s->base.device->operations, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->run, 1, memory_order_release);
    vd_wake_all(&s->run);
}

/* Until the ring has room; what keeps it full may be an error that ended the stream's work. */
static vd_code await_room(cuda_stream *s, vd_error *err) {
    for (;;) {
        uint32_t run = atomic_load_explicit(&s->run, memory_order_acquire);
        if (s->given - run < ERRANDS)
            return VD_OK;
        if (is_abandoned(s))
            return given_up(s, err);
        bool idle;
        VD_TRY(look(s, &idle, err));
        vd_park(&s->run, run, ROOM_POLL_NS);
    }
}

static vd_code send_errand(cuda_stream *s, errand e, vd_error *err) {
    VD_TRY(await_room(s, err));
    errand *slot = &s->errands[s->given % ERRANDS];
    *slot = e;
    slot->stream = s;
    VD_TRY(VD_CUDA(s->device, cudaLaunchHostFunc(s->stream, run_errand, slot)));
    s->given++;
    return VD_OK;
}

/* ---- opening and closing ---- */

static void free_stream(cuda_stream *s) {
    pthread_rwlock_rdlock(s->device->capture);
    if (s->piece)
        (void)cudaFreeHost(s->piece);
    if (s->stream)
        (void)cudaStreamDestroy(s->stream);
    pthread_rwlock_unlock(s->device->capture);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static vd_code make_stream(cuda_stream *s, vd_error *err) {
    VD_TRY(vd_cuda_enter(s->device, err));
    VD_TRY(VD_CUDA(s->device, cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking)));
    return VD_CUDA(s->device, cudaHostAlloc(&s->piece, PIECE_BYTES, cudaHostAllocDefault));
}

vd_code vd_cuda_stream_open(vd_device *d, const char *name, vd_stream **out, vd_error *err) {
    (void)name; /* for threads of the CPU backend */
    cuda_stream *s = calloc(1, sizeof *s);
    if (!s)
        return vd_fail_memory(err, "a stream", sizeof *s);
    s->base.device = d;
    s->device = vd_cuda_of(d);
    pthread_mutex_init(&s->lock, NULL);
    pthread_rwlock_rdlock(s->device->capture);
    vd_code code = make_stream(s, err);
    pthread_rwlock_unlock(s->device->capture);
    if (code == VD_OK)
        *out = &s->base;
    else
        free_stream(s);
    return code;
}

/* Waits until all is done: without limit, but for a device that was given up only `patience_s`. */
static vd_code settle(cuda_stream *s, double patience_s, vd_error *err) {
    VD_TRY(vd_cuda_enter(s->device, err));
    double deadline = 0;
    for (bool idle = false;;) {
        uint32_t run = atomic_load_explicit(&s->run, memory_order_acquire);
        VD_TRY(look(s, &idle, err));
        if (idle && run == s->given)
            return VD_OK;
        if (is_abandoned(s)) {
            deadline = deadline ? deadline : vd_now() + patience_s;
            if (vd_now() >= deadline)
                return given_up(s, err);
        }
        vd_park(&s->run, run, REST_POLL_NS);
    }
}

/* A stream that does not come to rest stays allocated, for what is enqueued on it may still come. After an
 * error nothing comes any more. */
void vd_cuda_stream_close(vd_stream *stream) {
    if (!stream)
        return;
    cuda_stream *s = (cuda_stream *)stream;
    vd_error err;
    bool busy = settle(s, PATIENCE_S, &err) != VD_OK && cudaStreamQuery(s->stream) == cudaErrorNotReady;
    pthread_mutex_lock(&s->lock);
    s->dropped = true;
    pthread_mutex_unlock(&s->lock);
    if (busy)
        atomic_store_explicit(&s->device->lost, 1, memory_order_release);
    else
        free_stream(s);
}

vd_code vd_cuda_stream_drain(vd_stream *stream, vd_error *err) {
    return settle((cuda_stream *)stream, 0, err);
}

vd_code vd_cuda_event_open(vd_device *d, vd_event **out, vd_error *err) {
    vd_cuda_device *device = vd_cuda_of(d);
    VD_TRY(vd_cuda_enter(device, err));
    vd_cuda_event *e = calloc(1, sizeof *e);
    if (!e)
        return vd_fail_memory(err, "an event", sizeof *e);
    e->base.device = d;
    e->device = device;
    vd_code code = VD_CUDA(device, cudaEventCreateWithFlags(&e->event, cudaEventDisableTiming));
    if (code == VD_OK)
        *out = &e->base;
    else
        free(e);
    return code;
}

void vd_cuda_event_close(vd_event *base) {
    vd_cuda_event *e = (vd_cuda_event *)base;
    if (!e || atomic_load_explicit(&e->device->lost, memory_order_acquire))
        return;
    (void)cudaEventDestroy(e->event);
    free(e);
}

/* ---- enqueuing ---- */

vd_code vd_cuda_stream_record(vd_stream *stream, vd_event *base, vd_error *err) {
    cuda_stream *s = (cuda_stream *)stream;
    vd_cuda_event *e = (vd_cuda_event *)base;
    VD_TRY(enter(s, err));
    atomic_fetch_add_explicit(&base->recorded, 1, memory_order_release);
    VD_TRY(VD_CUDA(s->device, cudaEventRecord(e->event, s->stream)));
    return send_errand(s, (errand){.kind = COMPLETE_EVENT, .event = base}, err);
}

vd_code vd_cuda_stream_wait(vd_stream *stream, vd_event *e, vd_error *err) {
    cuda_stream *s = (cuda_stream *)stream;
    VD_TRY(enter(s, err));
    return VD_CUDA(s->device, cudaStreamWaitEvent(s->stream, ((vd_cuda_event *)e)->event, 0));
}

static vd_code move(cuda_stream *s, void *to, const void *from, size_t bytes, vd_error *err) {
    return send_errand(s, (errand){.kind = MOVE_BYTES, .move = {to, from, bytes}}, err);
}

static vd_code copy_piece(cuda_stream *s, vd_copy_kind kind, void *to, const void *from, size_t bytes,
                          vd_error *err) {
    if (kind == VD_TO_DEVICE) {
        VD_TRY(move(s, s->piece, from, bytes, err));
        return VD_CUDA(s->device, cudaMemcpyAsync(to, s->piece, bytes, cudaMemcpyHostToDevice, s->stream));
    }
    VD_TRY(VD_CUDA(s->device, cudaMemcpyAsync(s->piece, from, bytes, cudaMemcpyDeviceToHost, s->stream)));
    return move(s, to, s->piece, bytes, err);
}

vd_code vd_cuda_stream_copy(vd_stream *stream, vd_copy_kind kind, void *to, const void *from, size_t bytes,
                            vd_fault *fault, vd_error *err) {
    cuda_stream *s = (cuda_stream *)stream;
    VD_TRY(enter(s, err));
    if (vd_fault_failed(fault))
        return VD_OK;
    if (kind == VD_ON_DEVICE)
        return VD_CUDA(s->device, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, s->stream));
    for (size_t at = 0; at < bytes; at += PIECE_BYTES) {
        size_t part = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;
        VD_TRY(copy_piece(s, kind, (unsigned char *)to + at, (const unsigned char *)from + at, part, err));
    }
    return VD_OK;
}

vd_code vd_cuda_stream_copy_peer(vd_stream *stream, vd_device *to_device, void *to, const void *from,
                                 size_t bytes, vd_fault *fault, vd_error *err) {
    cuda_stream *s = (cuda_stream *)stream;
    VD_TRY(enter(s, err));
    if (vd_fault_failed(fault))
        return VD_OK;
    return vd_cuda_link_copy(s->device, vd_cuda_of(to_device), s->stream, to, from, bytes, err);
}

vd_code vd_cuda_stream_notify(vd_stream *stream, void (*call)(void *argument), void *argument,
                              vd_error *err) {
    cuda_stream *s = (cuda_stream *)stream;
    VD_TRY(enter(s, err));
    return send_errand(s, (errand){.kind = CALL_HOST, .call = {call, argument}}, err);
}

vd_code vd_cuda_stream_launch(vd_stream *stream, vd_exec *x, vd_fault *fault, vd_error *err) {
    cuda_stream *s = (cuda_stream *)stream;
    VD_TRY(enter(s, err));
    if (vd_fault_failed(fault))
        return VD_OK;
    return VD_CUDA(s->device, cudaGraphLaunch(x->graph, s->stream));
}
