#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"

#include <string.h>

static uint64_t splitmix_finaliser(uint64_t z) {
    z ^= z >> 30;
    z *= 13787848793156543929u;
    z ^= z >> 27;
    z *= 10723151780598845931u;
    return z ^ z >> 31;
}

static void the_sum_is_as_documented(void **state) {
    (void)state;
    const unsigned char bytes[] = {1, 2, 3, 4, 0xff, 0xfe, 0xfd};
    uint64_t length = splitmix_finaliser(0xffffffff00000007u);
    assert_int_equal(vd_hash64(NULL, 0), splitmix_finaliser(0xffffffff00000000u));
    assert_int_equal(vd_hash64(bytes, 7),
                     length + splitmix_finaliser(0x04030201) + splitmix_finaliser(0x100fdfeff));
}

static void any_flipped_bit_changes_the_hash(void **state) {
    (void)state;
    unsigned char bytes[43];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 37);
    uint64_t before = vd_hash64(bytes, sizeof bytes);
    for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_int_not_equal(vd_hash64(bytes, sizeof bytes), before);
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
}

static void moved_or_cut_bytes_change_the_hash(void **state) {
    (void)state;
    const float ordered[] = {1, 2, 3, 4}, swapped[] = {2, 1, 3, 4}, negated[] = {-1, -2, 3, 4},
                zeros[8] = {0};
    uint64_t before = vd_hash64(ordered, sizeof ordered);
    assert_int_not_equal(vd_hash64(swapped, sizeof swapped), before);
    assert_int_not_equal(vd_hash64(negated, sizeof negated), before);
    for (size_t count = 1; count < sizeof zeros; count++)
        assert_int_not_equal(vd_hash64(zeros, count), vd_hash64(zeros, count - 1));
}

static void alignment_does_not_matter(void **state) {
    (void)state;
    unsigned char space[64];
    const char text[] = "seventeen letters";
    for (size_t shift = 0; shift < 8; shift++) {
        memcpy(space + shift, text, sizeof text);
        assert_int_equal(vd_hash64(space + shift, sizeof text), vd_hash64(text, sizeof text));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sum_is_as_documented),
        cmocka_unit_test(any_flipped_bit_changes_the_hash),
        cmocka_unit_test(moved_or_cut_bytes_change_the_hash),
        cmocka_unit_test(alignment_does_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
