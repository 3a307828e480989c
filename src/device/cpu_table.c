/* The closed table of the CPU backend. */
#include "device/cpu.h"

#include <stdlib.h>

#define VD_OP_ENTRY(upper, lower) [VD_OP_##upper] = &vd_cpu_##lower,

const vd_cpu_op *const vd_cpu_ops[VD_OP_COUNT] = {VD_OPS(VD_OP_ENTRY)};

vd_code vd_cpu_plan_new(const vd_cpu_op *entry, vd_cpu_library *library, const vd_program *p, const vd_op *op,
                        vd_cpu_plan **out, size_t *scratch, vd_error *err) {
    *out = NULL;
    *scratch = 0;
    if (!entry->plan)
        return VD_OK;
    vd_cpu_plan *plan = calloc(1, entry->plan_bytes);
    if (!plan)
        return vd_fail_memory(err, vd_op_name(op->kind), entry->plan_bytes);
    vd_code code = entry->plan(library, p, op, plan, scratch, err);
    if (code == VD_OK)
        *out = plan;
    else
        free(plan);
    return code;
}
