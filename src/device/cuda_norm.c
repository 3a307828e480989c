/* A layer norm by itself. */
#include "device/cuda_lower.h"

struct vd_cuda_step {
    vd_cuda_norm norm;
};

static vd_code plan(const vd_cuda_planner *pl, const vd_op *op, vd_cuda_step *s, size_t *scratch,
                    vd_error *err) {
    (void)scratch;
    size_t none = 0; /* the result goes to dst, not to scratch */
    vd_shape shape = vd_program_shape(pl->program, op->layer_norm.src);
    return vd_cuda_norm_plan(pl, &op->layer_norm.norm, false, shape, 0, &s->norm, &none, err);
}

static vd_code load(vd_cuda_step *s, vd_error *err) {
    return vd_cuda_norm_load(&s->norm, err);
}

static vd_code run(const vd_op *generic, const vd_cuda_step *s, const vd_cuda_call *call, vd_error *err) {
    const vd_layer_norm *op = &generic->layer_norm;
    return vd_cuda_layer_norm_run(&s->norm, call, vd_cuda_value(call, op->src), vd_cuda_value(call, op->dst),
                                  err);
}

const vd_cuda_op vd_cuda_layer_norm = {
    .step_bytes = sizeof(vd_cuda_step), .plan = plan, .load = load, .run = run};
