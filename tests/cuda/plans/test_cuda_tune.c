/* The tuner: what it takes for right, and which of several plans it keeps. Plans are the loops of
 * tests/cuda/fake, one of them slow and one of them wrong. */
#include "must.h"

#include "cuda/fake/fake.h"
#include "device/cuda_tune.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SLOW, WRONG, FAST, PLANS };
enum { WORKSPACE_CAP = 4096 };

static const vd_cuda_problem problems[] = {
    {.kind = VD_CUDA_CONV,
     .conv = {.n = 2,
              .h = 9,
              .w = 7,
              .c = 24,
              .oh = 5,
              .ow = 4,
              .k = 16,
              .kh = 3,
              .kw = 3,
              .stride = 2,
              .pad_top = 1,
              .pad_left = 1,
              .pad_bottom = 1,
              .pad_right = 1,
              .dtype = VD_F16,
              .bias = true,
              .add = true,
              .alpha = 0.5f}},
    {.kind = VD_CUDA_GEMM,
     .gemm =
         {.m = 40, .k = 300, .n = 56, .runs = 4, .dtype = VD_BF16, .out = VD_F32, .bias = true, .alpha = 1}},
    {.kind = VD_CUDA_GEMM,
     .gemm =
         {.m = 33, .k = 64, .n = 8, .runs = 1, .dtype = VD_F32, .out = VD_F32, .add = true, .alpha = 0.25f}},
    {.kind = VD_CUDA_GATE, .gate = {.m = 70, .k = 48, .n = 24, .dtype = VD_F16}},
    {.kind = VD_CUDA_SDPA,
     .sdpa = {.batch = 2, .heads = 3, .tokens = 37, .width = 16, .dtype = VD_F16, .scale = 0.25f}},
};
enum { PROBLEMS = sizeof problems / sizeof *problems };

/* ---- the rest of the products, as the tuner sees it ---- */

static struct {
    vd_cuda_math *loops;
    const vd_cuda_plan *plans[PLANS];
    const vd_cuda_plan *kept;
    int saved;
} stage;

void vd_cuda_problem_key(const vd_cuda_problem *problem, char key[VD_CUDA_KEY_CAP]) {
    snprintf(key, VD_CUDA_KEY_CAP, "problem %d", (int)(problem - problems));
}

static vd_code open_loops(const vd_cuda_problem *problem, vd_cuda_plan **out, vd_error *err) {
    if (problem->kind == VD_CUDA_CONV)
        return vd_cuda_conv_open(stage.loops, &problem->conv, out, err);
    if (problem->kind == VD_CUDA_GEMM)
        return vd_cuda_gemm_open(stage.loops, &problem->gemm, out, err);
    if (problem->kind == VD_CUDA_GATE)
        return vd_cuda_gate_open(stage.loops, &problem->gate, out, err);
    return vd_cuda_sdpa_open(stage.loops, &problem->sdpa, out, err);
}

vd_code vd_cuda_candidates(vd_cuda_math *m, const vd_cuda_problem *problem, vd_cuda_plans *plans,
                           vd_error *err) {
    (void)m;
    for (int i = 0; i < PLANS; i++) {
        VD_TRY(open_loops(problem, &plans->items[i], err));
        stage.plans[i] = plans->items[i];
        plans->count++;
    }
    return VD_OK;
}

void vd_cuda_plans_close(vd_cuda_plans *plans) {
    for (int i = 0; i < plans->count; i++)
        vd_cuda_plan_close(plans->items[i]);
}

static vd_code run_loops(const vd_cuda_plan *p, cudaStream_t stream, const vd_cuda_operands *o,
                         void *workspace, vd_error *err) {
    /* The loops of a convolution and of a product start the same way. */
    if (o->weights)
        return vd_cuda_conv_run(p, stream, o->x, o->weights, o->bias, o->z, o->y, workspace, err);
    return vd_cuda_sdpa_run(p, stream, o->x, o->y, workspace, err);
}

