/* Linear layers: a norm into scratch, one product with bias and residual, and an activation where there is
 * one. A layer norm's gamma and beta go into the weights unless the bias comes at run time. */
#include "device/cuda_lower.h"

struct vd_cuda_step {
    vd_cuda_norm norm;
    vd_cuda_bias bias;
    vd_cuda_constant *weight;
    vd_cuda_plan *product;
    int64_t rows, k;
    size_t raw_at, workspace; /* scratch: the result before its activation, when a residual waits in dst */
};

/* `out`: the type of what the product writes. */
static vd_code plan_constants(const vd_cuda_planner *pl, const vd_linear *op, vd_dtype out, vd_cuda_step *s,
                              size_t *scratch, vd_error *err) {
    const vd_norm *norm = &op->norm;
    bool folded = norm->kind == VD_NORM_LAYER && op->bias_value == VD_NONE;
    vd_cuda_packing weight = VD_CUDA_PACKING(.constant = op->weight, .dtype = pl->program->dtype);
    vd_cuda_packing bias = VD_CUDA_PACKING(.constant = op->bias);
    if (folded) {
        weight.gamma = norm->gamma;
        weight.beta = norm->beta;
        weight.bias = op->bias;
        weight.bias_dtype = out;
    }
    VD_TRY(vd_cuda_norm_plan(pl, norm, folded, vd_program_shape(pl->program, op->src), 0, &s->norm, scratch,
                             err));
    VD_TRY(vd_cuda_constant_plan(pl->weights, &weight, &s->weight, err));
    if (!folded)
        return vd_cuda_bias_plan(pl, &bias, op->bias_value, out, s->k, s->k, &s->bias, scratch, err);
    s->bias = vd_cuda_bias_behind(s->weight, &weight);
    return VD_OK;
}

static vd_code plan(const vd_cuda_planner *pl, const vd_op *generic, vd_cuda_step *s, size_t *scratch,
                    vd_error *err) {
    const vd_linear *op = &generic->linear;
    const vd_program *p = pl->program;
    bool direct = op->act == VD_ACT_NONE;
    vd_dtype out = direct ? vd_cuda_dtype(p, op->dst) : p->dtype;
    s->rows = vd_shape_rows(vd_program_shape(p, op->src));
    s->k = op->weight->dims[0];
    VD_TRY(plan_constants(pl, op, out, s, scratch, err));
    vd_cuda_gemm_spec spec = {.m = s->rows,
                              .k = op->weight->dims[1],
                              .n = s->k,
                              .runs = s->bias.runs,
                              .dtype = p->dtype,
                              .out = out,
                              .bias = vd_cuda_has_bias(&s->bias),
                              .add = direct && op->residual != VD_NONE,
                              .alpha = 1};
    VD_TRY(vd_cuda_product_open(pl, &spec, &s->product, err));
    if (!direct)
        s->raw_at = vd_cuda_take(scratch, (size_t)(s->rows * s->k) * vd_dtype_bytes(p->dtype));
    s->workspace = vd_cuda_take(scratch, vd_cuda_plan_workspace(s->product));
    return VD_OK;
}

static vd_code load(vd_cuda_step *s, vd_error *err) {
    VD_TRY(vd_cuda_norm_load(&s->norm, err));
    VD_TRY(vd_cuda_bias_load(&s->bias, err));
    return vd_cuda_constant_load(s->weight, err);
}

static vd_code run(const vd_op *generic, const vd_cuda_step *s, const vd_cuda_call *call, vd_error *err) {
    const vd_linear *op = &generic->linear;
    const void *x = vd_cuda_value(call, op->src), *bias, *residual = vd_cuda_value(call, op->residual);
    void *dst = vd_cuda_value(call, op->dst);
    bool direct = op->act == VD_ACT_NONE;
    void *raw = direct ? dst : vd_cuda_at(call, s->raw_at);
    if (op->norm.kind != VD_NORM_NONE)
        VD_TRY(vd_cuda_norm_run(&s->norm, call, x, NULL, &x, err));
    VD_TRY(vd_cuda_bias_data(&s->bias, call, &bias, err));
    VD_TRY(vd_cuda_gemm_run(s->product, call->stream, x, vd_cuda_constant_data(s->weight), bias,
                            direct ? residual : NULL, raw, vd_cuda_at(call, s->workspace), err));
    if (direct)
        return VD_OK;
    return vd_cuda_activate(call, op->act, raw, call->program->dtype, s->rows, s->k, residual, dst,
                            vd_cuda_dtype(call->program, op->dst), err);
}

static void close_step(vd_cuda_step *s) {
    vd_cuda_plan_close(s->product);
}

const vd_cuda_op vd_cuda_linear = {
    .step_bytes = sizeof(vd_cuda_step), .plan = plan, .load = load, .run = run, .close = close_step};
