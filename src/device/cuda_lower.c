#include "device/cuda_lower.h"

#include "base/layout.h"

size_t vd_cuda_take(size_t *total, size_t bytes) {
    size_t at = *total;
    *total += vd_align_up(bytes);
    return at;
}

vd_code vd_cuda_ran(const vd_cuda_call *call, cudaError_t result, const char *kernel, vd_error *err) {
    return vd_cuda_check(result, call->device, kernel, err);
}

/* ---- biases ---- */

/* Whether a value is not yet the vector that a product reads. */
static bool rewritten(const vd_cuda_bias *b) {
    return b->dtype != VD_F32 || b->padded != b->width || b->repeats > 1;
}

static size_t rows_bytes(const vd_cuda_bias *b) {
    return (size_t)(b->runs * b->padded) * vd_dtype_bytes(b->dtype);
}

vd_code vd_cuda_bias_plan(const vd_cuda_planner *planner, const vd_cuda_packing *packing, vd_value value,
                          vd_dtype dtype, int64_t width, int64_t padded, vd_cuda_bias *out, size_t *scratch,
                          vd_error *err) {
    const vd_program *p = planner->program;
    *out = (vd_cuda_bias){.value = value, .runs = 1, .width = width, .padded = padded, .dtype = dtype};
    out->repeats = packing->layout == VD_CUDA_PHASES ? VD_CUDA_PHASE_COUNT : 1;
    if (value != VD_NONE) {
        out->runs = p->values[value].shape.n;
        if (rewritten(out))
            out->at = vd_cuda_take(scratch, (size_t)out->repeats * rows_bytes(out));
        return VD_OK;
    }
    if (!packing->constant)
        return VD_OK;
    vd_cuda_packing rounded = *packing;
    rounded.dtype = dtype;
    rounded.pad_k = padded;
    return vd_cuda_constant_plan(planner->weights, &rounded, &out->constant, err);
}

vd_cuda_bias vd_cuda_bias_behind(vd_cuda_constant *matrix, const vd_cuda_packing *packing) {
    int64_t rows = packing->constant->dims[0];
    return (vd_cuda_bias){.constant = matrix,
                          .offset = vd_cuda_packed_bias_at(packing),
                          .value = VD_NONE,
                          .runs = 1,
                          .width = rows,
                          .padded = rows,
                          .repeats = 1,
                          .dtype = packing->bias_dtype};
}

vd_code vd_cuda_bias_load(const vd_cuda_bias *b, vd_error *err) {
    return b->constant ? vd_cuda_constant_load(b->constant, err) : VD_OK;
}

vd_code vd_cuda_bias_data(const vd_cuda_bias *b, const vd_cuda_call *call, const void **out, vd_error *err) {
    *out =
        b->constant ? (char *)vd_cuda_constant_data(b->constant) + b->offset : vd_cuda_value(call, b->value);
    if (b->value == VD_NONE || !rewritten(b))
        return VD_OK;
    const void *value = *out;
    *out = vd_cuda_at(call, b->at);
    for (int i = 0; i < b->repeats; i++)
        VD_TRY(vd_cuda_repitch(call, value, VD_F32, b->width,
                               vd_cuda_at(call, b->at + (size_t)i * rows_bytes(b)), b->dtype, b->padded,
                               b->runs, err));
    return VD_OK;
}

/* ---- products ---- */

int64_t vd_cuda_piece_rows(int64_t rows, size_t row_bytes, size_t limit) {
    int64_t tiles = (int64_t)(limit / (row_bytes * VD_CUDA_TILE)), fit = (tiles ? tiles : 1) * VD_CUDA_TILE;
    return rows < fit ? rows : fit;
}

static vd_code no_product(const vd_cuda_planner *planner, int64_t m, int64_t k, int64_t n, vd_dtype dtype,
                          vd_error *err) {
    return vd_fail(err, VD_ERR_UNAVAILABLE,
                   "program %s: no library has a product of %lld x %lld x %lld in %s", planner->program->name,
                   (long long)m, (long long)k, (long long)n, vd_dtype_name(dtype));
}

vd_code vd_cuda_product_open(const vd_cuda_planner *planner, const vd_cuda_gemm_spec *spec,
                             vd_cuda_plan **out, vd_error *err) {
    VD_TRY(vd_cuda_gemm_open(planner->math, spec, out, err));
    return *out ? VD_OK : no_product(planner, spec->m, spec->k, spec->n, spec->dtype, err);
}

vd_code vd_cuda_gate_product_open(const vd_cuda_planner *planner, const vd_cuda_gate_spec *spec,
                                  vd_cuda_plan **out, vd_error *err) {
    VD_TRY(vd_cuda_gate_open(planner->math, spec, out, err));
    return *out ? VD_OK : no_product(planner, spec->m, spec->k, 2 * spec->n, spec->dtype, err);
}

vd_code vd_cuda_repitch(const vd_cuda_call *call, const void *x, vd_dtype from, int64_t from_pitch, void *y,
                        vd_dtype to, int64_t to_pitch, int64_t rows, vd_error *err) {
    vdk_cast cast = {.x = x,
                     .y = y,
                     .rows = rows,
                     .c = from_pitch < to_pitch ? from_pitch : to_pitch,
                     .from_pitch = from_pitch,
                     .to_pitch = to_pitch,
                     .scale = 1,
                     .from = from,
                     .to = to};
    return vd_cuda_ran(call, vdk_run_cast(&cast, call->stream), "cast", err);
}

