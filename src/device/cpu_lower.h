/* What convolutions, linears and feed-forwards have in common on the CPU: the work is cut into chunks that
 * stay in the second-level cache; each chunk is normalised or converted into scratch, multiplied, and
 * finished. */
#ifndef VD_DEVICE_CPU_LOWER_H
#define VD_DEVICE_CPU_LOWER_H

#include "device/cpu_library.h"

/* Bytes of a chunk: source, intermediate and result together leave room for the weights in a cache of 1 to 2
 * MiB. */
enum { VD_CHUNK_BYTES = 640 << 10 };

/* Each chunk reads the weights again, so large weights deserve larger chunks, in cache or not. */
static inline size_t vd_chunk_budget(size_t bytes, size_t weight_bytes) {
    return weight_bytes / 2 > bytes ? weight_bytes / 2 : bytes;
}

/* A size for chunks of `total` items of `item_bytes`: near `budget` bytes, dividing evenly where that costs
 * little. */
int64_t vd_chunk_size(int64_t total, size_t item_bytes, size_t budget);

/* A product on chunks of equal size, the last of which may be smaller, and its packed weights. */
typedef struct vd_chunked {
    vd_product *product[2]; /* whole chunk; rest, the same when there is none */
    vd_cpu_constant *weights[2];
    vd_cpu_constant *bias; /* NULL: none, or given per run */
    size_t scratch;
} vd_chunked;

/* `spec` and `rest` differ in size only. `storage` is what weights are rounded to. */
vd_code vd_chunked_plan(vd_cpu_library *l, const vd_product_spec *spec, const vd_product_spec *rest,
                        const vd_constant *weight, const vd_constant *bias, vd_dtype storage, vd_chunked *out,
                        vd_error *err);
vd_code vd_chunked_load(const vd_chunked *c, vd_error *err);
/* `bias` NULL: the planned constant. */
vd_code vd_chunked_run(const vd_chunked *c, bool rest, vd_cpu_worker *w, const void *src, const float *bias,
                       void *dst, void *scratch, vd_error *err);

/* Its bias: `given` or the planned constant. */
const float *vd_chunked_bias(const vd_chunked *c, const float *given);

/* cpu_taps.c: convolutions with few output channels as a product and a sum. `window` is the convolution. */
bool vd_taps_pay(const vd_product_spec *window);
vd_product_spec vd_taps_product(const vd_product_spec *window);
/* out [n, oh, ow, k] from what the product made; bias NULL: none. */
void vd_taps_gather(const vd_product_spec *window, const float *taps, const float *bias, float *out);

/* A norm in front of a product. */
typedef struct vd_normaliser {
    vd_norm norm;
    int64_t c;
    vd_cpu_constant *gamma, *beta;
    size_t scratch; /* of a group norm */
} vd_normaliser;

vd_code vd_normaliser_plan(vd_cpu_library *l, const vd_norm *norm, int64_t c, vd_normaliser *out,
                           vd_error *err);
vd_code vd_normaliser_load(const vd_normaliser *n, vd_error *err);
/* Group norm of one image whose channels are those of x[0], then those of x[1] (c[1] = 0: one source only):
 * leaves its affine in `scratch`, where vd_group_affine finds it. */
void vd_group_statistics(const vd_normaliser *n, const vd_kernels *k, const vd_cells x[2], const int64_t c[2],
                         int64_t rows, void *scratch);

/* Of the channels from `first` on. */
static inline vd_affine vd_group_affine(const vd_normaliser *n, const void *scratch, int64_t first) {
    const float *centre = (const float *)((const double *)scratch + 2 * n->c) + first;
    return (vd_affine){centre, centre + n->c, centre + 2 * n->c};
}

/* Where row `row` of `cells` begins. */
static inline vd_cells vd_cells_at(vd_cells cells, int64_t row) {
    cells.data = (char *)cells.data + (size_t)(row * cells.pitch) * vd_dtype_bytes(cells.dtype);
    return cells;
}

/* Memory of a value as rows of its channels. */
vd_cells vd_value_cells(const vd_program *p, const vd_cpu_call *call, vd_value v);

#endif
