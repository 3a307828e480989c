#include "diffusion/preprocess.h"

#include "diffusion/golden.h"

#include <math.h>
#include <string.h>

static vd_fit fit_of(const json_t *row) {
    static const char *const names[] = {"crop", "stretch", "pad"};
    const char *name = json_string_value(json_object_get(row, "fit"));
    for (int i = 0; i < 3; i++)
        if (strcmp(names[i], name) == 0)
            return (vd_fit)i;
    fail_msg("no fit '%s'", name);
    return VD_FIT_CROP;
}

static void *zeroed(size_t count, size_t size) {
    void *out = calloc(count, size);
    assert_non_null(out);
    return out;
}

static void resizes_have_pillow_bits(void **state) {
    (void)state;
    const json_t *row;
    size_t i;
    vd_error err;
    json_array_foreach(json_object_get(golden, "resizes"), i, row) {
        int w0 = item(row, "in", 0), h0 = item(row, "in", 1), w = item(row, "out", 0),
            h = item(row, "out", 1);
        size_t bytes = 3 * (size_t)w * (size_t)h;
        uint8_t *in = pattern(3 * (size_t)w0 * (size_t)h0), *out = zeroed(bytes, 1);
        assert_int_equal(vd_resize_lanczos(in, w0, h0, out, w, h, &err), VD_OK);
        if (crc(out, bytes) != whole(row, "rgb"))
            fail_msg("%dx%d to %dx%d differs from Pillow", w0, h0, w, h);
        free(out);
        free(in);
    }
    assert_true(i >= 12);
}

static void vae_inputs_have_the_reference_bits(void **state) {
    (void)state;
    const json_t *row;
    size_t i;
    vd_error err;
    json_array_foreach(json_object_get(golden, "vae"), i, row) {
        int w0 = item(row, "in", 0), h0 = item(row, "in", 1), w = item(row, "out", 0),
            h = item(row, "out", 1);
        size_t count = 3 * (size_t)w * (size_t)h;
        uint8_t *in = pattern(3 * (size_t)w0 * (size_t)h0);
        float *out = zeroed(count, sizeof(float));
        assert_int_equal(vd_preprocess_vae(in, w0, h0, fit_of(row), w, h, out, &err), VD_OK);
        if (crc(out, count * sizeof(float)) != whole(row, "pixels"))
            fail_msg("%dx%d to %dx%d, fit %d differs", w0, h0, w, h, fit_of(row));
        free(out);
        free(in);
    }
    assert_true(i >= 12);
}

enum { CLIP_COUNT = 3 * VD_CLIP_SIDE * VD_CLIP_SIDE };

static void clip_vector(const json_t *clip, const char *key, float out[3]) {
    for (size_t c = 0; c < 3; c++)
        out[c] = (float)json_number_value(json_array_get(json_object_get(clip, key), c));
}

static void clip_inputs_agree_with_the_reference(void **state) {
    (void)state;
    const json_t *clip = json_object_get(golden, "clip"), *row, *value;
    size_t i, k, stride = (size_t)whole(clip, "stride");
    float mean[3], std[3], worst = 0, *out = zeroed(CLIP_COUNT, sizeof(float));
    vd_error err;
    clip_vector(clip, "mean", mean);
    clip_vector(clip, "std", std);
    json_array_foreach(json_object_get(clip, "rows"), i, row) {
        int w0 = item(row, "in", 0), h0 = item(row, "in", 1);
        uint8_t *in = pattern(3 * (size_t)w0 * (size_t)h0);
        assert_int_equal(vd_preprocess_clip(in, w0, h0, fit_of(row), item(row, "out", 0), item(row, "out", 1),
                                            mean, std, out, &err),
                         VD_OK);
        json_array_foreach(json_object_get(row, "values"), k, value) {
            float gap = fabsf(out[k * stride] - (float)json_number_value(value));
            if (!(gap <= 5e-6f))
                fail_msg("%dx%d fit %d value %zu: %g off", w0, h0, fit_of(row), k * stride, gap);
            worst = fmaxf(worst, gap);
        }
        assert_true(k * stride >= CLIP_COUNT);
        free(in);
    }
    assert_true(i >= 6);
    print_message("largest difference of a CLIP pixel: %.2g\n", worst);
    free(out);
}

/* Both branches: every value of a one-coloured image keeps its colour, whatever the sizes; borders are black.
 */
static void check_grey(int w0, int h0, vd_fit fit) {
    const float zero[3] = {0}, one[3] = {1, 1, 1}, grey = 200 / 255.0f;
    enum { W = 40, H = 24 };
    vd_error err;
    uint8_t *in = zeroed(3 * (size_t)w0 * (size_t)h0, 1);
    float *clip = zeroed(CLIP_COUNT, sizeof(float)), vae[3 * W * H];
    memset(in, 200, 3 * (size_t)w0 * (size_t)h0);
    assert_int_equal(vd_preprocess_clip(in, w0, h0, fit, W, H, zero, one, clip, &err), VD_OK);
    assert_int_equal(vd_preprocess_vae(in, w0, h0, fit, W, H, vae, &err), VD_OK);
    for (int i = 0; i < CLIP_COUNT; i++)
        assert_true(fit == VD_FIT_PAD ? clip[i] < 1.1f : fabsf(clip[i] - grey) < 1e-6f);
    for (int i = 0; i < 3 * W * H; i++)
        assert_true(vae[i] == 2 * grey - 1 || (fit == VD_FIT_PAD && vae[i] == -1));
    assert_true(vae[(H - 1) / 2 * W + (W - 1) / 2] == 2 * grey - 1);
    free(clip);
    free(in);
}

static void any_size_keeps_a_plain_colour(void **state) {
    (void)state;
    const int sizes[][2] = {{1, 1}, {1, 2},    {2, 1},    {1, 900}, {900, 1},
                            {3, 2}, {5000, 3}, {3, 5000}, {40, 24}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (int fit = VD_FIT_CROP; fit <= VD_FIT_PAD; fit++)
            check_grey(sizes[i][0], sizes[i][1], (vd_fit)fit);
}

/* A 224x224 image passes the antialiased resize unchanged (4.1). */
static void clip_size_is_kept(void **state) {
    (void)state;
    const float zero[3] = {0}, one[3] = {1, 1, 1};
    uint8_t *in = pattern(CLIP_COUNT);
    float *out = zeroed(CLIP_COUNT, sizeof(float));
    vd_error err;
    assert_int_equal(
        vd_preprocess_clip(in, VD_CLIP_SIDE, VD_CLIP_SIDE, VD_FIT_STRETCH, 64, 40, zero, one, out, &err),
        VD_OK);
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < CLIP_COUNT / 3; i++)
            assert_true(out[c * (CLIP_COUNT / 3) + i] == (float)in[3 * i + c] / 255);
    free(out);
    free(in);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resizes_have_pillow_bits),
        cmocka_unit_test(vae_inputs_have_the_reference_bits),
        cmocka_unit_test(clip_inputs_agree_with_the_reference),
        cmocka_unit_test(any_size_keeps_a_plain_colour),
        cmocka_unit_test(clip_size_is_kept),
    };
    return cmocka_run_group_tests_name("preprocess", tests, golden_load, golden_free);
}
