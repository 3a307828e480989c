/* Kernels that go element by element, against loops in double or against what they must give bit for bit. */
#include "kernel_test.h"

static double gelu(double x) {
    return 0.5 * x * erfc(-x * sqrt(0.5));
}

static double activated(vdk_act act, double x) {
    return act == VDK_ACT_SILU         ? x / (1 + exp(-x))
           : act == VDK_ACT_GELU       ? gelu(x)
           : act == VDK_ACT_QUICK_GELU ? x / (1 + exp(-1.702 * x))
                                       : x;
}

/* x, bias and residual to y, element (r, j). */
static double activate_one(const vdk_activate *a, tensor x, tensor bias, tensor residual, int64_t r,
                           int64_t j) {
    int64_t pitch = a->act == VDK_ACT_GEGLU ? 2 * a->c : a->c, run = a->bias ? r / (a->rows / a->runs) : 0;
    double value = at(x, r * pitch + j) + (a->bias ? at(bias, run * pitch + j) : 0);
    if (a->act == VDK_ACT_GEGLU)
        value *= gelu(at(x, r * pitch + a->c + j) + (a->bias ? at(bias, run * pitch + a->c + j) : 0));
    else
        value = activated(a->act, value);
    return value + (a->residual ? at(residual, r * a->c + j) : 0);
}

static void activate_case(vdk_activate a, bool with_bias, bool with_residual) {
    pool p = {.random = (uint64_t)(a.rows * 31 + a.c)};
    int64_t columns = a.act == VDK_ACT_GEGLU ? 2 * a.c : a.c;
    tensor x = drawn(&p, a.from, a.rows * columns, 0, 6), bias = drawn(&p, VD_F32, a.runs * columns, 0, 1);
    tensor residual = drawn(&p, a.to, a.rows * a.c, 0, 1),
           y = with_residual ? copied(&p, residual) : blank(&p, a.to, a.rows * a.c);
    a.x = x.data, a.y = y.data;
    a.bias = with_bias ? bias.data : NULL;
    a.residual = with_residual ? y.data : NULL; /* in place */
    launched(vdk_run_activate(&a, NULL));
    for (int64_t i = 0; i < y.count; i++)
        near(y, i, activate_one(&a, x, bias, residual, i / a.c, i % a.c), 1e-6);
    finish(&p);
}

static void activations(void **state) {
    (void)state;
    static const int64_t widths[] = {1, 7, 8, 36, 320};
    for (int from = 0; from < FLOAT_TYPES; from++)
        for (int to = 0; to < FLOAT_TYPES; to++)
            for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
                for (int act = VDK_ACT_NONE; act <= VDK_ACT_GEGLU; act++) {
                    vdk_activate a = {.rows = 6,
                                      .c = widths[w],
                                      .runs = 1 + act % 3,
                                      .act = (vdk_act)act,
                                      .from = float_types[from],
                                      .to = float_types[to]};
                    activate_case(a, act % 2 == 0, w % 2 == 0);
                    activate_case(a, true, true);
                }
}

static void many_rows(void **state) {
    (void)state;
    activate_case(
        (vdk_activate){.rows = 4099, .c = 8, .runs = 1, .act = VDK_ACT_GELU, .from = VD_F32, .to = VD_F16},
        true, true);
}

static void cast_case(vd_dtype from, vd_dtype to, int64_t rows, int64_t c, int64_t from_pitch,
                      int64_t to_pitch) {
    pool p = {.random = (uint64_t)(rows + c)};
    tensor x = drawn(&p, from, rows * from_pitch, 0, 100), y = blank(&p, to, rows * to_pitch);
    vdk_cast a = {x.data, y.data, rows, c, from_pitch, to_pitch, 0.5f, from, to};
    launched(vdk_run_cast(&a, NULL));
    tensor want = blank(&p, to, 1);
    for (int64_t i = 0; i < y.count; i++) {
        int64_t r = i / to_pitch, j = i % to_pitch;
        put(want, 0, j < c ? 0.5f * (float)at(x, r * from_pitch + j) : 0.0f);
        assert_memory_equal((char *)y.data + (size_t)i * bytes_of(to), want.data, bytes_of(to));
    }
    finish(&p);
}

