#include "schedule/requests.h"

typedef struct mutation {
    const char *name;
    void (*apply)(vd_plan *plan);
} mutation;

/* The plan under test: 2 devices, 2 samples of 4 steps. Tasks of sample 0: encode 0, steps 1 on device 0,
 * then steps 2 and decode 3 on device 1; sample 1 has tasks 4 to 7. Hand-offs 0 and 1. */
static vd_plan *victim(void) {
    vd_plan_request r = {.devices = 2, .samples = 2, .steps = 4, .costs = {.step = 1}, .decode = true};
    return plan_of(r, VD_MODE_PIPELINE);
}

static void swap_order(vd_plan *p, int a, int b) {
    int kept = p->order[a];
    p->order[a] = p->order[b];
    p->order[b] = kept;
}

static void drop_last_task(vd_plan *p) {
    p->task_count--;
    p->order_start[2]--;
}
static void lose_a_task(vd_plan *p) {
    p->task_count--;
}
static void mode_auto(vd_plan *p) {
    p->mode = VD_MODE_AUTO;
}
static void no_devices(vd_plan *p) {
    p->devices = 0;
}
static void negative_handoffs(vd_plan *p) {
    p->handoff_count = -1;
}
static void order_runs_backwards(vd_plan *p) {
    p->order_start[1] = 9;
}
static void order_starts_late(vd_plan *p) {
    p->order_start[0] = 1;
}
static void task_on_no_device(vd_plan *p) {
    p->tasks[2].device = 2;
}
static void task_of_no_sample(vd_plan *p) {
    p->tasks[2].sample = -1;
}
static void task_of_no_kind(vd_plan *p) {
    p->tasks[2].kind = (vd_task_kind)7;
}
static void steps_out_of_range(vd_plan *p) {
    p->tasks[2].last = 4;
}
static void steps_backwards(vd_plan *p) {
    p->tasks[1].first = 1;
    p->tasks[1].last = 0;
}
static void encode_with_steps(vd_plan *p) {
    p->tasks[0].first = 0;
}
static void unknown_handoff(vd_plan *p) {
    p->tasks[1].handoff_out = 2;
}
static void task_runs_twice(vd_plan *p) {
    p->order[0] = p->order[1];
}
static void unknown_task_runs(vd_plan *p) {
    p->order[0] = 8;
}
static void wrong_device_runs(vd_plan *p) {
    swap_order(p, p->order_start[1] - 1, p->order_start[1]);
}
static void decode_before_steps(vd_plan *p) {
    swap_order(p, p->order_start[1], p->order_start[1] + 1);
}
static void handoff_joins_nothing(vd_plan *p) {
    p->handoffs[0].consumer = 8;
}
static void handoff_joins_others(vd_plan *p) {
    p->handoffs[0].consumer = 6;
}
static void handoffs_swapped(vd_plan *p) {
    p->tasks[1].handoff_out = 1;
    p->tasks[5].handoff_out = 0;
    p->handoffs[0].producer = 5;
    p->handoffs[1].producer = 1;
}
static void handoff_from_elsewhere(vd_plan *p) {
    p->handoffs[0].from = 1;
}
static void handoff_to_itself(vd_plan *p) {
    p->handoffs[0].to = 0;
}
static void handoff_of_another_sample(vd_plan *p) {
    p->handoffs[0].sample = 1;
}
static void handoff_after_wrong_step(vd_plan *p) {
    p->handoffs[0].after_step = 2;
}
static void handoff_not_announced(vd_plan *p) {
    p->tasks[2].handoff_in = -1;
}
static void handoff_missing(vd_plan *p) {
    p->tasks[5].handoff_out = p->tasks[6].handoff_in = -1;
    p->handoff_count--;
}
static void handoff_after_the_end(vd_plan *p) {
    p->tasks[7].handoff_out = 0;
}
static void handoff_before_the_start(vd_plan *p) {
    p->tasks[0].handoff_in = 0;
}
static void step_done_twice(vd_plan *p) {
    p->tasks[2].first = 1;
}
static void step_left_out(vd_plan *p) {
    p->tasks[2].first = 3;
}
static void never_finished(vd_plan *p) {
    p->steps = 5;
    p->decode = false;
}
static void encoded_without_need(vd_plan *p) {
    p->decode = false;
}
static void encoded_twice(vd_plan *p) {
    p->tasks[3].kind = VD_TASK_ENCODE;
}
static void sample_forgotten(vd_plan *p) {
    p->samples = 3;
}

/* Sample 1 the other way round: each device first waits for the other's second task. */
static void circle(vd_plan *p) {
    const int order[] = {6, 7, 0, 1, 2, 3, 4, 5};
    for (int i = 4; i < 8; i++)
        p->tasks[i].device = 1 - p->tasks[i].device;
    p->handoffs[1].from = 1;
    p->handoffs[1].to = 0;
    memcpy(p->order, order, sizeof order);
}

