/* torch's CPU generator: the values of svd-spec 12.1 and 12.7, and tests/golden/rng.json, written by torch
 * itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/rng.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void words(void **state) {
    (void)state;
    static const struct {
        uint64_t seed;
        uint32_t first, second;
    } cases[] = {{0, 2357136044, 2546248239},
                 {42, 1608637542, 3421126067},
                 {42 + (1ull << 40), 1608637542, 3421126067}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vd_rng rng;
        vd_rng_seed(&rng, cases[i].seed);
        assert_int_equal(vd_rng_u32(&rng), cases[i].first);
        assert_int_equal(vd_rng_u32(&rng), cases[i].second);
    }
}

/* Each literal of the specification has enough digits to name one float. */
static void check_f32(uint64_t seed, size_t count, const float *expected, size_t known) {
    vd_rng rng;
    float values[32];
    vd_rng_seed(&rng, seed);
    vd_rng_normal_f32(&rng, values, count);
    for (size_t i = 0; i < known; i++)
        assert_int_equal(vd_bits_of_f32(values[i]), vd_bits_of_f32(expected[i]));
}

static void specified_f32(void **state) {
    (void)state;
    const float seed0[] = {-1.1258398f,  -1.1523602f, -0.25057858f, -0.4338788f, 0.84871036f, 0.69200915f,
                           -0.31601277f, -2.1152194f, 0.32227492f,  -1.2633348f, 0.3499832f,  0.30813393f,
                           0.11984151f,  1.2376579f,  1.1167772f,   -0.24727815f};
    const float seed42[] = {1.9269153f,    1.4872841f,  0.9007172f,  -2.105521f, 0.67841846f,  -1.2345449f,
                            -0.043067478f, -1.604667f,  -0.7521353f, 1.648723f,  -0.39247864f, -1.4036071f,
                            -0.7278813f,   -0.5594302f, -0.7688389f, 0.7624454f};
    const float tail[] = {1.9269153f,  1.4872841f, 0.9007172f, -2.105521f, -0.75813115f, 1.0783176f,
                          0.80080056f, 1.6806206f, 0.3558599f, -0.686623f, -0.49335635f, 0.24148779f};
    const float small0[] = {1.5409961f, -0.2934289f, -2.1787894f, 0.56843126f, -1.0845224f, -1.3985955f};
    const float small42[] = {0.33669037f, 0.1288094f, 0.23446237f, 0.23033303f};
    check_f32(0, 16, seed0, 16);
    check_f32(42, 32, seed42, 16);
    check_f32(42, 20, tail, 12);
    check_f32(0, 6, small0, 6);
    check_f32(42, 4, small42, 4);
}

static void specified_halves(void **state) {
    (void)state;
    const float f16[] = {-0.90136719f, 0.48144531f,  1.1982422f,  0.90625f,
                         0.79980469f,  -0.25488281f, -1.8876953f, -0.18334961f};
    const float bf16[] = {1.4609375f,  0.29101562f, 0.9609375f, 1.5703125f,
                          0.49414062f, -1.515625f,  -0.25f,     0.57421875f};
    vd_rng rng;
    uint16_t values[16];
    vd_rng_seed(&rng, 0);
    vd_rng_normal_f16(&rng, values, 16);
    for (int i = 0; i < 8; i++)
        assert_int_equal(values[i], vd_f32_to_f16(f16[i]));
    vd_rng_seed(&rng, 0);
    vd_rng_normal_bf16(&rng, values, 16);
    for (int i = 0; i < 8; i++)
        assert_int_equal(values[i], vd_f32_to_bf16(bf16[i]));
}

/* The two draws of a 14-frame video at 576x1024, seed 42. */
static void the_stream_of_a_video(void **state) {
    (void)state;
    enum { FIRST = 3 * 576 * 1024, SECOND = 14 * 4 * 72 * 128 };
    float *values = malloc(FIRST * sizeof *values);
    assert_non_null(values);
    vd_rng rng;
    vd_rng_seed(&rng, 42);
    vd_rng_normal_f32(&rng, values, FIRST);
    assert_true(values[0] == 1.9269153f && values[FIRST - 1] == 0.53953916f);
    vd_rng_normal_f32(&rng, values, SECOND);
    assert_true(values[0] == 0.7591423f && values[3] == -2.2916243f && values[SECOND - 1] == -1.2952635f);
    free(values);
}

/* Draws `count` values of type `kind` into `bytes` and returns how many bytes that made. */
static size_t draw(vd_rng *rng, const char *kind, size_t count, void *bytes) {
    if (strcmp(kind, "f32") == 0) {
        vd_rng_normal_f32(rng, bytes, count);
        return 4 * count;
    }
    (strcmp(kind, "f16") == 0 ? vd_rng_normal_f16 : vd_rng_normal_bf16)(rng, bytes, count);
    return 2 * count;
}

static void check_stream(const json_t *stream, void *space) {
    vd_rng rng;
    size_t i;
    json_t *entry;
    vd_rng_seed(&rng, (uint64_t)json_integer_value(json_object_get(stream, "seed")));
    json_array_foreach(json_object_get(stream, "draws"), i, entry) {
        const char *kind = json_string_value(json_array_get(entry, 0));
        size_t count = (size_t)json_integer_value(json_array_get(entry, 1));
        char hash[17];
        snprintf(hash, sizeof hash, "%016" PRIx64, vd_hash64(space, draw(&rng, kind, count, space)));
        assert_string_equal(hash, json_string_value(json_array_get(entry, 2)));
    }
    assert_true(i >= 20);
}

static void same_bits_as_torch(void **state) {
    (void)state;
    vd_error err;
    json_t *golden, *stream;
    void *space = malloc(100000 * sizeof(float));
    assert_non_null(space);
    if (vd_json_load("tests/golden/rng.json", 1 << 20, &golden, &err) != VD_OK)
        fail_msg("%s", err.message);
    size_t i;
    json_array_foreach(json_object_get(golden, "streams"), i, stream) check_stream(stream, space);
    assert_int_equal(i, 6);
    json_decref(golden);
    free(space);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words),
        cmocka_unit_test(specified_f32),
        cmocka_unit_test(specified_halves),
        cmocka_unit_test(the_stream_of_a_video),
        cmocka_unit_test(same_bits_as_torch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
