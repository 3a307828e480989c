#include "schedule/plan.h"

#include "schedule/planner.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TASKS = 1 << 24 }; /* keeps every index and size far from the limits of int */

static const struct {
    const char *name;
    vd_code (*make)(const vd_plan_request *request, vd_plan **out, vd_error *err);
} modes[] = {
    [VD_MODE_PIPELINE] = {"pipeline", vd_plan_pipeline},
    [VD_MODE_DATA] = {"data", vd_plan_data},
    [VD_MODE_WRAP] = {"wrap", vd_plan_wrap},
    [VD_MODE_AUTO] = {"auto", vd_plan_auto},
};

static const char *const goals[] = {
    [VD_GOAL_MAKESPAN] = "makespan", [VD_GOAL_LATENCY] = "latency", [VD_GOAL_CADENCE] = "cadence"};

const char *vd_mode_name(vd_mode mode) {
    return modes[mode].name;
}

bool vd_mode_parse(const char *name, vd_mode *out) {
    for (int i = VD_MODE_PIPELINE; i <= VD_MODE_AUTO; i++)
        if (strcmp(name, modes[i].name) == 0) {
            *out = (vd_mode)i;
            return true;
        }
    return false;
}

bool vd_goal_parse(const char *name, vd_goal *out) {
    for (int i = VD_GOAL_MAKESPAN; i <= VD_GOAL_CADENCE; i++)
        if (strcmp(name, goals[i]) == 0) {
            *out = (vd_goal)i;
            return true;
        }
    return false;
}

double vd_units_cost(const vd_plan_request *request, int begin, int end) {
    int first = begin > 1 ? begin : 1, after = end <= request->steps ? end : request->steps + 1;
    double cost = after > first ? (after - first) * request->costs.step : 0;
    if (request->decode && begin == 0 && end > 0)
        cost += request->costs.encode;
    if (request->decode && begin < request->steps + 2 && end == request->steps + 2)
        cost += request->costs.decode;
    return cost;
}

vd_code vd_plan_new(const vd_plan_request *request, vd_mode mode, int pieces, vd_plan **out, vd_error *err) {
    long long room =
        (long long)request->samples * (pieces + 2); /* a piece is one task, but for encode and decode */
    if (room > MAX_TASKS || request->devices > MAX_TASKS)
        return vd_fail(err, VD_ERR_USAGE,
                       "%d samples on %d devices make a plan of more than %d tasks; ask for fewer",
                       request->samples, request->devices, MAX_TASKS);
    vd_plan *plan = calloc(1, sizeof *plan);
    if (!plan)
        return vd_fail_memory(err, "a plan", sizeof *plan);
    *plan = (vd_plan){.mode = mode,
                      .devices = request->devices,
                      .samples = request->samples,
                      .steps = request->steps,
                      .decode = request->decode,
                      .tasks = calloc((size_t)room, sizeof(vd_task)),
                      .handoffs = calloc((size_t)room, sizeof(vd_handoff)),
                      .order = calloc((size_t)room, sizeof(int)),
                      .order_start = calloc((size_t)request->devices + 1, sizeof(int))};
    if (!plan->tasks || !plan->handoffs || !plan->order || !plan->order_start) {
        vd_plan_free(plan);
        return vd_fail_memory(err, "a plan's tasks", (unsigned long long)room * sizeof(vd_task));
    }
    *out = plan;
    return VD_OK;
}

static void join(vd_plan *plan, int producer, int consumer) {
    vd_task *a = &plan->tasks[producer], *b = &plan->tasks[consumer];
    plan->handoffs[plan->handoff_count] = (vd_handoff){.sample = a->sample,
                                                       .from = a->device,
                                                       .to = b->device,
                                                       .after_step = a->last,
                                                       .producer = producer,
                                                       .consumer = consumer};
    a->handoff_out = b->handoff_in = plan->handoff_count++;
}

