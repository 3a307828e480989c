/* What stands around the network, bit for bit as svd-spec 1.4 and 8 say it in fp32; and sums over tensors. */
#include "kernel_test.h"

#include "base/hash.h"

static const float sigmas[] = {700.0f, 87.3f, 1.01f, 0.002f, 0.0f};
enum { SIGMAS = sizeof sigmas / sizeof *sigmas };

static tensor floats(pool *p, const float *x, int64_t count) {
    tensor t = blank(p, VD_F32, count);
    memcpy(t.data, x, (size_t)count * sizeof *x);
    return t;
}

static tensor integer(pool *p, int32_t value) {
    tensor t = blank(p, VD_I32, 1);
    *(int32_t *)t.data = value;
    return t;
}

/* `y` is the network's input at `sigma`, rounded once. */
static void check_input(tensor y, tensor latents, tensor image, int64_t c, int halves, float sigma) {
    float divisor = sqrtf(sigma * sigma + 1.0f);
    int64_t rows = latents.count / c, pixels = image.count / c;
    assert_int_equal(y.count, halves * rows * 2 * c);
    for (int64_t i = 0; i < y.count; i++) {
        int64_t row = i / (2 * c), j = i % (2 * c), from = row % rows;
        bool blind = halves == 2 && row < rows;
        float value = j < c   ? ((float *)latents.data)[from * c + j] / divisor
                      : blind ? 0.0f
                              : ((float *)image.data)[from % pixels * c + j - c];
        uint16_t half = y.dtype == VD_F16 ? vd_f32_to_f16(value) : vd_f32_to_bf16(value);
        const void *want = y.dtype == VD_F32 ? (const void *)&value : &half;
        assert_memory_equal((char *)y.data + (size_t)i * bytes_of(y.dtype), want, bytes_of(y.dtype));
    }
}

static void input_case(vd_dtype dtype, int64_t frames, int64_t pixels, int64_t c, int halves, int step) {
    pool p = {.random = (uint64_t)(pixels + step)};
    tensor latents = drawn(&p, VD_F32, frames * pixels * c, 0, 700),
           image = drawn(&p, VD_F32, pixels * c, 0, 1);
    tensor y = blank(&p, dtype, halves * frames * pixels * 2 * c);
    tensor table = floats(&p, sigmas, SIGMAS), index = integer(&p, step);
    vdk_unet_input a = {latents.data, image.data, table.data, index.data, y.data,
                        frames,       pixels,     c,          halves,     dtype};
    launched(vdk_run_unet_input(&a, NULL));
    check_input(y, latents, image, c, halves, sigmas[step]);
    finish(&p);
}

static void inputs(void **state) {
    (void)state;
    for (int t = 0; t < FLOAT_TYPES; t++)
        for (int step = 0; step < SIGMAS - 1; step++)
            for (int halves = 1; halves <= 2; halves++) {
                input_case(float_types[t], 3, 35, 4, halves, step);
                input_case(float_types[t], 2, 7, 1, halves, step);
                input_case(float_types[t], 5, 1, 3, halves, step);
                input_case(float_types[t], 1, 300, 8, halves, step);
            }
}

/* `wanted`: with the next input, of type `dtype`. */
static void euler_case(vd_dtype dtype, bool wanted, int64_t frames, int64_t pixels, int64_t c, int halves,
                       int step) {
    pool p = {.random = (uint64_t)(pixels + step)};
    int64_t frame = pixels * c, all = frames * frame;
    tensor v = drawn(&p, VD_F32, halves * all, 0, 3), guidance = drawn(&p, VD_F32, frames, 2, 1);
    tensor latents = drawn(&p, VD_F32, all, 0, sigmas[step]), before = copied(&p, latents);
    tensor table = floats(&p, sigmas, SIGMAS), index = integer(&p, step);
    tensor image = drawn(&p, VD_F32, frame, 0, 1), next = blank(&p, dtype, 2 * halves * all);
    vdk_euler_step a = {.v = v.data,
                        .guidance = guidance.data,
                        .sigmas = table.data,
                        .image = wanted ? image.data : NULL,
                        .step = index.data,
                        .latents = latents.data,
                        .next = wanted ? next.data : NULL,
                        .frames = frames,
                        .pixels = pixels,
                        .c = c,
                        .halves = halves,
                        .dtype = dtype};
    launched(vdk_run_euler_step(&a, NULL));
    const float *sigma = sigmas + step, *with = v.data;
    float q = sigma[0] * sigma[0] + 1.0f, factor = -sigma[0] / sqrtf(q), change = sigma[1] - sigma[0];
    for (int64_t i = 0; i < all; i++) {
        float value = with[i], x = ((float *)before.data)[i];
        if (halves == 2)
            value = with[i] + ((float *)guidance.data)[i / frame] * (with[all + i] - with[i]);
        float x0 = value * factor + x / q;
        float d = (x - x0) / sigma[0];
        float want = x + d * change;
        assert_memory_equal((float *)latents.data + i, &want, sizeof want);
    }
    assert_int_equal(*(int32_t *)index.data, step + 1);
    if (wanted)
        check_input(next, latents, image, c, halves, sigmas[step + 1]);
    finish(&p);
}

