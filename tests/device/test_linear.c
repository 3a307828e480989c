/* Linear layers of the CPU backend against float64 loops over the rounded inputs and weights. */
#include "device/run_op.h"

enum { NO_RESIDUAL, OTHER_MEMORY, SAME_MEMORY };

typedef struct linear_case {
    vd_shape src;
    int64_t k;
    vd_norm_kind norm;
    int groups;
    int64_t runs; /* of bias_value; 0: a constant bias; -1: none */
    vd_act act;
    int residual;
    double mean; /* of the input, whose deviation is 1.2 */
} linear_case;

static const linear_case cases[] = {
    {{2, 4, 4, 64}, 192, VD_NORM_LAYER, 0, -1, VD_ACT_NONE, NO_RESIDUAL, 0},
    {{2, 4, 4, 64}, 64, VD_NORM_NONE, 0, 0, VD_ACT_NONE, SAME_MEMORY, 0},
    {{2, 4, 4, 64}, 64, VD_NORM_NONE, 0, 0, VD_ACT_NONE, OTHER_MEMORY, 0},
    {{3, 5, 7, 32}, 32, VD_NORM_GROUP, 8, 0, VD_ACT_NONE, NO_RESIDUAL, 0},
    {{3, 1, 1, 37}, 5, VD_NORM_GROUP, 1, 0, VD_ACT_NONE, OTHER_MEMORY, 0},
    {{1, 1, 1, 64}, 256, VD_NORM_NONE, 0, 0, VD_ACT_SILU, NO_RESIDUAL, 0},
    {{1, 1, 1, 96}, 37, VD_NORM_NONE, 0, -1, VD_ACT_GELU, NO_RESIDUAL, 0},
    {{1, 1, 5, 37}, 37, VD_NORM_LAYER, 0, 0, VD_ACT_QUICK_GELU, SAME_MEMORY, 0},
    {{1, 1, 5, 37}, 41, VD_NORM_NONE, 0, 0, VD_ACT_GELU, OTHER_MEMORY, 0},
    {{6, 3, 5, 40}, 48, VD_NORM_NONE, 0, 2, VD_ACT_NONE, SAME_MEMORY, 0},
    {{6, 3, 5, 40}, 48, VD_NORM_LAYER, 0, 6, VD_ACT_NONE, OTHER_MEMORY, 0},
    {{6, 3, 5, 32}, 32, VD_NORM_GROUP, 4, 45, VD_ACT_NONE, NO_RESIDUAL, 0},
    {{3, 2, 3, 32}, 32, VD_NORM_GROUP, 8, 0, VD_ACT_NONE, NO_RESIDUAL, 500},
    {{3, 2, 3, 32}, 32, VD_NORM_LAYER, 0, 0, VD_ACT_NONE, NO_RESIDUAL, 500},
    {{1, 1, 257, 80}, 80, VD_NORM_NONE, 0, 0, VD_ACT_NONE, SAME_MEMORY, 0},
    {{7, 33, 31, 32}, 32, VD_NORM_GROUP, 8, 0, VD_ACT_NONE, SAME_MEMORY, 0},
    {{7, 33, 31, 32}, 96, VD_NORM_LAYER, 0, 0, VD_ACT_NONE, NO_RESIDUAL, 0},
    {{2, 61, 41, 64}, 64, VD_NORM_NONE, 0, 2, VD_ACT_SILU, OTHER_MEMORY, 0},
    {{1, 1, 9, 1}, 3, VD_NORM_NONE, 0, 0, VD_ACT_NONE, NO_RESIDUAL, 0},
    {{1, 1, 3, 1280}, 320, VD_NORM_NONE, 0, 0, VD_ACT_NONE, NO_RESIDUAL, 0},
};
enum { CASES = sizeof cases / sizeof *cases };

