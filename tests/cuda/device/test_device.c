/* Devices, streams, copies, ways and graphs of the CUDA backend on the fake runtime: device.h, rule by rule,
 * and what happens when a call of CUDA's fails. */
#include "must.h"

#include "base/hash.h"
#include "base/thread.h"
#include "cuda/fake/fake.h"
#include "device/cuda.h"
#include "device/cuda_module.h"

#include <stdlib.h>
#include <string.h>

enum { DEVICES = 4, MANY = 3000, BIG = (4 << 20) + 12345 }; /* more than a ring, than a pinned piece holds */

typedef struct lab {
    vd_backend *backend;
    int count;
    vd_device *device[DEVICES];
    vd_stream *stream[DEVICES];
    vd_event *event[DEVICES]; /* of the same device */
} lab;

static const int all[DEVICES] = {0, 1, 2, 3};

#define ON(l, i, name, ...) must((l)->device[i]->table->name(__VA_ARGS__, err))

static void lab_open(lab *l, int count) {
    *l = (lab){.count = count};
    must(vd_cuda_entry(&(vd_cuda_request){0}, &l->backend, err));
    must(l->backend->table->open(l->backend, all, count, l->device, err));
    for (int i = 0; i < count; i++) {
        ON(l, i, stream_open, l->device[i], "test", &l->stream[i]);
        ON(l, i, event_open, l->device[i], &l->event[i]);
    }
}

static void lab_close(lab *l) {
    for (int i = 0; i < l->count; i++)
        l->device[i]->table->stream_close(l->stream[i]);
    for (int i = 0; i < l->count; i++) {
        l->device[i]->table->event_close(l->event[i]);
        assert_int_equal(atomic_load(&l->device[i]->allocated), 0);
        l->device[i]->table->close(l->device[i]);
    }
    l->backend->table->close(l->backend);
    assert_int_equal(fake_cuda_open(), 0);
}

static int reset(void **state) {
    (void)state;
    fake_cuda_reset();
    return 0;
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

static unsigned char *pattern(size_t bytes, unsigned seed) {
    unsigned char *p = malloc(bytes);
    assert_non_null(p);
    for (size_t i = 0; i < bytes; i++)
        p[i] = (unsigned char)((i * 2654435761u + seed) >> 7);
    return p;
}

/* ---- streams ---- */

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

static void test_order_and_full_ring(void **state) {
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

/* From ordinary host memory and back, in one piece and in several; no copy waits for the stream. */
static void test_copies(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 4096, BIG};
    lab l;
    lab_open(&l, 1);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        gate g = {0};
        void *a, *b;
        unsigned char *from = pattern(sizes[i], 7), *to = calloc(1, sizes[i]);
        ON(&l, 0, allocate, l.device[0], sizes[i], &a);
        ON(&l, 0, allocate, l.device[0], sizes[i], &b);
        ON(&l, 0, notify, l.stream[0], gate_hold, &g);
        ON(&l, 0, copy, l.stream[0], VD_TO_DEVICE, a, from, sizes[i], NULL);
        ON(&l, 0, copy, l.stream[0], VD_ON_DEVICE, b, a, sizes[i], NULL);
        ON(&l, 0, copy, l.stream[0], VD_TO_HOST, to, b, sizes[i], NULL);
        ON(&l, 0, record, l.stream[0], l.event[0]);
        assert_false(vd_event_wait_host(l.event[0], 0.01));
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

/* A wait is for what was recorded when it was enqueued: nothing at all, or the first of two. */
static void test_wait_remembers(void **state) {
    (void)state;
    lab l;
    gate first = {0}, second = {0};
    lab_open(&l, 2);
    assert_true(vd_event_done(l.event[0])); /* nobody has recorded it */
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
    assert_true(vd_event_seconds(l.event[0]) >= vd_event_seconds(l.event[1]));
    lab_close(&l);
}

/* What names a failed word is left out, on the way to the device and back. */
static void test_fault_word(void **state) {
    (void)state;
    lab l;
    vd_fault failed, well;
    vd_error why;
    void *memory;
    int32_t from = 7, skipped = 0, copied = 0;
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
    ON(&l, 0, stream_drain, l.stream[0]);
    assert_int_equal(skipped, 0);
    assert_int_equal(copied, 7);
    l.device[0]->table->release(l.device[0], memory);
    lab_close(&l);
}

/* ---- memory ---- */

static void check_zeroed(vd_device *d, vd_stream *s, const void *memory, size_t bytes) {
    unsigned char *seen = malloc(bytes);
    must(d->table->copy(s, VD_TO_HOST, seen, memory, bytes, NULL, err));
    must(d->table->stream_drain(s, err));
    for (size_t i = 0; i < bytes; i++)
        assert_int_equal(seen[i], 0);
    free(seen);
}

static void test_memory(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 255, 4096, 3 << 20};
    lab l;
    void *memory[4];
    size_t asked = 0;
    lab_open(&l, 2);
    for (int i = 0; i < 4; i++) {
        ON(&l, 0, allocate, l.device[0], sizes[i], &memory[i]);
        assert_int_equal((uintptr_t)memory[i] % 256, 0);
        check_zeroed(l.device[0], l.stream[0], memory[i], sizes[i]);
        asked += sizes[i];
    }
    size_t now = atomic_load(&l.device[0]->allocated);
    assert_in_range(now, asked, asked + 4 * 256);
    for (int i = 0; i < 4; i++)
        l.device[0]->table->release(l.device[0], memory[i]);
    l.device[0]->table->release(l.device[0], NULL);
    assert_int_equal(atomic_load(&l.device[0]->peak), now);
    assert_int_equal(atomic_load(&l.device[1]->peak), 0);
    fake_cuda_memory(64 << 20);
    vd_error error;
    assert_int_equal(l.device[1]->table->allocate(l.device[1], 65 << 20, &memory[0], &error),
                     VD_ERR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "device cuda:1: no memory for 68157440 bytes"));
    assert_int_equal(atomic_load(&l.device[1]->allocated), 0);
    lab_close(&l);
}

