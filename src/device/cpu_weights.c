/* Constants on the CPU: filled in fp32, rounded to the program's storage type, packed for the product that
 * reads them. One copy per constant and layout serves all devices. Loading holds one fp32 tensor
 * more than what stays. */
#include "device/cpu_library.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct vd_cpu_constant {
    const vd_cpu_library *library;
    const vd_constant *constant;
    vd_dtype storage;         /* values are rounded to it; also what dense memory holds */
    const vd_product *layout; /* NULL: dense */
    size_t bytes;
    pthread_mutex_t mutex; /* held while loading */
    _Atomic(void *) data;  /* NULL until loaded */
};

static size_t count_of(const vd_constant *c) {
    return (size_t)c->dims[0] * (size_t)c->dims[1] * (size_t)c->dims[2] * (size_t)c->dims[3];
}

static bool is_same(const vd_cpu_constant *e, const vd_constant *c, vd_dtype storage,
                    const vd_product *layout) {
    if (e->constant != c || e->storage != storage || !e->layout != !layout)
        return false;
    return !layout || vd_product_same_weights(e->layout, layout);
}

static vd_code find_or_add(vd_cpu_library *l, const vd_constant *c, vd_dtype storage,
                           const vd_product *layout, vd_cpu_constant **out, vd_error *err) {
    vd_constant_list *list = &l->constants;
    for (int i = 0; i < list->count; i++)
        if (is_same(list->items[i], c, storage, layout)) {
            *out = list->items[i];
            return VD_OK;
        }
    VD_TRY(vd_list_grow((void **)&list->items, list->count, &list->capacity, err));
    vd_cpu_constant *e = calloc(1, sizeof *e);
    if (!e)
        return vd_fail_memory(err, c->name, sizeof *e);
    e->library = l;
    e->constant = c;
    e->storage = storage;
    e->layout = layout;
    e->bytes = layout ? vd_product_weight_bytes(layout) : count_of(c) * vd_dtype_bytes(storage);
    pthread_mutex_init(&e->mutex, NULL);
    list->items[list->count++] = e;
    list->bytes += e->bytes;
    *out = e;
    return VD_OK;
}

vd_code vd_cpu_constant_plan_packed(vd_cpu_library *l, const vd_constant *c, vd_dtype storage,
                                    const vd_product *layout, vd_cpu_constant **out, vd_error *err) {
    pthread_mutex_lock(&l->mutex);
    vd_code code = find_or_add(l, c, storage, layout, out, err);
    pthread_mutex_unlock(&l->mutex);
    return code;
}

vd_code vd_cpu_constant_plan(vd_cpu_library *l, const vd_constant *c, vd_dtype dtype, vd_cpu_constant **out,
                             vd_error *err) {
    return vd_cpu_constant_plan_packed(l, c, dtype, NULL, out, err);
}

/* Large blocks start on a huge page and ask for such: weights are streamed, and fresh small pages are slow to
 * touch. */
static void *allocate(size_t bytes) {
    const size_t huge = (size_t)2 << 20;
    void *memory = NULL;
    if (posix_memalign(&memory, bytes < huge ? 64 : huge, bytes ? bytes : 1))
        return NULL;
    if (bytes >= huge)
        (void)madvise(memory, bytes - bytes % huge, MADV_HUGEPAGE); /* a wish; small pages do too */
    return memory;
}

/* Rounds fp32 values to a 16-bit type and back, through a small buffer. */
static void round_values(const vd_kernels *k, float *values, size_t count, vd_dtype storage) {
    uint16_t rounded[2048];
    for (size_t i = 0; i < count; i += 2048) {
        int64_t n = (int64_t)(count - i < 2048 ? count - i : 2048);
        vd_cells wide = {values + i, VD_F32, n}, narrow = {rounded, storage, n};
        k->convert(narrow, wide, 1, n, 1.0f);
        k->convert(wide, narrow, 1, n, 1.0f);
    }
}

/* Fills `to` by way of `plain`, which may be `to` itself. */
static vd_code fill(const vd_cpu_constant *e, float *plain, void *to, vd_error *err) {
    const vd_kernels *k = e->library->kernels;
    size_t count = count_of(e->constant);
    VD_TRY(e->constant->fill(e->constant, plain, err));
    if (e->layout) {
        if (e->storage != VD_F32)
            round_values(k, plain, count, e->storage);
        return vd_product_pack(e->library, e->layout, plain, to, err);
    }
    if (e->storage != VD_F32) {
        int64_t n = (int64_t)count;
        k->convert((vd_cells){to, e->storage, n}, (vd_cells){plain, VD_F32, n}, 1, n, 1.0f);
    }
    return VD_OK;
}

static vd_code load(vd_cpu_constant *e, vd_error *err) {
    size_t plain_bytes = count_of(e->constant) * sizeof(float);
    bool direct = !e->layout && e->storage == VD_F32;
    void *to = allocate(e->bytes), *plain = direct ? to : allocate(plain_bytes);
    vd_code code =
        to && plain ? fill(e, plain, to, err) : vd_fail_memory(err, e->constant->name, plain_bytes);
    if (!direct)
        free(plain);
    if (code == VD_OK)
        e->data = to;
    else
        free(to);
    return code;
}

vd_code vd_cpu_constant_load(vd_cpu_constant *e, vd_error *err) {
    vd_code code = VD_OK;
    pthread_mutex_lock(&e->mutex);
    if (!e->data)
        code = load(e, err);
    pthread_mutex_unlock(&e->mutex);
    return code;
}

const void *vd_cpu_constant_data(const vd_cpu_constant *e) {
    return atomic_load_explicit(&e->data, memory_order_acquire);
}

size_t vd_cpu_library_weight_bytes(const vd_cpu_library *l) {
    return l->constants.bytes;
}

void vd_constant_list_close(vd_constant_list *list) {
    for (int i = 0; i < list->count; i++) {
        free(list->items[i]->data);
        pthread_mutex_destroy(&list->items[i]->mutex);
        free(list->items[i]);
    }
    free(list->items);
}
