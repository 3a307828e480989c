/* Convolutions of the CPU backend against float64 loops over the rounded inputs and weights. */
#include "device/run_op.h"

#include <stdio.h>

enum { NO_RESIDUAL, OTHER_MEMORY, SAME_MEMORY };
enum { NO_BIAS, CONSTANT_BIAS, VALUE_BIAS };

typedef struct conv_case {
    const char *what;
    int64_t n, h, w, c0, c1, k, kh, kw;
    int stride, top, left, bottom, right, in_h, in_w, groups;
    bool silu;
    int bias, residual;
} conv_case;

static const conv_case cases[] = {
    {"3x3", 2, 8, 8, 32, 0, 32, 3, 3, 1, 1, 1, 1, 1, 0, 0, 0, 0, CONSTANT_BIAS, NO_RESIDUAL},
    {"3x3 without bias", 1, 5, 7, 16, 0, 24, 3, 3, 1, 1, 1, 1, 1, 0, 0, 0, 0, NO_BIAS, NO_RESIDUAL},
    {"odd channels", 3, 5, 3, 37, 0, 37, 3, 3, 1, 1, 1, 1, 1, 0, 0, 0, 0, CONSTANT_BIAS, OTHER_MEMORY},
    {"to 4 channels", 2, 9, 6, 32, 0, 4, 3, 3, 1, 1, 1, 1, 1, 0, 0, 8, 1, CONSTANT_BIAS, NO_RESIDUAL},
    {"to 3 channels", 2, 6, 9, 64, 0, 3, 3, 3, 1, 1, 1, 1, 1, 0, 0, 32, 1, CONSTANT_BIAS, NO_RESIDUAL},
    {"from 8 channels", 2, 4, 5, 8, 0, 40, 3, 3, 1, 1, 1, 1, 1, 0, 0, 0, 0, CONSTANT_BIAS, NO_RESIDUAL},
    {"from 3 channels", 1, 11, 13, 3, 0, 20, 3, 3, 1, 1, 1, 1, 1, 0, 0, 0, 0, CONSTANT_BIAS, NO_RESIDUAL},
    {"norm, silu, time embedding",
     3,
     6,
     5,
     48,
     0,
     32,
     3,
     3,
     1,
     1,
     1,
     1,
     1,
     0,
     0,
     4,
     1,
     VALUE_BIAS,
     NO_RESIDUAL},
    {"norm, residual in place",
     2,
     7,
     4,
     32,
     0,
     32,
     3,
     3,
     1,
     1,
     1,
     1,
     1,
     0,
     0,
     32,
     1,
     CONSTANT_BIAS,
     SAME_MEMORY},
    {"norm, residual elsewhere",
     2,
     7,
     4,
     32,
     0,
     32,
     3,
     3,
     1,
     1,
     1,
     1,
     1,
     0,
     0,
     8,
     0,
     CONSTANT_BIAS,
     OTHER_MEMORY},
    {"two sources", 2, 4, 4, 32, 16, 32, 3, 3, 1, 1, 1, 1, 1, 0, 0, 8, 1, VALUE_BIAS, SAME_MEMORY},
    {"groups that straddle two sources",
     2,
     3,
     5,
     20,
     40,
     24,
     3,
     3,
     1,
     1,
     1,
     1,
     1,
     0,
     0,
     4,
     1,
     CONSTANT_BIAS,
     NO_RESIDUAL},
    {"two odd sources", 1, 3, 2, 7, 5, 9, 3, 3, 1, 1, 1, 1, 1, 0, 0, 3, 0, NO_BIAS, NO_RESIDUAL},
    {"1x1 pixels", 5, 1, 1, 64, 0, 64, 3, 3, 1, 1, 1, 1, 1, 0, 0, 32, 1, CONSTANT_BIAS, SAME_MEMORY},
    {"1x1 kernel", 3, 4, 5, 40, 0, 24, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, CONSTANT_BIAS, OTHER_MEMORY},
    {"1x1 kernel, 3 channels, norm",
     2,
     4,
     4,
     8,
     0,
     3,
     1,
     1,
     1,
     0,
     0,
     0,
     0,
     0,
     0,
     4,
     1,
     CONSTANT_BIAS,
     NO_RESIDUAL},
    {"stride 2", 2, 8, 6, 32, 0, 32, 3, 3, 2, 1, 1, 1, 1, 0, 0, 0, 0, CONSTANT_BIAS, NO_RESIDUAL},
    {"stride 2, odd size", 1, 9, 7, 24, 0, 20, 3, 3, 2, 1, 1, 1, 1, 0, 0, 0, 0, CONSTANT_BIAS, NO_RESIDUAL},
    {"stride 2, padded below and right",
     2,
     8,
     10,
     32,
     0,
     32,
     3,
     3,
     2,
     0,
     0,
     1,
     1,
     0,
     0,
     0,
     0,
     CONSTANT_BIAS,
     NO_RESIDUAL},
    {"patches", 1, 56, 42, 3, 0, 37, 14, 14, 14, 0, 0, 0, 0, 0, 0, 0, 0, NO_BIAS, NO_RESIDUAL},
    {"patches, residual", 2, 6, 8, 3, 0, 16, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, NO_BIAS, SAME_MEMORY},
    {"nearest twice", 2, 4, 5, 32, 0, 16, 3, 3, 1, 1, 1, 1, 1, 8, 10, 0, 0, CONSTANT_BIAS, NO_RESIDUAL},
    {"twice, odd size", 3, 5, 7, 24, 0, 16, 3, 3, 1, 1, 1, 1, 1, 10, 14, 0, 0, VALUE_BIAS, OTHER_MEMORY},
    {"twice, odd channels", 2, 3, 2, 13, 0, 11, 3, 3, 1, 1, 1, 1, 1, 6, 4, 0, 0, CONSTANT_BIAS, SAME_MEMORY},
    {"twice, odd result", 2, 2, 3, 5, 0, 21, 3, 3, 1, 1, 1, 1, 1, 4, 6, 0, 0, VALUE_BIAS, NO_RESIDUAL},
    {"twice, no bias", 1, 7, 3, 16, 0, 40, 3, 3, 1, 1, 1, 1, 1, 14, 6, 0, 0, NO_BIAS, NO_RESIDUAL},
    {"twice, value", 1, 3, 4, 16, 0, 24, 3, 3, 1, 1, 1, 1, 1, 6, 8, 0, 0, VALUE_BIAS, NO_RESIDUAL},
    {"twice, one row", 2, 1, 4, 16, 0, 8, 3, 3, 1, 1, 1, 1, 1, 2, 8, 0, 0, CONSTANT_BIAS, SAME_MEMORY},
    {"twice, stride 2", 1, 4, 4, 16, 0, 8, 3, 3, 2, 1, 1, 1, 1, 8, 8, 0, 0, CONSTANT_BIAS, NO_RESIDUAL},
    {"twice, other padding", 1, 4, 3, 16, 0, 8, 3, 3, 1, 0, 0, 2, 1, 8, 6, 0, 0, CONSTANT_BIAS, NO_RESIDUAL},
    {"twice, 1x1 kernel", 1, 4, 3, 16, 0, 8, 1, 1, 1, 1, 1, 1, 1, 8, 6, 0, 0, CONSTANT_BIAS, NO_RESIDUAL},
    {"twice in one direction", 1, 4, 3, 16, 0, 8, 3, 3, 1, 1, 1, 1, 1, 8, 5, 0, 0, NO_BIAS, NO_RESIDUAL},
    {"nearest to an odd size",
     2,
     4,
     5,
     24,
     0,
     16,
     3,
     3,
     1,
     1,
     1,
     1,
     1,
     7,
     9,
     0,
     0,
     CONSTANT_BIAS,
     OTHER_MEMORY},
    {"nearest from 1x1", 2, 1, 1, 13, 0, 16, 3, 3, 1, 1, 1, 1, 1, 3, 2, 0, 0, CONSTANT_BIAS, NO_RESIDUAL},
    {"temporal", 2, 7, 12, 32, 0, 32, 3, 1, 1, 1, 0, 1, 0, 0, 0, 8, 1, CONSTANT_BIAS, SAME_MEMORY},
    {"temporal, one frame", 2, 1, 12, 32, 0, 32, 3, 1, 1, 1, 0, 1, 0, 0, 0, 8, 1, VALUE_BIAS, OTHER_MEMORY},
    {"temporal, 3 channels", 1, 7, 77, 3, 0, 3, 3, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0, CONSTANT_BIAS, NO_RESIDUAL},
    {"temporal in columns", 1,          14, 321, 64, 0, 64, 3, 1, 1, 1, 0, 1, 0, 0, 0, 8, 1,
     CONSTANT_BIAS,         SAME_MEMORY},
    {"temporal in columns, residual elsewhere",
     2,
     9,
     523,
     32,
     0,
     48,
     3,
     1,
     1,
     1,
     0,
     1,
     0,
     0,
     0,
     4,
     0,
     VALUE_BIAS,
     OTHER_MEMORY},
    {"bands", 2, 65, 67, 64, 0, 32, 3, 3, 1, 1, 1, 1, 1, 0, 0, 32, 1, CONSTANT_BIAS, SAME_MEMORY},
    {"bands of two sources",
     1,
     71,
     64,
     32,
     24,
     20,
     3,
     3,
     1,
     1,
     1,
     1,
     1,
     0,
     0,
     8,
     1,
     VALUE_BIAS,
     OTHER_MEMORY},
    {"bands, resized", 1, 35, 31, 64, 0, 32, 3, 3, 1, 1, 1, 1, 1, 71, 61, 0, 0, CONSTANT_BIAS, NO_RESIDUAL},
    {"bands, stride 2", 1, 98, 99, 32, 0, 32, 3, 3, 2, 0, 0, 1, 1, 0, 0, 8, 0, CONSTANT_BIAS, NO_RESIDUAL},
    {"many images", 37, 16, 16, 32, 0, 32, 3, 3, 1, 1, 1, 1, 1, 0, 0, 8, 1, CONSTANT_BIAS, SAME_MEMORY},
};
enum { CASES = sizeof cases / sizeof *cases };

