#include "device/cpu_lower.h"

struct vd_cpu_plan {
    const vd_kernels *kernels;
    vd_normaliser norm;
};

static vd_code plan(vd_cpu_library *l, const vd_program *p, const vd_op *op, vd_cpu_plan *t, size_t *scratch,
                    vd_error *err) {
    (void)scratch;
    t->kernels = vd_cpu_library_kernels(l);
    int64_t c = vd_program_shape(p, op->layer_norm.src).c;
    return vd_normaliser_plan(l, &op->layer_norm.norm, c, &t->norm, err);
}

static vd_code load(vd_cpu_library *l, vd_cpu_plan *t, vd_error *err) {
    (void)l;
    return vd_normaliser_load(&t->norm, err);
}

static vd_code run(const vd_program *p, const vd_op *op, const vd_cpu_plan *t, const vd_cpu_call *call,
                   vd_error *err) {
    (void)err;
    const vd_layer_norm *o = &op->layer_norm;
    vd_cells src = vd_value_cells(p, call, o->src), dst = vd_value_cells(p, call, o->dst);
    t->kernels->layer_norm(dst, src, vd_shape_rows(vd_program_shape(p, o->src)), src.pitch,
                           vd_cpu_constant_data(t->norm.gamma), vd_cpu_constant_data(t->norm.beta),
                           o->norm.eps);
    return VD_OK;
}

const vd_cpu_op vd_cpu_layer_norm = {sizeof(vd_cpu_plan), plan, load, run};
