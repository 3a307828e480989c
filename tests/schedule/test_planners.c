#include "schedule/requests.h"

static bool near(double a, double b) {
    return fabs(a - b) <= 1e-9 * fmax(1, fmax(fabs(a), fabs(b)));
}

/* Steps of sample 0 on each device. */
static void split_of(const vd_plan *plan, int *split) {
    memset(split, 0, (size_t)plan->devices * sizeof *split);
    for (int i = 0; i < plan->task_count; i++) {
        const vd_task *t = &plan->tasks[i];
        if (t->sample == 0 && t->kind == VD_TASK_STEPS)
            split[t->device] += t->last - t->first + 1;
    }
}

static void uneven_steps_go_to_the_front(void **state) {
    (void)state;
    vd_plan_request r = {.devices = 7, .samples = 3, .steps = 25, .costs = {.step = 1}, .decode = true};
    vd_plan *plan = plan_of(r, VD_MODE_PIPELINE);
    int split[7];
    split_of(plan, split);
    assert_memory_equal(split, ((int[]){4, 4, 4, 4, 3, 3, 3}), sizeof split);
    assert_int_equal(plan->handoff_count, 3 * 6);
    vd_plan_free(plan);
}

static void costs_move_the_split(void **state) {
    (void)state;
    vd_plan_request r = {.devices = 3, .samples = 1, .steps = 9, .costs = {2, 1, 4, 0}, .decode = true};
    vd_plan *plan = plan_of(r, VD_MODE_PIPELINE);
    int split[3];
    split_of(plan, split);
    assert_memory_equal(split, ((int[]){3, 5, 1}), sizeof split);
    vd_plan_free(plan);
}

/* The figures of the design: 64, 56 and 40 step-times. */
static void ten_samples_on_seven_devices(void **state) {
    (void)state;
    const struct {
        vd_mode mode;
        double makespan, first, bubble;
        int handoffs;
    } want[] = {{VD_MODE_PIPELINE, 64, 28, 1 - 280.0 / (7 * 64), 60},
                {VD_MODE_DATA, 56, 28, 1 - 280.0 / (7 * 56), 0},
                {VD_MODE_WRAP, 40, 28, 0, 6}};
    vd_plan_request r = {.devices = 7, .samples = 10, .steps = 28, .costs = {.step = 1}, .decode = true};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        vd_plan *plan = plan_of(r, want[i].mode);
        vd_timeline t = timeline_of(plan, &r.costs);
        assert_true(t.makespan == want[i].makespan && t.first_result == want[i].first);
        assert_true(near(t.bubble_share, want[i].bubble));
        assert_true(near(t.steady_interval, 4));
        assert_int_equal(plan->handoff_count, want[i].handoffs);
        vd_timeline_free(&t);
        vd_plan_free(plan);
    }
}

static void more_devices_than_steps(void **state) {
    (void)state;
    vd_plan_request r = {.devices = 7, .samples = 2, .steps = 3, .costs = {.step = 1}, .decode = true};
    int split[7];
    vd_plan *plan = plan_of(r, VD_MODE_PIPELINE); /* nothing else costs: no device is there to pass on */
    split_of(plan, split);
    assert_memory_equal(split, ((int[]){1, 1, 1, 0, 0, 0, 0}), sizeof split);
    assert_int_equal(plan->handoff_count, 2 * 2);
    vd_plan_free(plan);
    r.costs.encode = r.costs.decode = 2; /* each of them is worth a device */
    plan = plan_of(r, VD_MODE_PIPELINE);
    split_of(plan, split);
    assert_memory_equal(split, ((int[]){0, 1, 1, 1, 0, 0, 0}), sizeof split);
    assert_int_equal(plan->handoff_count, 2 * 4);
    assert_int_equal(plan->handoffs[0].after_step, -1);
    vd_plan_free(plan);
}

static void a_split_with_zeros_is_obeyed(void **state) {
    (void)state;
    int split[] = {0, 3, 0, 2, 0}, got[5];
    vd_plan_request r = {
        .devices = 5, .samples = 2, .steps = 5, .costs = {.step = 1}, .split = split, .decode = true};
    vd_plan *plan = plan_of(r, VD_MODE_PIPELINE);
    split_of(plan, got);
    assert_memory_equal(got, split, sizeof split);
    assert_int_equal(plan->tasks[0].device, 0); /* encodes */
    assert_int_equal(plan->tasks[3].device, 4); /* decodes */
    assert_int_equal(plan->tasks[3].kind, VD_TASK_DECODE);
    assert_int_equal(plan->handoff_count, 2 * 3);
    vd_plan_free(plan);
    r.decode = false;
    plan = plan_of(r, VD_MODE_PIPELINE);
    assert_int_equal(plan->task_count, 2 * 2);
    vd_plan_free(plan);
}