/* silu(norm(concat(src, src1))) or the resized source: [n, in_h, in_w, c] in double. */
static double *input_of(const op_case *t, const vd_conv *op, const conv_case *q, const op_constant *gamma,
                        const op_constant *beta) {
    int64_t c = q->c0 + q->c1, ih = q->in_h ? q->in_h : q->h, iw = q->in_w ? q->in_w : q->w;
    double *y = malloc((size_t)(q->n * ih * iw * c) * sizeof *y);
    assert_non_null(y);
    for (int64_t n = 0, at = 0; n < q->n; n++)
        for (int64_t i = 0; i < ih; i++)
            for (int64_t j = 0; j < iw; j++)
                for (int64_t k = 0; k < c; k++, at++) {
                    int64_t pixel = (n * q->h + i * q->h / ih) * q->w + j * q->w / iw;
                    y[at] = k < q->c0 ? op_get(t, op->src, pixel * q->c0 + k)
                                      : op_get(t, op->src1, pixel * q->c1 + k - q->c0);
                }
    if (q->groups)
        op_group_norm(y, q->n, ih * iw, c, q->groups, (double)op->norm.eps, gamma, beta, q->silu);
    return y;
}

static double *expected_of(const op_case *t, const vd_conv *op, const conv_case *q, const double *y,
                           const op_constant *weight, const op_constant *bias) {
    vd_shape d = t->info[op->dst].shape;
    int64_t c = q->c0 + q->c1, ih = q->in_h ? q->in_h : q->h, iw = q->in_w ? q->in_w : q->w;
    double *z =
        op->residual == VD_NONE ? calloc((size_t)vd_shape_count(d), sizeof *z) : op_doubles(t, op->residual);
    double *weights = op_constant_doubles(weight, t->program.dtype);
    assert_non_null(z);
    for (int64_t at = 0; at < vd_shape_count(d); at++) {
        int64_t k = at % d.c, x = at / d.c % d.w, row = at / d.c / d.w % d.h, n = at / d.c / d.w / d.h;
        for (int64_t i = 0; i < q->kh; i++)
            for (int64_t j = 0; j < q->kw; j++) {
                int64_t sy = row * q->stride + i - q->top, sx = x * q->stride + j - q->left;
                if (sy < 0 || sx < 0 || sy >= ih || sx >= iw)
                    continue;
                const double *pixel = y + ((n * ih + sy) * iw + sx) * c;
                const double *w = weights + (k * c * q->kh + i) * q->kw + j;
                for (int64_t e = 0; e < c; e++)
                    z[at] += pixel[e] * w[e * q->kh * q->kw];
            }
        if (op->bias)
            z[at] += (double)op_constant_at(bias, k);
        if (op->bias_value != VD_NONE)
            z[at] += op_get(t, op->bias_value, k);
    }
    free(weights);
    return z;
}

