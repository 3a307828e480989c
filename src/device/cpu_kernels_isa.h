/* What the kernel files of one instruction set share with each other; the names carry VD_ISA. */
#ifndef VD_DEVICE_CPU_KERNELS_ISA_H
#define VD_DEVICE_CPU_KERNELS_ISA_H

#include "device/cpu_kernels.h"
#include "device/cpu_simd.h"

extern const vd_kernels VD_ISA_NAME(vd_kernels);
void VD_ISA_NAME(vd_attention)(const vd_attention *args, vd_dtype dtype, const void *qkv, void *to,
                               void *scratch);
size_t VD_ISA_NAME(vd_attention_scratch)(const vd_attention *args, vd_dtype dtype);

/* How many of the columns from j up to c one vector takes. */
VD_INLINE int64_t vd_part_of(int64_t j, int64_t c) {
    return c - j < VD_LANES ? c - j : VD_LANES;
}

#endif