/* ---- programs ---- */

/* Takes row *index of a table of three, copies it and sums it up; counts its launches. */
typedef struct picker {
    vd_program *program;
    vd_compiled *compiled;
    vd_exec *exec;
    void *arena;
    vd_binding bindings[5];
} picker;

static const float table[3] = {10, 20, 30};

static void picker_build(picker *p) {
    vd_shape one = vd_vector_shape(1);
    *p = (picker){.program = vd_program_new("picker", VD_F32)};
    vd_value rows = vd_program_external(p->program, "table", VD_F32, (vd_shape){1, 1, 3, 1});
    vd_value index = vd_program_external(p->program, "index", VD_I32, one);
    vd_value row = vd_program_external(p->program, "row", VD_F32, one);
    vd_value again = vd_program_external(p->program, "again", VD_F32, one);
    vd_value sum = vd_program_external(p->program, "sum", VD_U64, one);
    vd_program_gather_row(p->program, (vd_gather_row){rows, index, row});
    vd_program_copy(p->program, (vd_copy){row, again});
    vd_program_checksum(p->program, (vd_checksum){again, sum});
    must(vd_program_finish(p->program, err));
    vd_value values[] = {rows, index, row, again, sum};
    for (int i = 0; i < 5; i++)
        p->bindings[i].value = values[i];
}

static vd_code picker_open(picker *p, vd_device *d, vd_error *err) {
    VD_TRY(d->table->compile(d, p->program, &p->compiled, err));
    VD_TRY(d->table->load(d, p->compiled, err));
    VD_TRY(d->table->allocate(d, vd_compiled_arena(p->compiled), &p->arena, err));
    for (int i = 0; i < 5; i++)
        VD_TRY(d->table->allocate(d, 16, &p->bindings[i].memory, err));
    return d->table->exec_open(d, p->compiled, p->arena, p->bindings, 5, &p->exec, err);
}

static void picker_close(picker *p, vd_device *d) {
    d->table->exec_close(d, p->exec);
    d->table->release(d, p->arena);
    for (int i = 0; i < 5; i++)
        d->table->release(d, p->bindings[i].memory);
    d->table->compiled_close(d, p->compiled);
    vd_program_free(p->program);
}

