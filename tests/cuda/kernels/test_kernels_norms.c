/* Group and layer norm, against sums in double. */
#include "kernel_test.h"

#include <stdlib.h>

/* ---- group norm ---- */

static double source(const vdk_group_norm *a, tensor x0, tensor x1, int64_t row, int64_t c) {
    return c < a->c0 ? at(x0, row * a->c0 + c) : at(x1, row * a->c1 + c - a->c0);
}

/* Mean and one over the deviation of a group of an image. */
static void group_statistics(const vdk_group_norm *a, tensor x0, tensor x1, int64_t image, int64_t group,
                             double *mean, double *inverse) {
    int64_t per = (a->c0 + a->c1) / a->groups, count = a->rows * per;
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < count; i++)
        sum += source(a, x0, x1, image * a->rows + i / per, group * per + i % per);
    *mean = sum / (double)count;
    for (int64_t i = 0; i < count; i++)
        squares += pow(source(a, x0, x1, image * a->rows + i / per, group * per + i % per) - *mean, 2);
    *inverse = 1 / sqrt(squares / (double)count + a->eps);
}

static void check_group_norm(const vdk_group_norm *a, tensor x0, tensor x1, tensor gamma, tensor beta,
                             tensor y, double fp32) {
    int64_t c = a->c0 + a->c1, per = c / a->groups;
    for (int64_t image = 0; image < a->images; image++)
        for (int64_t group = 0; group < a->groups; group++) {
            double mean, inverse;
            group_statistics(a, x0, x1, image, group, &mean, &inverse);
            for (int64_t i = 0; i < a->rows * per; i++) {
                int64_t row = image * a->rows + i / per, j = group * per + i % per;
                double want = (source(a, x0, x1, row, j) - mean) * inverse * at(gamma, j) + at(beta, j);
                near(y, row * c + j, a->silu ? want / (1 + exp(-want)) : want, fp32);
            }
        }
}

static void group_case(vdk_group_norm a, float mean, float spread, double fp32) {
    pool p = {.random = (uint64_t)(a.rows + a.c0)};
    int64_t c = a.c0 + a.c1;
    tensor x0 = drawn(&p, a.dtype, a.images * a.rows * a.c0, mean, spread);
    tensor x1 = drawn(&p, a.dtype, a.images * a.rows * a.c1, mean, spread);
    tensor gamma = drawn(&p, VD_F32, c, 1, 0.5f), beta = drawn(&p, VD_F32, c, 0, 0.5f);
    tensor y = blank(&p, a.dtype, a.images * a.rows * c);
    tensor scratch = blank(&p, VD_U8, (int64_t)vdk_group_norm_scratch(&a));
    a.x0 = x0.data, a.x1 = a.c1 ? x1.data : NULL, a.gamma = gamma.data, a.beta = beta.data;
    a.y = y.data, a.scratch = scratch.data, a.eps = 1e-5f;
    launched(vdk_run_group_norm(&a, NULL));
    check_group_norm(&a, x0, x1, gamma, beta, y, fp32);
    finish(&p);
}

/* Shapes of the networks and odd ones: scalars, several tiles of columns, groups that tiles share, two
 * sources. */
static void group_norms(void **state) {
    (void)state;
    static const vdk_group_norm shapes[] = {
        {.images = 1, .rows = 1, .c0 = 1, .groups = 1},
        {.images = 3, .rows = 2, .c0 = 64, .groups = 32},
        {.images = 2, .rows = 97, .c0 = 40, .groups = 4},
        {.images = 2, .rows = 35, .c0 = 16, .c1 = 24, .groups = 5},
        {.images = 1, .rows = 31, .c0 = 13, .c1 = 8, .groups = 7},
        {.images = 2, .rows = 19, .c0 = 321, .groups = 3},
        {.images = 1, .rows = 9, .c0 = 2560, .groups = 32},
        {.images = 1, .rows = 2503, .c0 = 8, .groups = 1},
        {.images = 1, .rows = 5, .c0 = 1030, .c1 = 1030, .groups = 20},
    };
    for (int t = 0; t < FLOAT_TYPES; t++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            vdk_group_norm a = shapes[i];
            a.dtype = float_types[t], a.silu = i % 2;
            group_case(a, 0.3f, 2, 3e-6);
        }
}

/* The input's own rounding is part of the input, so the result has no excuse. */
static void mean_of_a_thousand_deviations(void **state) {
    (void)state;
    group_case((vdk_group_norm){.images = 1, .rows = 2503, .c0 = 24, .groups = 3, .dtype = VD_F32}, 1000,
               1.7f, 2e-4);
    group_case((vdk_group_norm){.images = 2, .rows = 3, .c0 = 4, .groups = 2, .dtype = VD_F32}, 1000, 1.7f,
               2e-4);
}

/* One pixel far from all others, which is in the first rows of a chunk. */
static void first_pixel_apart(void **state) {
    (void)state;
    pool p = {.random = 3};
    vdk_group_norm a = {.images = 1, .rows = 4000, .c0 = 8, .groups = 1, .eps = 1e-5f, .dtype = VD_F32};
    tensor x = drawn(&p, VD_F32, a.rows * a.c0, 5, 1), y = blank(&p, VD_F32, a.rows * a.c0);
    tensor gamma = drawn(&p, VD_F32, a.c0, 1, 0), beta = drawn(&p, VD_F32, a.c0, 0, 0);
    tensor scratch = blank(&p, VD_U8, (int64_t)vdk_group_norm_scratch(&a));
    for (int64_t j = 0; j < a.c0; j++)
        put(x, j, 1e4f);
    a.x0 = x.data, a.gamma = gamma.data, a.beta = beta.data, a.y = y.data, a.scratch = scratch.data;
    launched(vdk_run_group_norm(&a, NULL));
    check_group_norm(&a, x, x, gamma, beta, y, 1e-5);
    finish(&p);
}

