#include "device/cpu_simple.h"

static vd_code plan(vd_cpu_library *l, const vd_program *p, const vd_op *op, vd_cpu_plan *t, size_t *scratch,
                    vd_error *err) {
    VD_TRY(vd_cpu_simple_plan(l, p, op, t, scratch, err));
    *scratch = t->kernels->attention_scratch(&op->attention, p->dtype);
    return VD_OK;
}

static vd_code run(const vd_program *p, const vd_op *op, const vd_cpu_plan *plan, const vd_cpu_call *call,
                   vd_error *err) {
    (void)err;
    const vd_attention *a = &op->attention;
    plan->kernels->attention(a, p->dtype, call->at[a->qkv], call->at[a->dst], call->scratch);
    return VD_OK;
}

const vd_cpu_op vd_cpu_attention = {.plan_bytes = sizeof(vd_cpu_plan), .plan = plan, .run = run};
