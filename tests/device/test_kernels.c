/* The row kernels of every instruction set that this machine has, against float64. */
#include "device/kernel_matrix.h"

static const vd_dtype floats[] = {VD_F32, VD_F16, VD_BF16};
static const int64_t widths[] = {1, 3, 4, 31, 32, 37, 96, 320}, heights[] = {1, 2, 7, 100};
#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

/* One combination of sizes and types. */
typedef struct variant {
    const vd_kernels *k;
    vd_dtype to, from;
    int64_t rows, c, gap;
} variant;

static void for_each_variant(void (*test)(const variant *)) {
    FOR_EACH_ISA(k)
    for (int i = 0; i < COUNT(widths) * COUNT(heights) * 9; i++) {
        int size = i / 9;
        variant v = {.k = k, .to = floats[i % 3], .from = floats[i / 3 % 3], .gap = (i + size) % 2 ? 5 : 0};
        v.c = widths[size % COUNT(widths)];
        v.rows = heights[size / COUNT(widths)];
        test(&v);
    }
}

typedef double expected(const void *context, int64_t r, int64_t j);

/* `ulps` of fp32 relative to max(|expected|, floor). */
static void compare(const variant *v, const char *what, const matrix *got, expected *want,
                    const void *context, double ulps, double floor) {
    double tolerance = matrix_tolerance(got->cells.dtype, ulps);
    for (int64_t r = 0; r < v->rows; r++)
        for (int64_t j = 0; j < v->c; j++) {
            double x = want(context, r, j), y = matrix_get(got, r, j);
            if (!(fabs(x - y) <= tolerance * fmax(fabs(x), floor)))
                fail_msg("%s %s, %s from %s, %lld x %lld: [%lld,%lld] is %.9g, expected %.9g", v->k->isa,
                         what, vd_dtype_name(v->to), vd_dtype_name(v->from), (long long)v->rows,
                         (long long)v->c, (long long)r, (long long)j, y, x);
        }
}

/* Inputs of all the formulas below; `values` are those before the kernel ran, so that it may run in place. */
typedef struct inputs {
    const matrix *x, *residual, *mix;
    vd_affine affine;
    double factor;
} inputs;

static float *random_row(int64_t c, uint64_t seed) {
    float *row = op_guarded_new((size_t)c * sizeof *row);
    for (int64_t j = 0; j < c; j++)
        row[j] = (float)op_uniform(seed, (uint64_t)j);
    return row;
}

static void free_row(float *row, int64_t c) {
    op_guarded_free(row, (size_t)c * sizeof *row);
}

static vd_affine random_affine(int64_t c) {
    return (vd_affine){random_row(c, 2), random_row(c, 3), random_row(c, 4)};
}

static void free_affine(vd_affine a, int64_t c) {
    free_row((float *)a.centre, c);
    free_row((float *)a.scale, c);
    free_row((float *)a.shift, c);
}

static double exact_silu(double x) {
    return x / (1 + exp(-x));
}

static double exact_gelu(double x) {
    return x * 0.5 * erfc(-x * sqrt(0.5));
}

static double scaled(const void *context, int64_t r, int64_t j) {
    const inputs *in = context;
    double x = matrix_get(in->x, r, j) - (double)in->affine.centre[j];
    return x * in->affine.scale[j] + in->affine.shift[j];
}

static double scaled_silu(const void *context, int64_t r, int64_t j) {
    return exact_silu(scaled(context, r, j));
}

static double shifted(const void *context, int64_t r, int64_t j) {
    const inputs *in = context;
    return matrix_get(in->x, r, j) + in->affine.shift[j];
}