typedef struct picked {
    float row, again;
    uint64_t sum;
} picked;

static vd_code pick(const picker *p, vd_device *d, vd_stream *s, const int32_t *index, picked *out,
                    vd_error *err) {
    VD_TRY(d->table->copy(s, VD_TO_DEVICE, p->bindings[0].memory, table, sizeof table, NULL, err));
    VD_TRY(d->table->copy(s, VD_TO_DEVICE, p->bindings[1].memory, index, sizeof *index, NULL, err));
    VD_TRY(d->table->launch(s, p->exec, NULL, err));
    VD_TRY(d->table->copy(s, VD_TO_HOST, &out->row, p->bindings[2].memory, sizeof out->row, NULL, err));
    VD_TRY(d->table->copy(s, VD_TO_HOST, &out->again, p->bindings[3].memory, sizeof out->again, NULL, err));
    VD_TRY(d->table->copy(s, VD_TO_HOST, &out->sum, p->bindings[4].memory, sizeof out->sum, NULL, err));
    return d->table->stream_drain(s, err);
}

/* One graph per exec, launched again and again; a program is compiled once for all devices. */
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
    assert_int_equal(l.device[0]->table->exec_open(l.device[0], p[0].compiled, p[0].arena, p[0].bindings, 4,
                                                   &(vd_exec *){0}, &error),
                     VD_ERR_INTERNAL);
    assert_non_null(strstr(error.message, "program picker: 'sum' is not bound"));
    picker_build(&p[1]);
    must(picker_open(&p[1], l.device[1], err));
    for (int32_t i = 0; i < 6; i++) {
        picked got;
        int32_t index = i % 3;
        must(pick(&p[i % 2], l.device[i % 2], l.stream[i % 2], &index, &got, err));
        assert_true(got.row == table[index] && got.again == table[index]);
        assert_true(got.sum == vd_hash64(&table[index], sizeof(float)));
    }
    assert_int_equal(fake_cuda_calls("cudaGraphLaunch"), 6);
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
    must(pick(&p, l.device[1], l.stream[1], &(int32_t){2}, &got, err));
    assert_true(got.again == 30);
    picker_close(&p, l.device[1]);
    lab_close(&l);
}

/* ---- ways between devices ---- */

/* Sends from device to device, and returns how many bytes differ. */
static size_t send_across(lab *l, int from, int to, size_t bytes) {
    unsigned char *sent = pattern(bytes, (unsigned)(10 * from + to)), *got = malloc(bytes);
    void *a, *b;
    size_t wrong = 0;
    ON(l, from, allocate, l->device[from], bytes, &a);
    ON(l, to, allocate, l->device[to], bytes, &b);
    ON(l, from, copy, l->stream[from], VD_TO_DEVICE, a, sent, bytes, NULL);
    ON(l, from, copy_peer, l->stream[from], l->device[to], b, a, bytes, NULL);
    ON(l, from, record, l->stream[from], l->event[from]);
    ON(l, to, wait, l->stream[to], l->event[from]);
    ON(l, to, copy, l->stream[to], VD_TO_HOST, got, b, bytes, NULL);
    ON(l, to, stream_drain, l->stream[to]);
    for (size_t i = 0; i < bytes; i++)
        wrong += sent[i] != got[i];
    l->device[from]->table->release(l->device[from], a);
    l->device[to]->table->release(l->device[to], b);
    free(sent);
    free(got);
    return wrong;
}

static void check_way(lab *l, int from, int to, vd_p2p wish, vd_route_info expected) {
    vd_route_info found;
    must(l->backend->table->connect(l->backend, l->device[from], l->device[to], wish, &found, err));
    assert_int_equal(found.route, expected.route);
    assert_int_equal(found.reachable, expected.reachable);
    assert_int_equal(found.damaged, expected.damaged);
    assert_true(found.bytes_per_s > 0 && found.latency_s > 0);
    assert_int_equal(send_across(l, from, to, BIG), 0);
}

