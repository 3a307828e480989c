/* What operations without constants have in common. */
#ifndef VD_DEVICE_CPU_SIMPLE_H
#define VD_DEVICE_CPU_SIMPLE_H

#include "device/cpu_lower.h"

struct vd_cpu_plan {
    const vd_kernels *kernels;
};

/* Entry of the table for an operation that needs its kernels and no scratch. */
vd_code vd_cpu_simple_plan(vd_cpu_library *library, const vd_program *p, const vd_op *op, vd_cpu_plan *plan,
                           size_t *scratch, vd_error *err);

static inline size_t vd_value_bytes(const vd_program *p, vd_value v) {
    return (size_t)vd_shape_count(p->values[v].shape) * vd_dtype_bytes(p->values[v].dtype);
}

#endif