static void check_affine(const variant *v) {
    matrix x = matrix_random(v->from, v->rows, v->c, v->gap, 1, 4, 0),
           to = matrix_new(v->to, v->rows, v->c, 3);
    inputs in = {.x = &x, .affine = random_affine(v->c)};
    v->k->affine(to.cells, x.cells, v->rows, v->c, in.affine, false);
    compare(v, "affine", &to, scaled, &in, 2, 1);
    v->k->affine(to.cells, x.cells, v->rows, v->c, in.affine, true);
    compare(v, "affine with silu", &to, scaled_silu, &in, 4, 1);
    v->k->add_row(to.cells, x.cells, v->rows, v->c, in.affine.shift);
    compare(v, "add_row", &to, shifted, &in, 1, 0x1p-14);
    free_affine(in.affine, v->c);
    matrix_free(&x);
    matrix_free(&to);
}

static double multiplied(const void *context, int64_t r, int64_t j) {
    const inputs *in = context;
    return matrix_get(in->x, r, j) * in->factor;
}

static double silu(const void *context, int64_t r, int64_t j) {
    return exact_silu(matrix_get(((const inputs *)context)->x, r, j));
}

static double gelu(const void *context, int64_t r, int64_t j) {
    return exact_gelu(matrix_get(((const inputs *)context)->x, r, j));
}

static double quick_gelu(const void *context, int64_t r, int64_t j) {
    double x = matrix_get(((const inputs *)context)->x, r, j);
    return x / (1 + exp(-1.702 * x));
}

static double geglu(const void *context, int64_t r, int64_t j) {
    const matrix *x = ((const inputs *)context)->x;
    return matrix_get(x, r, j) * exact_gelu(matrix_get(x, r, j + x->c / 2));
}

static void check_elementwise(const variant *v) {
    matrix x = matrix_random(v->from, v->rows, v->c, v->gap, 4, 8, 0);
    matrix pair = matrix_random(v->from, v->rows, 2 * v->c, v->gap, 5, 8, 0);
    matrix to = matrix_new(v->to, v->rows, v->c, v->gap);
    inputs in = {.x = &x, .factor = 0.18215f}, both = {.x = &pair};
    v->k->convert(to.cells, x.cells, v->rows, v->c, 0.18215f);
    compare(v, "convert", &to, multiplied, &in, 0.5, 0x1p-14);
    v->k->activate(to.cells, x.cells, v->rows, v->c, VD_ACT_SILU);
    compare(v, "silu", &to, silu, &in, 3, 0x1p-14);
    v->k->activate(to.cells, x.cells, v->rows, v->c, VD_ACT_QUICK_GELU);
    compare(v, "quick_gelu", &to, quick_gelu, &in, 8, 0x1p-14);
    v->k->activate(to.cells, x.cells, v->rows, v->c, VD_ACT_GELU);
    compare(v, "gelu", &to, gelu, &in, 16, 1);
    v->k->activate(to.cells, pair.cells, v->rows, v->c, VD_ACT_GEGLU);
    compare(v, "geglu", &to, geglu, &both, 16, 8);
    matrix_free(&x);
    matrix_free(&pair);
    matrix_free(&to);
}

static double finished(const void *context, int64_t r, int64_t j) {
    const inputs *in = context;
    double y = matrix_get(in->x, r, j) + (in->residual ? matrix_get(in->residual, r, j) : 0);
    return in->mix ? in->factor * matrix_get(in->mix, r, j) + (1 - in->factor) * y : y;
}

static void check_finish(const variant *v) {
    const vd_cells none = {0};
    matrix x = matrix_random(v->from, v->rows, v->c, v->gap, 6, 1, 0);
    matrix residual = matrix_random(v->to, v->rows, v->c, 2, 7, 1, 0);
    matrix mix = matrix_random(v->from == VD_F32 ? VD_BF16 : VD_F32, v->rows, v->c, 0, 8, 1, 0);
    matrix to = matrix_new(v->to, v->rows, v->c, v->gap);
    inputs in = {.x = &x, .factor = 0.3f};
    v->k->finish(to.cells, x.cells, none, none, 0, v->rows, v->c);
    compare(v, "finish, nothing", &to, finished, &in, 1, 0x1p-14);
    in.residual = &residual;
    v->k->finish(to.cells, x.cells, residual.cells, none, 0, v->rows, v->c);
    compare(v, "finish, residual", &to, finished, &in, 1, 1);
    in.mix = &mix;
    v->k->finish(to.cells, x.cells, residual.cells, mix.cells, 0.3f, v->rows, v->c);
    compare(v, "finish, residual and mix", &to, finished, &in, 2, 1);
    in.residual = NULL;
    v->k->finish(to.cells, x.cells, none, mix.cells, 0.3f, v->rows, v->c);
    compare(v, "finish, mix", &to, finished, &in, 2, 1);
    matrix_free(&x);
    matrix_free(&residual);
    matrix_free(&mix);
    matrix_free(&to);
}

