/* The whole of Stable Video Diffusion, lowered for a GPU that is only described: every convolution, product
 * and attention of it has a plan, on kernels that the libraries bring along wherever we count on it, within
 * the workspace. */
#include "model/hollow.h"

#include "device/cuda.h"
#include "device/cuda_math.h"
#include "model/networks.h"

enum { WORKSPACE_CAP = 64 << 20, HEIGHT = 576, WIDTH = 1024, STEPS = 25 };

static const char *profile_path; /* the program's argument */

/* ---- a device from its data sheet ---- */

/* What no library has, counted: attention in fp32 is our own kernel's. */
static void look_for_gaps(void *user, vd_log_level level, const char *line) {
    (void)level;
    if (!strstr(line, "no library has it") || strncmp(line, "sdpa fp32", 9) == 0)
        return;
    print_message("%s\n", line);
    ++*(int *)user;
}

static vd_cuda_math *open_math(const vd_log *log, const char *cache_folder, size_t workspace_cap) {
    char *profile;
    size_t length;
    must(vd_file_read(profile_path, "profile", 1 << 16, &profile, &length, err));
    vd_cuda_math_request request = {.log = log,
                                    .ordinal = -1,
                                    .profile = profile,
                                    .cache_folder = cache_folder,
                                    .workspace_cap = workspace_cap};
    vd_cuda_math *m;
    must(vd_cuda_math_open(&request, &m, err));
    free(profile);
    return m;
}

/* ---- lowering ---- */

typedef struct lowered {
    vd_program *program;
    vd_cuda_step **steps;
} lowered;

static lowered lower(vd_cuda_math *m, vd_cuda_weights *w, vd_program *p) {
    lowered l = {p, calloc((size_t)p->op_count, sizeof *l.steps)};
    vd_cuda_planner planner = {.math = m, .weights = w, .program = p};
    assert_non_null(l.steps);
    for (int i = 0; i < p->op_count; i++) {
        const vd_cuda_op *op = vd_cuda_ops[p->ops[i].kind];
        size_t scratch = 0;
        if (!op->plan)
            continue;
        l.steps[i] = calloc(1, op->step_bytes);
        assert_non_null(l.steps[i]);
        must(op->plan(&planner, &p->ops[i], l.steps[i], &scratch, err));
    }
    return l;
}

static void lowered_close(lowered *l) {
    for (int i = 0; i < l->program->op_count; i++) {
        const vd_cuda_op *op = vd_cuda_ops[l->program->ops[i].kind];
        if (l->steps[i] && op->close)
            op->close(l->steps[i]);
        free(l->steps[i]);
    }
    free(l->steps);
    vd_program_free(l->program);
}

/* ---- the tests ---- */

/* Kernels compiled when a program is loaded: attention and gated products. */
static bool may_compile(const vd_cuda_problem *p) {
    return p->kind == VD_CUDA_SDPA || p->kind == VD_CUDA_GATE;
}

static int check_plans(const vd_cuda_math *m) {
    int count[VD_CUDA_KINDS] = {0}, wrong = 0;
    size_t most = 0;
    for (const vd_cuda_plan *p = m->plans; p; p = p->next) {
        size_t workspace = p->up ? p->up->workspace : p->workspace;
        bool good = workspace <= WORKSPACE_CAP && (p->precompiled || may_compile(&p->problem));
        print_message("%s%-96s %-58s %9.2f MB\n", good ? "" : "WRONG: ", p->key, p->name,
                      (double)p->workspace / (1 << 20));
        wrong += !good;
        count[p->problem.kind]++;
        most = p->workspace > most ? p->workspace : most;
    }
    print_message(
        "%s: %d convolutions, %d products, %d gated ones, %d attentions, workspace at most %.1f MB\n",
        m->stack, count[VD_CUDA_CONV], count[VD_CUDA_GEMM], count[VD_CUDA_GATE], count[VD_CUDA_SDPA],
        (double)most / (1 << 20));
    assert_true(count[VD_CUDA_CONV] > 40 && count[VD_CUDA_GEMM] > 40 && count[VD_CUDA_SDPA] == 9);
    assert_true(count[VD_CUDA_GATE] > 5);
    return wrong;
}

