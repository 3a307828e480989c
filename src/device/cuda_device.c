/* A CUDA device: memory, and the device table. */
#include "device/cuda_device.h"

#include "base/layout.h"

#include <stdio.h>
#include <stdlib.h>

struct vd_cuda_block {
    vd_cuda_block *next;
    void *memory;
    size_t bytes;
};

enum { WORKSPACE_CAP = 64 << 20 }; /* a plan that wants more copies whole tensors (cuda.md 2.3) */

vd_code vd_cuda_enter(vd_cuda_device *d, vd_error *err) {
    return VD_CUDA(d, cudaSetDevice(d->ordinal));
}

static bool is_lost(vd_cuda_device *d) {
    return atomic_load_explicit(&d->lost, memory_order_acquire) != 0;
}

/* ---- memory ---- */

static void keep_block(vd_cuda_device *d, vd_cuda_block *b) {
    pthread_mutex_lock(&d->block_lock);
    b->next = d->blocks;
    d->blocks = b;
    pthread_mutex_unlock(&d->block_lock);
}

static vd_cuda_block *take_block(vd_cuda_device *d, const void *memory) {
    pthread_mutex_lock(&d->block_lock);
    vd_cuda_block **at = &d->blocks, *b;
    while (*at && (*at)->memory != memory)
        at = &(*at)->next;
    b = *at;
    if (b)
        *at = b->next;
    pthread_mutex_unlock(&d->block_lock);
    return b;
}

static vd_code allocate_zeros(vd_cuda_device *d, vd_cuda_block *b, vd_error *err) {
    VD_TRY(vd_cuda_enter(d, err));
    cudaError_t result = cudaMalloc(&b->memory, b->bytes);
    if (result == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return vd_fail(err, VD_ERR_UNAVAILABLE,
                       "device %s: no memory for %zu bytes beside the %zu already in use", d->base.name,
                       b->bytes, atomic_load(&d->base.allocated));
    }
    VD_TRY(VD_CUDA(d, result));
    VD_TRY(VD_CUDA(d, cudaMemsetAsync(b->memory, 0, b->bytes, d->setup)));
    return VD_CUDA(d, cudaStreamSynchronize(d->setup));
}

static vd_code cuda_allocate(vd_device *base, size_t bytes, void **memory, vd_error *err) {
    vd_cuda_device *d = vd_cuda_of(base);
    vd_cuda_block *b = calloc(1, sizeof *b);
    if (!b)
        return vd_fail_memory(err, "a block of device memory", sizeof *b);
    b->bytes = vd_align_up(bytes ? bytes : 1);
    pthread_rwlock_rdlock(d->capture);
    vd_code code = allocate_zeros(d, b, err);
    pthread_rwlock_unlock(d->capture);
    if (code != VD_OK) {
        if (b->memory)
            (void)cudaFree(b->memory);
        free(b);
        return code;
    }
    keep_block(d, b);
    vd_device_took(base, b->bytes);
    *memory = b->memory;
    return VD_OK;
}

/* Closing goes through with whatever it can; what failed before has been told. */
static void cuda_release(vd_device *base, void *memory) {
    vd_cuda_device *d = vd_cuda_of(base);
    vd_cuda_block *b = memory ? take_block(d, memory) : NULL;
    if (!b)
        return;
    atomic_fetch_sub(&base->allocated, b->bytes);
    vd_error told;
    (void)vd_cuda_enter(d, &told);
    pthread_rwlock_rdlock(d->capture);
    if (!is_lost(d))
        (void)cudaFree(memory);
    pthread_rwlock_unlock(d->capture);
    free(b);
}

/* ---- the device ---- */

static void cuda_abandon(vd_device *d) {
    atomic_store_explicit(&vd_cuda_of(d)->abandoned, 1, memory_order_release);
}

/* Errors of kernels stay with the context: any call tells them. */
static vd_code cuda_check(vd_device *base, vd_error *err) {
    vd_cuda_device *d = vd_cuda_of(base);
    VD_TRY(vd_cuda_enter(d, err));
    cudaError_t result = cudaStreamQuery(d->setup);
    if (result != cudaErrorNotReady)
        return vd_cuda_check(result, base->name, "while it worked", err);
    (void)cudaGetLastError();
    return VD_OK;
}

