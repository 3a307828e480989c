/* Attention, on the CPU by every instruction set that this machine has, against float64. */
#include "device/run_op.h"

typedef struct geometry {
    int heads, width;
    int64_t outer, inner, tokens;
    bool temporal; /* tokens stride over the inner axis; else inner is 1 and tokens are neighbours */
    double scale;  /* of the inputs: scores grow with its square */
} geometry;

static const geometry geometries[] = {
    {1, 1, 1, 1, 1, false, 1},     {2, 64, 2, 1, 1, false, 1},    {3, 37, 2, 1, 17, false, 1},
    {2, 4, 1, 1, 300, false, 1},   {3, 8, 2, 1, 130, false, 1},   {1, 40, 1, 1, 96, false, 1},
    {2, 160, 1, 1, 65, false, 1},  {2, 64, 1, 1, 1024, false, 1}, {16, 80, 1, 1, 257, false, 1},
    {1, 512, 1, 1, 144, false, 1}, {5, 64, 2, 9, 14, true, 1},    {2, 64, 2, 7, 25, true, 1},
    {4, 8, 1, 33, 3, true, 1},     {2, 4, 2, 5, 2, true, 1},      {3, 5, 2, 3, 32, true, 1},
    {2, 64, 1, 1, 200, false, 8},  {1, 37, 1, 5, 14, true, 7.0},  {1, 4, 1, 1, 520, false, 8},
    {1, 65, 1, 1, 63, false, 1},   {1, 512, 1, 1, 9, false, 8},
};

static vd_attention attention_of(const geometry *g) {
    vd_attention a = {
        .heads = g->heads, .width = g->width, .outer = g->outer, .inner = g->inner, .tokens = g->tokens};
    a.outer_stride = g->inner * g->tokens;
    a.inner_stride = g->temporal ? 1 : g->tokens;
    a.token_stride = g->temporal ? g->inner : 1;
    a.scale = (float)(1 / sqrt(g->width));
    return a;
}

/* Row of token t of sequence s. */
static int64_t row_at(const vd_attention *a, int64_t s, int64_t t) {
    return s / a->inner * a->outer_stride + s % a->inner * a->inner_stride + t * a->token_stride;
}

/* The result of one query, in float64; the largest |score| that it met goes to `peak`. */
static void exact(const double *qkv, const vd_attention *a, int64_t s, int64_t t, int head, double *out,
                  double *score, double *peak) {
    int64_t wide = (int64_t)a->heads * a->width, query = row_at(a, s, t) * 3 * wide + head * a->width;
    double max = -INFINITY, sum = 0;
    for (int64_t u = 0; u < a->tokens; u++) {
        int64_t key = row_at(a, s, u) * 3 * wide + wide + head * a->width;
        score[u] = 0;
        for (int d = 0; d < a->width; d++)
            score[u] += qkv[query + d] * qkv[key + d] * a->scale;
        max = fmax(max, score[u]);
        *peak = fmax(*peak, fabs(score[u]));
    }
    memset(out, 0, (size_t)a->width * sizeof *out);
    for (int64_t u = 0; u < a->tokens; u++) {
        int64_t value = row_at(a, s, u) * 3 * wide + 2 * wide + head * a->width;
        double p = exp(score[u] - max);
        sum += p;
        for (int d = 0; d < a->width; d++)
            out[d] += p * qkv[value + d];
    }
    for (int d = 0; d < a->width; d++)
        out[d] /= sum;
}

/* Compares about `samples` queries, the last token of each sequence among them; returns the relative
 * distance. */
static double distance(const op_case *c, vd_value qkv, vd_value dst, const vd_attention *a, int64_t samples,
                       double *peak) {
    int64_t sequences = a->outer * a->inner, all = sequences * a->tokens * a->heads;
    int64_t stride = all > samples ? all / samples | 1 : 1;
    double *out = malloc((size_t)a->width * sizeof *out), *score = malloc((size_t)a->tokens * sizeof *score);
    double difference = 0, norm = 0, *values = op_doubles(c, qkv);
    assert_true(out && score);
    for (int64_t i = all - 1; i >= 0; i -= stride) {
        int64_t t = i % a->tokens, s = i / a->tokens % sequences;
        int head = (int)(i / a->tokens / sequences);
        exact(values, a, s, t, head, out, score, peak);
        for (int d = 0; d < a->width; d++) {
            double got = op_get(c, dst, (row_at(a, s, t) * a->heads + head) * a->width + d);
            difference += (got - out[d]) * (got - out[d]);
            norm += out[d] * out[d];
        }
    }
    free(values);
    free(out);
    free(score);
    return sqrt(difference / norm);
}