static void every_operation_of_the_real_model_has_a_plan(void **state) {
    (void)state;
    enum { PROGRAMS = 8 };
    hollow h = hollow_make("tests/golden/configs/full");
    vd_model *model;
    must(vd_model_open(h.where.path, NULL, &model, err));
    vd_program *p[PROGRAMS];
    must(vd_build_clip(model, VD_F16, &p[0], err));
    must(vd_build_vae_encoder(model, VD_F32, HEIGHT, WIDTH, &p[1], err));
    for (int i = 0; i < 2; i++) {
        vd_video_shape video = {i ? 25 : 14, HEIGHT / 8, WIDTH / 8, STEPS, true};
        must(vd_build_condition(model, VD_F16, video, &p[2 + i], err));
        must(vd_build_step(model, VD_F16, video, false, &p[4 + i], err));
        must(vd_build_decoder(model, VD_F16, video.frames, video.latent_h, video.latent_w, &p[6 + i], err));
    }
    int gaps = 0;
    vd_log log = {look_for_gaps, &gaps, VD_LOG_DEBUG};
    vd_cuda_math *m = open_math(&log, NULL, WORKSPACE_CAP);
    vd_cuda_pool *pool;
    vd_cuda_weights *weights;
    must(vd_cuda_pool_open(&pool, err));
    must(vd_cuda_weights_open(pool, "cuda:0", &weights, err));
    lowered l[PROGRAMS];
    for (int i = 0; i < PROGRAMS; i++)
        l[i] = lower(m, weights, p[i]);
    assert_int_equal(check_plans(m), 0);
    assert_int_equal(gaps, 0);
    for (int i = 0; i < PROGRAMS; i++)
        lowered_close(&l[i]);
    assert_null(m->plans);
    vd_cuda_weights_close(weights);
    vd_cuda_pool_close(pool);
    vd_cuda_math_close(m);
    vd_model_close(model);
    hollow_remove(&h);
}

static const vd_cuda_problem a_conv = {.kind = VD_CUDA_CONV,
                                       .conv = {.n = 28,
                                                .h = 36,
                                                .w = 64,
                                                .c = 640,
                                                .oh = 36,
                                                .ow = 64,
                                                .k = 640,
                                                .kh = 3,
                                                .kw = 3,
                                                .stride = 1,
                                                .pad_top = 1,
                                                .pad_left = 1,
                                                .pad_bottom = 1,
                                                .pad_right = 1,
                                                .dtype = VD_F16,
                                                .bias = true,
                                                .add = true,
                                                .alpha = 1}};

/* Two openings share a plan; it goes with the second closing. */
static void plans_of_one_problem_are_one(void **state) {
    (void)state;
    vd_cuda_math *m = open_math(NULL, NULL, WORKSPACE_CAP);
    vd_cuda_plan *one, *other;
    must(vd_cuda_conv_open(m, &a_conv.conv, &one, err));
    must(vd_cuda_conv_open(m, &a_conv.conv, &other, err));
    assert_ptr_equal(one, other);
    vd_cuda_plan_close(one);
    assert_ptr_equal(m->plans, other);
    vd_cuda_plan_close(other);
    assert_null(m->plans);
    vd_cuda_math_close(m);
}

/* Other candidates than the first, none greedier than allowed. */
static void candidates_keep_to_the_workspace(void **state) {
    (void)state;
    for (size_t cap = 0; cap <= WORKSPACE_CAP; cap += WORKSPACE_CAP) {
        vd_cuda_math *m = open_math(NULL, NULL, cap);
        vd_cuda_plans plans = {.limit = 8};
        must(vd_cuda_candidates(m, &a_conv, &plans, err));
        assert_in_range(plans.count, 1, 8);
        for (int i = 0; i < plans.count; i++)
            assert_in_range(vd_cuda_plan_workspace(plans.items[i]), 0, cap);
        assert_true(cap == 0 || plans.count == 8);
        vd_cuda_plans_close(&plans);
        vd_cuda_math_close(m);
    }
}