static void casts(void **state) {
    (void)state;
    for (int from = 0; from < FLOAT_TYPES; from++)
        for (int to = 0; to < FLOAT_TYPES; to++) {
            vd_dtype a = float_types[from], b = float_types[to];
            cast_case(a, b, 1, 1, 1, 1);
            cast_case(a, b, 67, 8, 8, 8);
            cast_case(a, b, 13, 3, 3, 8);
            cast_case(a, b, 5, 8, 16, 24);
            cast_case(a, b, 5, 17, 19, 17);
        }
}

static void resize_case(vd_dtype t, vdk_resize a) {
    pool p = {.random = 5};
    tensor x = drawn(&p, t, a.n * a.sh * a.sw * a.c, 0, 1), y = blank(&p, t, a.n * a.h * a.w * a.c);
    a.x = x.data, a.y = y.data, a.dtype = t;
    launched(vdk_run_resize(&a, NULL));
    for (int64_t i = 0; i < y.count; i++) {
        int64_t c = i % a.c, w = i / a.c % a.w, h = i / a.c / a.w % a.h, n = i / a.c / a.w / a.h;
        int64_t from = ((n * a.sh + h * a.sh / a.h) * a.sw + w * a.sw / a.w) * a.c + c;
        assert_true(at(y, i) == at(x, from));
    }
    finish(&p);
}

static void resizes(void **state) {
    (void)state;
    for (int t = 0; t < FLOAT_TYPES; t++) {
        resize_case(float_types[t], (vdk_resize){.n = 2, .sh = 3, .sw = 5, .h = 6, .w = 10, .c = 8});
        resize_case(float_types[t], (vdk_resize){.n = 1, .sh = 5, .sw = 7, .h = 9, .w = 13, .c = 3});
        resize_case(float_types[t], (vdk_resize){.n = 3, .sh = 7, .sw = 4, .h = 4, .w = 1, .c = 1});
    }
}

static void unphase_case(vd_dtype t, vdk_unphase a) {
    pool p = {.random = 6};
    tensor x = drawn(&p, t, a.n * (a.h + 1) * (a.w + 1) * 4 * a.c, 0, 1),
           y = blank(&p, t, a.n * 2 * a.h * 2 * a.w * a.c);
    a.x = x.data, a.y = y.data, a.dtype = t;
    launched(vdk_run_unphase(&a, NULL));
    for (int64_t n = 0; n < a.n; n++)
        for (int64_t i = 0; i < a.h; i++)
            for (int64_t j = 0; j < a.w; j++)
                for (int64_t k = 0; k < 4 * a.c; k++) {
                    int64_t u = k / a.c / 2, v = k / a.c % 2, c = k % a.c;
                    int64_t to = ((n * 2 * a.h + 2 * i + u) * 2 * a.w + 2 * j + v) * a.c + c;
                    assert_true(at(y, to) ==
                                at(x, ((n * (a.h + 1) + i + u) * (a.w + 1) + j + v) * 4 * a.c + k));
                }
    finish(&p);
}

static void phases(void **state) {
    (void)state;
    for (int t = 0; t < FLOAT_TYPES; t++) {
        unphase_case(float_types[t], (vdk_unphase){.n = 2, .h = 3, .w = 5, .c = 8});
        unphase_case(float_types[t], (vdk_unphase){.n = 3, .h = 4, .w = 1, .c = 3});
        unphase_case(float_types[t], (vdk_unphase){.n = 1, .h = 1, .w = 1, .c = 1});
        unphase_case(float_types[t], (vdk_unphase){.n = 1, .h = 9, .w = 13, .c = 40});
    }
}