static void euler_steps(void **state) {
    (void)state;
    for (int t = 0; t < FLOAT_TYPES; t++)
        for (int step = 0; step < SIGMAS - 1; step++)
            for (int halves = 1; halves <= 2; halves++) {
                euler_case(float_types[t], true, 3, 35, 4, halves, step);
                euler_case(float_types[t], true, 14, 1, 1, halves, step);
                euler_case(float_types[t], true, 2, 7, 3, halves, step);
                euler_case(float_types[t], true, 1, 300, 8, halves, step);
                euler_case(float_types[t], false, 5, 9, 4, halves, step);
            }
}

static void rows_of_tables(void **state) {
    (void)state;
    for (int32_t index = -1; index <= 3; index++) {
        pool p = {.random = 11};
        tensor table = drawn(&p, VD_F32, 3 * 517, 0, 1), y = blank(&p, VD_F32, 517),
               at_row = integer(&p, index);
        launched(vdk_run_gather_row(table.data, at_row.data, y.data, 3, 517, NULL));
        for (int64_t j = 0; j < 517; j++)
            if (index < 0 || index > 2)
                assert_true(isnan(at(y, j)));
            else
                assert_true(at(y, j) == at(table, index * 517 + j));
        finish(&p);
    }
}

static void sinusoid_case(vd_dtype dtype, int64_t count, int64_t dim, bool given) {
    pool p = {.random = 13};
    tensor positions = drawn(&p, VD_F32, count, 0, 500),
           frequencies = drawn(&p, VD_F32, dim / 2 + 1, 0.5f, 0.5f);
    tensor y = blank(&p, dtype, count * dim);
    launched(
        vdk_run_sinusoid(given ? positions.data : NULL, frequencies.data, y.data, count, dim, dtype, NULL));
    for (int64_t i = 0; i < y.count; i++) {
        int64_t r = i / dim, j = i % dim, half = dim / 2;
        float position = given ? (float)at(positions, r) : (float)r;
        float angle = position * (float)at(frequencies, j < half ? j : j - half < half ? j - half : 0);
        near(y, i, j < half ? cos(angle) : j < 2 * half ? sin(angle) : 0, 1e-6);
    }
    finish(&p);
}

static void sinusoids(void **state) {
    (void)state;
    for (int t = 0; t < FLOAT_TYPES; t++) {
        sinusoid_case(float_types[t], 1, 1, true);
        sinusoid_case(float_types[t], 5, 37, true);
        sinusoid_case(float_types[t], 14, 320, false);
    }
}

static void checksums(void **state) {
    (void)state;
    static const int64_t sizes[] = {0, 4, 12, 16, 20, 4096, 70004, 4500000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pool p = {.random = i};
        tensor x = drawn(&p, VD_F32, sizes[i] / 4, 0, 1), sum = blank(&p, VD_U64, 1);
        tensor scratch = blank(&p, VD_U8, VDK_REDUCE_SCRATCH);
        launched(vdk_run_checksum(x.data, (size_t)sizes[i], sum.data, scratch.data, NULL));
        assert_true(*(uint64_t *)sum.data == vd_hash64(x.data, (size_t)sizes[i]));
        finish(&p);
    }
}

static void nonfinite_case(vd_dtype dtype, int64_t elements, int bad) {
    pool p = {.random = (uint64_t)elements};
    tensor x = drawn(&p, dtype, elements, 0, 1), count = integer(&p, 5);
    tensor scratch = blank(&p, VD_U8, VDK_REDUCE_SCRATCH);
    for (int i = 0; i < bad; i++)
        put(x, elements - 1 - i * (elements / bad), i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY);
    put(x, 0, dtype == VD_F16 ? 65504.0f : 3e38f); /* large, but a number */
    launched(vdk_run_nonfinite(x.data, dtype, elements, count.data, scratch.data, NULL));
    assert_int_equal(*(int32_t *)count.data, 5 + bad);
    finish(&p);
}

static void nonfinites(void **state) {
    (void)state;
    for (int t = 0; t < FLOAT_TYPES; t++) {
        nonfinite_case(float_types[t], 2, 1);
        nonfinite_case(float_types[t], 15, 3);
        nonfinite_case(float_types[t], 4097, 7);
        nonfinite_case(float_types[t], 1200001, 11);
    }
}

KERNEL_TESTS(cmocka_unit_test(inputs), cmocka_unit_test(euler_steps), cmocka_unit_test(rows_of_tables),
             cmocka_unit_test(sinusoids), cmocka_unit_test(checksums), cmocka_unit_test(nonfinites))
