/* Feed-forward layers of the CPU backend against float64 loops over the rounded inputs and weights. */
#include "device/run_op.h"

enum { NO_MIX, OTHER_MIX };
enum { OWN_DST, DST_IS_SRC, DST_IS_MIX };

typedef struct ff_case {
    vd_shape src;
    int64_t hidden;
    vd_act act;
    int64_t add; /* rows of `add`; 0: none */
    int mix, dst;
} ff_case;

static const ff_case cases[] = {
    {{2, 4, 4, 64}, 256, VD_ACT_GEGLU, 0, NO_MIX, DST_IS_SRC},
    {{2, 4, 4, 64}, 256, VD_ACT_GEGLU, 0, NO_MIX, OWN_DST},
    {{6, 3, 5, 32}, 128, VD_ACT_GEGLU, 3, NO_MIX, DST_IS_SRC},
    {{6, 3, 5, 32}, 128, VD_ACT_GEGLU, 0, OTHER_MIX, DST_IS_MIX},
    {{6, 3, 5, 32}, 128, VD_ACT_GEGLU, 0, OTHER_MIX, DST_IS_SRC},
    {{6, 3, 5, 32}, 128, VD_ACT_GEGLU, 6, OTHER_MIX, OWN_DST},
    {{1, 1, 257, 40}, 37, VD_ACT_QUICK_GELU, 0, NO_MIX, DST_IS_SRC},
    {{1, 1, 5, 37}, 37, VD_ACT_GELU, 1, NO_MIX, OWN_DST},
    {{3, 1, 1, 96}, 41, VD_ACT_GEGLU, 3, OTHER_MIX, DST_IS_MIX},
    {{1, 61, 41, 32}, 128, VD_ACT_GEGLU, 0, OTHER_MIX, DST_IS_MIX},
    {{2, 37, 41, 48}, 192, VD_ACT_GEGLU, 2, NO_MIX, DST_IS_SRC},
};
enum { CASES = sizeof cases / sizeof *cases };

enum { UP_WEIGHT, UP_BIAS, DOWN_WEIGHT, DOWN_BIAS, GAMMA, BETA, CONSTANTS };

/* dst[row] from x[row] = src + add, in double. */
static void expect_row(const ff_case *q, const double *x, const double *normed, const double *up,
                       const double *down, const op_constant *const k[], double *out) {
    int64_t c = q->src.c, width = q->act == VD_ACT_GEGLU ? 2 * q->hidden : q->hidden;
    double *h = malloc((size_t)width * sizeof *h);
    assert_non_null(h);
    for (int64_t i = 0; i < width; i++) {
        h[i] = (double)op_constant_at(k[UP_BIAS], i);
        for (int64_t j = 0; j < c; j++)
            h[i] += normed[j] * up[i * c + j];
    }
    for (int64_t i = 0; i < q->hidden; i++)
        h[i] = q->act == VD_ACT_GEGLU ? h[i] * op_activation(VD_ACT_GELU, h[q->hidden + i])
                                      : op_activation(q->act, h[i]);
    for (int64_t i = 0; i < c; i++) {
        out[i] = x[i] + (double)op_constant_at(k[DOWN_BIAS], i);
        for (int64_t j = 0; j < q->hidden; j++)
            out[i] += h[j] * down[i * q->hidden + j];
    }
    free(h);
}

static double *expected_of(const op_case *t, const vd_feed_forward *op, const ff_case *q,
                           const op_constant *const k[]) {
    int64_t rows = vd_shape_rows(q->src), c = q->src.c, image = q->src.h * q->src.w;
    double *x = op_doubles(t, op->src), *y = op_doubles(t, op->src), *z = op_doubles(t, op->src);
    double *up = op_constant_doubles(k[UP_WEIGHT], t->program.dtype);
    double *down = op_constant_doubles(k[DOWN_WEIGHT], t->program.dtype);
    for (int64_t i = 0; i < rows * c && q->add; i++)
        x[i] = y[i] += op_get(t, op->add, i / c / image % q->add * c + i % c);
    op_layer_norm(y, rows, c, (double)op->norm.eps, k[GAMMA], k[BETA]);
    for (int64_t r = 0; r < rows; r++)
        expect_row(q, x + r * c, y + r * c, up, down, k, z + r * c);
    for (int64_t i = 0; i < rows * c && q->mix; i++)
        z[i] = (double)op->alpha * op_get(t, op->mix, i) + (1 - (double)op->alpha) * z[i];
    free(x);
    free(y);
    free(up);
    free(down);
    return z;
}

