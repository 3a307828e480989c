/* A gated product in two kernels: the product of value and gate side by side into the workspace, then our own
 * kernel over it. */
#include "base/layout.h"
#include "device/cuda.h"
#include "device/cuda_math.h"
#include "kernels/kernels.h"

vd_cuda_problem vd_gate_product(const vd_cuda_gate_spec *s) {
    return (vd_cuda_problem){.kind = VD_CUDA_GEMM,
                             .gemm = {.m = s->m,
                                      .k = s->k,
                                      .n = 2 * s->n,
                                      .runs = 1,
                                      .dtype = s->dtype,
                                      .out = s->dtype,
                                      .bias = true,
                                      .alpha = 1}};
}

/* Of the product's result, which lies before what the product itself wants. */
static size_t wide_bytes(const vd_cuda_gate_spec *s) {
    return vd_align_up((size_t)(2 * s->m * s->n) * vd_dtype_bytes(s->dtype));
}

void vd_gate_take(vd_cuda_plan *p, vd_cuda_plan *up) {
    p->up = up;
    p->workspace = wide_bytes(&p->problem.gate) + up->workspace;
    p->precompiled = up->precompiled;
    snprintf(p->name, sizeof p->name, "%.100s, then the gate", up->name);
}

/* All of `ups` are taken or closed. */
static vd_code take_all(vd_cuda_math *m, const vd_cuda_problem *problem, vd_cuda_plans *ups,
                        vd_cuda_plans *plans, vd_error *err) {
    for (int i = 0; i < ups->count; i++) {
        vd_cuda_plan *p = vd_cuda_plan_new(m, problem, err);
        if (!p)
            return err->code;
        vd_gate_take(p, ups->items[i]);
        ups->items[i] = NULL;
        plans->items[plans->count++] = p;
    }
    return VD_OK;
}

vd_code vd_gate_candidates(vd_cuda_math *m, const vd_cuda_problem *problem, vd_cuda_plans *plans,
                           vd_error *err) {
    const vd_cuda_problem product = vd_gate_product(&problem->gate);
    vd_cuda_plans ups = {.limit = plans->limit - plans->count};
    vd_code status = vd_cuda_candidates(m, &product, &ups, err);
    if (status == VD_OK)
        status = take_all(m, problem, &ups, plans, err);
    vd_cuda_plans_close(&ups);
    return status;
}

vd_code vd_gate_run(const vd_cuda_plan *p, cudaStream_t stream, const vd_cuda_operands *o, void *workspace,
                    vd_error *err) {
    const vd_cuda_gate_spec *s = &p->problem.gate;
    const vd_cuda_operands up = {.x = o->x, .weights = o->weights, .bias = o->bias, .y = workspace};
    const vdk_activate gate = {.x = workspace,
                               .y = o->y,
                               .rows = s->m,
                               .c = s->n,
                               .runs = 1,
                               .act = VDK_ACT_GEGLU,
                               .from = s->dtype,
                               .to = s->dtype};
    VD_TRY(vd_cuda_plan_run(p->up, stream, &up, (char *)workspace + wide_bytes(s), err));
    return vd_cuda_check(vdk_run_activate(&gate, stream), p->math->card, "gate", err);
}