vd_code vd_cuda_activate(const vd_cuda_call *call, vd_act act, const void *x, vd_dtype from, int64_t rows,
                         int64_t c, const void *residual, void *dst, vd_dtype to, vd_error *err) {
    static const vdk_act acts[] = {[VD_ACT_NONE] = VDK_ACT_NONE,
                                   [VD_ACT_SILU] = VDK_ACT_SILU,
                                   [VD_ACT_GELU] = VDK_ACT_GELU,
                                   [VD_ACT_QUICK_GELU] = VDK_ACT_QUICK_GELU,
                                   [VD_ACT_GEGLU] = VDK_ACT_GEGLU};
    vdk_activate a = {.x = x,
                      .residual = residual,
                      .y = dst,
                      .rows = rows,
                      .c = c,
                      .runs = 1,
                      .act = acts[act],
                      .from = from,
                      .to = to};
    return vd_cuda_ran(call, vdk_run_activate(&a, call->stream), "activation", err);
}

/* ---- norms ---- */

static vd_code plan_vector(const vd_cuda_planner *planner, const vd_constant *c, vd_cuda_constant **out,
                           vd_error *err) {
    vd_cuda_packing packing = VD_CUDA_PACKING(.constant = c, .dtype = VD_F32);
    return vd_cuda_constant_plan(planner->weights, &packing, out, err);
}

static vdk_group_norm group_norm(const vd_cuda_norm *n, vd_dtype dtype) {
    return (vdk_group_norm){.images = n->images,
                            .rows = n->rows,
                            .c0 = n->c0,
                            .c1 = n->c1,
                            .groups = n->norm.groups,
                            .eps = n->norm.eps,
                            .silu = n->norm.silu,
                            .dtype = dtype};
}

vd_code vd_cuda_norm_plan(const vd_cuda_planner *planner, const vd_norm *norm, bool folded, vd_shape x0,
                          int64_t c1, vd_cuda_norm *out, size_t *scratch, vd_error *err) {
    vd_dtype dtype = planner->program->dtype;
    *out = (vd_cuda_norm){.norm = *norm, .folded = folded, .c0 = x0.c, .c1 = c1};
    if (norm->kind == VD_NORM_NONE)
        return VD_OK;
    bool group = norm->kind == VD_NORM_GROUP;
    out->images = group ? x0.n : 1;
    out->rows = group ? x0.h * x0.w : vd_shape_rows(x0);
    out->at = vd_cuda_take(scratch, (size_t)(vd_shape_rows(x0) * (x0.c + c1)) * vd_dtype_bytes(dtype));
    if (group) {
        vdk_group_norm g = group_norm(out, dtype);
        out->partials = vd_cuda_take(scratch, vdk_group_norm_scratch(&g));
    }
    if (folded)
        return VD_OK;
    VD_TRY(plan_vector(planner, norm->gamma, &out->gamma, err));
    return plan_vector(planner, norm->beta, &out->beta, err);
}

vd_code vd_cuda_norm_load(const vd_cuda_norm *n, vd_error *err) {
    if (!n->gamma)
        return VD_OK;
    VD_TRY(vd_cuda_constant_load(n->gamma, err));
    return vd_cuda_constant_load(n->beta, err);
}

static const float *data_of(const vd_cuda_constant *c) {
    return c ? vd_cuda_constant_data(c) : NULL;
}

static vd_code run_group(const vd_cuda_norm *n, const vd_cuda_call *call, const void *x0, const void *x1,
                         void *y, vd_error *err) {
    vdk_group_norm g = group_norm(n, call->program->dtype);
    g.x0 = x0;
    g.x1 = x1;
    g.gamma = data_of(n->gamma);
    g.beta = data_of(n->beta);
    g.y = y;
    g.scratch = vd_cuda_at(call, n->partials);
    return vd_cuda_ran(call, vdk_run_group_norm(&g, call->stream), "group norm", err);
}

vd_code vd_cuda_layer_norm_run(const vd_cuda_norm *n, const vd_cuda_call *call, const void *x, void *y,
                               vd_error *err) {
    vdk_layer_norm l = {.x = x,
                        .gamma = data_of(n->gamma),
                        .beta = data_of(n->beta),
                        .y = y,
                        .images = n->images,
                        .rows = n->rows,
                        .c = n->c0,
                        .eps = n->norm.eps,
                        .dtype = call->program->dtype};
    return vd_cuda_ran(call, vdk_run_layer_norm(&l, call->stream), "layer norm", err);
}

vd_code vd_cuda_norm_run(const vd_cuda_norm *n, const vd_cuda_call *call, const void *x0, const void *x1,
                         const void **y, vd_error *err) {
    void *to = vd_cuda_at(call, n->at);
    *y = to;
    return n->norm.kind == VD_NORM_GROUP ? run_group(n, call, x0, x1, to, err)
                                         : vd_cuda_layer_norm_run(n, call, x0, to, err);
}