static uint8_t byte_of(float x) {
    float y = x * 0.5f + 0.5f;
    y = y > 0.0f ? y : 0.0f;
    y = y < 1.0f ? y : 1.0f;
    return (uint8_t)(y * 255.0f + 12582912.0f - 12582912.0f);
}

static void frames_case(vd_dtype t, int64_t count) {
    pool p = {.random = (uint64_t)count};
    tensor x = drawn(&p, t, count, 0, 1.2f), y = blank(&p, VD_U8, count);
    for (int64_t i = 0; i < 256 && i + 4 < count; i++)
        put(x, i, ((float)i + 0.5f) / 127.5f - 1.0f); /* halfway */
    put(x, count - 1, NAN);
    if (count > 2)
        put(x, count - 2, -INFINITY), put(x, count - 3, INFINITY);
    launched(vdk_run_frames_u8(x.data, t, y.data, count, NULL));
    for (int64_t i = 0; i < count; i++)
        assert_int_equal(((uint8_t *)y.data)[i], byte_of((float)at(x, i)));
    finish(&p);
}

static void frames(void **state) {
    (void)state;
    for (int t = 0; t < FLOAT_TYPES; t++)
        for (int64_t count = 1; count < 3000; count = count * 3 + 1)
            frames_case(float_types[t], count);
}

static void patches_case(vd_dtype t, vdk_patches a) {
    pool p = {.random = 7};
    tensor x = drawn(&p, t, a.n * a.h * a.w * a.c, 0, 1), y = blank(&p, t, a.rows * a.pitch);
    a.x = x.data, a.y = y.data, a.dtype = t;
    launched(vdk_run_patches(&a, NULL));
    for (int64_t i = 0; i < y.count; i++) {
        int64_t row = a.first + i / a.pitch, j = i % a.pitch, c = j % a.c, kw = j / a.c % a.kw,
                kh = j / a.c / a.kw;
        int64_t n = row / a.ow / a.oh, h = row / a.ow % a.oh * a.stride + kh - a.pad_top;
        int64_t w = row % a.ow * a.stride + kw - a.pad_left;
        bool inside = kh < a.kh && h >= 0 && h < a.h && w >= 0 && w < a.w;
        assert_true(at(y, i) == (inside ? at(x, ((n * a.h + h) * a.w + w) * a.c + c) : 0));
    }
    finish(&p);
}

static void patch_rows(void **state) {
    (void)state;
    for (int t = 0; t < FLOAT_TYPES; t++) {
        vdk_patches a = {.n = 2,
                         .h = 5,
                         .w = 6,
                         .c = 8,
                         .oh = 5,
                         .ow = 6,
                         .rows = 60,
                         .pitch = 72,
                         .kh = 3,
                         .kw = 3,
                         .stride = 1,
                         .pad_top = 1,
                         .pad_left = 1};
        patches_case(float_types[t], a);
        a.pitch = 80, a.first = 17, a.rows = 29;
        patches_case(float_types[t], a);
        a = (vdk_patches){.n = 3,
                          .h = 7,
                          .w = 4,
                          .c = 3,
                          .oh = 3,
                          .ow = 2,
                          .rows = 18,
                          .pitch = 32,
                          .kh = 3,
                          .kw = 3,
                          .stride = 2};
        patches_case(float_types[t], a);
        a = (vdk_patches){.n = 1,
                          .h = 4,
                          .w = 9,
                          .c = 1,
                          .oh = 4,
                          .ow = 9,
                          .rows = 36,
                          .pitch = 3,
                          .kh = 3,
                          .kw = 1,
                          .stride = 1,
                          .pad_top = 1};
        patches_case(float_types[t], a);
    }
}

KERNEL_TESTS(cmocka_unit_test(activations), cmocka_unit_test(many_rows), cmocka_unit_test(casts),
             cmocka_unit_test(resizes), cmocka_unit_test(phases), cmocka_unit_test(frames),
             cmocka_unit_test(patch_rows))
