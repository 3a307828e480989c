/* Streams, events and copies of virtual devices, and the wrapper that injects faults: device.h, rule by
 * rule. Memory of a virtual device is memory of the host, so tests look at it once the stream is drained. */
#include "must.h"

#include "base/thread.h"
#include "device/backend.h"
#include "device/cpu_team.h"

#include <stdio.h>
#include <string.h>

enum { DEVICES = 4, MANY = 5000 }; /* more than a queue holds */

typedef struct lab {
    vd_backend *backend;
    vd_device *device[DEVICES];
    vd_stream *stream[DEVICES];
    vd_event *event[DEVICES]; /* of the same device */
} lab;

#define ON(l, i, name, ...) must((l)->device[i]->table->name(__VA_ARGS__, err))

/* One stream and one event on each device; device 0 gets the fault. */
static void lab_open_faulty(lab *l, vd_fault_kind kind, int k) {
    static const int ordinals[DEVICES] = {0, 1, 2, 3};
    must(vd_cpu_backend_open(NULL, &l->backend, err));
    must(l->backend->table->open(l->backend, ordinals, DEVICES, l->device, err));
    for (int i = 0; i < DEVICES; i++) {
        if (i == 0 && kind != VD_INJECT_NOTHING)
            must(vd_faulty_device_open(l->device[0], kind, k, &l->device[0], err));
        ON(l, i, stream_open, l->device[i], "test", &l->stream[i]);
        ON(l, i, event_open, l->device[i], &l->event[i]);
    }
}

static void lab_open(lab *l) {
    lab_open_faulty(l, VD_INJECT_NOTHING, 0);
}

static void lab_close(lab *l) {
    for (int i = 0; i < DEVICES; i++)
        l->device[i]->table->stream_close(l->stream[i]);
    for (int i = 0; i < DEVICES; i++) {
        l->device[i]->table->event_close(l->event[i]);
        assert_int_equal(atomic_load(&l->device[i]->allocated), 0);
        l->device[i]->table->close(l->device[i]);
    }
    l->backend->table->close(l->backend);
}

/* Holds a stream until it is opened. */
typedef struct gate {
    _Atomic uint32_t open;
} gate;

static void gate_hold(void *argument) {
    gate *g = argument;
    while (!atomic_load(&g->open))
        vd_park(&g->open, 0, -1);
}

static void gate_open(gate *g) {
    atomic_store(&g->open, 1);
    vd_wake_all(&g->open);
}

/* ---- order ---- */

typedef struct tally {
    int next, wrong;
} tally;

typedef struct tick {
    tally *tally;
    int index;
} tick;

static void count_tick(void *argument) {
    tick *t = argument;
    t->tally->wrong += t->tally->next++ != t->index;
}

/* Far more commands than the queue holds, then again after draining. */
static void test_order_and_full_queue(void **state) {
    (void)state;
    lab l;
    lab_open(&l);
    static tick ticks[MANY];
    tally t = {0};
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
    lab_open(&l);
    tally t = {0};
    tick ticks[3] = {{&t, 10}, {&t, 21}, {&t, 32}}; /* each copy sets the counter before */
    const int values[3] = {10, 21, 32};
    for (int i = 0; i < 3; i++) {
        ON(&l, 0, copy, l.stream[0], VD_TO_DEVICE, &t.next, &values[i], sizeof(int), NULL);
        ON(&l, 0, notify, l.stream[0], count_tick, &ticks[i]);
    }
    ON(&l, 0, stream_drain, l.stream[0]);
    assert_int_equal(t.wrong, 0);
    assert_int_equal(t.next, 33);
    lab_close(&l);
}

/* ---- events ---- */