static double normalised(const void *context, int64_t r, int64_t j) {
    const inputs *in = context;
    double mean = 0, m2 = 0, c = (double)in->x->c;
    for (int64_t i = 0; i < in->x->c; i++)
        mean += matrix_get(in->x, r, i) / c;
    for (int64_t i = 0; i < in->x->c; i++)
        m2 += pow(matrix_get(in->x, r, i) - mean, 2);
    return (matrix_get(in->x, r, j) - mean) / sqrt(m2 / c + in->factor) * in->affine.scale[j] +
           in->affine.shift[j];
}

static void check_layer_norm(const variant *v) {
    if (v->rows > 7)
        return; /* the expected values are made anew for each element */
    for (double offset = 0; offset <= 1000; offset += 1000) {
        matrix x = matrix_random(v->from, v->rows, v->c, v->gap, 9, 1, offset);
        matrix to = matrix_new(v->to, v->rows, v->c, 1);
        inputs in = {.x = &x, .affine = random_affine(v->c), .factor = 1e-5f};
        v->k->layer_norm(to.cells, x.cells, v->rows, v->c, in.affine.scale, in.affine.shift, 1e-5f);
        compare(v, "layer_norm", &to, normalised, &in, 10, 1);
        free_affine(in.affine, v->c);
        matrix_free(&x);
        matrix_free(&to);
    }
}

/* Statistics of column j in float64, two passes. */
static void exact_stats(const matrix *x, int64_t j, double *mean, double *m2) {
    *mean = *m2 = 0;
    for (int64_t r = 0; r < x->rows; r++)
        *mean += matrix_get(x, r, j);
    *mean /= (double)x->rows;
    for (int64_t r = 0; r < x->rows; r++)
        *m2 += pow(matrix_get(x, r, j) - *mean, 2);
}

static void check_stats_of(const variant *v, const matrix *x) {
    double *mean = op_guarded_new((size_t)v->c * sizeof *mean),
           *m2 = op_guarded_new((size_t)v->c * sizeof *m2);
    v->k->column_stats(x->cells, x->rows, x->c, mean, m2);
    for (int64_t j = 0; j < x->c; j++) {
        double want_mean, want_m2;
        exact_stats(x, j, &want_mean, &want_m2);
        double deviation = sqrt(want_m2 / (double)x->rows);
        if (!(fabs(mean[j] - want_mean) <= 1e-6 * deviation + 1e-12) ||
            !(fabs(m2[j] - want_m2) <= 1e-6 * want_m2 + 1e-20 * want_mean * want_mean))
            fail_msg("%s column_stats, %s, %lld x %lld: column %lld has %.9g %.9g, expected %.9g %.9g",
                     v->k->isa, vd_dtype_name(v->from), (long long)x->rows, (long long)x->c, (long long)j,
                     mean[j], m2[j], want_mean, want_m2);
    }
    op_guarded_free(mean, (size_t)v->c * sizeof *mean);
    op_guarded_free(m2, (size_t)v->c * sizeof *m2);
}

static void check_column_stats(const variant *v) {
    if (v->to != VD_F32)
        return;
    for (double offset = 0; offset <= 1000; offset += 1000) {
        matrix x = matrix_random(v->from, v->rows, v->c, v->gap, 10, 1, offset);
        check_stats_of(v, &x);
        matrix_free(&x);
    }
}

/* The hard cases: one row far from all others at the start or in the middle, many columns, constant columns.
 */