static void group_norm_gives_the_same_bits(void **state) {
    (void)state;
    pool p = {.random = 9};
    vdk_group_norm a = {.images = 1, .rows = 1000, .c0 = 40, .groups = 4, .eps = 1e-6f, .dtype = VD_F16};
    tensor x = drawn(&p, VD_F16, a.rows * a.c0, 1, 1), gamma = drawn(&p, VD_F32, a.c0, 1, 1);
    tensor first = blank(&p, VD_F16, x.count), second = blank(&p, VD_F16, x.count);
    tensor scratch = blank(&p, VD_U8, (int64_t)vdk_group_norm_scratch(&a));
    a.x0 = x.data, a.gamma = gamma.data, a.beta = gamma.data, a.scratch = scratch.data, a.y = first.data;
    launched(vdk_run_group_norm(&a, NULL));
    a.y = second.data;
    launched(vdk_run_group_norm(&a, NULL));
    assert_memory_equal(first.data, second.data, (size_t)x.count * 2);
    finish(&p);
}

/* ---- layer norm ---- */

typedef struct layer_case {
    vdk_layer_norm a;
    bool add, affine, mix, in_place;
    float mean;
    double fp32;
} layer_case;

static void check_layer_norm(const vdk_layer_norm *a, tensor x, tensor add, tensor gamma, tensor beta,
                             tensor mix, tensor y, tensor carry, double fp32) {
    double *u = malloc((size_t)a->c * sizeof *u);
    assert_non_null(u);
    for (int64_t row = 0; row < a->images * a->rows; row++) {
        double mean = 0, squares = 0;
        for (int64_t j = 0; j < a->c; j++) {
            u[j] = at(x, row * a->c + j) + (a->add ? at(add, row / a->rows % a->add_rows * a->c + j) : 0);
            mean += u[j] / (double)a->c;
        }
        for (int64_t j = 0; j < a->c; j++)
            squares += (u[j] - mean) * (u[j] - mean);
        double inverse = 1 / sqrt(squares / (double)a->c + a->eps);
        for (int64_t j = 0; j < a->c; j++) {
            double want = (u[j] - mean) * inverse;
            near(y, row * a->c + j, a->gamma ? want * at(gamma, j) + at(beta, j) : want, fp32);
            if (a->carry)
                near(carry, row * a->c + j,
                     a->mix ? a->alpha * at(mix, row * a->c + j) + (1 - a->alpha) * u[j] : u[j], 1e-6);
        }
    }
    free(u);
}

static void run_layer_case(layer_case k) {
    pool p = {.random = (uint64_t)(k.a.c + k.a.rows)};
    vdk_layer_norm a = k.a;
    int64_t count = a.images * a.rows * a.c;
    tensor x = drawn(&p, a.dtype, count, k.mean, 1), kept = copied(&p, x),
           mix = drawn(&p, a.dtype, count, 0, 1);
    tensor add = drawn(&p, VD_F32, (a.add_rows ? a.add_rows : 1) * a.c, 0, 1);
    tensor gamma = drawn(&p, VD_F32, a.c, 1, 0.5f), beta = drawn(&p, VD_F32, a.c, 0, 0.5f);
    tensor y = blank(&p, a.dtype, count), carry = k.in_place ? x : blank(&p, a.dtype, count);
    a.x = x.data, a.y = y.data, a.eps = 1e-5f, a.alpha = 0.3f;
    a.add = k.add ? add.data : NULL, a.mix = k.mix ? mix.data : NULL;
    a.gamma = k.affine ? gamma.data : NULL, a.beta = k.affine ? beta.data : NULL;
    a.carry = k.mix || k.in_place ? carry.data : NULL;
    launched(vdk_run_layer_norm(&a, NULL));
    check_layer_norm(&a, kept, add, gamma, beta, mix, y, carry, k.fp32);
    finish(&p);
}

static void layer_norms(void **state) {
    (void)state;
    static const int64_t widths[] = {1, 8, 37, 320, 640, 1280, 1288, 2049};
    for (int t = 0; t < FLOAT_TYPES; t++)
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
            for (int kind = 0; kind < 4; kind++)
                run_layer_case((layer_case){
                    .a = {.images = 5, .rows = 3, .c = widths[w], .add_rows = 2, .dtype = float_types[t]},
                    .add = kind != 0,
                    .affine = kind % 2 == 0,
                    .mix = kind >= 2,
                    .in_place = kind == 3,
                    .mean = 0.5f,
                    .fp32 = 3e-6});
}

static void row_far_from_zero(void **state) {
    (void)state;
    run_layer_case(
        (layer_case){.a = {.images = 1, .rows = 4, .c = 320, .dtype = VD_F32}, .mean = 1000, .fp32 = 2e-4});
}

static void thousands_of_rows(void **state) {
    (void)state;
    run_layer_case((layer_case){
        .a = {.images = 1, .rows = 3001, .c = 8, .dtype = VD_F16}, .affine = true, .fp32 = 3e-6});
}

KERNEL_TESTS(cmocka_unit_test(group_norms), cmocka_unit_test(mean_of_a_thousand_deviations),
             cmocka_unit_test(first_pixel_apart), cmocka_unit_test(group_norm_gives_the_same_bits),
             cmocka_unit_test(layer_norms), cmocka_unit_test(row_far_from_zero),
             cmocka_unit_test(thousands_of_rows))