static void run_case(op_env *env, const conv_case *q, vd_dtype dtype, vd_dtype result) {
    int64_t c = q->c0 + q->c1, ih = q->in_h ? q->in_h : q->h, iw = q->in_w ? q->in_w : q->w;
    vd_shape to = {q->n, (ih + q->top + q->bottom - q->kh) / q->stride + 1,
                   (iw + q->left + q->right - q->kw) / q->stride + 1, q->k};
    double fan = 1 / sqrt((double)(c * q->kh * q->kw));
    op_constant *weight = op_constant_new(env, q->k, c, q->kh, q->kw, 3, fan, 0),
                *bias = op_constant_new(env, q->k, 1, 1, 1, 4, 1, 0);
    op_constant *gamma = op_constant_new(env, c, 1, 1, 1, 5, 0.5, 1),
                *beta = op_constant_new(env, c, 1, 1, 1, 6, 0.5, 0);
    op_case t;
    op_begin(&t, dtype);
    vd_conv op = VD_CONV(.src = op_tensor(&t, dtype, (vd_shape){q->n, q->h, q->w, q->c0}),
                         .weight = &weight->base, .in_h = q->in_h, .in_w = q->in_w, .pad_top = q->top,
                         .pad_left = q->left, .pad_bottom = q->bottom, .pad_right = q->right);
    op.stride = q->stride;
    op_random(&t, op.src, 7, 1, 0.5);
    if (q->c1) {
        op.src1 = op_tensor(&t, dtype, (vd_shape){q->n, q->h, q->w, q->c1});
        op_random(&t, op.src1, 8, 2, -0.5);
    }
    if (q->groups)
        op.norm = (vd_norm){VD_NORM_GROUP, &gamma->base, &beta->base, q->groups, 1e-5f, q->silu};
    if (q->bias == CONSTANT_BIAS)
        op.bias = &bias->base;
    if (q->bias == VALUE_BIAS) {
        op.bias_value = op_tensor(&t, VD_F32, vd_vector_shape(q->k));
        op_random(&t, op.bias_value, 9, 1, 0);
    }
    op.dst = op_tensor(&t, result, to);
    if (q->residual)
        op.residual = q->residual == SAME_MEMORY ? op_alias(&t, op.dst, to) : op_tensor(&t, result, to);
    if (q->residual)
        op_random(&t, op.residual, 10, 1, 0);
    double *y = input_of(&t, &op, q, gamma, beta), *z = expected_of(&t, &op, q, y, weight, bias);
    t.op = (vd_op){.kind = VD_OP_CONV, .conv = op};
    op_run(env, &t);
    double distance = op_distance(&t, op.dst, z);
    if (!(distance <= op_bound(dtype)))
        fail_msg("%s, %s to %s: relative error %.3g", q->what, vd_dtype_name(dtype), vd_dtype_name(result),
                 distance);
    free(y);
    free(z);
    op_end(&t);
}

