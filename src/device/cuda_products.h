/* Convolutions, matrix products and attention by NVIDIA's libraries, as plans: chosen for one shape when a
 * program is compiled, run any number of times. cuda_dnn.c (cuDNN's graph API) and cuda_blas.c (cuBLASLt)
 * implement it; the test of the lowering puts plain loops in their place.
 *
 * A plan that no library has is no error: *out is NULL, and the caller takes another way (patches and a
 * product, own attention). Tensors are dense NHWC of type T (VD_F32, VD_F16, VD_BF16) and begin on
 * multiples of VD_CUDA_ALIGNMENT bytes; sums are fp32. */
#ifndef VD_DEVICE_CUDA_PRODUCTS_H
#define VD_DEVICE_CUDA_PRODUCTS_H

#include "base/error.h"
#include "base/log.h"
#include "device/tensor.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>

enum { VD_CUDA_ALIGNMENT = 16 };

/* The libraries' state for one device: handles, the device's profile, plans by description, the tuner's
 * choices. Used by one thread at a time; plans may be opened by it while streams run older ones. Opening
 * twice at once is not safe: cuDNN's first handle loads its libraries. */
typedef struct vd_cuda_math vd_cuda_math;

typedef struct vd_cuda_math_request {
    const vd_log *log;
    int ordinal; /* CUDA device, current on the calling thread; -1: none, plans can be opened, not run */
    const char *profile;      /* device profile as cuDNN's JSON, instead of the device's own; NULL */
    const char *cache_folder; /* of the tuner's choices; NULL: heuristics only */
    size_t workspace_cap;     /* bytes; plans of the libraries that want more are passed over */
    bool tf32;                /* fp32 may be rounded to TF32 on its way into tensor cores */
    /* Told of every problem that was new among the open ones, with its plan's name; NULL: nobody. */
    void (*chosen)(void *user, const char *problem, const char *plan);
    void *user;
} vd_cuda_math_request;

vd_code vd_cuda_math_open(const vd_cuda_math_request *request, vd_cuda_math **out, vd_error *err);
void vd_cuda_math_close(vd_cuda_math *m); /* after its plans; NULL is fine */

/* Plans of one description are one object with many owners: each opening wants its closing. */
typedef struct vd_cuda_plan vd_cuda_plan;
void vd_cuda_plan_close(vd_cuda_plan *p); /* NULL is fine */
size_t vd_cuda_plan_workspace(const vd_cuda_plan *p);
bool vd_cuda_plan_precompiled(const vd_cuda_plan *p); /* no kernel is compiled at run time for it */
const char *vd_cuda_plan_name(const vd_cuda_plan *p); /* engine and knobs, for -v and tests */

/* y = alpha * (w (*) x) + z + bias, cross-correlation. In 16 bits spelled conv, ADD z, ADD bias, which is
 * what stays on precompiled kernels (the other order does not). */
typedef struct vd_cuda_conv_spec {
    int64_t n, h, w, c; /* x [n, h, w, c] */
    int64_t oh, ow, k;  /* y, z [n, oh, ow, k]; weights [k, kh, kw, c]; bias [k] of type T */
    int64_t kh, kw, stride;
    int64_t pad_top, pad_left, pad_bottom, pad_right;
    vd_dtype dtype;
    bool bias, add; /* whether there is a bias, a z */
    float alpha;
} vd_cuda_conv_spec;
vd_code vd_cuda_conv_open(vd_cuda_math *m, const vd_cuda_conv_spec *spec, vd_cuda_plan **out, vd_error *err);
/* z may be y. `workspace`: vd_cuda_plan_workspace bytes, 256-byte aligned. */
vd_code vd_cuda_conv_run(const vd_cuda_plan *p, cudaStream_t stream, const void *x, const void *weights,
                         const void *bias, const void *z, void *y, void *workspace, vd_error *err);

/* y = alpha * x W^T + z + bias, row by row. With runs > 1 the rows fall into equal runs, each with its own
 * bias row. */
typedef struct vd_cuda_gemm_spec {
    int64_t m, k, n;     /* x [m, k]; W [n, k]; y, z [m, n] */
    int64_t runs;        /* bias [runs, n] of type `out`; divides m */
    vd_dtype dtype, out; /* T, of x and W; of y, z and bias: T or VD_F32 */
    bool bias, add;
    float alpha;
} vd_cuda_gemm_spec;
vd_code vd_cuda_gemm_open(vd_cuda_math *m, const vd_cuda_gemm_spec *spec, vd_cuda_plan **out, vd_error *err);
vd_code vd_cuda_gemm_run(const vd_cuda_plan *p, cudaStream_t stream, const void *x, const void *weights,
                         const void *bias, const void *z, void *y, void *workspace, vd_error *err);

/* y = (x W_v^T + b_v) * gelu(x W_g^T + b_g), gelu in its erf form: the way up of a gated feed-forward
 * layer (7.6). Either one kernel of a library that keeps both products close, or a product into the
 * workspace, which is then as large as that, and the gate over it. */
typedef struct vd_cuda_gate_spec {
    int64_t m, k, n; /* x [m, k]; W [2n, k], W_v above W_g; bias [2n], likewise; y [m, n] */
    vd_dtype dtype;
} vd_cuda_gate_spec;
vd_code vd_cuda_gate_open(vd_cuda_math *m, const vd_cuda_gate_spec *spec, vd_cuda_plan **out, vd_error *err);
vd_code vd_cuda_gate_run(const vd_cuda_plan *p, cudaStream_t stream, const void *x, const void *weights,
                         const void *bias, void *y, void *workspace, vd_error *err);

/* softmax(scale * q k^T) v over packed [q ; k ; v] rows: `batch` sequences of `tokens` rows each, one after
 * another. */
typedef struct vd_cuda_sdpa_spec {
    int64_t batch, heads, tokens,
        width; /* qkv [batch * tokens, 3 * heads * width]; y [batch * tokens, heads * width] */
    vd_dtype dtype;
    float scale;
} vd_cuda_sdpa_spec;
vd_code vd_cuda_sdpa_open(vd_cuda_math *m, const vd_cuda_sdpa_spec *spec, vd_cuda_plan **out, vd_error *err);
vd_code vd_cuda_sdpa_run(const vd_cuda_plan *p, cudaStream_t stream, const void *qkv, void *y,
                         void *workspace, vd_error *err);

/* One plan on trial (cuda_tune.h). */
typedef struct vd_cuda_trial {
    const char *problem, *plan; /* their names */
    double seconds;             /* of one run, when it is right */
    double error;               /* the largest found, relative to 1 + |value| */
    bool right;
} vd_cuda_trial;

typedef struct vd_cuda_tuner {
    const char *device; /* its name, for errors */
    void (*tried)(void *user, const vd_cuda_trial *trial);
    void *user;
} vd_cuda_tuner;

/* Tries every plan for the problems of all plans that are open and not yet the tuner's choice, so that
 * what was cut off goes on, and keeps the fastest right one of each in the cache folder. The device is
 * current and idle, with memory for one problem's operands. */
vd_code vd_cuda_tune_open(vd_cuda_math *m, const vd_cuda_tuner *tuner, vd_error *err);

#endif
