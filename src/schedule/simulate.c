#include "schedule/simulate.h"

#include "schedule/planner.h"

#include <math.h>
#include <stdlib.h>

vd_code vd_timeline_alloc(const vd_plan *plan, vd_timeline *t, vd_error *err) {
    size_t tasks = (size_t)plan->task_count, samples = (size_t)plan->samples;
    size_t count = 2 * tasks + 3 * samples + (size_t)plan->devices;
    double *block = calloc(count, sizeof *block);
    if (!block)
        return vd_fail_memory(err, "a plan's timeline", count * sizeof *block);
    *t = (vd_timeline){.start = block, .end = block + tasks, .admitted = block + 2 * tasks};
    t->finished = t->admitted + samples;
    t->sorted = t->finished + samples;
    t->busy = t->sorted + samples;
    return VD_OK;
}

void vd_timeline_free(vd_timeline *t) {
    free(t->start); /* the block */
    *t = (vd_timeline){0};
}

static int by_value(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void sort(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, by_value);
}

double vd_nearest_rank(double *values, int count, double share) {
    sort(values, count);
    int rank = (int)ceil(share * count);
    return values[rank < 1 ? 0 : rank - 1];
}

static bool finishes_sample(const vd_plan *plan, const vd_task *task) {
    return task->kind == VD_TASK_DECODE ||
           (!plan->decode && task->kind == VD_TASK_STEPS && task->last == plan->steps - 1);
}

static void reduce_samples(const vd_plan *plan, vd_timeline *t) {
    for (int s = 0; s < plan->samples; s++) {
        t->admitted[s] = INFINITY;
        t->finished[s] = -INFINITY;
    }
    for (int i = 0; i < plan->task_count; i++) {
        int s = plan->tasks[i].sample;
        t->admitted[s] = fmin(t->admitted[s], t->start[i]);
        t->finished[s] = fmax(t->finished[s], t->end[i]);
    }
    vd_timeline_latency(plan, t);
}

void vd_timeline_latency(const vd_plan *plan, vd_timeline *t) {
    for (int s = 0; s < plan->samples; s++)
        t->sorted[s] = t->finished[s] - t->admitted[s];
    t->latency_p50 = vd_nearest_rank(t->sorted, plan->samples, 0.50);
    t->latency_p95 = vd_nearest_rank(t->sorted, plan->samples, 0.95);
}

static void reduce_results(const vd_plan *plan, vd_timeline *t, double begin) {
    for (int s = 0; s < plan->samples; s++)
        t->sorted[s] = t->finished[s];
    sort(t->sorted, plan->samples);
    t->first_result = t->sorted[0] - begin;
    t->longest_gap = 0;
    for (int s = 1; s < plan->samples; s++)
        t->longest_gap = fmax(t->longest_gap, t->sorted[s] - t->sorted[s - 1]);
}

/* What one device adds to the figures. Tasks of a device follow each other, so its order is sorted by time.
 */
typedef struct device_span {
    double begin, end, busy;
    double results, last_result; /* samples it finished; when it finished the last of them */
} device_span;

static device_span span_of(const vd_plan *plan, const vd_timeline *t, int d) {
    const int *order = plan->order + plan->order_start[d];
    int count = plan->order_start[d + 1] - plan->order_start[d];
    device_span span = {.begin = t->start[order[0]], .end = t->end[order[count - 1]]};
    for (int i = 0; i < count; i++) {
        span.busy += t->end[order[i]] - t->start[order[i]];
        if (finishes_sample(plan, &plan->tasks[order[i]])) {
            span.results++;
            span.last_result = t->end[order[i]];
        }
    }
    return span;
}

void vd_timeline_reduce(const vd_plan *plan, vd_timeline *t) {
    double first_start = INFINITY, last_start = -INFINITY, first_end = INFINITY, last_end = -INFINITY;
    double busy = 0, rate = 0;
    for (int d = 0; d < plan->devices; d++) {
        t->busy[d] = 0;
        if (plan->order_start[d] == plan->order_start[d + 1])
            continue;
        device_span span = span_of(plan, t, d);
        first_start = fmin(first_start, span.begin);
        last_start = fmax(last_start, span.begin);
        first_end = fmin(first_end, span.end);
        last_end = fmax(last_end, span.end);
        busy += t->busy[d] = span.busy;
        if (span.last_result > span.begin)
            rate += span.results / (span.last_result - span.begin);
    }
    t->makespan = last_end - first_start;
    t->fill = last_start - first_start;
    t->drain = last_end - first_end;
    t->bubble_share = t->makespan > 0 ? 1 - busy / (plan->devices * t->makespan) : 0;
    t->steady_interval = plan->samples > 1 && rate > 0 ? 1 / rate : 0;
    reduce_samples(plan, t);
    reduce_results(plan, t, first_start);
}

static double task_cost(const vd_task *task, const vd_costs *costs) {
    switch (task->kind) {
    case VD_TASK_ENCODE:
        return costs->encode;
    case VD_TASK_STEPS:
        return costs->step * (task->last - task->first + 1);
    case VD_TASK_DECODE:
        return costs->decode;
    }
    return 0;
}

/* `ready` [devices] is when each device is free. A sample's earlier task on the same device is before in its
 * order. */
static void run_tasks(const vd_plan *plan, const vd_costs *costs, const int *sorted, double *ready,
                      vd_timeline *t) {
    for (int d = 0; d < plan->devices; d++)
        ready[d] = 0;
    for (int i = 0; i < plan->task_count; i++) {
        const vd_task *task = &plan->tasks[sorted[i]];
        double start = ready[task->device];
        if (task->handoff_in >= 0)
            start = fmax(start, t->end[plan->handoffs[task->handoff_in].producer] + costs->handoff);
        t->start[sorted[i]] = start;
        t->end[sorted[i]] = ready[task->device] = start + task_cost(task, costs);
    }
}

vd_code vd_simulate(const vd_plan *plan, const vd_costs *costs, vd_timeline *out, vd_error *err) {
    size_t tasks = (size_t)plan->task_count, devices = (size_t)plan->devices;
    vd_timeline t = {0};
    vd_code status = VD_OK;
    int *sorted = malloc((tasks + devices) * sizeof *sorted);
    bool *done = malloc(tasks * sizeof *done);
    if (!sorted || !done)
        VD_TRY_GOTO(status, cleanup, vd_fail_memory(err, "a simulation", tasks * sizeof *sorted));
    if (vd_plan_sort(plan, sorted, sorted + tasks, done) < plan->task_count)
        VD_TRY_GOTO(status, cleanup,
                    vd_fail(err, VD_ERR_INTERNAL, "this plan's devices wait for each other in a circle"));
    VD_TRY_GOTO(status, cleanup, vd_timeline_alloc(plan, &t, err));
    run_tasks(plan, costs, sorted, t.busy, &t); /* busy is free until the reduction */
    vd_timeline_reduce(plan, &t);
    *out = t;
cleanup:
    free(sorted);
    free(done);
    return status;
}
