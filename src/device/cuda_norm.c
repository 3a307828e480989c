/* A layer norm by itself. */
#include "device/cuda_lower.h"

struct vd_cuda_step {
    vd_cuda_constant *gamma, *beta;
};

static vd_code plan(const vd_cuda_planner *pl, const vd_op *op, vd_cuda_step *s, size_t *scratch,
                    vd_error *err) {
    (void)scratch;
    VD_TRY(vd_cuda_vector_plan(pl, op->layer_norm.norm.gamma, &s->gamma, err));
    return vd_cuda_vector_plan(pl, op->layer_norm.norm.beta, &s->beta, err);
}

static vd_code load(vd_cuda_step *s, vd_error *err) {
    VD_TRY(vd_cuda_constant_load(s->gamma, err));
    return vd_cuda_constant_load(s->beta, err);
}

static vd_code run(const vd_op *generic, const vd_cuda_step *s, const vd_cuda_call *call, vd_error *err) {
    const vd_layer_norm *op = &generic->layer_norm;
    vd_shape shape = vd_program_shape(call->program, op->src);
    vdk_layer_norm l = {.x = vd_cuda_value(call, op->src),
                        .gamma = vd_cuda_constant_data(s->gamma),
                        .beta = vd_cuda_constant_data(s->beta),
                        .y = vd_cuda_value(call, op->dst),
                        .images = 1,
                        .rows = vd_shape_rows(shape),
                        .c = shape.c,
                        .eps = op->norm.eps,
                        .dtype = call->program->dtype};
    return vd_cuda_ran(call, vdk_run_layer_norm(&l, call->stream), "layer norm", err);
}

const vd_cuda_op vd_cuda_layer_norm = {
    .step_bytes = sizeof(vd_cuda_step), .plan = plan, .load = load, .run = run};