/* The result in double; `t` holds the inputs. */
static double *expected_of(const op_case *t, const vd_linear *op, const linear_case *q,
                           const op_constant *const k[4]) {
    const op_constant *weight = k[0], *bias = k[1], *gamma = k[2], *beta = k[3];
    int64_t rows = vd_shape_rows(q->src), c = q->src.c;
    double *y = op_doubles(t, op->src), *w = op_constant_doubles(weight, t->program.dtype);
    double *z = calloc((size_t)(rows * q->k), sizeof *z);
    assert_non_null(z);
    if (q->norm == VD_NORM_GROUP)
        op_group_norm(y, q->src.n, q->src.h * q->src.w, c, q->groups, (double)op->norm.eps, gamma, beta,
                      false);
    if (q->norm == VD_NORM_LAYER)
        op_layer_norm(y, rows, c, (double)op->norm.eps, gamma, beta);
    for (int64_t at = 0; at < rows * q->k; at++) {
        int64_t row = at / q->k, out = at % q->k;
        for (int64_t i = 0; i < c; i++)
            z[at] += y[row * c + i] * w[out * c + i];
        if (op->bias)
            z[at] += (double)op_constant_at(bias, out);
        if (op->bias_value != VD_NONE)
            z[at] += op_get(t, op->bias_value, row / (rows / q->runs) * q->k + out);
        z[at] = op_activation(q->act, z[at]);
        if (op->residual != VD_NONE)
            z[at] += op_get(t, op->residual, at);
    }
    free(y);
    free(w);
    return z;
}

static void run_case(op_env *env, const linear_case *q, vd_dtype dtype, vd_dtype result) {
    int64_t c = q->src.c;
    vd_shape to = {q->src.n, q->src.h, q->src.w, q->k};
    const op_constant *k[4] = {op_constant_new(env, q->k, c, 1, 1, 3, 1 / sqrt((double)c), 0),
                               op_constant_new(env, q->k, 1, 1, 1, 4, 1, 0),
                               op_constant_new(env, c, 1, 1, 1, 5, 0.5, 1),
                               op_constant_new(env, c, 1, 1, 1, 6, 0.5, 0)};
    op_case t;
    op_begin(&t, dtype);
    vd_linear op = VD_LINEAR(.src = op_tensor(&t, dtype, q->src), .weight = &k[0]->base, .act = q->act);
    op_random(&t, op.src, 7, 2, q->mean + 0.5);
    if (q->norm)
        op.norm = (vd_norm){q->norm, &k[2]->base, &k[3]->base, q->groups, 1e-5f, false};
    if (q->runs == 0)
        op.bias = &k[1]->base;
    if (q->runs > 0) {
        op.bias_value = op_tensor(&t, VD_F32, (vd_shape){q->runs, 1, 1, q->k});
        op_random(&t, op.bias_value, 9, 1, 0);
    }
    op.dst = op_tensor(&t, result, to);
    if (q->residual)
        op.residual = q->residual == SAME_MEMORY ? op_alias(&t, op.dst, to) : op_tensor(&t, result, to);
    if (q->residual)
        op_random(&t, op.residual, 10, 1, 0);
    double *z = expected_of(&t, &op, q, k);
    t.op = (vd_op){.kind = VD_OP_LINEAR, .linear = op};
    op_run(env, &t);
    double distance = op_distance(&t, op.dst, z);
    if (!(distance <= op_bound(dtype)))
        fail_msg("case %d, %s to %s: relative error %.3g", (int)(q - cases), vd_dtype_name(dtype),
                 vd_dtype_name(result), distance);
    free(z);
    op_end(&t);
}

static void test_linear(vd_dtype dtype, bool bf16_products) {
    op_env env;
    op_env_open(&env);
    if (bf16_products)
        op_use_bf16_products(&env);
    for (int i = 0; i < CASES; i++) {
        run_case(&env, &cases[i], dtype, dtype);
        if (dtype != VD_F32)
            run_case(&env, &cases[i], dtype, VD_F32);
    }
    op_env_close(&env);
}

static void test_fp32(void **state) {
    (void)state;
    test_linear(VD_F32, false);
}

static void test_fp16(void **state) {
    (void)state;
    test_linear(VD_F16, false);
}

static void test_bf16(void **state) {
    (void)state;
    test_linear(VD_BF16, false);
}

/* Products of bf16 numbers, which this machine may have without preferring them. */
static void test_bf16_products(void **state) {
    (void)state;
    if (!op_has_bf16_products())
        skip();
    test_linear(VD_BF16, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fp32), cmocka_unit_test(test_fp16),
                                       cmocka_unit_test(test_bf16), cmocka_unit_test(test_bf16_products)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
