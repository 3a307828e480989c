/* Sinusoidal embeddings (svd-spec 7.2) and rows of tables. */
#include "device/cpu_simple.h"

#include <math.h>
#include <string.h>

static vd_code sinusoid_plan(vd_cpu_library *l, const vd_program *p, const vd_op *op, vd_cpu_plan *t,
                             size_t *scratch, vd_error *err) {
    *scratch = (size_t)vd_program_shape(p, op->sinusoid.dst).c * sizeof(float);
    return vd_cpu_simple_plan(l, p, op, t, scratch, err);
}

/* Every product and quotient rounded to fp32, as the reference's elementwise operations do. */
static void embed(float position, int64_t dim, float *out) {
    int64_t half = dim / 2;
    for (int64_t j = 0; j < half; j++) {
        float angle = position * vd_sinusoid_frequency(j, half);
        out[j] = cosf(angle);
        out[half + j] = sinf(angle);
    }
    if (dim % 2)
        out[dim - 1] = 0;
}

static vd_code sinusoid_run(const vd_program *p, const vd_op *op, const vd_cpu_plan *plan,
                            const vd_cpu_call *call, vd_error *err) {
    (void)err;
    const vd_sinusoid *o = &op->sinusoid;
    const float *positions = o->positions == VD_NONE ? NULL : call->at[o->positions];
    vd_cells dst = vd_value_cells(p, call, o->dst), row = {call->scratch, VD_F32, dst.pitch};
    for (int64_t r = 0; r < vd_program_shape(p, o->dst).w; r++) {
        embed(positions ? positions[r] : (float)r, dst.pitch, call->scratch);
        plan->kernels->convert(vd_cells_at(dst, r), row, 1, dst.pitch, 1.0f);
    }
    return VD_OK;
}

static vd_code gather_run(const vd_program *p, const vd_op *op, const vd_cpu_plan *plan,
                          const vd_cpu_call *call, vd_error *err) {
    (void)plan;
    const vd_gather_row *o = &op->gather_row;
    vd_shape table = vd_program_shape(p, o->table);
    int32_t index = *(const int32_t *)call->at[o->index];
    if (index < 0 || index >= table.w)
        return vd_fail(err, VD_ERR_INTERNAL, "program %s: row %d of a table of %lld", p->name, (int)index,
                       (long long)table.w);
    memcpy(call->at[o->dst], (const float *)call->at[o->table] + index * table.c,
           (size_t)table.c * sizeof(float));
    return VD_OK;
}

const vd_cpu_op vd_cpu_sinusoid = {
    .plan_bytes = sizeof(vd_cpu_plan), .plan = sinusoid_plan, .run = sinusoid_run};
const vd_cpu_op vd_cpu_gather_row = {.run = gather_run};
