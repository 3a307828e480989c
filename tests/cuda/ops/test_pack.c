/* Constants packed for the CUDA backend against plain loops; and the pool that devices share. */
#include "base/half.h"
#include "device/cuda_pool.h"
#include "must.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <cmocka.h>

typedef struct counted {
    vd_constant base;
    float first;
    _Atomic int fills;
} counted;

static float value_of(const counted *c, int64_t i) {
    return c->first + 0.25f * (float)(i % 37) - 0.125f * (float)(i % 11);
}

static vd_code fill(const vd_constant *self, float *out, vd_error *err) {
    (void)err;
    counted *c = (counted *)self;
    atomic_fetch_add(&c->fills, 1);
    for (int64_t i = 0; i < self->dims[0] * self->dims[1] * self->dims[2] * self->dims[3]; i++)
        out[i] = value_of(c, i);
    return VD_OK;
}

static counted constant(int64_t k, int64_t c, int64_t kh, int64_t kw, float first) {
    return (counted){.base = {"constant", {k, c, kh, kw}, fill}, .first = first};
}

static double unpacked(const void *packed, vd_dtype dtype, int64_t i) {
    return dtype == VD_F32   ? ((const float *)packed)[i]
           : dtype == VD_F16 ? vd_f16_to_f32(((const uint16_t *)packed)[i])
                             : vd_bf16_to_f32(((const uint16_t *)packed)[i]);
}

static void *pack(const vd_cuda_packing *p) {
    void *out = test_malloc(vd_cuda_packed_bytes(p));
    must(vd_cuda_pack(p, out, err));
    return out;
}

static void check_near(double got, double expected, vd_dtype dtype) {
    double bound = dtype == VD_F32 ? 1e-6 : dtype == VD_F16 ? 0x1p-11 : 0x1p-8;
    if (fabs(got - expected) > bound * (1 + fabs(expected)))
        fail_msg("%.9g instead of %.9g", got, expected);
}

/* [k, c, kh, kw] becomes [k, kh, kw, c] with zeros where channels and rows were filled up. */
static void test_filter(void **state) {
    (void)state;
    for (vd_dtype dtype = VD_F32; dtype <= VD_BF16; dtype++) {
        counted w = constant(5, 3, 3, 2, -1);
        vd_cuda_packing p = VD_CUDA_PACKING(.constant = &w.base, .layout = VD_CUDA_FILTER, .dtype = dtype,
                                            .pad_k = 8, .pad_c = 8);
        assert_int_equal(vd_cuda_packed_bytes(&p), 8 * 6 * 8 * vd_dtype_bytes(dtype));
        void *packed = pack(&p);
        for (int64_t i = 0; i < 8 * 6 * 8; i++) {
            int64_t k = i / 48, tap = i / 8 % 6, c = i % 8;
            bool there = k < 5 && c < 3;
            check_near(unpacked(packed, dtype, i), there ? value_of(&w, (k * 3 + c) * 6 + tap) : 0, dtype);
        }
        test_free(packed);
    }
}

/* Row `row` of the pixels that a result sees, before nearest neighbour doubled them: down, for -1 too. */
static int64_t halved(int64_t row) {
    return (row + 2) / 2 - 1;
}

/* The weight of source pixel (i - 1 + a + u, j - 1 + b + v) in pixel (2i + a, 2j + b) of the result. */
static double phase_weight(const counted *w, int64_t k, int64_t c, int a, int b, int u, int v) {
    double sum = 0;
    for (int y = 0; y < 3; y++)
        for (int x = 0; x < 3; x++)
            if (halved(a + y - 1) == a - 1 + u && halved(b + x - 1) == b - 1 + v)
                sum += value_of(w, ((k * w->base.dims[1] + c) * 3 + y) * 3 + x);
    return sum;
}