static void add_task(vd_plan *plan, vd_task_kind kind, int device, int sample, int first, int last) {
    int index = plan->task_count++;
    plan->tasks[index] = (vd_task){kind, device, sample, first, last, -1, -1};
    if (index > 0 && plan->tasks[index - 1].sample == sample && plan->tasks[index - 1].device != device)
        join(plan, index - 1, index);
}

void vd_plan_add(vd_plan *plan, int device, int sample, int begin, int end) {
    int first = begin > 1 ? begin : 1, after = end <= plan->steps ? end : plan->steps + 1;
    if (plan->decode && begin == 0)
        add_task(plan, VD_TASK_ENCODE, device, sample, -1, -1);
    if (first < after)
        add_task(plan, VD_TASK_STEPS, device, sample, first - 1, after - 2);
    if (plan->decode && end == plan->steps + 2)
        add_task(plan, VD_TASK_DECODE, device, sample, -1, -1);
}

/* A counting sort by device, which keeps the order of each device's tasks. */
void vd_plan_close(vd_plan *plan) {
    int *start = plan->order_start;
    for (int i = 0; i < plan->task_count; i++)
        start[plan->tasks[i].device + 1]++;
    for (int d = 0; d < plan->devices; d++)
        start[d + 1] += start[d];
    for (int i = 0; i < plan->task_count; i++)
        plan->order[start[plan->tasks[i].device]++] = i;
    memmove(start + 1, start, (size_t)plan->devices * sizeof *start); /* each had moved to its device's end */
    start[0] = 0;
}

static vd_code check_costs(const vd_costs *c, vd_error *err) {
    const struct {
        const char *name;
        double value;
    } costs[] = {{"encode", c->encode}, {"step", c->step}, {"decode", c->decode}, {"handoff", c->handoff}};
    for (size_t i = 0; i < sizeof costs / sizeof costs[0]; i++)
        if (!(costs[i].value >= 0 && costs[i].value <= 1e9))
            return vd_fail(err, VD_ERR_USAGE, "--cost %s=%g: give step-times from 0 to 1e9", costs[i].name,
                           costs[i].value);
    if (!(c->step >= 1e-9))
        return vd_fail(err, VD_ERR_USAGE, "--cost step=%g: a step must cost something (1 by default)",
                       c->step);
    return VD_OK;
}

static vd_code check_split(const vd_plan_request *request, vd_error *err) {
    long long sum = 0;
    for (int d = 0; request->split && d < request->devices; d++) {
        if (request->split[d] < 0)
            return vd_fail(err, VD_ERR_USAGE, "--split gives device %d %d steps; give 0 or more", d,
                           request->split[d]);
        sum += request->split[d];
    }
    if (request->split && sum != request->steps)
        return vd_fail(err, VD_ERR_USAGE, "--split adds up to %lld steps, but a sample has %d", sum,
                       request->steps);
    return VD_OK;
}

static vd_code check_request(const vd_plan_request *request, vd_error *err) {
    if (request->devices < 1 || request->samples < 1 || request->steps < 1)
        return vd_fail(err, VD_ERR_USAGE, "%d samples of %d steps on %d devices: give at least one of each",
                       request->samples, request->steps, request->devices);
    if (request->steps > MAX_TASKS)
        return vd_fail(err, VD_ERR_USAGE, "%d steps: give at most %d", request->steps, MAX_TASKS);
    VD_TRY(check_costs(&request->costs, err));
    return check_split(request, err);
}

vd_code vd_plan_make(const vd_plan_request *request, vd_plan **out, vd_error *err) {
    vd_plan *plan = NULL;
    VD_TRY(check_request(request, err));
    VD_TRY(modes[request->mode].make(request, &plan, err));
    vd_code status = vd_plan_check(plan, err);
    if (status != VD_OK)
        vd_plan_free(plan);
    else
        *out = plan;
    return status;
}

void vd_plan_free(vd_plan *plan) {
    if (!plan)
        return;
    free(plan->tasks);
    free(plan->handoffs);
    free(plan->order);
    free(plan->order_start);
    free(plan);
}
