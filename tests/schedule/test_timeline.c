#include "schedule/print.h"
#include "schedule/requests.h"

#include "base/json.h"

static bool near(double a, double b) {
    return fabs(a - b) <= 1e-9 * fmax(1, fmax(fabs(a), fabs(b)));
}

/* Two stages by hand: device 0 encodes (2) and does steps 0-1, device 1 does steps 2-3 and decodes (3); a hop
 * takes 0.5. Device 0: 0-4, 4-8, 8-12. Device 1: 4.5-9.5, 9.5-14.5, 14.5-19.5. */
static void figures_of_a_pipeline_by_hand(void **state) {
    (void)state;
    int split[] = {2, 2};
    vd_plan_request r = {
        .devices = 2, .samples = 3, .steps = 4, .costs = {2, 1, 3, 0.5}, .split = split, .decode = true};
    vd_plan *plan = plan_of(r, VD_MODE_PIPELINE);
    vd_timeline t = timeline_of(plan, &r.costs);
    assert_true(near(t.makespan, 19.5) && near(t.first_result, 9.5) && near(t.fill, 4.5) &&
                near(t.drain, 7.5));
    assert_true(near(t.busy[0], 12) && near(t.busy[1], 15) && near(t.bubble_share, 1 - 27 / 39.0));
    assert_true(near(t.steady_interval, 5) && near(t.longest_gap, 5));
    assert_true(near(t.admitted[2], 8) && near(t.finished[2], 19.5));
    assert_true(near(t.latency_p50, 10.5) && near(t.latency_p95, 11.5)); /* of 9.5, 10.5, 11.5 */
    vd_timeline_free(&t);
    vd_plan_free(plan);
}

/* Measured times have any origin; devices that did nothing count in the bubble share only. */
static void measured_times_are_reduced(void **state) {
    (void)state;
    vd_plan_request r = {.devices = 4, .samples = 2, .steps = 3, .costs = {.step = 1}};
    vd_plan *plan = plan_of(r, VD_MODE_DATA);
    vd_timeline t;
    vd_error err;
    assert_int_equal(plan->task_count, 2);
    assert_int_equal(vd_timeline_alloc(plan, &t, &err), VD_OK);
    t.start[0] = 100;
    t.end[0] = 104;
    t.start[1] = 101;
    t.end[1] = 107;
    vd_timeline_reduce(plan, &t);
    assert_true(near(t.makespan, 7) && near(t.first_result, 4) && near(t.fill, 1) && near(t.drain, 3));
    assert_true(near(t.bubble_share, 1 - 10 / 28.0) && near(t.steady_interval, 1 / (1 / 4.0 + 1 / 6.0)));
    assert_true(near(t.longest_gap, 3) && near(t.latency_p50, 4) && near(t.latency_p95, 6));
    vd_timeline_free(&t);
    vd_plan_free(plan);
}

static void one_sample_has_no_interval(void **state) {
    (void)state;
    vd_plan_request r = {.devices = 2, .samples = 1, .steps = 3, .costs = {.step = 1}, .decode = true};
    vd_plan *plan = plan_of(r, VD_MODE_WRAP);
    vd_timeline t = timeline_of(plan, &r.costs);
    assert_true(t.steady_interval == 0 && t.longest_gap == 0 && t.makespan == 3);
    vd_timeline_free(&t);
    vd_plan_free(plan);
}

static void same_number(const json_t *object, const char *key, double want) {
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_number(value));
    assert_true(near(json_number_value(value), want));
}

/* -1 is written as null where `optional`. */
static void same_int(const json_t *object, const char *key, int want, bool optional) {
    const json_t *value = json_object_get(object, key);
    if (optional && want == -1)
        assert_true(json_is_null(value));
    else
        assert_true(json_is_integer(value) && json_integer_value(value) == want);
}

static void same_tasks(const vd_plan *plan, const vd_timeline *t, const json_t *tasks) {
    static const char *const kinds[] = {"encode", "steps", "decode"};
    assert_int_equal(json_array_size(tasks), plan->task_count);
    for (int i = 0; i < plan->task_count; i++) {
        const json_t *row = json_array_get(tasks, (size_t)i);
        assert_int_equal(json_object_size(row), 7);
        same_int(row, "device", plan->tasks[i].device, false);
        same_int(row, "sample", plan->tasks[i].sample, false);
        same_int(row, "first", plan->tasks[i].first, true);
        same_int(row, "last", plan->tasks[i].last, true);
        same_number(row, "start", t->start[i]);
        same_number(row, "end", t->end[i]);
        assert_string_equal(json_string_value(json_object_get(row, "kind")), kinds[plan->tasks[i].kind]);
    }
}