/* A value goes round all devices, each waiting for the one before; only events order them. */
static void test_chain(void **state) {
    (void)state;
    lab l;
    lab_open(&l);
    int *box[DEVICES];
    for (int i = 0; i < DEVICES; i++) {
        void *memory;
        ON(&l, i, allocate, l.device[i], sizeof(int), &memory);
        box[i] = memory;
    }
    static const int values[] = {3, 1, 4, 1, 5, 9, 2, 6};
    for (size_t round = 0; round < sizeof values / sizeof *values; round++) {
        gate g = {0};
        if (round > 0) /* the last device has read what is overwritten now */
            ON(&l, 0, wait, l.stream[0], l.event[DEVICES - 1]);
        ON(&l, 0, notify, l.stream[0], gate_hold, &g);
        ON(&l, 0, copy, l.stream[0], VD_TO_DEVICE, box[0], &values[round], sizeof(int), NULL);
        ON(&l, 0, record, l.stream[0], l.event[0]);
        for (int i = 1; i < DEVICES; i++) {
            ON(&l, i, wait, l.stream[i], l.event[i - 1]);
            ON(&l, i, copy_peer, l.stream[i], l.device[i], box[i], box[i - 1], sizeof(int), NULL);
            ON(&l, i, record, l.stream[i], l.event[i]);
        }
        assert_false(vd_event_done(l.event[DEVICES - 1]));
        assert_false(vd_event_wait_host(l.event[DEVICES - 1], 0.01));
        gate_open(&g);
        assert_true(vd_event_wait_host(l.event[DEVICES - 1], -1));
        for (int i = 0; i < DEVICES; i++)
            assert_int_equal(*box[i], values[round]);
    }
    for (int i = 1; i < DEVICES; i++)
        assert_true(vd_event_seconds(l.event[i]) >= vd_event_seconds(l.event[i - 1]));
    for (int i = 0; i < DEVICES; i++) {
        ON(&l, i, stream_drain, l.stream[i]);
        l.device[i]->table->release(l.device[i], box[i]);
    }
    lab_close(&l);
}

/* A wait is for what was recorded when it was enqueued: nothing at all, or the first of two. */
static void test_wait_remembers(void **state) {
    (void)state;
    lab l;
    lab_open(&l);
    gate first = {0}, second = {0};
    assert_true(vd_event_done(l.event[0])); /* nobody has recorded it */
    assert_true(vd_event_wait_host(l.event[0], 0));
    ON(&l, 0, notify, l.stream[0], gate_hold, &first);
    ON(&l, 1, wait, l.stream[1], l.event[0]);
    ON(&l, 1, stream_drain, l.stream[1]);
    ON(&l, 0, record, l.stream[0], l.event[0]);
    ON(&l, 1, wait, l.stream[1], l.event[0]);
    ON(&l, 1, record, l.stream[1], l.event[1]);
    ON(&l, 0, notify, l.stream[0], gate_hold, &second);
    ON(&l, 0, record, l.stream[0], l.event[0]);
    assert_false(vd_event_wait_host(l.event[1], 0.01));
    gate_open(&first);
    assert_true(vd_event_wait_host(l.event[1], -1)); /* while the second record is held up */
    assert_false(vd_event_done(l.event[0]));
    gate_open(&second);
    assert_true(vd_event_wait_host(l.event[0], -1));
    lab_close(&l);
}

/* ---- faults ---- */

static void test_fault_word(void **state) {
    (void)state;
    vd_fault fault;
    vd_fault_clear(&fault);
    assert_false(vd_fault_failed(&fault));
    assert_false(vd_fault_failed(NULL));
    vd_error one, two;
    vd_fail(&one, VD_ERR_DATA, "the first");
    vd_fail(&two, VD_ERR_IO, "the second");
    vd_fault_raise(NULL, &one);
    vd_fault_raise(&fault, &one);
    vd_fault_raise(&fault, &two);
    assert_true(vd_fault_failed(&fault));
    assert_string_equal(fault.error.message, "the first");

    lab l;
    lab_open(&l);
    vd_fault well;
    vd_fault_clear(&well);
    int from = 7, skipped = 0, copied = 0, unnamed = 0;
    ON(&l, 0, copy, l.stream[0], VD_TO_HOST, &skipped, &from, sizeof from, &fault);
    ON(&l, 0, copy_peer, l.stream[0], l.device[1], &skipped, &from, sizeof from, &fault);
    ON(&l, 0, copy, l.stream[0], VD_TO_HOST, &copied, &from, sizeof from, &well);
    ON(&l, 0, copy, l.stream[0], VD_TO_HOST, &unnamed, &from, sizeof from, NULL);
    ON(&l, 0, stream_drain, l.stream[0]);
    assert_int_equal(skipped, 0);
    assert_int_equal(copied, 7);
    assert_int_equal(unnamed, 7);
    lab_close(&l);
}

