/* Constants of one device. A constant goes from the pool's packed host copy through two pinned buffers, so
 * that one is filled while the other is on its way; memory on the device is taken in one block for each
 * batch. */
#include "base/layout.h"
#include "device/cuda_pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STAGING_BYTES = 8 << 20, STAGINGS = 2 };

struct vd_cuda_constant {
    vd_cuda_weights *weights;
    vd_cuda_packing packing;
    size_t bytes;
    int batch;
    unsigned char *data; /* NULL until placed */
    bool loaded;
};

typedef struct staging {
    unsigned char *memory; /* pinned */
    cudaEvent_t sent;
} staging;

struct vd_cuda_weights {
    vd_cuda_pool *pool;
    const char *device;
    cudaStream_t stream;
    staging stagings[STAGINGS];
    int next;
    vd_cuda_constant **constants;
    int count, capacity;
    int batch; /* of what is planned next */
    void **blocks;
    int block_count;
    size_t bytes, taken;
};

#define CHECK(w, call) VD_TRY(vd_cuda_check(call, (w)->device, #call, err))

static vd_code open_staging(vd_cuda_weights *w, vd_error *err) {
    CHECK(w, cudaStreamCreateWithFlags(&w->stream, cudaStreamNonBlocking));
    for (int i = 0; i < STAGINGS; i++) {
        CHECK(w, cudaHostAlloc((void **)&w->stagings[i].memory, STAGING_BYTES, cudaHostAllocPortable));
        CHECK(w, cudaEventCreateWithFlags(&w->stagings[i].sent, cudaEventDisableTiming));
    }
    return VD_OK;
}

vd_code vd_cuda_weights_open(vd_cuda_pool *pool, const char *device, vd_cuda_weights **out, vd_error *err) {
    vd_cuda_weights *w = calloc(1, sizeof *w);
    if (!w)
        return vd_fail_memory(err, "the weights of a device", sizeof *w);
    w->pool = pool;
    w->device = device;
    vd_code code = open_staging(w, err);
    if (code == VD_OK)
        *out = w;
    else
        vd_cuda_weights_close(w);
    return code;
}

/* Results of closing calls say nothing new: what failed before has been reported. */
void vd_cuda_weights_close(vd_cuda_weights *w) {
    if (!w)
        return;
    if (w->stream)
        (void)cudaStreamSynchronize(w->stream);
    for (int i = 0; i < STAGINGS; i++) {
        if (w->stagings[i].sent)
            (void)cudaEventDestroy(w->stagings[i].sent);
        if (w->stagings[i].memory)
            (void)cudaFreeHost(w->stagings[i].memory);
    }
    if (w->stream)
        (void)cudaStreamDestroy(w->stream);
    for (int i = 0; i < w->block_count; i++)
        (void)cudaFree(w->blocks[i]);
    for (int i = 0; i < w->count; i++)
        free(w->constants[i]);
    free(w->constants);
    free(w->blocks);
    free(w);
}

const char *vd_cuda_weights_device(const vd_cuda_weights *w) {
    return w->device;
}

size_t vd_cuda_weights_bytes(const vd_cuda_weights *w) {
    return w->bytes;
}

size_t vd_cuda_weights_taken(const vd_cuda_weights *w) {
    return w->taken;
}

static vd_code grow(vd_cuda_weights *w, vd_error *err) {
    if (w->count < w->capacity)
        return VD_OK;
    int capacity = w->capacity ? 2 * w->capacity : 256;
    vd_cuda_constant **more = realloc(w->constants, (size_t)capacity * sizeof *more);
    if (!more)
        return vd_fail_memory(err, "the list of weights", (size_t)capacity * sizeof *more);
    w->constants = more;
    w->capacity = capacity;
    return VD_OK;
}

void vd_cuda_weights_next_batch(vd_cuda_weights *w) {
    w->batch++;
}

vd_code vd_cuda_constant_plan(vd_cuda_weights *w, const vd_cuda_packing *packing, vd_cuda_constant **out,
                              vd_error *err) {
    for (int i = 0; i < w->count; i++)
        if (vd_cuda_same_packing(&w->constants[i]->packing, packing)) {
            *out = w->constants[i];
            return VD_OK;
        }
    VD_TRY(grow(w, err));
    vd_cuda_constant *c = calloc(1, sizeof *c);
    if (!c)
        return vd_fail_memory(err, "a constant", sizeof *c);
    *c = (vd_cuda_constant){
        .weights = w, .packing = *packing, .bytes = vd_cuda_packed_bytes(packing), .batch = w->batch};
    w->constants[w->count++] = c;
    w->bytes += vd_align_up(c->bytes);
    *out = c;
    return VD_OK;
}

static bool is_waiting(const vd_cuda_constant *c, int batch) {
    return c->batch == batch && !c->data;
}

/* Memory for all constants of the batch that have none yet. */
static vd_code place(vd_cuda_weights *w, int batch, vd_error *err) {
    char what[48];
    void **more = realloc(w->blocks, (size_t)(w->block_count + 1) * sizeof *more);
    if (!more)
        return vd_fail_memory(err, "the list of weights", sizeof *more);
    w->blocks = more;
    size_t bytes = 0;
    for (int i = 0; i < w->count; i++)
        if (is_waiting(w->constants[i], batch))
            bytes += vd_align_up(w->constants[i]->bytes);
    snprintf(what, sizeof what, "%zu bytes of weights", bytes);
    VD_TRY(vd_cuda_check(cudaMalloc(&w->blocks[w->block_count], bytes), w->device, what, err));
    w->taken += bytes;
    unsigned char *at = w->blocks[w->block_count++];
    for (int i = 0; i < w->count; i++)
        if (is_waiting(w->constants[i], batch)) {
            w->constants[i]->data = at;
            at += vd_align_up(w->constants[i]->bytes);
        }
    return VD_OK;
}

static vd_code send(vd_cuda_weights *w, unsigned char *to, const unsigned char *from, size_t bytes,
                    vd_error *err) {
    for (size_t done = 0; done < bytes; done += STAGING_BYTES) {
        staging *s = &w->stagings[w->next++ % STAGINGS];
        size_t part = bytes - done < STAGING_BYTES ? bytes - done : STAGING_BYTES;
        CHECK(w, cudaEventSynchronize(s->sent));
        memcpy(s->memory, from + done, part);
        CHECK(w, cudaMemcpyAsync(to + done, s->memory, part, cudaMemcpyHostToDevice, w->stream));
        CHECK(w, cudaEventRecord(s->sent, w->stream));
    }
    return VD_OK;
}

vd_code vd_cuda_constant_load(vd_cuda_constant *c, vd_error *err) {
    vd_cuda_weights *w = c->weights;
    if (c->loaded)
        return VD_OK;
    if (!c->data)
        VD_TRY(place(w, c->batch, err));
    const void *packed = NULL;
    vd_cuda_packed *entry = NULL;
    VD_TRY(vd_cuda_pool_take(w->pool, &c->packing, &entry, &packed, err));
    vd_code code = send(w, c->data, packed, c->bytes, err);
    vd_cuda_pool_give_back(w->pool, entry);
    c->loaded = code == VD_OK;
    return code;
}

vd_code vd_cuda_weights_settle(vd_cuda_weights *w, vd_error *err) {
    CHECK(w, cudaStreamSynchronize(w->stream));
    return VD_OK;
}

void *vd_cuda_constant_data(const vd_cuda_constant *c) {
    return c->data;
}
