/* Matrices for tests of kernels: rows between guard bytes, with sentinels in the gap between columns and
 * pitch. */
#ifndef VD_TESTS_KERNEL_MATRIX_H
#define VD_TESTS_KERNEL_MATRIX_H

#include "device/run_op.h"

typedef struct matrix {
    vd_cells cells;
    int64_t rows, c;
} matrix;

static inline size_t matrix_bytes(const matrix *m) {
    return (size_t)(m->rows * m->cells.pitch) * vd_dtype_bytes(m->cells.dtype);
}

static inline matrix matrix_new(vd_dtype dtype, int64_t rows, int64_t c, int64_t gap) {
    matrix m = {{NULL, dtype, c + gap}, rows, c};
    m.cells.data = op_guarded_new(matrix_bytes(&m));
    return m;
}

static inline double matrix_get(const matrix *m, int64_t r, int64_t j) {
    int64_t i = r * m->cells.pitch + j;
    const uint16_t *half = m->cells.data;
    return m->cells.dtype == VD_F32   ? ((const float *)m->cells.data)[i]
           : m->cells.dtype == VD_F16 ? vd_f16_to_f32(half[i])
                                      : vd_bf16_to_f32(half[i]);
}

static inline void matrix_set(matrix *m, int64_t r, int64_t j, double x) {
    int64_t i = r * m->cells.pitch + j;
    if (m->cells.dtype == VD_F32)
        ((float *)m->cells.data)[i] = (float)x;
    else
        ((uint16_t *)m->cells.data)[i] =
            m->cells.dtype == VD_F16 ? vd_f32_to_f16((float)x) : vd_f32_to_bf16((float)x);
}

static inline matrix matrix_random(vd_dtype dtype, int64_t rows, int64_t c, int64_t gap, uint64_t seed,
                                   double scale, double offset) {
    matrix m = matrix_new(dtype, rows, c, gap);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < c; j++)
            matrix_set(&m, r, j, offset + scale * op_uniform(seed, (uint64_t)(r * c + j)));
    return m;
}

/* Checks the sentinels and the guards. */
static inline void matrix_free(matrix *m) {
    size_t element = vd_dtype_bytes(m->cells.dtype);
    for (int64_t r = 0; r < m->rows; r++)
        for (size_t i = (size_t)(r * m->cells.pitch + m->c) * element;
             i < (size_t)((r + 1) * m->cells.pitch) * element; i++)
            if (((const unsigned char *)m->cells.data)[i] != OP_GUARD_BYTE)
                fail_msg("row %lld was written beyond its %lld columns", (long long)r, (long long)m->c);
    op_guarded_free(m->cells.data, matrix_bytes(m));
}

/* Half a unit in the last place of a result of this type, relative, with `ulps` of fp32 for the arithmetic.
 */
static inline double matrix_tolerance(vd_dtype dtype, double ulps) {
    double rounding = dtype == VD_F32 ? 0 : dtype == VD_F16 ? 0x1p-11 : 0x1p-8;
    return rounding + ulps * 0x1p-23;
}

/* Each instruction set that this machine has, by vd_kernels_choose. */
#define FOR_EACH_ISA(k)                                                                                      \
    for (const vd_kernels *k,                                                                                \
         **at = (const vd_kernels *[]){vd_kernels_choose("sse2"), vd_kernels_choose("avx2"),                 \
                                       vd_kernels_choose("avx512"), NULL};                                   \
         (k = *at); at++)                                                                                    \
        if (at[1] != k)

#endif