/* With room for all, also engines that no heuristic names; each plan is another. */
static void engines_that_nobody_names_are_candidates(void **state) {
    (void)state;
    vd_cuda_math *m = open_math(NULL, NULL, WORKSPACE_CAP);
    vd_cuda_plans plans = {.limit = VD_CUDA_CANDIDATES};
    must(vd_cuda_candidates(m, &a_conv, &plans, err));
    int as_they_come = 0;
    for (int i = 0; i < plans.count; i++) {
        const char *name = vd_cuda_plan_name(plans.items[i]);
        as_they_come += !strstr(name, "knobs");
        for (int k = 0; k < i; k++)
            assert_string_not_equal(name, vd_cuda_plan_name(plans.items[k]));
    }
    print_message("%d plans, %d of engines as they come\n", plans.count, as_they_come);
    assert_in_range(as_they_come, 3, plans.count - 10);
    vd_cuda_plans_close(&plans);
    vd_cuda_math_close(m);
}

/* A choice that is not the heuristics' first comes back from the cache, and only for the same problem; a
 * file that was cut is no choice. */
static void choices_survive(void **state) {
    (void)state;
    folder cache = folder_make();
    vd_cuda_math *m = open_math(NULL, cache.path, WORKSPACE_CAP);
    vd_cuda_plans plans = {.limit = 3};
    must(vd_cuda_candidates(m, &a_conv, &plans, err));
    assert_int_equal(plans.count, 3);
    must(vd_cuda_choice_save(plans.items[2], err));
    vd_cuda_plan *p;
    must(vd_cuda_conv_open(m, &a_conv.conv, &p, err));
    assert_string_equal(vd_cuda_plan_name(p), vd_cuda_plan_name(plans.items[2]));
    assert_int_equal(vd_cuda_plan_workspace(p), vd_cuda_plan_workspace(plans.items[2]));
    assert_int_equal(vd_cuda_plan_precompiled(p), vd_cuda_plan_precompiled(plans.items[2]));
    vd_cuda_plan_close(p);
    vd_cuda_problem other = a_conv;
    other.conv.add = false;
    assert_null(vd_cuda_choice_load(m, &other));
    char path[VD_PATH_CAP];
    must(vd_cuda_choice_path(m, &a_conv, path, err));
    assert_int_equal(truncate(path, 1000), 0);
    assert_null(vd_cuda_choice_load(m, &a_conv));
    vd_cuda_plans_close(&plans);
    vd_cuda_math_close(m);
    folder_remove(&cache);
}

static const char *first_plan(vd_cuda_math *m, const vd_cuda_problem *problem, char *name, size_t cap) {
    vd_cuda_plans plans = {.limit = 1};
    must(vd_cuda_candidates(m, problem, &plans, err));
    assert_int_equal(plans.count, 1);
    snprintf(name, cap, "%s", vd_cuda_plan_name(plans.items[0]));
    vd_cuda_plans_close(&plans);
    return name;
}

/* In fp32 nothing is rounded to TF32 unless somebody says so. */
static void fp32_is_exact(void **state) {
    (void)state;
    char strict[128], fast[128];
    vd_cuda_problem image = a_conv;
    image.conv.n = 1;
    image.conv.dtype = VD_F32;
    vd_cuda_math *m = open_math(NULL, NULL, WORKSPACE_CAP);
    first_plan(m, &image, strict, sizeof strict);
    m->tf32 = true;
    first_plan(m, &image, fast, sizeof fast);
    print_message("fp32: %s; TF32: %s\n", strict, fast);
    assert_string_not_equal(strict, fast);
    vd_cuda_math_close(m);
}

int main(int count, char **arguments) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_of_the_real_model_has_a_plan),
        cmocka_unit_test(plans_of_one_problem_are_one),
        cmocka_unit_test(candidates_keep_to_the_workspace),
        cmocka_unit_test(engines_that_nobody_names_are_candidates),
        cmocka_unit_test(choices_survive),
        cmocka_unit_test(fp32_is_exact),
    };
    if (count != 2)
        return 2;
    profile_path = arguments[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