static void test_ways(void **state) {
    (void)state;
    vd_route_info good = {.route = VD_ROUTE_PEER, .reachable = true},
                  bad = {.route = VD_ROUTE_STAGED, .reachable = true, .damaged = true},
                  none = {.route = VD_ROUTE_STAGED};
    lab l;
    lab_open(&l, DEVICES);
    check_way(&l, 0, 1, VD_P2P_AUTO, good);
    check_way(&l, 0, 1, VD_P2P_ON, good); /* tested again */
    check_way(&l, 1, 0, VD_P2P_AUTO, good);
    check_way(&l, 1, 2, VD_P2P_AUTO, bad);
    check_way(&l, 2, 1, VD_P2P_AUTO, good); /* each direction is a way of its own */
    check_way(&l, 0, 3, VD_P2P_AUTO, none);
    check_way(&l, 0, 1, VD_P2P_OFF, none);
    fake_cuda_peer(0, 2, FAKE_PEER_LOSES);
    check_way(&l, 0, 2, VD_P2P_AUTO, bad);
    vd_route_info found;
    vd_error error;
    assert_int_equal(
        l.backend->table->connect(l.backend, l.device[1], l.device[2], VD_P2P_ON, &found, &error),
        VD_ERR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "from device cuda:1 to cuda:2 data arrives damaged"));
    assert_int_equal(
        l.backend->table->connect(l.backend, l.device[3], l.device[0], VD_P2P_ON, &found, &error),
        VD_ERR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "from device cuda:3 to cuda:0 there is no peer access"));
    lab_close(&l);
}

static void test_way_fails(void **state) {
    (void)state;
    vd_route_info found;
    vd_error error;
    lab l;
    lab_open(&l, 2);
    int open = fake_cuda_open();
    fake_cuda_fail("cudaMalloc", 6, cudaErrorMemoryAllocation); /* of the receiver's */
    assert_int_equal(
        l.backend->table->connect(l.backend, l.device[0], l.device[1], VD_P2P_AUTO, &found, &error),
        VD_ERR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "device cuda:1: out of memory"));
    assert_int_equal(fake_cuda_open(), open);
    fake_cuda_fail("cudaMemcpyPeerAsync", 2, cudaErrorInvalidValue);
    assert_int_equal(
        l.backend->table->connect(l.backend, l.device[0], l.device[1], VD_P2P_AUTO, &found, &error),
        VD_ERR_INTERNAL);
    assert_int_equal(fake_cuda_open(), open);
    fake_cuda_fail("cudaDeviceEnablePeerAccess", 1, cudaErrorTooManyPeers); /* then without */
    must(l.backend->table->connect(l.backend, l.device[1], l.device[0], VD_P2P_AUTO, &found, err));
    assert_int_equal(found.route, VD_ROUTE_STAGED);
    lab_close(&l);
}

/* Two devices on one GPU, and an untested way. */
static void test_local_way(void **state) {
    (void)state;
    vd_backend *b;
    vd_route_info found;
    lab l = {.count = 3};
    must(vd_cuda_entry(&(vd_cuda_request){0}, &b, err));
    must(b->table->open(b, (int[]){2, 0, 2}, 3, l.device, err));
    l.backend = b;
    assert_string_equal(l.device[0]->name, "cuda:2");
    assert_string_equal(l.device[1]->name, "cuda:0");
    assert_string_equal(l.device[2]->name, "cuda:2.1");
    for (int i = 0; i < 3; i++) {
        ON(&l, i, stream_open, l.device[i], "test", &l.stream[i]);
        ON(&l, i, event_open, l.device[i], &l.event[i]);
    }
    must(b->table->connect(b, l.device[0], l.device[2], VD_P2P_AUTO, &found, err));
    assert_int_equal(found.route, VD_ROUTE_LOCAL);
    assert_int_equal(send_across(&l, 0, 2, 5000), 0);
    assert_int_equal(send_across(&l, 2, 0, 5000), 0);
    assert_int_equal(send_across(&l, 0, 1, 5000), 0);
    lab_close(&l);
}