#define MUTATION(f)                                                                                          \
    { #f, f }
static const mutation mutations[] = {
    MUTATION(drop_last_task),
    MUTATION(lose_a_task),
    MUTATION(mode_auto),
    MUTATION(no_devices),
    MUTATION(negative_handoffs),
    MUTATION(order_runs_backwards),
    MUTATION(order_starts_late),
    MUTATION(task_on_no_device),
    MUTATION(task_of_no_sample),
    MUTATION(task_of_no_kind),
    MUTATION(steps_out_of_range),
    MUTATION(steps_backwards),
    MUTATION(encode_with_steps),
    MUTATION(unknown_handoff),
    MUTATION(task_runs_twice),
    MUTATION(unknown_task_runs),
    MUTATION(wrong_device_runs),
    MUTATION(decode_before_steps),
    MUTATION(handoff_joins_nothing),
    MUTATION(handoff_joins_others),
    MUTATION(handoffs_swapped),
    MUTATION(handoff_from_elsewhere),
    MUTATION(handoff_to_itself),
    MUTATION(handoff_of_another_sample),
    MUTATION(handoff_after_wrong_step),
    MUTATION(handoff_not_announced),
    MUTATION(handoff_missing),
    MUTATION(handoff_after_the_end),
    MUTATION(handoff_before_the_start),
    MUTATION(step_done_twice),
    MUTATION(step_left_out),
    MUTATION(never_finished),
    MUTATION(encoded_without_need),
    MUTATION(encoded_twice),
    MUTATION(sample_forgotten),
    MUTATION(circle),
};

static void every_broken_plan_is_reported(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof mutations / sizeof mutations[0]; i++) {
        vd_plan *plan = victim();
        vd_error err = {0};
        mutations[i].apply(plan);
        if (vd_plan_check(plan, &err) != VD_ERR_INTERNAL)
            fail_msg("%s: not noticed", mutations[i].name);
        if (strncmp(err.message, "broken plan: ", 13) != 0)
            fail_msg("%s: '%s'", mutations[i].name, err.message);
        vd_plan_free(plan);
    }
}

static void a_circle_is_called_one(void **state) {
    (void)state;
    vd_plan *plan = victim();
    vd_error err = {0};
    vd_timeline t;
    const vd_costs costs = {.step = 1};
    circle(plan);
    assert_int_equal(vd_plan_check(plan, &err), VD_ERR_INTERNAL);
    assert_non_null(strstr(err.message, "circle"));
    assert_int_equal(vd_simulate(plan, &costs, &t, &err), VD_ERR_INTERNAL);
    vd_plan_free(plan);
}

/* Order within a device is free as long as nothing waits in a circle. */
static void another_valid_order_passes(void **state) {
    (void)state;
    vd_plan *plan = victim();
    vd_error err = {0};
    for (int d = 0; d < 2; d++) { /* sample 1 before sample 0 */
        swap_order(plan, plan->order_start[d], plan->order_start[d] + 2);
        swap_order(plan, plan->order_start[d] + 1, plan->order_start[d] + 3);
    }
    assert_int_equal(vd_plan_check(plan, &err), VD_OK);
    vd_plan_free(plan);
}

static void change_something(vd_plan *p, uint64_t *seed) {
    vd_task *t = &p->tasks[draw_int(seed, 0, p->task_count - 1)];
    vd_handoff *h = &p->handoffs[p->handoff_count > 0 ? draw_int(seed, 0, p->handoff_count - 1) : 0];
    int *fields[] = {&t->device, &t->sample, &t->first, &t->last,       &t->handoff_in, &t->handoff_out,
                     &h->sample, &h->from,   &h->to,    &h->after_step, &h->producer,   &h->consumer};
    int field = draw_int(seed, 0, 14), a = draw_int(seed, 0, p->task_count - 1),
        b = draw_int(seed, 0, p->task_count - 1);
    if (field < 12)
        *fields[field] += draw_int(seed, 0, 1) ? 1 : -1;
    else if (field == 12)
        t->kind = (vd_task_kind)((t->kind + 1) % 3);
    else
        swap_order(p, a, b);
}

/* Whatever the checker lets pass must be whole and run to its end by a second opinion. */
static void the_checker_agrees_with_a_second_opinion(void **state) {
    (void)state;
    uint64_t seed = 77;
    int split[MAX_DEVICES], passed = 0, refused = 0;
    second_look *look = malloc(sizeof *look);
    double *times = malloc(2 * sizeof *times * MAX_SAMPLES * (MAX_STEPS + 2));
    assert_true(look && times);
    for (int i = 0; i < 20000; i++) {
        vd_plan_request r = draw_request(&seed, split);
        r.samples = 1 + r.samples % 4;
        vd_plan *plan = plan_of(r, (vd_mode)draw_int(&seed, VD_MODE_PIPELINE, VD_MODE_WRAP));
        vd_error err = {0};
        change_something(plan, &seed);
        if (vd_plan_check(plan, &err) == VD_OK) {
            assert_true(plan_is_whole(plan, look));
            assert_true(settle(plan, &r.costs, look, times, times + plan->task_count));
            passed++;
        } else {
            assert_int_equal(err.code, VD_ERR_INTERNAL);
            refused++;
        }
        vd_plan_free(plan);
    }
    assert_true(passed > 100 && refused > 1000);
    free(times);
    free(look);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_broken_plan_is_reported),
        cmocka_unit_test(a_circle_is_called_one),
        cmocka_unit_test(another_valid_order_passes),
        cmocka_unit_test(the_checker_agrees_with_a_second_opinion),
    };
    return cmocka_run_group_tests_name("plan_check", tests, NULL, NULL);
}
