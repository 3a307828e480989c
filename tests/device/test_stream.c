/* Streams, events, copies, memory and programs of a backend: device.h, rule by rule. */
#include "device/lab.h"

#include "base/hash.h"

enum { MANY = 5000, BIG = (4 << 20) + 12345 }; /* more than a queue holds, than a copy moves at once */

/* Within the address space of a GPU, outside that of a host that promises more than it has. */
#ifdef VD_TEST_GPU
static const size_t TOO_MUCH = (size_t)1 << 46;
#else
static const size_t TOO_MUCH = (size_t)1 << 60;
#endif

/* CUDA's host functions may run one after another on one thread: on a GPU none may wait for another. */
static bool may_hold(void) {
#ifdef VD_TEST_GPU
    return false;
#else
    return true;
#endif
}

static void hold(lab *l, int i, gate *g) {
    *g = (gate){0};
    if (may_hold())
        ON(l, i, notify, l->stream[i], gate_hold, g);
}

static void expect_waiting(lab *l, int i) {
    if (may_hold())
        assert_false(vd_event_wait_host(l->event[i], 0.01));
}

/* ---- order ---- */

/* Far more commands than the queue holds, then again after draining. */
static void test_order_and_full_queue(void **state) {
    (void)state;
    static tick ticks[MANY];
    lab l;
    tally t = {0};
    lab_open(&l, 1);
    for (int i = 0; i < MANY; i++) {
        ticks[i] = (tick){&t, i};
        ON(&l, 0, notify, l.stream[0], count_tick, &ticks[i]);
    }
    ON(&l, 0, stream_drain, l.stream[0]);
    assert_int_equal(t.next, MANY);
    ON(&l, 0, stream_drain, l.stream[0]); /* an empty stream too */
    t.next = 0;
    for (int i = 0; i < 10; i++)
        ON(&l, 0, notify, l.stream[0], count_tick, &ticks[i]);
    lab_close(&l); /* closing waits for what is enqueued */
    assert_int_equal(t.next, 10);
    assert_int_equal(t.wrong, 0);
}

/* Copies and notifications of one stream take turns as enqueued. */
static void test_notify_sees_copy(void **state) {
    (void)state;
    lab l;
    void *memory;
    tally t = {0};
    tick ticks[3] = {{&t, 10}, {&t, 21}, {&t, 32}}; /* each copy sets the counter before */
    const int values[3] = {10, 21, 32};
    lab_open(&l, 1);
    ON(&l, 0, allocate, l.device[0], sizeof values, &memory);
    ON(&l, 0, copy, l.stream[0], VD_TO_DEVICE, memory, values, sizeof values, NULL);
    for (int i = 0; i < 3; i++) {
        ON(&l, 0, copy, l.stream[0], VD_TO_HOST, &t.next, (int *)memory + i, sizeof(int), NULL);
        ON(&l, 0, notify, l.stream[0], count_tick, &ticks[i]);
    }
    ON(&l, 0, stream_drain, l.stream[0]);
    assert_int_equal(t.wrong, 0);
    assert_int_equal(t.next, 33);
    l.device[0]->table->release(l.device[0], memory);
    lab_close(&l);
}

/* From ordinary host memory and back, in one piece and in several; no copy waits for the stream. */
static void test_copies(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 4096, BIG};
    lab l;
    lab_open(&l, 1);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        gate g;
        void *a, *b;
        unsigned char *from = pattern(sizes[i], 7), *to = calloc(1, sizes[i]);
        ON(&l, 0, allocate, l.device[0], sizes[i], &a);
        ON(&l, 0, allocate, l.device[0], sizes[i], &b);
        hold(&l, 0, &g);
        ON(&l, 0, copy, l.stream[0], VD_TO_DEVICE, a, from, sizes[i], NULL);
        ON(&l, 0, copy, l.stream[0], VD_ON_DEVICE, b, a, sizes[i], NULL);
        ON(&l, 0, copy, l.stream[0], VD_TO_HOST, to, b, sizes[i], NULL);
        ON(&l, 0, record, l.stream[0], l.event[0]);
        expect_waiting(&l, 0);
        gate_open(&g);
        ON(&l, 0, stream_drain, l.stream[0]);
        assert_memory_equal(from, to, sizes[i]);
        l.device[0]->table->release(l.device[0], a);
        l.device[0]->table->release(l.device[0], b);
        free(from);
        free(to);
    }
    lab_close(&l);
}

/* ---- events ---- */

/* A value goes round all devices, each waiting for the one before; only events order them. */
static void go_round(lab *l, void *const *box, int value) {
    gate g;
    hold(l, 0, &g);
    ON(l, 0, copy, l->stream[0], VD_TO_DEVICE, box[0], &value, sizeof value, NULL);
    for (int i = 0; i < LAB_DEVICES; i++) {
        if (i > 0)
            ON(l, i, wait, l->stream[i], l->event[i - 1]);
        if (i + 1 < LAB_DEVICES)
            ON(l, i, copy_peer, l->stream[i], l->device[i + 1], box[i + 1], box[i], sizeof value, NULL);
        ON(l, i, record, l->stream[i], l->event[i]);
    }
    expect_waiting(l, LAB_DEVICES - 1);
    gate_open(&g);
    assert_true(vd_event_wait_host(l->event[LAB_DEVICES - 1], -1));
}