/* ---- what fails ---- */

static void test_errors(void **state) {
    (void)state;
    static const struct {
        cudaError_t result;
        vd_code code;
    } cases[] = {{cudaErrorMemoryAllocation, VD_ERR_UNAVAILABLE}, {cudaErrorIllegalAddress, VD_ERR_TRY_AGAIN},
                 {cudaErrorECCUncorrectable, VD_ERR_TRY_AGAIN},   {cudaErrorLaunchFailure, VD_ERR_TRY_AGAIN},
                 {cudaErrorLaunchTimeout, VD_ERR_TRY_AGAIN},      {cudaErrorInvalidValue, VD_ERR_INTERNAL},
                 {cudaErrorNotSupported, VD_ERR_INTERNAL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vd_error error;
        assert_int_equal(vd_cuda_check(cases[i].result, "cuda:5", "a call", &error), cases[i].code);
        assert_non_null(strstr(error.message, "device cuda:5"));
        assert_non_null(strstr(error.message, "a call"));
        assert_int_equal(vd_cuda_poisons(cases[i].result), cases[i].code == VD_ERR_TRY_AGAIN);
    }
    must(vd_cuda_check(cudaSuccess, "cuda:5", "a call", err));
}

/* A device that stops: the next call tells, nothing hangs, and all can be closed. */
static void test_lost(void **state) {
    (void)state;
    lab l;
    vd_error error;
    gate g = {0};
    int after = 0;
    lab_open(&l, 2);
    ON(&l, 0, notify, l.stream[0], gate_hold, &g);
    ON(&l, 0, notify, l.stream[0], count_tick, &(tick){&(tally){0}, 0});
    fake_cuda_break(0, cudaErrorIllegalAddress);
    assert_int_equal(l.device[0]->table->check(l.device[0], &error), VD_ERR_TRY_AGAIN);
    assert_non_null(strstr(error.message, "device cuda:0 was lost"));
    gate_open(&g);
    assert_int_equal(l.device[0]->table->stream_drain(l.stream[0], &error), VD_ERR_TRY_AGAIN);
    assert_int_equal(l.device[0]->table->record(l.stream[0], l.event[0], &error), VD_ERR_TRY_AGAIN);
    assert_int_equal(l.device[0]->table->notify(l.stream[0], count_tick, &after, &error), VD_ERR_TRY_AGAIN);
    ON(&l, 1, check, l.device[1]);
    ON(&l, 1, stream_drain, l.stream[1]);
    lab_close(&l);
}

/* A device that hangs and is given up: everybody returns, and what comes after all touches nothing. */
static void test_abandon(void **state) {
    (void)state;
    static lab l; /* what is left of it stays allocated */
    static gate g;
    static int after;
    vd_error error;
    void *memory;
    lab_open(&l, 1);
    vd_device *d = l.device[0];
    ON(&l, 0, allocate, d, 100, &memory);
    ON(&l, 0, notify, l.stream[0], gate_hold, &g);
    ON(&l, 0, copy, l.stream[0], VD_TO_HOST, &after, memory, sizeof after, NULL);
    after = 1;
    d->table->abandon(d);
    assert_int_equal(d->table->record(l.stream[0], l.event[0], &error), VD_ERR_TRY_AGAIN);
    assert_non_null(strstr(error.message, "cuda:0 was given up"));
    assert_int_equal(d->table->stream_drain(l.stream[0], &error), VD_ERR_TRY_AGAIN);
    double began = vd_now();
    gate_open(&g); /* an errand that is being run is waited for */
    d->table->stream_close(l.stream[0]);
    d->table->event_close(l.event[0]);
    d->table->release(d, memory);
    d->table->close(d);
    l.backend->table->close(l.backend);
    assert_true(vd_now() - began < 10);
    assert_int_equal(fake_cuda_open(), 0);
}

/* Everything once, on two devices. */
static vd_code use_everything(lab *l, picker *p, void **peer, vd_error *err) {
    picked got;
    VD_TRY(vd_cuda_entry(&(vd_cuda_request){0}, &l->backend, err));
    VD_TRY(l->backend->table->open(l->backend, (int[]){0, 3}, 2, l->device, err));
    vd_device *d = l->device[0];
    l->count = 2;
    VD_TRY(d->table->stream_open(d, "test", &l->stream[0], err));
    VD_TRY(d->table->event_open(d, &l->event[0], err));
    VD_TRY(picker_open(p, d, err));
    VD_TRY(pick(p, d, l->stream[0], &(int32_t){1}, &got, err));
    VD_TRY(l->device[1]->table->allocate(l->device[1], 16, peer, err));
    VD_TRY(d->table->copy_peer(l->stream[0], l->device[1], *peer, p->bindings[0].memory, 16, NULL, err));
    VD_TRY(d->table->record(l->stream[0], l->event[0], err));
    VD_TRY(d->table->wait(l->stream[0], l->event[0], err));
    return d->table->stream_drain(l->stream[0], err);
}

/* `used`: how often `function` was called before closing began, which goes on whatever fails. */
static vd_code use_and_close(const char *function, int *used, vd_error *err) {
    lab l = {0};
    picker p;
    void *peer = NULL;
    picker_build(&p);
    vd_code code = use_everything(&l, &p, &peer, err);
    *used = fake_cuda_calls(function);
    if (l.count) {
        l.device[0]->table->stream_close(l.stream[0]);
        l.device[0]->table->event_close(l.event[0]);
        l.device[1]->table->release(l.device[1], peer);
        picker_close(&p, l.device[0]);
    } else
        vd_program_free(p.program);
    for (int i = 0; i < l.count; i++)
        l.device[i]->table->close(l.device[i]);
    if (l.backend)
        l.backend->table->close(l.backend);
    return code;
}

/* Every call of CUDA's fails once: somebody tells, and nothing stays open. */
static void test_every_failure(void **state) {
    (void)state;
    static const char *const functions[] = {"cudaGetDeviceCount",
                                            "cudaSetDevice",
                                            "cudaStreamCreateWithFlags",
                                            "cudaEventCreateWithFlags",
                                            "cudaMalloc",
                                            "cudaHostAlloc",
                                            "cudaMemsetAsync",
                                            "cudaMemcpyAsync",
                                            "cudaMemcpyPeerAsync",
                                            "cudaLaunchHostFunc",
                                            "cudaEventRecord",
                                            "cudaStreamWaitEvent",
                                            "cudaStreamQuery",
                                            "cudaStreamBeginCapture",
                                            "cudaStreamEndCapture",
                                            "cudaGraphInstantiate",
                                            "cudaGraphUpload",
                                            "cudaGraphLaunch",
                                            "cudaStreamSynchronize"};
    for (size_t f = 0; f < sizeof functions / sizeof *functions; f++)
        for (int k = 1, used = 1; k <= used; k++) {
            vd_error error = {0};
            fake_cuda_reset();
            fake_cuda_synchronous(true);
            fake_cuda_fail(functions[f], k, cudaErrorInvalidValue);
            vd_code code = use_and_close(functions[f], &used, &error);
            assert_int_equal(fake_cuda_open(), 0);
            assert_int_equal(code == VD_OK, used < k);
            if (code != VD_OK)
                used++; /* until none is left that could fail */
        }
}

/* ---- the backend and its module ---- */

static void test_backend(void **state) {
    (void)state;
    vd_backend *b;
    vd_device *devices[3];
    vd_device_info info;
    vd_error error;
    must(vd_cuda_entry(&(vd_cuda_request){0}, &b, err));
    assert_string_equal(b->kind, "cuda");
    assert_int_equal(b->table->count(b), 4);
    must(b->table->describe(b, 3, &info, err));
    assert_string_equal(info.name, "cuda:3");
    assert_string_equal(info.bus, "ffff:f3:1f.7");
    assert_int_equal(info.node, -1);
    assert_int_equal(info.free, 0); /* nothing is open there */
    assert_int_equal(b->table->open(b, (int[]){0, 4}, 2, devices, &error), VD_ERR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "device cuda:4: there are 4"));
    fake_cuda_fail("cudaHostAlloc", 3, cudaErrorMemoryAllocation); /* of the second device's */
    assert_int_equal(b->table->open(b, (int[]){0, 1, 2}, 3, devices, &error), VD_ERR_UNAVAILABLE);
    assert_int_equal(fake_cuda_open(), 0);
    must(b->table->open(b, (int[]){0, 1, 2}, 3, devices, err));
    must(b->table->describe(b, 1, &info, err));
    assert_in_range(info.free, 1, info.memory);
    for (int i = 0; i < 3; i++)
        devices[i]->table->close(devices[i]);
    b->table->close(b);
}

