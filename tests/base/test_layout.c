#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/layout.h"
#include "base/rng.h"

#include <stdbool.h>
#include <string.h>

enum { MOST = 40, POSITIONS = 30 };

static bool alive_together(const vd_span *a, const vd_span *b) {
    return a->first <= b->last && b->first <= a->last;
}

static bool share_bytes(const vd_span *a, const vd_span *b) {
    return a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
}

static int draw_spans(vd_rng *rng, vd_span *spans) {
    int count = 1 + (int)(vd_rng_u32(rng) % MOST);
    uint32_t sizes = 1 + vd_rng_u32(rng) % 5000;
    for (int i = 0; i < count; i++) {
        int first = (int)(vd_rng_u32(rng) % POSITIONS);
        int last = first + (int)(vd_rng_u32(rng) % (uint32_t)(POSITIONS - first));
        spans[i] = (vd_span){.bytes = vd_rng_u32(rng) % sizes, .first = first, .last = last, .offset = 77};
    }
    return count;
}

/* The most bytes alive at one position: no layout is smaller. */
static size_t lower_bound(const vd_span *spans, int count) {
    size_t most = 0;
    for (int position = 0; position < POSITIONS; position++) {
        size_t alive = 0;
        for (int i = 0; i < count; i++)
            if (spans[i].first <= position && position <= spans[i].last)
                alive += vd_align_up(spans[i].bytes);
        most = alive > most ? alive : most;
    }
    return most;
}

static void check_layout(const vd_span *spans, int count, size_t total) {
    size_t end = 0, sum = 0;
    for (int i = 0; i < count; i++) {
        assert_int_equal(spans[i].offset % VD_ALIGNMENT, 0);
        if (spans[i].bytes == 0)
            assert_int_equal(spans[i].offset, 0);
        size_t last = vd_align_up(spans[i].offset + spans[i].bytes);
        end = last > end ? last : end;
        sum += vd_align_up(spans[i].bytes);
        for (int k = 0; k < i; k++)
            assert_false(spans[i].bytes > 0 && spans[k].bytes > 0 && alive_together(&spans[i], &spans[k]) &&
                         share_bytes(&spans[i], &spans[k]));
    }
    assert_int_equal(total, end);
    assert_true(total <= sum && total >= lower_bound(spans, count));
}

static void random_layouts_hold_and_repeat(void **state) {
    (void)state;
    vd_rng rng;
    vd_error err;
    vd_rng_seed(&rng, 11);
    size_t all = 0, bounds = 0;
    for (int round = 0; round < 5000; round++) {
        vd_span spans[MOST], again[MOST];
        int count = draw_spans(&rng, spans);
        memcpy(again, spans, sizeof spans);
        size_t total, total_again;
        assert_int_equal(vd_layout_pack(spans, count, &total, &err), VD_OK);
        check_layout(spans, count, total);
        assert_int_equal(vd_layout_pack(again, count, &total_again, &err), VD_OK);
        assert_int_equal(total, total_again);
        for (int i = 0; i < count; i++)
            assert_int_equal(spans[i].offset, again[i].offset);
        all += total;
        bounds += lower_bound(spans, count);
    }
    assert_true(all * 100 < bounds * 108); /* on average within 8 % of what no layout can beat */
}

static void a_chain_needs_two_buffers(void **state) {
    (void)state;
    vd_span spans[10];
    for (int i = 0; i < 10; i++)
        spans[i] = (vd_span){.bytes = 1000, .first = i, .last = i + 1};
    size_t total;
    vd_error err;
    assert_int_equal(vd_layout_pack(spans, 10, &total, &err), VD_OK);
    assert_int_equal(total, 2 * 1024);
}

static void edges(void **state) {
    (void)state;
    size_t total = 1;
    vd_error err;
    assert_int_equal(vd_layout_pack(NULL, 0, &total, &err), VD_OK);
    assert_int_equal(total, 0);
    vd_span backwards = {.bytes = 1, .first = 2, .last = 1};
    assert_int_equal(vd_layout_pack(&backwards, 1, &total, &err), VD_ERR_INTERNAL);
    vd_span huge[3] = {{.bytes = SIZE_MAX / 2}, {.bytes = SIZE_MAX / 2}, {.bytes = SIZE_MAX / 2}};
    assert_int_equal(vd_layout_pack(huge, 3, &total, &err), VD_ERR_UNAVAILABLE);
    huge[0].bytes = SIZE_MAX;
    assert_int_equal(vd_layout_pack(huge, 1, &total, &err), VD_ERR_UNAVAILABLE);
    assert_int_equal(vd_align_up(0), 0);
    assert_int_equal(vd_align_up(1), 256);
    assert_int_equal(vd_align_up(256), 256);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_layouts_hold_and_repeat),
        cmocka_unit_test(a_chain_needs_two_buffers),
        cmocka_unit_test(edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