static void test_chain(void **state) {
    (void)state;
    static const int values[] = {3, 1, 4, 1, 5, 9, 2, 6};
    lab l;
    void *box[LAB_DEVICES];
    lab_open(&l, LAB_DEVICES);
    for (int i = 0; i < LAB_DEVICES; i++)
        ON(&l, i, allocate, l.device[i], sizeof(int), &box[i]);
    for (size_t round = 0; round < sizeof values / sizeof *values; round++) {
        if (round > 0) /* the last device has read what is overwritten now */
            ON(&l, 0, wait, l.stream[0], l.event[LAB_DEVICES - 1]);
        go_round(&l, box, values[round]);
        for (int i = 0; i < LAB_DEVICES; i++) {
            int got = 0;
            ON(&l, i, copy, l.stream[i], VD_TO_HOST, &got, box[i], sizeof got, NULL);
            ON(&l, i, stream_drain, l.stream[i]);
            assert_int_equal(got, values[round]);
        }
    }
    for (int i = 1; i < LAB_DEVICES; i++)
        assert_true(vd_event_seconds(l.event[i]) > 0);
    for (int i = 0; i < LAB_DEVICES; i++)
        l.device[i]->table->release(l.device[i], box[i]);
    lab_close(&l);
}

/* A wait is for what was recorded when it was enqueued: nothing at all, or the first of two. */
static void test_wait_remembers(void **state) {
    (void)state;
    lab l;
    gate first, second;
    lab_open(&l, 2);
    assert_true(vd_event_done(l.event[0])); /* nobody has recorded it */
    assert_true(vd_event_wait_host(l.event[0], 0));
    hold(&l, 0, &first);
    ON(&l, 1, wait, l.stream[1], l.event[0]);
    ON(&l, 1, stream_drain, l.stream[1]);
    ON(&l, 0, record, l.stream[0], l.event[0]);
    ON(&l, 1, wait, l.stream[1], l.event[0]);
    ON(&l, 1, record, l.stream[1], l.event[1]);
    hold(&l, 0, &second);
    ON(&l, 0, record, l.stream[0], l.event[0]);
    expect_waiting(&l, 1);
    gate_open(&first);
    assert_true(vd_event_wait_host(l.event[1], -1)); /* while the second record is held up */
    if (may_hold())
        assert_false(vd_event_done(l.event[0]));
    gate_open(&second);
    assert_true(vd_event_wait_host(l.event[0], -1));
    assert_true(vd_event_seconds(l.event[0]) > 0);
    lab_close(&l);
}

/* ---- faults ---- */

static void test_first_fault_stays(void **state) {
    (void)state;
    vd_fault fault;
    vd_error one, two;
    vd_fault_clear(&fault);
    assert_false(vd_fault_failed(&fault));
    assert_false(vd_fault_failed(NULL));
    vd_fail(&one, VD_ERR_DATA, "the first");
    vd_fail(&two, VD_ERR_IO, "the second");
    vd_fault_raise(NULL, &one);
    vd_fault_raise(&fault, &one);
    vd_fault_raise(&fault, &two);
    assert_true(vd_fault_failed(&fault));
    assert_string_equal(fault.error.message, "the first");
}

/* What names a failed word is left out, on the way to the device and back. */
static void test_fault_word(void **state) {
    (void)state;
    lab l;
    vd_fault failed, well;
    vd_error why;
    void *memory;
    int from = 7, skipped = 0, copied = 0, unnamed = 0;
    lab_open(&l, 2);
    vd_fault_clear(&failed);
    vd_fault_clear(&well);
    vd_fail(&why, VD_ERR_DATA, "broken");
    vd_fault_raise(&failed, &why);
    ON(&l, 0, allocate, l.device[0], sizeof from, &memory);
    ON(&l, 0, copy, l.stream[0], VD_TO_DEVICE, memory, &from, sizeof from, &well);
    ON(&l, 0, copy, l.stream[0], VD_TO_DEVICE, memory, &skipped, sizeof skipped, &failed);
    ON(&l, 0, copy, l.stream[0], VD_TO_HOST, &skipped, memory, sizeof skipped, &failed);
    ON(&l, 0, copy_peer, l.stream[0], l.device[1], NULL, memory, sizeof from, &failed);
    ON(&l, 0, launch, l.stream[0], NULL, &failed);
    ON(&l, 0, copy, l.stream[0], VD_TO_HOST, &copied, memory, sizeof copied, &well);
    ON(&l, 0, copy, l.stream[0], VD_TO_HOST, &unnamed, memory, sizeof unnamed, NULL);
    ON(&l, 0, stream_drain, l.stream[0]);
    assert_int_equal(skipped, 0);
    assert_int_equal(copied, 7);
    assert_int_equal(unnamed, 7);
    l.device[0]->table->release(l.device[0], memory);
    lab_close(&l);
}