static void leave(vd_cuda_device *d) {
    pthread_mutex_lock(&d->backend->lock);
    vd_cuda_device **at = &d->backend->devices;
    while (*at && *at != d)
        at = &(*at)->next;
    if (*at)
        *at = d->next;
    pthread_mutex_unlock(&d->backend->lock);
}

static void cuda_close(vd_device *base) {
    vd_cuda_device *d = vd_cuda_of(base);
    vd_error told;
    leave(d);
    if (is_lost(d))
        return; /* its pending work may yet look at it */
    (void)vd_cuda_enter(d, &told);
    vd_cuda_links_close(d);
    vd_cuda_weights_close(d->weights);
    vd_cuda_math_close(d->math);
    if (d->recorder)
        (void)cudaStreamDestroy(d->recorder);
    if (d->setup)
        (void)cudaStreamDestroy(d->setup);
    pthread_mutex_destroy(&d->lock);
    pthread_mutex_destroy(&d->block_lock);
    free(d);
}

static const vd_device_table cuda_device_table = {
    .close = cuda_close,
    .abandon = cuda_abandon,
    .check = cuda_check,
    .allocate = cuda_allocate,
    .release = cuda_release,
    .stream_open = vd_cuda_stream_open,
    .stream_close = vd_cuda_stream_close,
    .stream_drain = vd_cuda_stream_drain,
    .event_open = vd_cuda_event_open,
    .event_close = vd_cuda_event_close,
    .record = vd_cuda_stream_record,
    .wait = vd_cuda_stream_wait,
    .copy = vd_cuda_stream_copy,
    .copy_peer = vd_cuda_stream_copy_peer,
    .notify = vd_cuda_stream_notify,
    .compile = vd_cuda_compile,
    .compiled_close = vd_cuda_compiled_close,
    .load = vd_cuda_load,
    .exec_open = vd_cuda_exec_open,
    .exec_close = vd_cuda_exec_close,
    .launch = vd_cuda_stream_launch,
};

static vd_code open_parts(vd_cuda_device *d, vd_error *err) {
    VD_TRY(vd_cuda_enter(d, err));
    VD_TRY(VD_CUDA(d, cudaStreamCreateWithFlags(&d->setup, cudaStreamNonBlocking)));
    VD_TRY(VD_CUDA(d, cudaStreamCreateWithFlags(&d->recorder, cudaStreamNonBlocking)));
    vd_cuda_math_request math = {.log = d->backend->log,
                                 .ordinal = d->ordinal,
                                 .cache_folder = d->backend->cache_folder,
                                 .workspace_cap = WORKSPACE_CAP,
                                 .tf32 = d->backend->tf32,
                                 .chosen = d->place == 0 ? vd_cuda_note_kernel : NULL, /* others do as it */
                                 .user = d->backend};
    VD_TRY(vd_cuda_math_open(&math, &d->math, err));
    return vd_cuda_weights_open(d->backend->pool, d->base.name, &d->weights, err);
}

vd_code vd_cuda_device_open(vd_cuda_backend *b, const vd_cuda_seat *seat, vd_device **out, vd_error *err) {
    vd_cuda_device *d = calloc(1, sizeof *d);
    if (!d)
        return vd_fail_memory(err, "a device", sizeof *d);
    d->base.table = &cuda_device_table;
    snprintf(d->base.name, sizeof d->base.name, seat->twin ? "cuda:%d.%d" : "cuda:%d", seat->ordinal,
             seat->twin);
    d->backend = b;
    d->ordinal = seat->ordinal;
    d->capture = &b->capture[seat->ordinal];
    d->place = seat->place;
    d->places = seat->places;
    pthread_mutex_init(&d->lock, NULL);
    pthread_mutex_init(&d->block_lock, NULL);
    vd_code code = open_parts(d, err);
    if (code != VD_OK) {
        cuda_close(&d->base);
        return code;
    }
    pthread_mutex_lock(&b->lock);
    d->next = b->devices;
    b->devices = d;
    pthread_mutex_unlock(&b->lock);
    *out = &d->base;
    return VD_OK;
}
