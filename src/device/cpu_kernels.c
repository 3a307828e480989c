#include "device/cpu_kernels.h"

#include <string.h>

extern const vd_kernels vd_kernels_sse2, vd_kernels_avx2,
    vd_kernels_avx512; /* cpu_kernels_rows.c, once each */

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

const vd_kernels *vd_kernels_choose(const char *limit) {
    bool up_to_avx512 = !limit || strcmp(limit, "avx512") == 0;
    bool up_to_avx2 = up_to_avx512 || strcmp(limit, "avx2") == 0;
    if (up_to_avx512 && has_avx512())
        return &vd_kernels_avx512;
    if (up_to_avx2 && has_avx2())
        return &vd_kernels_avx2;
    return &vd_kernels_sse2;
}