static void check_hard_stats(void **state) {
    (void)state;
    FOR_EACH_ISA(k)
    for (int outlier = 0; outlier < 3; outlier++) {
        variant v = {.k = k, .from = VD_F32, .rows = 1003, .c = 517};
        matrix x = matrix_random(VD_F32, v.rows, v.c, 0, 11, 1, 1000);
        for (int64_t j = 0; j < v.c; j++)
            matrix_set(&x, outlier == 0 ? 0 : 500, j, outlier == 2 ? 1e6 : 0);
        for (int64_t r = 0; r < v.rows; r++)
            matrix_set(&x, r, 3, 7.1);
        check_stats_of(&v, &x);
        matrix_free(&x);
    }
}

static void check_in_place(const variant *v) {
    if (v->to != v->from)
        return;
    matrix x = matrix_random(v->to, v->rows, v->c, v->gap, 12, 4, 0);
    matrix y = matrix_random(v->to, v->rows, v->c, v->gap, 12, 4, 0),
           mix = matrix_random(v->to, v->rows, v->c, v->gap, 13, 4, 0);
    vd_affine a = random_affine(v->c);
    matrix apart = matrix_new(v->to, v->rows, v->c, v->gap);
    v->k->affine(apart.cells, x.cells, v->rows, v->c, a, true);
    v->k->affine(x.cells, x.cells, v->rows, v->c, a, true);
    assert_memory_equal(x.cells.data, apart.cells.data, matrix_bytes(&x));
    v->k->layer_norm(apart.cells, x.cells, v->rows, v->c, a.scale, a.shift, 1e-5f);
    v->k->layer_norm(x.cells, x.cells, v->rows, v->c, a.scale, a.shift, 1e-5f);
    assert_memory_equal(x.cells.data, apart.cells.data, matrix_bytes(&x));
    v->k->activate(apart.cells, x.cells, v->rows, v->c, VD_ACT_GELU);
    v->k->activate(x.cells, x.cells, v->rows, v->c, VD_ACT_GELU);
    assert_memory_equal(x.cells.data, apart.cells.data, matrix_bytes(&x));
    v->k->finish(apart.cells, x.cells, y.cells, mix.cells, 0.3f, v->rows, v->c);
    v->k->finish(y.cells, x.cells, y.cells, mix.cells, 0.3f, v->rows, v->c);
    assert_memory_equal(y.cells.data, apart.cells.data, matrix_bytes(&x));
    v->k->finish(apart.cells, x.cells, y.cells, mix.cells, 0.3f, v->rows, v->c);
    v->k->finish(mix.cells, x.cells, y.cells, mix.cells, 0.3f, v->rows, v->c);
    assert_memory_equal(mix.cells.data, apart.cells.data, matrix_bytes(&x));
    free_affine(a, v->c);
    matrix_free(&x);
    matrix_free(&y);
    matrix_free(&mix);
    matrix_free(&apart);
}

static void same_half(uint16_t got, uint16_t want, uint16_t exponent) {
    bool nan = (want & exponent) == exponent && (want & ~exponent & 0x7fff);
    bool got_nan = (got & exponent) == exponent && (got & ~exponent & 0x7fff);
    if (nan ? !got_nan : got != want)
        fail_msg("half is %04x, expected %04x", got, want);
}

