#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/ring.h"
#include "base/rng.h"
#include "base/thread.h"

#include <time.h>

static void open_ring(vd_ring *ring, uint32_t capacity, uint32_t first_index) {
    vd_error err;
    assert_int_equal(vd_ring_init(ring, capacity, sizeof(uint64_t), first_index, &err), VD_OK);
}

static void bad_capacities_are_refused(void **state) {
    (void)state;
    vd_error err;
    vd_ring ring;
    assert_int_equal(vd_ring_init(&ring, 0, 8, 0, &err), VD_ERR_INTERNAL);
    assert_int_equal(vd_ring_init(&ring, 3, 8, 0, &err), VD_ERR_INTERNAL);
    assert_int_equal(vd_ring_init(&ring, 4, 0, 0, &err), VD_ERR_INTERNAL);
    vd_ring_destroy(&ring);
}

static void fills_drains_and_wraps(void **state) {
    (void)state;
    for (uint32_t capacity = 1; capacity <= 8; capacity *= 2) {
        vd_ring ring;
        open_ring(&ring, capacity, UINT32_MAX - 5);
        uint64_t in = 0, out = 0, item;
        for (int round = 0; round < 20; round++) {
            assert_false(vd_ring_try_pop(&ring, &item));
            for (uint32_t i = 0; i < capacity; i++, in++)
                assert_true(vd_ring_try_push(&ring, &in));
            assert_false(vd_ring_try_push(&ring, &in));
            for (uint32_t i = 0; i < capacity; i++, out++) {
                assert_true(vd_ring_try_pop(&ring, &item));
                assert_int_equal(item, out);
            }
        }
        vd_ring_destroy(&ring);
    }
}

static void items_of_any_size_are_copied_whole(void **state) {
    (void)state;
    vd_error err;
    vd_ring ring;
    assert_int_equal(vd_ring_init(&ring, 4, 3, 0, &err), VD_OK);
    for (char c = 'a'; c < 'z'; c++) {
        char in[3] = {c, (char)(c + 1), 0}, out[3];
        assert_true(vd_ring_push(&ring, in));
        assert_true(vd_ring_pop(&ring, out));
        assert_string_equal(in, out);
    }
    vd_ring_destroy(&ring);
}

static void closing_drains_then_refuses(void **state) {
    (void)state;
    vd_ring ring;
    open_ring(&ring, 4, 0);
    uint64_t item = 7;
    assert_true(vd_ring_push(&ring, &item));
    vd_ring_close(&ring);
    assert_false(vd_ring_push(&ring, &item));
    assert_false(vd_ring_try_push(&ring, &item));
    item = 0;
    assert_true(vd_ring_pop(&ring, &item));
    assert_int_equal(item, 7);
    assert_false(vd_ring_pop(&ring, &item));
    vd_ring_destroy(&ring);
    vd_ring zeroed = {0};
    vd_ring_destroy(&zeroed);
}

/* One producer and one consumer, each stalling now and then, so that both sides spin and both park. */
typedef struct flow {
    vd_ring ring;
    uint64_t count;
    uint32_t stall_every; /* items, on average */
    uint64_t errors;
} flow;

static void stall(vd_rng *rng, uint32_t every) {
    uint32_t word = vd_rng_u32(rng);
    if (word % every == 0)
        nanosleep(&(struct timespec){.tv_nsec = (word >> 16) * 2}, NULL);
}

static void *produce(void *argument) {
    flow *f = argument;
    vd_rng rng;
    vd_rng_seed(&rng, 1);
    for (uint64_t i = 0; i < f->count; i++) {
        stall(&rng, f->stall_every);
        if (!vd_ring_push(&f->ring, &i))
            break;
    }
    vd_ring_close(&f->ring);
    return NULL;
}

static void *consume(void *argument) {
    flow *f = argument;
    vd_rng rng;
    vd_rng_seed(&rng, 2);
    uint64_t item, expected = 0;
    while (vd_ring_pop(&f->ring, &item)) {
        f->errors += item != expected++;
        stall(&rng, f->stall_every);
    }
    f->errors += expected != f->count;
    return NULL;
}

static void run_flow(uint32_t capacity, uint64_t count, uint32_t stall_every) {
    flow f = {.count = count, .stall_every = stall_every};
    open_ring(&f.ring, capacity, UINT32_MAX - 1000);
    vd_thread producer, consumer;
    vd_error err;
    assert_int_equal(vd_thread_start(&consumer, "consumer", VD_ANY_CPU, consume, &f, &err), VD_OK);
    assert_int_equal(vd_thread_start(&producer, "producer", VD_ANY_CPU, produce, &f, &err), VD_OK);
    vd_thread_join(&producer);
    vd_thread_join(&consumer);
    assert_int_equal(f.errors, 0);
    vd_ring_destroy(&f.ring);
}

static void order_holds_between_threads(void **state) {
    (void)state;
    run_flow(1, 50000, 1000);
    run_flow(8, 300000, 4000);
    run_flow(1024, 2000000, 20000);
}

static void order_holds_when_both_sides_park(void **state) {
    (void)state;
    run_flow(1, 1000, 3);
    run_flow(8, 3000, 5);
}

static void *pop_once(void *argument) {
    uint64_t item;
    return vd_ring_pop(argument, &item) ? argument : NULL;
}

static void *push_once(void *argument) {
    uint64_t item = 1;
    return vd_ring_push(argument, &item) ? argument : NULL;
}

/* A third thread closes the ring on which `wait` is parked, or about to park. */
static void close_on(void *(*wait)(void *), bool full) {
    for (int round = 0; round < 50; round++) {
        vd_ring ring;
        open_ring(&ring, 1, 0);
        if (full)
            assert_true(vd_ring_try_push(&ring, &(uint64_t){0}));
        pthread_t waiter;
        assert_int_equal(pthread_create(&waiter, NULL, wait, &ring), 0);
        nanosleep(&(struct timespec){.tv_nsec = round * 4000}, NULL);
        vd_ring_close(&ring);
        void *result;
        assert_int_equal(pthread_join(waiter, &result), 0);
        assert_null(result);
        vd_ring_destroy(&ring);
    }
}

static void closing_ends_every_wait(void **state) {
    (void)state;
    close_on(pop_once, false);
    close_on(push_once, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_capacities_are_refused),
        cmocka_unit_test(fills_drains_and_wraps),
        cmocka_unit_test(items_of_any_size_are_copied_whole),
        cmocka_unit_test(closing_drains_then_refuses),
        cmocka_unit_test(order_holds_between_threads),
        cmocka_unit_test(order_holds_when_both_sides_park),
        cmocka_unit_test(closing_ends_every_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