static void test_no_gpu(void **state) {
    (void)state;
    vd_backend *b;
    vd_error error;
    fake_cuda_devices(0);
    assert_int_equal(vd_cuda_entry(&(vd_cuda_request){0}, &b, &error), VD_ERR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "no CUDA here: the driver sees no GPU"));
    fake_cuda_reset();
    fake_cuda_fail("cudaGetDeviceCount", 1, cudaErrorInsufficientDriver);
    assert_int_equal(vd_cuda_entry(&(vd_cuda_request){0}, &b, &error), VD_ERR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "update the driver"));
}

static void test_module(void **state) {
    (void)state;
    vd_backend *b;
    vd_error error;
    must(vd_cuda_backend_open(&(vd_cuda_request){.module = FAKE_MODULE}, &b, err));
    assert_string_equal(b->kind, "cuda");
    b->table->close(b);
    assert_int_equal(vd_cuda_backend_open(&(vd_cuda_request){.module = "/nowhere.so"}, &b, &error),
                     VD_ERR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "no CUDA here: /nowhere.so"));
}

/* A device whose work never ends: what that may yet touch stays allocated, and errands that come late are
 * dropped. Nothing can be reset after it. */
static void test_hang(void **state) {
    (void)state;
    static lab l;
    static gate g;
    static int after;
    void *memory;
    lab_open(&l, 2);
    vd_device *d = l.device[1];
    ON(&l, 1, allocate, d, 100, &memory);
    ON(&l, 0, notify, l.stream[0], gate_hold, &g);
    ON(&l, 0, record, l.stream[0], l.event[0]);
    ON(&l, 1, wait, l.stream[1], l.event[0]);
    ON(&l, 1, copy, l.stream[1], VD_TO_HOST, &after, memory, sizeof after, NULL);
    after = 1;
    d->table->abandon(d);
    double began = vd_now();
    d->table->stream_close(l.stream[1]);
    d->table->event_close(l.event[1]);
    d->table->release(d, memory);
    d->table->close(d);
    assert_true(vd_now() - began < 30);
    gate_open(&g);
    ON(&l, 0, stream_drain, l.stream[0]);
    vd_park(&g.open, 1, 100 * 1000 * 1000); /* for what comes late */
    assert_int_equal(after, 1);
    l.device[0]->table->stream_close(l.stream[0]);
    l.device[0]->table->event_close(l.event[0]);
    l.device[0]->table->close(l.device[0]);
    l.backend->table->close(l.backend);
}

#define ON_FRESH(test) cmocka_unit_test_setup(test, reset)

int main(void) {
    const struct CMUnitTest tests[] = {ON_FRESH(test_order_and_full_ring),
                                       ON_FRESH(test_copies),
                                       ON_FRESH(test_wait_remembers),
                                       ON_FRESH(test_fault_word),
                                       ON_FRESH(test_memory),
                                       ON_FRESH(test_programs),
                                       ON_FRESH(test_program_of_another_device),
                                       ON_FRESH(test_ways),
                                       ON_FRESH(test_way_fails),
                                       ON_FRESH(test_local_way),
                                       ON_FRESH(test_errors),
                                       ON_FRESH(test_lost),
                                       ON_FRESH(test_abandon),
                                       ON_FRESH(test_every_failure),
                                       ON_FRESH(test_backend),
                                       ON_FRESH(test_no_gpu),
                                       ON_FRESH(test_module),
                                       ON_FRESH(test_hang)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
