/* Attention of every kind of width and length, against sums in double. */
#include "kernel_test.h"

#include <stdlib.h>

/* Row of token t in sequence (outer, inner). */
static int64_t row_of(const vdk_attention *a, int64_t outer, int64_t inner, int64_t t) {
    return outer * a->outer_stride + inner * a->inner_stride + t * a->token_stride;
}

/* Weights of query t of a head over all keys. */
static void weights_of(const vdk_attention *a, tensor qkv, int64_t outer, int64_t inner, int head, int64_t t,
                       double *p) {
    int64_t c = a->heads * a->width, q = row_of(a, outer, inner, t) * 3 * c + head * a->width;
    double top = -INFINITY, sum = 0;
    for (int64_t s = 0; s < a->tokens; s++) {
        int64_t k = row_of(a, outer, inner, s) * 3 * c + c + head * a->width;
        p[s] = 0;
        for (int j = 0; j < a->width; j++)
            p[s] += at(qkv, q + j) * at(qkv, k + j);
        p[s] *= a->scale;
        top = fmax(top, p[s]);
    }
    for (int64_t s = 0; s < a->tokens; s++)
        sum += p[s] = exp(p[s] - top);
    for (int64_t s = 0; s < a->tokens; s++)
        p[s] /= sum;
}

static void check_sequence(const vdk_attention *a, tensor qkv, tensor y, int64_t outer, int64_t inner,
                           double fp32) {
    int64_t c = a->heads * a->width;
    double *p = malloc((size_t)a->tokens * sizeof *p);
    assert_non_null(p);
    for (int head = 0; head < a->heads; head++)
        for (int64_t t = 0; t < a->tokens; t++) {
            weights_of(a, qkv, outer, inner, head, t, p);
            for (int j = 0; j < a->width; j++) {
                double want = 0;
                for (int64_t s = 0; s < a->tokens; s++)
                    want += p[s] * at(qkv, row_of(a, outer, inner, s) * 3 * c + 2 * c + head * a->width + j);
                near(y, row_of(a, outer, inner, t) * c + head * a->width + j, want, fp32);
            }
        }
    free(p);
}

/* Spatial where inner is 1, else temporal. Tensor cores round weights to 16 bits. */
static void attend(vd_dtype dtype, int64_t outer, int64_t inner, int64_t tokens, int heads, int width,
                   float spread) {
    pool p = {.random = (uint64_t)(tokens * 1000 + width)};
    int64_t rows = outer * inner * tokens, c = (int64_t)heads * width;
    tensor qkv = drawn(&p, dtype, rows * 3 * c, 0, spread), y = blank(&p, dtype, rows * c);
    vdk_attention a = {.qkv = qkv.data,
                       .y = y.data,
                       .heads = heads,
                       .width = width,
                       .outer = outer,
                       .inner = inner,
                       .tokens = tokens,
                       .outer_stride = inner * tokens,
                       .inner_stride = inner > 1 ? 1 : tokens,
                       .token_stride = inner,
                       .scale = 1.0f / sqrtf((float)width),
                       .dtype = dtype};
    launched(vdk_run_attention(&a, NULL));
    double fp32 = dtype == VD_F16    ? 1e-3
                  : dtype == VD_BF16 ? 8e-3
                                     : 3e-6 * spread * spread; /* as scores grow */
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++)
            check_sequence(&a, qkv, y, o, i, fp32);
    finish(&p);
}

static void temporal(void **state) {
    (void)state;
    static const int64_t lengths[] = {1, 2, 8, 14, 16, 17, 25, 32};
    for (int t = 0; t < FLOAT_TYPES; t++)
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
            attend(float_types[t], 2, 3, lengths[i], 2, 64, 2);
}

static void lengths_around_a_tile(void **state) {
    (void)state;
    static const int64_t lengths[] = {1, 33, 63, 64, 65, 130};
    for (int t = 0; t < FLOAT_TYPES; t++)
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
            attend(float_types[t], 2, 1, lengths[i], 2, 64, 1);
}

/* The ring of tiles goes round, the last tile of keys is full or not. */
static void wide_on_tensor_cores(void **state) {
    (void)state;
    for (int t = 0; t < FLOAT_TYPES; t++) {
        attend(float_types[t], 1, 1, 130, 2, 128, 1);
        attend(float_types[t], 2, 1, 64, 1, 192, 1);
        attend(float_types[t], 1, 1, 65, 1, 512, 1);
    }
    attend(VD_F16, 1, 3, 200, 1, 64, 4);
    attend(VD_F16, 1, 1, 33, 1, 128, 1); /* in less shared memory than before */
}

static void widths(void **state) {
    (void)state;
    static const int sizes[] = {1, 2, 5, 8, 16, 36, 80, 129, 160, 512, 520};
    for (int t = 0; t < FLOAT_TYPES; t++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            attend(float_types[t], 1, 1, 19, 1 + (int)i % 3, sizes[i], 1);
    attend(VD_F32, 1, 1, 70, 1, 1024, 1);
}

/* Scores far apart: weights of 0 and 1, and sums that must be corrected from tile to tile. */
static void sharp(void **state) {
    (void)state;
    attend(VD_F32, 1, 1, 150, 1, 40, 12);
    attend(VD_F16, 1, 2, 31, 1, 64, 6);
}

KERNEL_TESTS(cmocka_unit_test(temporal), cmocka_unit_test(lengths_around_a_tile),
             cmocka_unit_test(wide_on_tensor_cores), cmocka_unit_test(widths), cmocka_unit_test(sharp))