/* [k, c, 3, 3] becomes [4, k, 2, 2, c], each phase filled up; a vector stands there four times. */
static void test_phases(void **state) {
    (void)state;
    enum { K = 5, C = 3, WIDE = 8 };
    for (vd_dtype dtype = VD_F32; dtype <= VD_BF16; dtype++) {
        counted w = constant(K, C, 3, 3, -1), bias = constant(K, 1, 1, 1, 2);
        vd_cuda_packing p = VD_CUDA_PACKING(.constant = &w.base, .layout = VD_CUDA_PHASES, .dtype = dtype,
                                            .pad_k = WIDE, .pad_c = WIDE);
        assert_int_equal(vd_cuda_packed_bytes(&p), 4 * WIDE * 4 * WIDE * vd_dtype_bytes(dtype));
        void *packed = pack(&p);
        for (int i = 0; i < 4 * WIDE * 4 * WIDE; i++) {
            int phase = i / WIDE / 4 / WIDE, k = i / WIDE / 4 % WIDE, tap = i / WIDE % 4, c = i % WIDE;
            bool there = k < K && c < C;
            double want = phase_weight(&w, k, c, phase / 2, phase % 2, tap / 2, tap % 2);
            check_near(unpacked(packed, dtype, i), there ? want : 0, dtype);
        }
        test_free(packed);
        p.constant = &bias.base;
        p.pad_c = 0;
        assert_int_equal(vd_cuda_packed_bytes(&p), 4 * WIDE * vd_dtype_bytes(dtype));
        packed = pack(&p);
        for (int i = 0; i < 4 * WIDE; i++)
            check_near(unpacked(packed, dtype, i), i % WIDE < K ? value_of(&bias, i % WIDE) : 0, dtype);
        test_free(packed);
    }
}

/* A layer norm in the matrix and in the bias behind it, with and without a bias before; the matrix is read
 * once. */
static void test_folded(void **state) {
    (void)state;
    counted w = constant(6, 4, 1, 1, -1), gamma = constant(4, 1, 1, 1, 0.5f), beta = constant(4, 1, 1, 1, 2);
    counted bias = constant(6, 1, 1, 1, 3);
    for (int own = 0; own < 2; own++)
        for (vd_dtype dtype = VD_F32; dtype <= VD_BF16; dtype++) {
            vd_cuda_packing p =
                VD_CUDA_PACKING(.constant = &w.base, .dtype = VD_F32, .gamma = &gamma.base,
                                .beta = &beta.base, .bias = own ? &bias.base : NULL, .bias_dtype = dtype);
            int before = w.fills;
            size_t at = vd_cuda_packed_bias_at(&p);
            assert_int_equal(at, 256);
            assert_int_equal(vd_cuda_packed_bytes(&p), at + 6 * vd_dtype_bytes(dtype));
            char *packed = pack(&p);
            assert_int_equal(w.fills, before + 1);
            for (int64_t k = 0; k < 6; k++) {
                double sum = own ? value_of(&bias, k) : 0;
                for (int64_t c = 0; c < 4; c++) {
                    double value = value_of(&w, k * 4 + c);
                    check_near(((float *)packed)[k * 4 + c], value * value_of(&gamma, c), VD_F32);
                    sum += value * value_of(&beta, c);
                }
                check_near(unpacked(packed + at, dtype, k), sum, dtype);
            }
            test_free(packed);
        }
}

/* No constant. */
static void test_zeros(void **state) {
    (void)state;
    vd_cuda_packing p = VD_CUDA_PACKING(.dtype = VD_F16, .pad_k = 24);
    assert_int_equal(vd_cuda_packed_bytes(&p), 48);
    uint16_t *packed = pack(&p);
    for (int i = 0; i < 24; i++)
        assert_int_equal(packed[i], 0);
    test_free(packed);
}

typedef struct taker {
    vd_cuda_pool *pool;
    counted *constants;
    int count;
} taker;

static void *take_all(void *argument) {
    taker *t = argument;
    for (int i = 0; i < t->count; i++) {
        vd_error error;
        vd_cuda_packed *entry;
        const void *bytes;
        vd_cuda_packing p = VD_CUDA_PACKING(.constant = &t->constants[i].base, .dtype = VD_F32);
        if (vd_cuda_pool_take(t->pool, &p, &entry, &bytes, &error) != VD_OK ||
            ((const float *)bytes)[3] != value_of(&t->constants[i], 3))
            return t;
        vd_cuda_pool_give_back(t->pool, entry);
    }
    return NULL;
}

/* Seven devices: everything is read once. */
static void test_pool(void **state) {
    (void)state;
    enum { DEVICES = 7, CONSTANTS = 40 };
    counted constants[CONSTANTS];
    taker t = {.constants = constants, .count = CONSTANTS};
    pthread_t threads[DEVICES];
    for (int i = 0; i < CONSTANTS; i++)
        constants[i] = constant(64, 17, 1, 1, (float)i);
    must(vd_cuda_pool_open(&t.pool, err));
    for (int i = 0; i < DEVICES; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_all, &t), 0);
    for (int i = 0; i < DEVICES; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    for (int i = 0; i < CONSTANTS; i++)
        assert_int_equal(constants[i].fills, 1);
    vd_cuda_pool_close(t.pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_filter), cmocka_unit_test(test_phases),
                                       cmocka_unit_test(test_folded), cmocka_unit_test(test_zeros),
                                       cmocka_unit_test(test_pool)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