static void run_case(op_env *env, const ff_case *q, vd_dtype dtype) {
    int64_t c = q->src.c, width = q->act == VD_ACT_GEGLU ? 2 * q->hidden : q->hidden;
    const op_constant *k[CONSTANTS] = {
        op_constant_new(env, width, c, 1, 1, 1, 1 / sqrt((double)c), 0),
        op_constant_new(env, width, 1, 1, 1, 2, 1, 0),
        op_constant_new(env, c, q->hidden, 1, 1, 3, 1 / sqrt((double)q->hidden), 0),
        op_constant_new(env, c, 1, 1, 1, 4, 1, 0),
        op_constant_new(env, c, 1, 1, 1, 5, 0.5, 1),
        op_constant_new(env, c, 1, 1, 1, 6, 0.5, 0),
    };
    op_case t;
    op_begin(&t, dtype);
    vd_feed_forward op = VD_FEED_FORWARD(.src = op_tensor(&t, dtype, q->src), .act = q->act, .alpha = 0.3f);
    op.norm = (vd_norm){VD_NORM_LAYER, &k[GAMMA]->base, &k[BETA]->base, 0, 1e-5f, false};
    op.up_weight = &k[UP_WEIGHT]->base;
    op.up_bias = &k[UP_BIAS]->base;
    op.down_weight = &k[DOWN_WEIGHT]->base;
    op.down_bias = &k[DOWN_BIAS]->base;
    op_random(&t, op.src, 7, 2, 0.5);
    if (q->add) {
        op.add = op_tensor(&t, VD_F32, (vd_shape){q->add, 1, 1, c});
        op_random(&t, op.add, 8, 1, 0);
    }
    if (q->mix) {
        op.mix = op_tensor(&t, dtype, q->src);
        op_random(&t, op.mix, 9, 2, 0);
    }
    op.dst = q->dst == OWN_DST ? op_tensor(&t, dtype, q->src)
                               : op_alias(&t, q->dst == DST_IS_SRC ? op.src : op.mix, q->src);
    double *z = expected_of(&t, &op, q, k);
    t.op = (vd_op){.kind = VD_OP_FEED_FORWARD, .feed_forward = op};
    op_run(env, &t);
    double distance = op_distance(&t, op.dst, z);
    if (!(distance <= op_bound(dtype)))
        fail_msg("case %d, %s: relative error %.3g", (int)(q - cases), vd_dtype_name(dtype), distance);
    free(z);
    op_end(&t);
}

static void test_feed_forward(vd_dtype dtype, bool bf16_products) {
    op_env env;
    op_env_open(&env);
    if (bf16_products)
        op_use_bf16_products(&env);
    for (int i = 0; i < CASES; i++)
        run_case(&env, &cases[i], dtype);
    op_env_close(&env);
}

static void test_fp32(void **state) {
    (void)state;
    test_feed_forward(VD_F32, false);
}

static void test_fp16(void **state) {
    (void)state;
    test_feed_forward(VD_F16, false);
}

static void test_bf16(void **state) {
    (void)state;
    test_feed_forward(VD_BF16, false);
}

/* Products of bf16 numbers, which this machine may have without preferring them. */
static void test_bf16_products(void **state) {
    (void)state;
    if (!op_has_bf16_products())
        skip();
    test_feed_forward(VD_BF16, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fp32), cmocka_unit_test(test_fp16),
                                       cmocka_unit_test(test_bf16), cmocka_unit_test(test_bf16_products)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