/* Takes row *index of a table of three, then copies it: an index out of range fails when it runs. */
typedef struct picker {
    vd_program *program;
    vd_compiled *compiled;
    vd_exec *exec;
    float table[3], row, again;
    int32_t index;
    void *arena;
} picker;

static void picker_open(picker *p, vd_device *d) {
    *p = (picker){.table = {10, 20, 30}, .program = vd_program_new("picker", VD_F32)};
    vd_shape one = vd_vector_shape(1);
    vd_value table = vd_program_external(p->program, "table", VD_F32, (vd_shape){1, 1, 3, 1});
    vd_value index = vd_program_external(p->program, "index", VD_I32, one);
    vd_value row = vd_program_external(p->program, "row", VD_F32, one);
    vd_value again = vd_program_external(p->program, "again", VD_F32, one);
    vd_program_gather_row(p->program, (vd_gather_row){table, index, row});
    vd_program_copy(p->program, (vd_copy){row, again});
    must(vd_program_finish(p->program, err));
    must(d->table->compile(d, p->program, &p->compiled, err));
    must(d->table->load(d, p->compiled, err));
    must(d->table->allocate(d, vd_compiled_arena(p->compiled) + 1, &p->arena, err));
    vd_binding all[] = {{table, p->table}, {index, &p->index}, {row, &p->row}, {again, &p->again}};
    vd_error error;
    assert_int_equal(d->table->exec_open(d, p->compiled, p->arena, all, 3, &p->exec, &error),
                     VD_ERR_INTERNAL);
    assert_non_null(strstr(error.message, "program picker: 'again' is not bound"));
    must(d->table->exec_open(d, p->compiled, p->arena, all, 4, &p->exec, err));
}

static void picker_close(picker *p, vd_device *d) {
    d->table->exec_close(d, p->exec);
    d->table->release(d, p->arena);
    d->table->compiled_close(d, p->compiled);
    vd_program_free(p->program);
}

static void pick(lab *l, picker *p, int32_t index, vd_fault *fault) {
    p->index = index;
    vd_fault_clear(fault);
    ON(l, 0, launch, l->stream[0], p->exec, fault);
    ON(l, 0, stream_drain, l->stream[0]);
}

/* An operation that fails stops its program, names device, program and operation, and harms nobody else. */
static void test_launch_fails(void **state) {
    (void)state;
    lab l;
    picker p;
    vd_fault fault;
    lab_open(&l);
    picker_open(&p, l.device[0]);
    pick(&l, &p, 1, &fault);
    assert_false(vd_fault_failed(&fault));
    assert_true(p.row == 20 && p.again == 20);
    pick(&l, &p, 3, &fault);
    assert_true(vd_fault_failed(&fault));
    assert_non_null(strstr(fault.error.message, "cpu:0, program picker, operation 0 (gather_row)"));
    assert_true(p.row == 20 && p.again == 20);
    p.index = 0;
    ON(&l, 0, launch, l.stream[0], p.exec, &fault); /* a failed word skips whole programs */
    ON(&l, 0, stream_drain, l.stream[0]);
    assert_true(p.row == 20);
    pick(&l, &p, 2, &fault);
    assert_false(vd_fault_failed(&fault));
    assert_true(p.row == 30 && p.again == 30);
    picker_close(&p, l.device[0]);
    lab_close(&l);
}

/* One program is compiled once for all devices of a group. */
static void test_compiled_is_shared(void **state) {
    (void)state;
    lab l;
    picker p;
    lab_open(&l);
    picker_open(&p, l.device[0]);
    vd_compiled *other;
    ON(&l, 1, compile, l.device[1], p.program, &other);
    assert_ptr_equal(other, p.compiled);
    l.device[1]->table->compiled_close(l.device[1], other);
    vd_fault fault;
    pick(&l, &p, 0, &fault); /* still there */
    assert_true(p.row == 10);
    picker_close(&p, l.device[0]);
    lab_close(&l);
}

/* ---- memory ---- */

static void check_zeroed(const unsigned char *memory, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if (memory[i])
            fail_msg("byte %zu of %zu is not zero", i, bytes);
}

