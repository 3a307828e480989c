/* What the lowered operations have in common: scratch handed out piece by piece, norms in front of
 * products, vectors that may be constants or values. */
#ifndef VD_DEVICE_CUDA_LOWER_H
#define VD_DEVICE_CUDA_LOWER_H

#include "device/cuda.h"
#include "kernels/kernels.h"

/* A piece of an operation's scratch: its offset. `total` grows. */
size_t vd_cuda_take(size_t *total, size_t bytes);

static inline void *vd_cuda_at(const vd_cuda_call *call, size_t offset) {
    return (char *)call->scratch + offset;
}
static inline void *vd_cuda_value(const vd_cuda_call *call, vd_value v) {
    return v == VD_NONE ? NULL : call->at[v];
}
static inline vd_dtype vd_cuda_dtype(const vd_program *p, vd_value v) {
    return p->values[v].dtype;
}

/* VD_OK, or an error naming the kernel. */
vd_code vd_cuda_ran(const vd_cuda_call *call, cudaError_t result, const char *kernel, vd_error *err);

/* The bias of a product: a constant converted when it is planned, or a value converted when it runs. */
typedef struct vd_cuda_bias {
    vd_cuda_constant *constant; /* NULL: none, or a value */
    size_t offset;              /* into the constant, bytes */
    vd_value value;             /* f32 [runs, width]; VD_NONE */
    int64_t runs, width, padded;
    int repeats; /* how often the vector stands there; 1 where there are runs */
    vd_dtype dtype;
    size_t at; /* scratch for the converted value */
} vd_cuda_bias;

/* `packing` of the constant (its constant NULL: none), its type and padding aside; its layout is the value's
 * as well. Without either, vd_cuda_bias_data is NULL. */
vd_code vd_cuda_bias_plan(const vd_cuda_planner *planner, const vd_cuda_packing *packing, vd_value value,
                          vd_dtype dtype, int64_t width, int64_t padded, vd_cuda_bias *out, size_t *scratch,
                          vd_error *err);
/* The one that lies behind a matrix which a layer norm is folded into. */
vd_cuda_bias vd_cuda_bias_behind(vd_cuda_constant *matrix, const vd_cuda_packing *packing);
vd_code vd_cuda_bias_load(const vd_cuda_bias *b, vd_error *err);
static inline bool vd_cuda_has_bias(const vd_cuda_bias *b) {
    return b->constant || b->value != VD_NONE;
}
vd_code vd_cuda_bias_data(const vd_cuda_bias *b, const vd_cuda_call *call, const void **out, vd_error *err);

/* How many of `rows` rows, each of which takes `row_bytes` of scratch, are done at a time within `limit`
 * bytes: all, or a multiple of VD_CUDA_TILE. So no kernel's tile is left half empty, and every piece begins
 * where a tensor may. */
enum { VD_CUDA_TILE = 128 };
int64_t vd_cuda_piece_rows(int64_t rows, size_t row_bytes, size_t limit);

/* The product of a spec, or an error when no library has it. */
vd_code vd_cuda_product_open(const vd_cuda_planner *planner, const vd_cuda_gemm_spec *spec,
                             vd_cuda_plan **out, vd_error *err);
vd_code vd_cuda_gate_product_open(const vd_cuda_planner *planner, const vd_cuda_gate_spec *spec,
                                  vd_cuda_plan **out, vd_error *err);

/* y = the first min(from_pitch, to_pitch) columns of x; zeros in the rest of y. */
vd_code vd_cuda_repitch(const vd_cuda_call *call, const void *x, vd_dtype from, int64_t from_pitch, void *y,
                        vd_dtype to, int64_t to_pitch, int64_t rows, vd_error *err);

/* dst = act(x) + residual, both dense; `from` and `to` are the types of x and dst. */
vd_code vd_cuda_activate(const vd_cuda_call *call, vd_act act, const void *x, vd_dtype from, int64_t rows,
                         int64_t c, const void *residual, void *dst, vd_dtype to, vd_error *err);

/* A norm that leaves its result in scratch. Group norms read two sources side by side; a layer norm's
 * gamma and beta are left to the weights that follow when `folded`. */
typedef struct vd_cuda_norm {
    vd_norm norm;
    bool folded;
    vd_cuda_constant *gamma, *beta; /* NULL when folded */
    int64_t images, rows, c0, c1;
    size_t at, partials; /* scratch: the result; what a group norm needs besides */
} vd_cuda_norm;

vd_code vd_cuda_norm_plan(const vd_cuda_planner *planner, const vd_norm *norm, bool folded, vd_shape x0,
                          int64_t c1, vd_cuda_norm *out, size_t *scratch, vd_error *err);
vd_code vd_cuda_norm_load(const vd_cuda_norm *n, vd_error *err);
/* y = norm(x); *y receives where it is. */
vd_code vd_cuda_norm_run(const vd_cuda_norm *n, const vd_cuda_call *call, const void *x0, const void *x1,
                         const void **y, vd_error *err);

/* A layer norm to `y` instead. */
vd_code vd_cuda_layer_norm_run(const vd_cuda_norm *n, const vd_cuda_call *call, const void *x, void *y,
                               vd_error *err);

#endif
