/* What fails on virtual devices by itself, and what the wrapper of faulty.c injects. Memory of a virtual
 * device is memory of the host, so tests look at it once the stream is drained. */
#include "device/lab.h"

enum { MANY = 5000 }; /* more than a queue holds */

/* Device 0 gets the fault. */
static void lab_open_faulty(lab *l, vd_fault_kind kind, int k) {
    lab_open_devices(l, 2);
    must(vd_faulty_device_open(l->device[0], kind, k, &l->device[0], err));
    lab_open_streams(l);
}

/* On device 0. */
static void open_picker(lab *l, picker *p) {
    picker_build(p);
    must(picker_open(p, l->device[0], err));
}

static picked pick_from(lab *l, const picker *p, int32_t index, vd_fault *fault) {
    picked got;
    must(pick(p, l->device[0], l->stream[0], index, fault, &got, err));
    return got;
}

static picked pick_well(lab *l, const picker *p, int32_t index) {
    vd_fault fault;
    vd_fault_clear(&fault);
    picked got = pick_from(l, p, index, &fault);
    assert_false(vd_fault_failed(&fault));
    return got;
}

/* An operation that fails stops its program, names device, program and operation, and harms nobody else. */
static void test_launch_fails(void **state) {
    (void)state;
    lab l;
    picker p;
    vd_fault fault;
    lab_open(&l, 1);
    open_picker(&l, &p);
    assert_true(pick_well(&l, &p, 1).again == 20);
    vd_fault_clear(&fault);
    assert_true(pick_from(&l, &p, 3, &fault).again == 20);
    assert_true(vd_fault_failed(&fault));
    assert_non_null(strstr(fault.error.message, "cpu:0, program picker, operation 0 (gather_row)"));
    assert_true(pick_from(&l, &p, 0, &fault).row == 20); /* a failed word skips whole programs */
    assert_true(pick_well(&l, &p, 2).again == 30);
    picker_close(&p, l.device[0]);
    lab_close(&l);
}

/* ---- giving a device up ---- */

/* An event that never fires parks a worker; abandoning the device frees it and drops what is enqueued. */
static void test_abandon(void **state) {
    (void)state;
    lab l;
    lab_open_faulty(&l, VD_INJECT_NEVER_FIRES, 1);
    int from = 7, to = 0;
    ON(&l, 0, record, l.stream[0], l.event[0]);
    ON(&l, 1, wait, l.stream[1], l.event[0]);
    ON(&l, 1, copy, l.stream[1], VD_TO_HOST, &to, &from, sizeof from, NULL);
    ON(&l, 1, record, l.stream[1], l.event[1]);
    assert_false(vd_event_wait_host(l.event[1], 0.05));
    l.device[1]->table->abandon(l.device[1]);
    vd_error error;
    assert_int_equal(l.device[1]->table->record(l.stream[1], l.event[1], &error), VD_ERR_TRY_AGAIN);
    assert_non_null(strstr(error.message, "cpu:1"));
    assert_int_equal(l.device[1]->table->stream_drain(l.stream[1], &error), VD_ERR_TRY_AGAIN);
    double began = vd_now();
    lab_close(&l);
    assert_true(vd_now() - began < 10);
    assert_int_equal(to, 0);
}

typedef struct filler {
    lab *lab;
    vd_thread thread;
    vd_code code;
} filler;

static void *fill_queue(void *argument) {
    filler *f = argument;
    vd_error error;
    for (int i = 0; i < MANY && f->code == VD_OK; i++)
        f->code = f->lab->device[1]->table->record(f->lab->stream[1], f->lab->event[1], &error);
    return NULL;
}

/* A host thread that waits at a full queue returns when the device is given up. */
static void test_abandon_full_queue(void **state) {
    (void)state;
    lab l;
    lab_open_faulty(&l, VD_INJECT_NEVER_FIRES, 1);
    ON(&l, 0, record, l.stream[0], l.event[0]);
    ON(&l, 1, wait, l.stream[1], l.event[0]);
    filler f = {.lab = &l};
    must(vd_thread_start(&f.thread, "filler", VD_ANY_CPU, fill_queue, &f, err));
    vd_event_wait_host(l.event[0], 0.05);
    l.device[1]->table->abandon(l.device[1]);
    vd_thread_join(&f.thread);
    assert_int_equal(f.code, VD_ERR_TRY_AGAIN);
    lab_close(&l);
}

/* ---- injected faults ---- */

