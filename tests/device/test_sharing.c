/* Seven workers plan, load and run the same operations at the same time, as the stages of one group do. They
 * share primitives and packed weights and must get the same bits. */
#include "base/thread.h"
#include "device/run_op.h"

#include <stdatomic.h>

enum { WORKERS = 7, ROUNDS = 3, OPERATIONS = 3 };

typedef struct shared {
    vd_cpu_library *library;
    op_case cases[OPERATIONS]; /* programs and inputs, read by all */
    vd_value dst[OPERATIONS];
    _Atomic int waiting;
} shared;

typedef struct worker {
    shared *s;
    vd_thread thread;
    void *result[OPERATIONS]; /* this worker's own destinations */
    vd_code code;
    vd_error error;
} worker;

static vd_code run_one(worker *w, vd_cpu_worker *cpu, int i, vd_error *err) {
    static const vd_cpu_op *const tables[OPERATIONS] = {&vd_cpu_conv, &vd_cpu_linear, &vd_cpu_feed_forward};
    const op_case *t = &w->s->cases[i];
    vd_cpu_plan *plan = NULL;
    size_t bytes = 0;
    VD_TRY(vd_cpu_plan_new(tables[i], w->s->library, &t->program, &t->op, &plan, &bytes, err));
    void *scratch = op_guarded_new(bytes), *at[OP_MAX_VALUES];
    memcpy(at, t->memory, sizeof at);
    at[w->s->dst[i]] = w->result[i];
    vd_cpu_call call = {.at = at, .scratch = scratch, .worker = cpu};
    vd_code code = tables[i]->load(w->s->library, plan, err);
    for (int r = 0; r < ROUNDS && code == VD_OK; r++)
        code = tables[i]->run(&t->program, &t->op, plan, &call, err);
    op_guarded_free(scratch, bytes);
    free(plan);
    return code;
}

static vd_code work(worker *w, vd_error *err) {
    vd_cpu_worker *cpu = NULL;
    VD_TRY(vd_cpu_worker_open(w->s->library, &cpu, err));
    atomic_fetch_sub(&w->s->waiting, 1);
    while (atomic_load(&w->s->waiting) > 0)
        sched_yield();
    vd_code code = VD_OK;
    for (int i = 0; i < OPERATIONS && code == VD_OK; i++)
        code = run_one(w, cpu, i, err);
    vd_cpu_worker_close(cpu);
    return code;
}

static void *body(void *argument) {
    worker *w = argument;
    w->code = work(w, &w->error);
    return NULL;
}

static void make_cases(op_env *env, shared *s, vd_dtype dtype) {
    enum { C = 48 };
    vd_shape shape = {5, 9, 14, C};
    const vd_constant *square = &op_constant_new(env, C, C, 1, 1, 1, 0.1, 0)->base;
    const vd_constant *vector = &op_constant_new(env, C, 1, 1, 1, 2, 0.5, 0)->base;
    const vd_constant *kernel = &op_constant_new(env, C, C, 3, 3, 3, 0.1, 0)->base;
    const vd_constant *up = &op_constant_new(env, 8 * C, C, 1, 1, 4, 0.1, 0)->base;
    const vd_constant *up_bias = &op_constant_new(env, 8 * C, 1, 1, 1, 5, 0.5, 0)->base;
    const vd_constant *down = &op_constant_new(env, C, 4 * C, 1, 1, 6, 0.1, 0)->base;
    const vd_norm group = {VD_NORM_GROUP, vector, vector, 4, 1e-5f, true};
    const vd_norm layer = {VD_NORM_LAYER, vector, vector, 0, 1e-5f, false};
    for (int i = 0; i < OPERATIONS; i++) {
        op_case *t = &s->cases[i];
        op_begin(t, dtype);
        vd_value src = op_tensor(t, dtype, shape), dst = s->dst[i] = op_tensor(t, dtype, shape);
        op_random(t, src, 7, 1, 0.2);
        t->op.kind = (vd_op_kind[]){VD_OP_CONV, VD_OP_LINEAR, VD_OP_FEED_FORWARD}[i];
        if (i == 0) {
            t->op.conv = VD_CONV(.src = src, .norm = group, .weight = kernel, .bias = vector, .pad_top = 1,
                                 .pad_left = 1, .pad_bottom = 1, .pad_right = 1);
            t->op.conv.dst = dst;
        } else if (i == 1) {
            t->op.linear =
                VD_LINEAR(.src = src, .norm = layer, .weight = square, .bias = vector, .act = VD_ACT_SILU);
            t->op.linear.dst = dst;
            t->op.linear.residual = src;
        } else {
            t->op.feed_forward =
                VD_FEED_FORWARD(.src = src, .norm = layer, .act = VD_ACT_GEGLU, .up_weight = up,
                                .up_bias = up_bias, .down_weight = down, .down_bias = vector);
            t->op.feed_forward.dst = dst;
        }
        t->program.values = t->info;
        t->program.ops = &t->op;
    }
}

static void start(worker *w, shared *s) {
    w->s = s;
    for (int i = 0; i < OPERATIONS; i++)
        w->result[i] = op_guarded_new(op_bytes(&s->cases[i], s->dst[i]));
    op_must(vd_thread_start(&w->thread, "worker", VD_ANY_CPU, body, w, err));
}

static void check_sharing(vd_dtype dtype) {
    op_env env;
    op_env_open(&env);
    shared *s = calloc(1, sizeof *s);
    worker *workers = calloc(WORKERS, sizeof *workers);
    assert_true(s && workers);
    s->library = env.backend->library;
    s->waiting = WORKERS;
    make_cases(&env, s, dtype);
    for (int k = 0; k < WORKERS; k++)
        start(&workers[k], s);
    for (int k = 0; k < WORKERS; k++)
        vd_thread_join(&workers[k].thread);
    for (int k = 0; k < WORKERS; k++) {
        if (workers[k].code != VD_OK)
            fail_msg("worker %d: %s", k, workers[k].error.message);
        for (int i = 0; i < OPERATIONS; i++) {
            size_t bytes = op_bytes(&s->cases[i], s->dst[i]);
            assert_memory_equal(workers[k].result[i], workers[0].result[i], bytes);
        }
    }
    int products = vd_cpu_library_kernel_count(env.backend->library);
    size_t weights = vd_cpu_library_weight_bytes(env.backend->library);
    op_run(&env, &s->cases[0]); /* made already: nothing new */
    assert_int_equal(products, vd_cpu_library_kernel_count(env.backend->library));
    assert_int_equal(weights, vd_cpu_library_weight_bytes(env.backend->library));
    assert_memory_equal(s->cases[0].memory[s->dst[0]], workers[0].result[0],
                        op_bytes(&s->cases[0], s->dst[0]));
    for (int k = 0; k < WORKERS; k++)
        for (int i = 0; i < OPERATIONS; i++)
            op_guarded_free(workers[k].result[i], op_bytes(&s->cases[i], s->dst[i]));
    for (int i = 0; i < OPERATIONS; i++)
        op_end(&s->cases[i]);
    free(workers);
    free(s);
    op_env_close(&env);
}

static void test_fp32(void **state) {
    (void)state;
    check_sharing(VD_F32);
}

static void test_fp16(void **state) {
    (void)state;
    check_sharing(VD_F16);
}

static void test_bf16(void **state) {
    (void)state;
    check_sharing(VD_BF16);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fp32), cmocka_unit_test(test_fp16),
                                       cmocka_unit_test(test_bf16)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