static void impossible_requests_are_refused(void **state) {
    (void)state;
    int few[] = {4, 4}, negative[] = {12, -2};
    const vd_plan_request good = {
        .devices = 2, .samples = 2, .steps = 10, .costs = {.step = 1}, .decode = true};
    vd_plan_request bad[10];
    for (int i = 0; i < 10; i++)
        bad[i] = good;
    bad[0].devices = 0;
    bad[1].samples = -1;
    bad[2].steps = 0;
    bad[3].split = few;
    bad[4].split = negative;
    bad[5].costs.step = 0;
    bad[6].costs.decode = -1;
    bad[7].costs.encode = NAN;
    bad[8].costs.handoff = INFINITY;
    bad[9].samples = INT32_MAX;
    vd_error err;
    vd_plan *plan = NULL;
    for (int mode = VD_MODE_PIPELINE; mode <= VD_MODE_AUTO; mode++)
        for (int i = 0; i < 10; i++) {
            bad[i].mode = (vd_mode)mode;
            assert_int_equal(vd_plan_make(&bad[i], &plan, &err), VD_ERR_USAGE);
            assert_null(plan);
        }
}

static void names_are_read_back(void **state) {
    (void)state;
    vd_mode mode;
    vd_goal goal;
    for (int i = VD_MODE_PIPELINE; i <= VD_MODE_AUTO; i++) {
        assert_true(vd_mode_parse(vd_mode_name((vd_mode)i), &mode));
        assert_int_equal(mode, i);
    }
    assert_false(vd_mode_parse("pipe", &mode));
    assert_true(vd_goal_parse("cadence", &goal));
    assert_int_equal(goal, VD_GOAL_CADENCE);
    assert_false(vd_goal_parse("", &goal));
}

static void auto_knows_what_is_best(void **state) {
    (void)state;
    const struct {
        int devices, samples;
        vd_goal goal;
        vd_mode mode;
    } want[] = {{7, 10, VD_GOAL_MAKESPAN, VD_MODE_WRAP},
                {7, 14, VD_GOAL_MAKESPAN, VD_MODE_DATA},
                {7, 10, VD_GOAL_LATENCY, VD_MODE_DATA},
                {7, 14, VD_GOAL_CADENCE, VD_MODE_PIPELINE},
                {1, 10, VD_GOAL_MAKESPAN, VD_MODE_PIPELINE}};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        vd_plan_request r = {.devices = want[i].devices,
                             .samples = want[i].samples,
                             .steps = 28,
                             .goal = want[i].goal,
                             .costs = {.step = 1},
                             .decode = true};
        vd_plan *plan = plan_of(r, VD_MODE_AUTO);
        assert_string_equal(vd_mode_name(plan->mode), vd_mode_name(want[i].mode));
        assert_true(strncmp(plan->reason, vd_mode_name(plan->mode), strlen(vd_mode_name(plan->mode))) == 0);
        vd_plan_free(plan);
    }
}

static double figure_of(const vd_plan_request *r, vd_mode mode) {
    vd_plan *plan = plan_of(*r, mode);
    vd_timeline t = timeline_of(plan, &r->costs);
    double figure = r->goal == VD_GOAL_MAKESPAN  ? t.makespan
                    : r->goal == VD_GOAL_LATENCY ? t.latency_p95
                                                 : t.longest_gap;
    vd_timeline_free(&t);
    vd_plan_free(plan);
    return figure;
}

static void auto_is_never_worse_than_a_mode(void **state) {
    (void)state;
    uint64_t seed = 5;
    int split[MAX_DEVICES];
    for (int i = 0; i < 300; i++) {
        vd_plan_request r = draw_request(&seed, split);
        r.goal = (vd_goal)(i % 3);
        double best = figure_of(&r, VD_MODE_AUTO);
        for (int mode = VD_MODE_PIPELINE; mode < VD_MODE_AUTO; mode++)
            assert_true(best <= figure_of(&r, (vd_mode)mode) * (1 + 1e-9));
    }
}

/* Largest load of a stage when `left` steps remain for the devices from `d` on: every split is tried. */
static double best_load(const vd_plan_request *r, int d, int left) {
    double ends =
        r->decode ? (d == 0 ? r->costs.encode : 0) + (d == r->devices - 1 ? r->costs.decode : 0) : 0;
    if (d == r->devices - 1)
        return ends + left * r->costs.step;
    double best = INFINITY;
    for (int take = 0; take <= left; take++)
        best = fmin(best, fmax(ends + take * r->costs.step, best_load(r, d + 1, left - take)));
    return best;
}

static double largest_load(const vd_plan_request *r, const vd_plan *plan) {
    double load[MAX_DEVICES] = {0}, largest = 0;
    for (int i = 0; i < plan->task_count; i++) {
        const vd_task *t = &plan->tasks[i];
        if (t->sample == 0)
            load[t->device] += t->kind == VD_TASK_ENCODE   ? r->costs.encode
                               : t->kind == VD_TASK_DECODE ? r->costs.decode
                                                           : (t->last - t->first + 1) * r->costs.step;
        largest = fmax(largest, load[t->device]);
    }
    return largest;
}