static void test_injected_launch(void **state) {
    (void)state;
    lab l;
    picker p;
    lab_open_faulty(&l, VD_INJECT_LAUNCH_FAILS, 2);
    assert_string_equal(l.device[0]->name, "cpu:0");
    open_picker(&l, &p);
    for (int i = 1; i <= 4; i++) {
        vd_fault fault;
        vd_fault_clear(&fault);
        picked got = pick_from(&l, &p, i % 3, &fault);
        assert_int_equal(vd_fault_failed(&fault), i == 2);
        assert_true(got.row == picker_table[i == 2 ? 1 : i % 3]);
    }
    picker_close(&p, l.device[0]);
    lab_close(&l);
}

/* Of five peer copies the third is hit; returns how many bytes of it differ from what was sent, and the
 * rest must be right. */
static int hit_third_copy(vd_fault_kind kind, unsigned char *worst) {
    lab l;
    lab_open_faulty(&l, kind, 3);
    unsigned char from[64], to[5][64] = {{0}};
    int wrong = 0;
    for (int i = 0; i < 64; i++)
        from[i] = (unsigned char)(i + 1);
    for (int i = 0; i < 5; i++)
        ON(&l, 0, copy_peer, l.stream[0], l.device[1], to[i], from, sizeof from, NULL);
    ON(&l, 0, stream_drain, l.stream[0]);
    for (int i = 0; i < 5; i++)
        for (int b = 0; b < 64; b++)
            if (to[i][b] != from[b]) {
                assert_int_equal(i, 2);
                *worst = to[i][b] ^ from[b];
                wrong++;
            }
    lab_close(&l);
    return wrong;
}

static void test_injected_copies(void **state) {
    (void)state;
    unsigned char difference = 0;
    assert_int_equal(hit_third_copy(VD_INJECT_NOTHING, &difference), 0);
    assert_int_equal(hit_third_copy(VD_INJECT_COPY_DROPPED, &difference), 64);
    assert_int_equal(hit_third_copy(VD_INJECT_COPY_ZEROED, &difference), 64);
    assert_int_equal(hit_third_copy(VD_INJECT_COPY_FLIPPED, &difference), 1);
    assert_int_equal(__builtin_popcount(difference), 1);
}

/* The second wait of device 0 is forgotten, the first and the third are not. */
static void test_injected_wait(void **state) {
    (void)state;
    lab l;
    lab_open_faulty(&l, VD_INJECT_WAIT_DROPPED, 2);
    for (int i = 1; i <= 3; i++) {
        gate g = {0};
        ON(&l, 1, notify, l.stream[1], gate_hold, &g);
        ON(&l, 1, record, l.stream[1], l.event[1]);
        ON(&l, 0, wait, l.stream[0], l.event[1]);
        ON(&l, 0, record, l.stream[0], l.event[0]);
        assert_int_equal(vd_event_wait_host(l.event[0], i == 2 ? 60 : 0.02), i == 2);
        gate_open(&g);
        assert_true(vd_event_wait_host(l.event[0], -1));
        assert_true(vd_event_wait_host(l.event[1], -1));
    }
    lab_close(&l);
}

static void test_injected_record(void **state) {
    (void)state;
    lab l;
    lab_open_faulty(&l, VD_INJECT_NEVER_FIRES, 2);
    ON(&l, 0, record, l.stream[0], l.event[0]);
    assert_true(vd_event_wait_host(l.event[0], -1));
    ON(&l, 0, record, l.stream[0], l.event[0]);
    ON(&l, 0, stream_drain, l.stream[0]); /* the stream goes on, only the event stays */
    assert_false(vd_event_done(l.event[0]));
    lab_close(&l);
}

static void test_injected_allocation(void **state) {
    (void)state;
    lab l;
    void *memory[3] = {0};
    vd_error error;
    lab_open_faulty(&l, VD_INJECT_NO_MEMORY, 2);
    for (int i = 0; i < 3; i++)
        assert_int_equal(l.device[0]->table->allocate(l.device[0], 100, &memory[i], &error),
                         i == 1 ? VD_ERR_UNAVAILABLE : 0);
    assert_non_null(strstr(error.message, "device cpu:0: no memory for 100 bytes"));
    assert_true(atomic_load(&l.device[0]->peak) >= 200);
    for (int i = 0; i < 3; i++)
        l.device[0]->table->release(l.device[0], memory[i]);
    lab_close(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_launch_fails),       cmocka_unit_test(test_abandon),
        cmocka_unit_test(test_abandon_full_queue), cmocka_unit_test(test_injected_launch),
        cmocka_unit_test(test_injected_copies),    cmocka_unit_test(test_injected_wait),
        cmocka_unit_test(test_injected_record),    cmocka_unit_test(test_injected_allocation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
