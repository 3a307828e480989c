/* Half and bfloat16 conversions against the compiler's own and against a search of the nearest value. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/rng.h"

#include <math.h>

static void every_f16_round_trips(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = vd_f16_to_f32((uint16_t)h);
        uint16_t back = vd_f32_to_f16(f);
        if ((h & 0x7fff) > 0x7c00) {
            assert_true(isnan(f));
            assert_int_equal(back, h | 0x200); /* quiet, same sign and payload */
        } else {
            assert_int_equal(back, h);
        }
    }
}

static void every_bf16_round_trips(void **state) {
    (void)state;
    for (uint32_t b = 0; b < 0x10000; b++) {
        float f = vd_bf16_to_f32((uint16_t)b);
        uint16_t back = vd_f32_to_bf16(f);
        if ((b & 0x7fff) > 0x7f80)
            assert_true(isnan(f) && isnan(vd_bf16_to_f32(back)));
        else
            assert_int_equal(back, b);
    }
}

static void known_f16_values(void **state) {
    (void)state;
    static const struct {
        float f;
        uint16_t h;
    } cases[] = {
        {0, 0},
        {-0.0f, 0x8000},
        {1, 0x3c00},
        {-2, 0xc000},
        {65504, 0x7bff},
        {65519.996f, 0x7bff},
        {65520, 0x7c00},
        {INFINITY, 0x7c00},
        {0x1p-14f, 0x0400},
        {0x1p-24f, 0x0001},
        {0x1p-25f, 0x0000},
        {0x1.8p-24f, 0x0002},
        {0x1.000002p-25f, 0x0001},
        {0x1.ff8p-15f, 0x03ff},
        {0x1.ffcp-15f, 0x0400},
        {1e-40f, 0},
        {2049, 0x6800},
        {2051, 0x6802},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(vd_f32_to_f16(cases[i].f), cases[i].h);
}

/* Of the two halves around `f`, the nearer; of two equally near, the even one. Exact in double. */
static uint16_t nearest_f16(float f) {
    uint16_t sign = signbit(f) ? 0x8000 : 0;
    double x = fabs((double)f);
    uint16_t low = 0, high = 0x7c00;
    while (high - low > 1) {
        uint16_t middle = (uint16_t)((low + high) / 2);
        *(x >= (double)vd_f16_to_f32(middle) ? &low : &high) = middle;
    }
    double above = high == 0x7c00 ? 65536 : (double)vd_f16_to_f32(high), below = (double)vd_f16_to_f32(low);
    double up = above - x, down = x - below;
    return sign | (up < down || (up == down && (high & 1) == 0) ? high : low);
}

static void random_floats_round_to_nearest(void **state) {
    (void)state;
    vd_rng rng;
    vd_rng_seed(&rng, 3);
    for (int i = 0; i < 300000; i++) {
        uint32_t bits = vd_rng_u32(&rng);
        if (i % 4) /* three of four within the range of half, exponents 2^-27 to 2^16 */
            bits = (bits & 0x807fffff) | (100 + (bits >> 23 & 0xff) % 44) << 23;
        float f = vd_f32_of_bits(bits);
        if (isnan(f))
            continue;
        assert_int_equal(vd_f32_to_f16(f), nearest_f16(f));
    }
}

static void bf16_rounds_to_even(void **state) {
    (void)state;
    assert_int_equal(vd_f32_to_bf16(vd_f32_of_bits(0x3f808000)), 0x3f80);
    assert_int_equal(vd_f32_to_bf16(vd_f32_of_bits(0x3f818000)), 0x3f82);
    assert_int_equal(vd_f32_to_bf16(vd_f32_of_bits(0x3f808001)), 0x3f81);
    assert_int_equal(vd_f32_to_bf16(vd_f32_of_bits(0x7f7fffff)),
                     0x7f80); /* the largest float becomes infinite */
    assert_true(isnan(vd_bf16_to_f32(vd_f32_to_bf16(vd_f32_of_bits(0x7f800001)))));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_f16_round_trips), cmocka_unit_test(every_bf16_round_trips),
        cmocka_unit_test(known_f16_values),      cmocka_unit_test(random_floats_round_to_nearest),
        cmocka_unit_test(bf16_rounds_to_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