static void balanced_splits_are_optimal(void **state) {
    (void)state;
    uint64_t seed = 11;
    int split[MAX_DEVICES];
    for (int i = 0; i < 2000; i++) {
        vd_plan_request r = draw_request(&seed, split);
        r.devices = 1 + r.devices % 4;
        r.steps = 1 + r.steps % 9;
        r.samples = 1;
        r.split = NULL;
        vd_plan *plan = plan_of(r, VD_MODE_PIPELINE);
        assert_true(near(largest_load(&r, plan), best_load(&r, 0, r.steps)));
        vd_plan_free(plan);
    }
}

/* Identical jobs through stages in a row: the first takes the sum of the stages, each further one the slowest
 * stage. */
static void check_pipeline(const vd_plan_request *r, const vd_plan *plan, const vd_timeline *t) {
    int hops = plan->handoff_count / r->samples, split[MAX_DEVICES];
    assert_int_equal(plan->handoff_count % r->samples, 0);
    double want = sample_cost(r) + hops * r->costs.handoff + (r->samples - 1) * largest_load(r, plan);
    assert_true(near(t->makespan, want));
    split_of(plan, split);
    if (r->split)
        assert_memory_equal(split, r->split, (size_t)r->devices * sizeof *split);
}

static void check_data(const vd_plan_request *r, const vd_plan *plan, const vd_timeline *t) {
    assert_int_equal(plan->handoff_count, 0);
    assert_true(near(t->makespan, (r->samples + r->devices - 1) / r->devices * sample_cost(r)));
    assert_true(near(t->latency_p95, sample_cost(r)) && near(t->first_result, sample_cost(r)));
}

static void check_wrap(const vd_plan_request *r, const vd_plan *plan, const vd_timeline *t) {
    double whole = sample_cost(r), even = whole * r->samples / r->devices, h = r->costs.handoff;
    bool ends = r->decode && (r->costs.encode > 0 || r->costs.decode > 0);
    double unit = ends ? fmax(r->costs.step, fmax(r->costs.encode, r->costs.decode)) : r->costs.step;
    int hops[MAX_SAMPLES] = {0};
    assert_true(plan->handoff_count <= r->devices - 1);
    for (int i = 0; i < plan->handoff_count; i++)
        assert_int_equal(++hops[plan->handoffs[i].sample], 1);
    double length = ends ? fmax(whole, even + unit) : fmax(whole, ceil(even / unit - 1e-9) * unit);
    double late = plan->handoff_count > 0 ? whole + h : 0;
    assert_true(t->makespan >= fmax(whole, even) * (1 - 1e-9));
    assert_true(t->makespan <= fmax(length, late) * (1 + 1e-9) + 2e-6 * r->costs.step);
    if (r->samples % r->devices == 0 ||
        r->samples < r->devices) /* whole samples fill the devices: no cut is worth it */
        assert_int_equal(plan->handoff_count, 0);
}

/* The simulation agrees with times found without it. */
static void check_times(const vd_plan_request *r, const vd_plan *plan, const vd_timeline *t,
                        second_look *look) {
    double *start = calloc(2 * (size_t)plan->task_count, sizeof *start), *end = start + plan->task_count;
    assert_non_null(start);
    assert_true(plan_is_whole(plan, look));
    assert_true(settle(plan, &r->costs, look, start, end));
    for (int i = 0; i < plan->task_count; i++)
        assert_true(near(start[i], t->start[i]) && near(end[i], t->end[i]));
    free(start);
}

static void check_mode(const vd_plan_request *r, vd_mode mode, second_look *look, bool thorough) {
    static void (*const checks[])(const vd_plan_request *, const vd_plan *,
                                  const vd_timeline *) = {check_pipeline, check_data, check_wrap};
    vd_plan *plan = plan_of(*r, mode); /* which the checker has passed */
    vd_timeline t = timeline_of(plan, &r->costs);
    assert_int_equal(plan->mode, mode);
    checks[mode](r, plan, &t);
    if (thorough)
        check_times(r, plan, &t, look);
    vd_timeline_free(&t);
    vd_plan_free(plan);
}

static void ten_thousand_random_requests(void **state) {
    (void)state;
    uint64_t seed = 2024;
    int split[MAX_DEVICES];
    second_look *look = malloc(sizeof *look);
    assert_non_null(look);
    for (int i = 0; i < 10000; i++) {
        vd_plan_request r = draw_request(&seed, split);
        for (int mode = VD_MODE_PIPELINE; mode < VD_MODE_AUTO; mode++)
            check_mode(&r, (vd_mode)mode, look, i % 20 == 0);
    }
    free(look);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uneven_steps_go_to_the_front),
        cmocka_unit_test(costs_move_the_split),
        cmocka_unit_test(ten_samples_on_seven_devices),
        cmocka_unit_test(more_devices_than_steps),
        cmocka_unit_test(a_split_with_zeros_is_obeyed),
        cmocka_unit_test(impossible_requests_are_refused),
        cmocka_unit_test(names_are_read_back),
        cmocka_unit_test(auto_knows_what_is_best),
        cmocka_unit_test(auto_is_never_worse_than_a_mode),
        cmocka_unit_test(balanced_splits_are_optimal),
        cmocka_unit_test(ten_thousand_random_requests),
    };
    return cmocka_run_group_tests_name("planners", tests, NULL, NULL);
}