static void test_conv(vd_dtype dtype, bool bf16_products) {
    op_env env;
    op_env_open(&env);
    if (bf16_products)
        op_use_bf16_products(&env);
    for (int i = 0; i < CASES; i++)
        run_case(&env, &cases[i], dtype, dtype);
    if (dtype != VD_F32)
        for (int i = 0; i < CASES; i += 2)
            run_case(&env, &cases[i], dtype, VD_F32);
    op_env_close(&env);
}

static void test_fp32(void **state) {
    (void)state;
    test_conv(VD_F32, false);
}

static void test_fp16(void **state) {
    (void)state;
    test_conv(VD_F16, false);
}

static void test_bf16(void **state) {
    (void)state;
    test_conv(VD_BF16, false);
}

static void test_other_ways(void **state) {
    (void)state;
    const char *way;
    op_env env;
    op_env_open(&env);
    for (int i = 0; (way = op_use_way(&env, i)); i++) {
        print_message("%s\n", way);
        for (int k = 0; k < CASES; k++)
            run_case(&env, &cases[k], VD_F16, VD_F16);
    }
    op_env_close(&env);
}

/* Products of bf16 numbers, which this machine may have without preferring them. */
static void test_bf16_products(void **state) {
    (void)state;
    if (!op_has_bf16_products())
        skip();
    test_conv(VD_BF16, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fp32), cmocka_unit_test(test_fp16),
                                       cmocka_unit_test(test_bf16), cmocka_unit_test(test_other_ways),
                                       cmocka_unit_test(test_bf16_products)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
