/* DESIGN of the pool
 *   entries   one per packing, in a list guarded by `lock`; never removed before the pool closes.
 *   bytes     made by the first thread that takes an entry, under the entry's own lock, so that different
 *             constants are packed at the same time. Kept while `holders` > 0, and after that until the pool
 *             holds more than KEPT_BYTES: then those that have been idle for longest go. A device that comes
 *             late packs again. */
#include "device/cuda_pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static const size_t KEPT_BYTES = (size_t)4 << 30; /* all of Stable Video Diffusion in 16 bits */

struct vd_cuda_packed {
    vd_cuda_packing packing;
    pthread_mutex_t lock; /* held while packing */
    void *bytes;          /* NULL: not packed */
    /* guarded by the pool's lock */
    int holders;
    unsigned long used; /* the pool's clock when it was last given back */
    struct vd_cuda_packed *next;
};

struct vd_cuda_pool {
    pthread_mutex_t lock;
    vd_cuda_packed *entries;
    size_t kept; /* bytes of all entries that have some */
    unsigned long clock;
};

bool vd_cuda_same_packing(const vd_cuda_packing *a, const vd_cuda_packing *b) {
    return a->constant == b->constant && a->layout == b->layout && a->dtype == b->dtype &&
           a->pad_k == b->pad_k && a->pad_c == b->pad_c && a->scale == b->scale && a->gamma == b->gamma &&
           a->beta == b->beta && a->bias == b->bias && a->bias_dtype == b->bias_dtype;
}

vd_code vd_cuda_pool_open(vd_cuda_pool **out, vd_error *err) {
    vd_cuda_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return vd_fail_memory(err, "the pool of weights", sizeof *pool);
    pthread_mutex_init(&pool->lock, NULL);
    *out = pool;
    return VD_OK;
}

void vd_cuda_pool_close(vd_cuda_pool *pool) {
    if (!pool)
        return;
    for (vd_cuda_packed *e = pool->entries, *next; e; e = next) {
        next = e->next;
        pthread_mutex_destroy(&e->lock);
        free(e->bytes);
        free(e);
    }
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* The entry of a packing, made when it is new, with one holder more. */
static vd_cuda_packed *hold(vd_cuda_pool *pool, const vd_cuda_packing *packing) {
    pthread_mutex_lock(&pool->lock);
    vd_cuda_packed *e = pool->entries;
    while (e && !vd_cuda_same_packing(&e->packing, packing))
        e = e->next;
    if (!e && (e = calloc(1, sizeof *e))) {
        e->packing = *packing;
        pthread_mutex_init(&e->lock, NULL);
        e->next = pool->entries;
        pool->entries = e;
    }
    if (e)
        e->holders++;
    pthread_mutex_unlock(&pool->lock);
    return e;
}

static vd_code pack(vd_cuda_pool *pool, vd_cuda_packed *e, vd_error *err) {
    size_t bytes = vd_cuda_packed_bytes(&e->packing);
    void *memory = malloc(bytes);
    if (!memory)
        return vd_fail_memory(err, "packed weights", bytes);
    vd_code code = vd_cuda_pack(&e->packing, memory, err);
    if (code != VD_OK) {
        free(memory);
        return code;
    }
    e->bytes = memory;
    pthread_mutex_lock(&pool->lock);
    pool->kept += bytes;
    pthread_mutex_unlock(&pool->lock);
    return VD_OK;
}

vd_code vd_cuda_pool_take(vd_cuda_pool *pool, const vd_cuda_packing *packing, vd_cuda_packed **entry,
                          const void **bytes, vd_error *err) {
    vd_cuda_packed *e = hold(pool, packing);
    if (!e)
        return vd_fail_memory(err, "packed weights", sizeof *e);
    pthread_mutex_lock(&e->lock);
    vd_code code = e->bytes ? VD_OK : pack(pool, e, err);
    *bytes = e->bytes;
    pthread_mutex_unlock(&e->lock);
    if (code == VD_OK)
        *entry = e;
    else
        vd_cuda_pool_give_back(pool, e);
    return code;
}

/* Under the pool's lock. */
static vd_cuda_packed *longest_idle(const vd_cuda_pool *pool) {
    vd_cuda_packed *oldest = NULL;
    for (vd_cuda_packed *e = pool->entries; e; e = e->next)
        if (e->holders == 0 && e->bytes && (!oldest || e->used < oldest->used))
            oldest = e;
    return oldest;
}

void vd_cuda_pool_give_back(vd_cuda_pool *pool, vd_cuda_packed *entry) {
    pthread_mutex_lock(&pool->lock);
    entry->holders--;
    entry->used = ++pool->clock;
    for (vd_cuda_packed *e; pool->kept > KEPT_BYTES && (e = longest_idle(pool));) {
        pool->kept -= vd_cuda_packed_bytes(&e->packing);
        free(e->bytes);
        e->bytes = NULL;
    }
    pthread_mutex_unlock(&pool->lock);
}
