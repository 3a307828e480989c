/* What stands between the convolutions and products of the CPU backend, vectorised by us. The same source
 * is compiled once per instruction set; the widest one that the machine has is chosen at run time.
 * Everything is fp32 inside; `dtype` arguments are fp32, fp16 or bf16 storage. Pitches are in elements. No
 * function allocates; none keeps state. */
#ifndef VD_DEVICE_CPU_KERNELS_H
#define VD_DEVICE_CPU_KERNELS_H

#include "device/ops.h"

typedef struct vd_cells { /* a matrix in memory: rows x c elements, row r starts at data + r*pitch */
    void *data;
    vd_dtype dtype;
    int64_t pitch;
} vd_cells;

/* Of each column: y = (x - centre) * scale + shift. x times scale plus one sum of the rest would be an
 * operation less, and wrong by half an ulp of centre * scale, which a group of few values can make a
 * thousand times y. */
typedef struct vd_affine {
    const float *centre, *scale, *shift; /* [c] */
} vd_affine;

typedef struct vd_kernels {
    const char *isa;

    /* Mean and sum of squared deviations of each column over `rows` rows, accurate to fp32 even where the
     * mean is a thousand times the deviation. mean [c], m2 [c]. */
    void (*column_stats)(vd_cells x, int64_t rows, int64_t c, double *mean, double *m2);
    /* to = silu?(affine(x)). to may equal x. */
    void (*affine)(vd_cells to, vd_cells x, int64_t rows, int64_t c, vd_affine affine, bool silu);
    /* Layer norm of each row (two-pass variance in registers or cache). */
    void (*layer_norm)(vd_cells to, vd_cells x, int64_t rows, int64_t c, const float *gamma,
                       const float *beta, float eps);
    /* to = x + row, the same row for all. */
    void (*add_row)(vd_cells to, vd_cells x, int64_t rows, int64_t c, const float *row);
    /* to = act(x): SILU, GELU (erf form, 1e-7 relative to max(|x|,1)), QUICK_GELU; GEGLU: x has 2c
     * columns, to has c. to may begin where x does, also with shorter rows or smaller elements. */
    void (*activate)(vd_cells to, vd_cells x, int64_t rows, int64_t c, vd_act act);
    /* to = alpha * mix + (1 - alpha) * (x + residual); residual.data and mix.data may be NULL (mix NULL:
     * alpha ignored). to may equal any source. */
    void (*finish)(vd_cells to, vd_cells x, vd_cells residual, vd_cells mix, float alpha, int64_t rows,
                   int64_t c);
    /* to = x converted, times scale. */
    void (*convert)(vd_cells to, vd_cells x, int64_t rows, int64_t c, float scale);
    /* vd_attention over all its sequences; scratch of attention_scratch bytes, 64-byte aligned. */
    void (*attention)(const vd_attention *args, vd_dtype dtype, const void *qkv, void *to, void *scratch);
    size_t (*attention_scratch)(const vd_attention *args, vd_dtype dtype);
} vd_kernels;

/* The best table for this machine; `limit` (NULL or "sse2", "avx2", "avx512") caps the choice, for
 * tests. */
const vd_kernels *vd_kernels_choose(const char *limit);

#endif