/* Every half to fp32 and back is itself; random bit patterns round as base/half.h says. */
static void check_halves(void **state) {
    (void)state;
    enum { ALL = 65536 };
    matrix half = matrix_new(VD_F16, 1, ALL, 0), single = matrix_new(VD_F32, 1, ALL, 0),
           back = matrix_new(VD_F16, 1, ALL, 0);
    uint16_t *h = half.cells.data, *b = back.cells.data;
    float *f = single.cells.data;
    FOR_EACH_ISA(k)
    for (int brain = 0; brain < 2; brain++) {
        uint16_t exponent = brain ? 0x7f80 : 0x7c00;
        half.cells.dtype = back.cells.dtype = brain ? VD_BF16 : VD_F16;
        for (int i = 0; i < ALL; i++)
            h[i] = (uint16_t)i;
        k->convert(single.cells, half.cells, 1, ALL, 1);
        k->convert(back.cells, single.cells, 1, ALL, 1);
        for (int i = 0; i < ALL; i++) {
            float want = brain ? vd_bf16_to_f32(h[i]) : vd_f16_to_f32(h[i]);
            assert_true(isnan(want) ? isnan(f[i]) : f[i] == want);
            same_half(b[i], h[i], exponent);
        }
        for (int i = 0; i < ALL; i++) {
            uint32_t bits = (uint32_t)((double)UINT32_MAX * 0.5 * (1 + op_uniform(14, (uint64_t)i)));
            memcpy(f + i, &bits, sizeof bits);
        }
        k->convert(back.cells, single.cells, 1, ALL, 1);
        for (int i = 0; i < ALL; i++)
            same_half(b[i], brain ? vd_f32_to_bf16(f[i]) : vd_f32_to_f16(f[i]), exponent);
    }
    half.cells.dtype = back.cells.dtype = VD_F16;
    matrix_free(&half);
    matrix_free(&single);
    matrix_free(&back);
}

/* Activations over the whole range, and what they do to values that are no numbers. */
static void check_range(void **state) {
    (void)state;
    enum { POINTS = 40001 };
    variant v = {.to = VD_F32, .from = VD_F32, .rows = 1, .c = POINTS};
    matrix x = matrix_new(VD_F32, 1, POINTS, 0), to = matrix_new(VD_F32, 1, POINTS, 0);
    inputs in = {.x = &x};
    for (int i = 0; i < POINTS; i++)
        matrix_set(&x, 0, i, (i - POINTS / 2) * 0.005);
    FOR_EACH_ISA(k) {
        v.k = k;
        k->activate(to.cells, x.cells, 1, POINTS, VD_ACT_SILU);
        compare(&v, "silu", &to, silu, &in, 3, 1e-30);
        k->activate(to.cells, x.cells, 1, POINTS, VD_ACT_GELU);
        for (int i = 0; i < POINTS; i++)
            assert_true(fabs(matrix_get(&to, 0, i) - gelu(&in, 0, i)) <=
                        2.2e-7 * fmax(1, fabs(matrix_get(&x, 0, i))));
    }
    const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-42f, 0, 1, -1};
    float result[COUNT(odd)];
    vd_cells from = {(void *)odd, VD_F32, COUNT(odd)}, out = {result, VD_F32, COUNT(odd)};
    FOR_EACH_ISA(k)
    for (vd_act act = VD_ACT_SILU; act <= VD_ACT_QUICK_GELU; act++) {
        k->activate(out, from, 1, COUNT(odd), act);
        assert_true(isnan(result[0]) && result[1] == INFINITY && !isfinite(result[2]) &&
                    result[3] > 2.9999e38f);
        assert_true(fabsf(result[5]) < 1e-41f && result[6] == 0);
    }
    matrix_free(&x);
    matrix_free(&to);
}

static void check_choice(void **state) {
    (void)state;
    assert_string_equal(vd_kernels_choose("sse2")->isa, "sse2");
    assert_ptr_equal(vd_kernels_choose(NULL), vd_kernels_choose("avx512"));
}

#define VARIANTS(name)                                                                                       \
    static void test_##name(void **state) {                                                                  \
        (void)state;                                                                                         \
        for_each_variant(check_##name);                                                                      \
    }
VARIANTS(affine)
VARIANTS(elementwise)
VARIANTS(finish)
VARIANTS(layer_norm)
VARIANTS(column_stats)
VARIANTS(in_place)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_affine),       cmocka_unit_test(test_elementwise),
        cmocka_unit_test(test_finish),       cmocka_unit_test(test_layer_norm),
        cmocka_unit_test(test_column_stats), cmocka_unit_test(check_hard_stats),
        cmocka_unit_test(test_in_place),     cmocka_unit_test(check_halves),
        cmocka_unit_test(check_range),       cmocka_unit_test(check_choice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