static void same_handoffs(const vd_plan *plan, const json_t *handoffs) {
    assert_int_equal(json_array_size(handoffs), plan->handoff_count);
    for (int i = 0; i < plan->handoff_count; i++) {
        const json_t *row = json_array_get(handoffs, (size_t)i);
        assert_int_equal(json_object_size(row), 4);
        same_int(row, "sample", plan->handoffs[i].sample, false);
        same_int(row, "from", plan->handoffs[i].from, false);
        same_int(row, "to", plan->handoffs[i].to, false);
        same_int(row, "after_step", plan->handoffs[i].after_step, false);
    }
}

static void check_json(const vd_plan *plan, const vd_timeline *t) {
    vd_error err = {0};
    json_t *root = NULL;
    char *text = vd_plan_json(plan, t);
    assert_non_null(text);
    assert_int_equal(vd_json_parse(text, strlen(text), "plan", &root, &err), VD_OK);
    assert_int_equal(json_object_size(root), 9);
    assert_string_equal(json_string_value(json_object_get(root, "mode")), vd_mode_name(plan->mode));
    same_int(root, "devices", plan->devices, false);
    same_int(root, "samples", plan->samples, false);
    same_int(root, "steps", plan->steps, false);
    same_number(root, "makespan", t->makespan);
    same_number(root, "first_result", t->first_result);
    same_number(root, "bubble_share", t->bubble_share);
    same_tasks(plan, t, json_object_get(root, "tasks"));
    same_handoffs(plan, json_object_get(root, "handoffs"));
    json_decref(root);
    free(text);
}

/* Every line fits, and every device has a row of exactly the width asked for. */
static void check_text(const vd_plan *plan, const vd_timeline *t, int columns) {
    int rows = 0;
    char *text = vd_plan_text(plan, t, columns), *rest = text;
    assert_non_null(text);
    for (char *line; (line = strsep(&rest, "\n"));)
        if (strncmp(line, "device ", 7) == 0) {
            assert_int_equal(atoi(line + 7), rows++);
            assert_int_equal(strlen(line), columns);
        }
    assert_int_equal(rows, plan->devices);
    free(text);
}

static void random_plans_print(void **state) {
    (void)state;
    uint64_t seed = 3;
    int split[MAX_DEVICES];
    for (int i = 0; i < 300; i++) {
        vd_plan_request r = draw_request(&seed, split);
        vd_plan *plan = plan_of(r, (vd_mode)(i % 4));
        vd_timeline t = timeline_of(plan, &r.costs);
        check_json(plan, &t);
        check_text(plan, &t, draw_int(&seed, 80, 160));
        vd_timeline_free(&t);
        vd_plan_free(plan);
    }
}

/* A narrow drawing still shows an encode and a decode that are far shorter than one column. */
static void a_drawing_shows_everything(void **state) {
    (void)state;
    vd_plan_request r = {
        .devices = 1, .samples = 2, .steps = 500, .costs = {0.01, 1, 0.01, 0}, .decode = true};
    vd_plan *plan = plan_of(r, VD_MODE_DATA);
    vd_timeline t = timeline_of(plan, &r.costs);
    char *text = vd_plan_text(plan, &t, 80);
    const char *row = strstr(text, "device 0 ");
    assert_non_null(row);
    row += 11;
    assert_int_equal(row[0], '(');
    assert_int_equal(row[1], '0');
    assert_int_equal(row[60], '1');
    assert_int_equal(row[61], ')');
    free(text);
    vd_timeline_free(&t);
    vd_plan_free(plan);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_of_a_pipeline_by_hand), cmocka_unit_test(measured_times_are_reduced),
        cmocka_unit_test(one_sample_has_no_interval),    cmocka_unit_test(random_plans_print),
        cmocka_unit_test(a_drawing_shows_everything),
    };
    return cmocka_run_group_tests_name("timeline", tests, NULL, NULL);
}