/* ---- programs ---- */

/* One exec, launched again and again; a program is compiled once for all devices that share plans. */
static void test_programs(void **state) {
    (void)state;
    lab l;
    picker p[2];
    vd_compiled *other;
    vd_error error;
    lab_open(&l, 2);
    picker_build(&p[0]);
    must(picker_open(&p[0], l.device[0], err));
    ON(&l, 1, compile, l.device[1], p[0].program, &other);
    assert_ptr_equal(other, p[0].compiled);
    l.device[1]->table->compiled_close(l.device[1], other);
    assert_int_equal(l.device[0]->table->exec_open(l.device[0], p[0].compiled, p[0].arena, p[0].bindings,
                                                   PICKER_SUM, &(vd_exec *){0}, &error),
                     VD_ERR_INTERNAL);
    assert_non_null(strstr(error.message, "program picker: 'sum' is not bound"));
    picker_build(&p[1]);
    must(picker_open(&p[1], l.device[1], err));
    for (int32_t i = 0; i < 6; i++) {
        picked got;
        float row = picker_table[i % 3];
        must(pick(&p[i % 2], l.device[i % 2], l.stream[i % 2], i % 3, NULL, &got, err));
        assert_true(got.row == row && got.again == row);
        assert_true(got.sum == vd_hash64(&row, sizeof row));
    }
    picker_close(&p[0], l.device[0]);
    picker_close(&p[1], l.device[1]);
    lab_close(&l);
}

/* A device whose part of a program was not asked for makes it when it first runs there. */
static void test_program_of_another_device(void **state) {
    (void)state;
    lab l;
    picker p;
    picked got;
    vd_compiled *compiled;
    lab_open(&l, 2);
    picker_build(&p);
    ON(&l, 0, compile, l.device[0], p.program, &compiled);
    must(picker_open(&p, l.device[1], err));
    l.device[0]->table->compiled_close(l.device[0], compiled);
    must(pick(&p, l.device[1], l.stream[1], 2, NULL, &got, err));
    assert_true(got.again == 30);
    picker_close(&p, l.device[1]);
    lab_close(&l);
}

/* ---- memory ---- */

static void check_zeroed(lab *l, const void *memory, size_t bytes) {
    unsigned char *seen = malloc(bytes);
    assert_non_null(seen);
    ON(l, 0, copy, l->stream[0], VD_TO_HOST, seen, memory, bytes, NULL);
    ON(l, 0, stream_drain, l->stream[0]);
    for (size_t i = 0; i < bytes; i++)
        if (seen[i])
            fail_msg("byte %zu of %zu is not zero", i, bytes);
    free(seen);
}

static void soil(lab *l, void *memory, size_t bytes) {
    unsigned char *dirt = pattern(bytes, 1);
    ON(l, 0, copy, l->stream[0], VD_TO_DEVICE, memory, dirt, bytes, NULL);
    ON(l, 0, stream_drain, l->stream[0]);
    free(dirt);
}

static void test_memory(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 255, 4096, 3 << 20};
    lab l;
    void *memory[4];
    vd_error error;
    lab_open(&l, 2);
    for (int round = 0; round < 2; round++) {
        size_t asked = 0;
        for (int i = 0; i < 4; i++) {
            ON(&l, 0, allocate, l.device[0], sizes[i], &memory[i]);
            assert_int_equal((uintptr_t)memory[i] % 256, 0);
            check_zeroed(&l, memory[i], sizes[i]);
            soil(&l, memory[i], sizes[i]);
            asked += sizes[i];
        }
        size_t now = atomic_load(&l.device[0]->allocated);
        assert_in_range(now, asked, asked + 4 * 512);
        assert_int_equal(atomic_load(&l.device[0]->peak), now);
        for (int i = 0; i < 4; i++)
            l.device[0]->table->release(l.device[0], memory[i]);
    }
    l.device[0]->table->release(l.device[0], NULL);
    assert_int_equal(atomic_load(&l.device[1]->peak), 0);
    assert_int_equal(l.device[1]->table->allocate(l.device[1], TOO_MUCH, &memory[0], &error),
                     VD_ERR_UNAVAILABLE);
    assert_non_null(strstr(error.message, l.device[1]->name));
    lab_close(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order_and_full_queue),
                                       cmocka_unit_test(test_notify_sees_copy),
                                       cmocka_unit_test(test_copies),
                                       cmocka_unit_test(test_chain),
                                       cmocka_unit_test(test_wait_remembers),
                                       cmocka_unit_test(test_first_fault_stays),
                                       cmocka_unit_test(test_fault_word),
                                       cmocka_unit_test(test_programs),
                                       cmocka_unit_test(test_program_of_another_device),
                                       cmocka_unit_test(test_memory)};
#ifdef VD_TEST_GPU
    if (!have_gpu())
        return 77;
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}
