/* What is the CUDA backend's own, on the fake runtime: ways between devices, graphs, the backend and its
 * module, and what happens when a call of CUDA's fails. */
#include "device/lab.h"

#include "cuda/fake/fake.h"
#include "device/cuda.h"

enum { BIG = (4 << 20) + 12345 }; /* more than a pinned piece holds */

/* Nothing of CUDA's is left. */
static void close_all(lab *l) {
    lab_close(l);
    assert_int_equal(fake_cuda_open(), 0);
}

static int reset(void **state) {
    (void)state;
    fake_cuda_reset();
    return 0;
}

/* ---- programs and memory ---- */

static void test_a_launch_is_one_graph(void **state) {
    (void)state;
    lab l;
    picker p;
    lab_open(&l, 1);
    picker_build(&p);
    must(picker_open(&p, l.device[0], err));
    for (int32_t i = 0; i < 3; i++) {
        picked got;
        must(pick(&p, l.device[0], l.stream[0], i, NULL, &got, err));
    }
    assert_int_equal(fake_cuda_calls("cudaGraphInstantiate"), 1);
    assert_int_equal(fake_cuda_calls("cudaGraphLaunch"), 3);
    picker_close(&p, l.device[0]);
    close_all(&l);
}

static void test_a_full_device(void **state) {
    (void)state;
    lab l;
    void *memory;
    vd_error error;
    lab_open(&l, 2);
    fake_cuda_memory(64 << 20);
    assert_int_equal(l.device[1]->table->allocate(l.device[1], 65 << 20, &memory, &error),
                     VD_ERR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "device cuda:1: no memory for 68157440 bytes"));
    assert_int_equal(atomic_load(&l.device[1]->allocated), 0);
    close_all(&l);
}

static vd_code fill_ones(const vd_constant *self, float *out, vd_error *err) {
    (void)err;
    for (int64_t i = 0; i < self->dims[0]; i++)
        out[i] = 1;
    return VD_OK;
}

/* A program that copies a constant. */
static vd_program *copier(const vd_constant *c) {
    vd_shape shape = vd_vector_shape(c->dims[0]);
    vd_program *p = vd_program_new("copier", VD_F32);
    vd_program_copy(p, (vd_copy){vd_program_constant(p, c, VD_F32, shape),
                                 vd_program_external(p, "copy", VD_F32, shape)});
    must(vd_program_finish(p, err));
    return p;
}

/* Loading a program takes no memory for another one, which was planned before or is too large for the GPU. */
static void test_weights_of_one_program(void **state) {
    (void)state;
    static const vd_constant constants[] = {{"small", {64, 1, 1, 1}, fill_ones},
                                            {"large", {65 << 18, 1, 1, 1}, fill_ones}};
    lab l;
    vd_program *programs[2];
    vd_compiled *compiled[2];
    vd_error error;
    lab_open(&l, 1);
    fake_cuda_memory(64 << 20);
    for (int i = 0; i < 2; i++) {
        programs[i] = copier(&constants[i]);
        ON(&l, 0, compile, l.device[0], programs[i], &compiled[i]);
    }
    assert_int_equal(l.device[0]->table->load(l.device[0], compiled[1], &error), VD_ERR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "device cuda:0: out of memory: 68157440 bytes of weights"));
    ON(&l, 0, load, l.device[0], compiled[0]);
    for (int i = 0; i < 2; i++) {
        l.device[0]->table->compiled_close(l.device[0], compiled[i]);
        vd_program_free(programs[i]);
    }
    l.weights = 256;
    close_all(&l);
}

typedef struct neighbour {
    vd_device *device;
    vd_thread thread;
    _Atomic uint32_t stop;
    vd_code code;
    vd_error error;
} neighbour;

static void *take_and_give(void *argument) {
    neighbour *n = argument;
    void *memory;
    while (!atomic_load(&n->stop) && n->code == VD_OK) {
        n->code = n->device->table->allocate(n->device, 4096, &memory, &n->error);
        if (n->code == VD_OK)
            n->device->table->release(n->device, memory);
    }
    return NULL;
}

/* Two devices on one GPU: memory that one takes and gives back spoils no graph of the other's. */
static void test_captures_are_left_alone(void **state) {
    (void)state;
    lab l = {.count = 2};
    picker p;
    must(lab_backend_open(&l.backend, err));
    must(l.backend->table->open(l.backend, (int[]){0, 0}, 2, l.device, err));
    lab_open_streams(&l);
    picker_build(&p);
    must(picker_open(&p, l.device[0], err));
    neighbour n = {.device = l.device[1]};
    must(vd_thread_start(&n.thread, "neighbour", VD_ANY_CPU, take_and_give, &n, err));
    for (int i = 0; i < 300; i++) {
        vd_exec *x;
        ON(&l, 0, exec_open, l.device[0], p.compiled, p.arena, p.bindings, PICKER_VALUES, &x);
        l.device[0]->table->exec_close(l.device[0], x);
    }
    atomic_store(&n.stop, 1);
    vd_thread_join(&n.thread);
    assert_int_equal(n.code, VD_OK);
    picker_close(&p, l.device[0]);
    close_all(&l);
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
    lab_open(&l, LAB_DEVICES);
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
    close_all(&l);
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
    close_all(&l);
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
    close_all(&l);
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
    close_all(&l);
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
    VD_TRY(pick(p, d, l->stream[0], 1, NULL, &got, err));
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
    const struct CMUnitTest tests[] = {ON_FRESH(test_a_launch_is_one_graph),
                                       ON_FRESH(test_a_full_device),
                                       ON_FRESH(test_weights_of_one_program),
                                       ON_FRESH(test_captures_are_left_alone),
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