vd_code vd_cuda_plan_run(const vd_cuda_plan *p, cudaStream_t stream, const vd_cuda_operands *o,
                         void *workspace, vd_error *err) {
    if (p == stage.plans[SLOW])
        nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
    VD_TRY(run_loops(p, stream, o, workspace, err));
    if (p == stage.plans[WRONG]) { /* one that forgets the first results */
        static const float nothing[2];
        if (cudaStreamSynchronize(stream) != cudaSuccess ||
            cudaMemcpy(o->y, nothing, sizeof nothing, cudaMemcpyHostToDevice) != cudaSuccess)
            return vd_fail(err, VD_ERR_INTERNAL, "the fake runtime failed");
    }
    return VD_OK;
}

vd_code vd_cuda_choice_save(const vd_cuda_plan *p, vd_error *err) {
    (void)err;
    stage.kept = p;
    stage.saved++;
    return VD_OK;
}

/* ---- tests ---- */

static void count_right(void *user, const vd_cuda_trial *trial) {
    *(int *)user += trial->right;
}

static void open_stage(void) {
    memset(&stage, 0, sizeof stage);
    must(vd_cuda_math_open(&(vd_cuda_math_request){.ordinal = -1}, &stage.loops, err));
}

static void the_fastest_right_plan_is_kept(void **state) {
    (void)state;
    open_stage();
    vd_cuda_math m = {.workspace_cap = WORKSPACE_CAP};
    for (int i = 0; i < PROBLEMS; i++) {
        int right = 0;
        vd_cuda_tuner tuner = {"cuda:0", count_right, &right};
        must(vd_cuda_tune(&m, &problems[i], &tuner, err));
        assert_int_equal(right, PLANS - 1);
        assert_ptr_equal(stage.kept, stage.plans[FAST]);
        assert_int_equal(stage.saved, i + 1);
    }
    vd_cuda_math_close(stage.loops);
    assert_int_equal(fake_cuda_open(), 0);
}

static void all_open_problems_are_tuned_once(void **state) {
    (void)state;
    open_stage();
    struct vd_cuda_plan *open = calloc(3, sizeof *open);
    assert_non_null(open);
    open[0] = (struct vd_cuda_plan){.problem = problems[1], .next = &open[1]};
    open[1] = (struct vd_cuda_plan){.problem = problems[0], .next = &open[2], .tuned = true};
    open[2].problem = problems[PROBLEMS - 1];
    vd_cuda_math m = {.workspace_cap = WORKSPACE_CAP, .plans = open};
    int right = 0;
    must(vd_cuda_tune_open(&m, &(vd_cuda_tuner){"cuda:0", count_right, &right}, err));
    assert_int_equal(stage.saved, 2);
    assert_int_equal(right, 2 * (PLANS - 1));
    free(open);
    vd_cuda_math_close(stage.loops);
}

/* Without memory on the device there is an error, and nothing stays open. */
static void a_full_device_is_an_error(void **state) {
    (void)state;
    open_stage();
    int right = 0;
    vd_error err = {0};
    vd_cuda_math m = {.workspace_cap = WORKSPACE_CAP};
    fake_cuda_fail("cudaMalloc", 1, cudaErrorMemoryAllocation);
    assert_int_equal(vd_cuda_tune(&m, &problems[0], &(vd_cuda_tuner){"cuda:0", count_right, &right}, &err),
                     VD_ERR_UNAVAILABLE);
    assert_int_equal(stage.saved + right, 0);
    vd_cuda_math_close(stage.loops);
    assert_int_equal(fake_cuda_open(), 0);
    fake_cuda_reset();
}

/* NaN is no result, wherever a place that is looked at has one. */
static void nan_is_wrong(void **state) {
    (void)state;
    vd_cuda_trial_data d;
    must(vd_cuda_trial_data_open(&problems[2], &d, err));
    assert_int_equal(d.samples, VD_CUDA_SAMPLES);
    float *y = calloc(1, d.y_bytes);
    assert_non_null(y);
    for (int i = 0; i < d.samples; i++)
        y[d.places[i]] = (float)d.values[i];
    assert_true(vd_cuda_trial_error(&d, y) < 1e-6);
    memset(&y[d.places[d.samples - 1]], 0xff, sizeof *y);
    assert_false(vd_cuda_trial_error(&d, y) <= 1e30);
    free(y);
    vd_cuda_trial_data_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fastest_right_plan_is_kept),
        cmocka_unit_test(all_open_problems_are_tuned_once),
        cmocka_unit_test(a_full_device_is_an_error),
        cmocka_unit_test(nan_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