static void check(op_env *env, const char *variant, const geometry *g, vd_dtype dtype) {
    op_case c;
    vd_attention a = attention_of(g);
    int64_t rows = g->outer * g->inner * g->tokens, wide = (int64_t)g->heads * g->width;
    op_begin(&c, dtype);
    vd_value qkv = op_tensor(&c, dtype, (vd_shape){1, 1, rows, 3 * wide});
    vd_value dst = op_tensor(&c, dtype, (vd_shape){1, 1, rows, wide});
    op_random(&c, qkv, 1, 2 * g->scale, 0);
    a.qkv = qkv;
    a.dst = dst;
    c.op = (vd_op){.kind = VD_OP_ATTENTION, .attention = a};
    op_run(env, &c);
    double peak = 0, got = distance(&c, qkv, dst, &a, 60, &peak);
    /* A score s is known to |s| * 2^-24 or so, and that error goes into the exponent. */
    double tolerance = 1.5e-6 + peak * 0x1p-23 + (dtype == VD_F32 ? 0 : op_bound(dtype) / 2);
    if (!(got <= tolerance))
        fail_msg(
            "%s, %s, %d heads x %d, %lld x %lld x %lld tokens, scores to %.0f: distance %.2e, allowed %.2e",
            variant, vd_dtype_name(dtype), g->heads, g->width, (long long)g->outer, (long long)g->inner,
            (long long)g->tokens, peak, got, tolerance);
    if (g->scale > 1)
        assert_true(peak > 100);
    op_end(&c);
}

static void check_geometries(void **state) {
    (void)state;
    op_env env;
    const char *variant;
    op_env_open(&env);
    for (int v = 0; (variant = op_use_variant(&env, v)); v++)
        for (size_t i = 0; i < sizeof geometries / sizeof *geometries; i++)
            for (vd_dtype t = VD_F32; t <= VD_BF16; t++)
                check(&env, variant, &geometries[i], t);
    op_env_close(&env);
}

/* A NaN must reach the results of its sequence and of no other. */
static void check_nan(void **state) {
    (void)state;
    const geometry g = {1, 16, 3, 1, 20, false, 1};
    vd_attention a = attention_of(&g);
    op_case c;
    op_begin(&c, VD_F32);
    vd_value qkv = op_tensor(&c, VD_F32, (vd_shape){3, 1, 20, 48}),
             dst = op_tensor(&c, VD_F32, (vd_shape){3, 1, 20, 16});
    op_random(&c, qkv, 2, 1, 0);
    op_set(&c, qkv, (20 + 7) * 48 + 16 + 3, NAN); /* key 7 of sequence 1 */
    a.qkv = qkv;
    a.dst = dst;
    c.op = (vd_op){.kind = VD_OP_ATTENTION, .attention = a};
    op_env env;
    op_env_open(&env);
    op_run(&env, &c);
    op_env_close(&env);
    for (int64_t i = 0; i < 60 * 16; i++)
        assert_int_equal(isnan(op_get(&c, dst, i)) != 0, i / 16 / 20 == 1);
    op_end(&c);
}

static void check_operation(void **state) {
    (void)state;
    op_env env;
    op_case c;
    double peak = 0;
    op_env_open(&env);
    op_begin(&c, VD_F16);
    vd_value qkv = op_tensor(&c, VD_F16, (vd_shape){5, 2, 3, 96}),
             dst = op_tensor(&c, VD_F16, (vd_shape){5, 2, 3, 32});
    vd_attention a = {.qkv = qkv,
                      .dst = dst,
                      .heads = 4,
                      .width = 8,
                      .outer = 1,
                      .inner = 6,
                      .tokens = 5,
                      .outer_stride = 30,
                      .inner_stride = 1,
                      .token_stride = 6,
                      .scale = 0.35355339f};
    op_random(&c, qkv, 3, 2, 0);
    c.op = (vd_op){.kind = VD_OP_ATTENTION, .attention = a};
    op_run(&env, &c);
    assert_true(distance(&c, qkv, dst, &a, 1000, &peak) < op_bound(VD_F16) / 2);
    op_end(&c);
    op_env_close(&env);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_geometries),
        cmocka_unit_test(check_nan),
        cmocka_unit_test(check_operation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