static void test_memory(void **state) {
    (void)state;
    lab l;
    lab_open(&l);
    static const size_t sizes[] = {1, 255, 4096, 3 << 20}; /* the last is mapped */
    void *memory[4];
    size_t asked = 0;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 4; i++) {
            ON(&l, 0, allocate, l.device[0], sizes[i], &memory[i]);
            assert_int_equal((uintptr_t)memory[i] % 256, 0);
            check_zeroed(memory[i], sizes[i]);
            memset(memory[i], 0xFF, sizes[i]);
            asked += round == 0 ? sizes[i] : 0;
        }
        size_t now = atomic_load(&l.device[0]->allocated);
        assert_in_range(now, asked, asked + 4 * 512);
        assert_int_equal(atomic_load(&l.device[0]->peak), now);
        for (int i = 0; i < 4; i++)
            l.device[0]->table->release(l.device[0], memory[i]);
    }
    l.device[0]->table->release(l.device[0], NULL);
    assert_int_equal(atomic_load(&l.device[1]->peak), 0);
    vd_error error;
    assert_int_equal(l.device[0]->table->allocate(l.device[0], (size_t)1 << 60, &memory[0], &error),
                     VD_ERR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "cpu:0"));
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
    vd_fault fault;
    lab_open_faulty(&l, VD_INJECT_LAUNCH_FAILS, 2);
    assert_string_equal(l.device[0]->name, "cpu:0");
    picker_open(&p, l.device[0]);
    for (int i = 1; i <= 4; i++) {
        pick(&l, &p, i % 3, &fault);
        assert_int_equal(vd_fault_failed(&fault), i == 2);
        assert_true(p.row == p.table[i == 2 ? 1 : i % 3]);
    }
    pick(&l, &p, 0, &fault);
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

/* ---- sharing work ---- */

enum { TEAM = 5, ITEMS = 200 };

typedef struct shift {
    vd_cpu_team *team;
    _Atomic int *done; /* [ITEMS] */
    int bad;           /* item that fails; -1 */
    vd_thread thread;
    vd_code code;
    vd_error error;
} shift;

static vd_code do_item(void *context, int i, vd_error *err) {
    shift *s = context;
    atomic_fetch_add(&s->done[i], 1);
    return i == s->bad ? vd_fail(err, VD_ERR_DATA, "item %d", i) : VD_OK;
}

static void *do_shift(void *argument) {
    shift *s = argument;
    s->code = vd_cpu_team_work(s->team, ITEMS, do_item, s, &s->error);
    return NULL;
}

/* Each item is done once, and everybody learns how it went, also who comes later. */
static void check_team(int bad) {
    vd_cpu_team team;
    _Atomic int done[ITEMS] = {0};
    shift shifts[TEAM];
    vd_cpu_team_init(&team);
    for (int i = 0; i < TEAM; i++) {
        shifts[i] = (shift){.team = &team, .done = done, .bad = bad};
        must(vd_thread_start(&shifts[i].thread, "team", VD_ANY_CPU, do_shift, &shifts[i], err));
    }
    for (int i = 0; i < TEAM; i++)
        vd_thread_join(&shifts[i].thread);
    do_shift(&shifts[0]);
    for (int i = 0; i < TEAM; i++) {
        assert_int_equal(shifts[i].code, bad < 0 ? VD_OK : VD_ERR_DATA);
        if (bad >= 0)
            assert_string_equal(shifts[i].error.message, "item 77");
    }
    for (int i = 0; i < ITEMS; i++)
        assert_true(done[i] == 1 || (bad >= 0 && i != bad && done[i] == 0));
    vd_cpu_team_destroy(&team);
}

static void test_team(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        check_team(-1);
        check_team(77);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order_and_full_queue),
                                       cmocka_unit_test(test_notify_sees_copy),
                                       cmocka_unit_test(test_chain),
                                       cmocka_unit_test(test_wait_remembers),
                                       cmocka_unit_test(test_fault_word),
                                       cmocka_unit_test(test_launch_fails),
                                       cmocka_unit_test(test_compiled_is_shared),
                                       cmocka_unit_test(test_memory),
                                       cmocka_unit_test(test_abandon),
                                       cmocka_unit_test(test_abandon_full_queue),
                                       cmocka_unit_test(test_injected_launch),
                                       cmocka_unit_test(test_injected_copies),
                                       cmocka_unit_test(test_injected_wait),
                                       cmocka_unit_test(test_injected_record),
                                       cmocka_unit_test(test_injected_allocation),
                                       cmocka_unit_test(test_team)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
