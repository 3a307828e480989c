/* The figures of a call. Its runs, one per shape, follow each other; their plans and measured tasks are
 * joined into one timeline, which the simulator's own accounting reduces. */
#include "base/machine.h"
#include "base/thread.h"
#include "engine/engine.h"
#include "engine/stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct vd_account {
    const vdpp_engine *engine;
    vdpp_report *report;
    vd_plan joined;      /* tasks of all runs; samples counted over the call */
    double *start, *end; /* [joined.task_count], vd_now() */
    vd_costs costs;      /* of the last run, in step-times, for the comparison of modes */
    int steps;
    bool decode, several; /* more than one run: no mode is compared */
};

vd_code vd_account_open(const vdpp_engine *engine, int samples, vd_account **out, vd_error *err) {
    vd_account *a = calloc(1, sizeof *a);
    vdpp_report *r = calloc(1, sizeof *r);
    if (a && r) {
        r->samples = calloc((size_t)samples, sizeof *r->samples);
        r->devices = calloc((size_t)engine->devices.count, sizeof *r->devices);
        r->sample_count = samples;
        r->device_count = engine->devices.count;
    }
    if (!a || !r || !r->samples || !r->devices) {
        vdpp_report_free(r);
        free(a);
        return vd_fail_memory(err, "a report", (size_t)samples * sizeof *r->samples);
    }
    a->engine = engine;
    a->report = r;
    *out = a;
    return VD_OK;
}

static void free_joined(vd_account *a) {
    free(a->joined.tasks);
    free(a->joined.order);
    free(a->joined.order_start);
    free(a->start);
    free(a->end);
}

void vd_account_close(vd_account *a) {
    if (!a)
        return;
    free_joined(a);
    vdpp_report_free(a->report);
    free(a);
}

vdpp_report *vd_account_report(vd_account *a) {
    return a->report;
}

void vdpp_report_free(vdpp_report *r) {
    if (!r)
        return;
    for (int i = 0; r->samples && i < r->sample_count; i++) {
        for (int f = 0; f < r->samples[i].file_count; f++)
            free(r->samples[i].files[f]);
        free(r->samples[i].files);
        free(r->samples[i].devices);
    }
    free(r->samples);
    free(r->devices);
    free(r->links);
    free(r);
}

/* Room for a run's tasks behind the ones that are there. */
static vd_code grow_joined(vd_account *a, int more, vd_error *err) {
    size_t count = (size_t)(a->joined.task_count + more);
    vd_task *tasks = realloc(a->joined.tasks, count * sizeof *tasks);
    a->joined.tasks = tasks ? tasks : a->joined.tasks;
    double *start = realloc(a->start, count * sizeof *start), *end = realloc(a->end, count * sizeof *end);
    a->start = start ? start : a->start;
    a->end = end ? end : a->end;
    return tasks && start && end ? VD_OK : vd_fail_memory(err, "a report's tasks", count * sizeof *tasks);
}

static void add_device_figures(vd_account *a, const vd_run *run, const vd_memory_plan *memory) {
    for (int d = 0; d < run->plan->devices; d++) {
        vdpp_device_result *r = &a->report->devices[d];
        uint64_t planned = run->stages[d]->planned_bytes + memory->backend.device_weights,
                 peak = atomic_load(&run->devices[d]->peak);
        snprintf(r->name, sizeof r->name, "%s", run->devices[d]->name);
        r->planned_bytes = planned > r->planned_bytes ? planned : r->planned_bytes;
        r->peak_bytes = peak > r->peak_bytes ? peak : r->peak_bytes;
    }
}

static void add_memory_figures(vdpp_report *r, const vd_memory_plan *m) {
    if (m->total < r->planned_bytes)
        return;
    r->planned_bytes = m->total;
    r->weight_bytes = m->backend.shared_weights + m->backend.device_weights * (size_t)r->device_count;
    r->host_planned_bytes = m->host;
}

/* Tasks that ran, device after device in their order, so that joining keeps each device's order. */
vd_code vd_account_add(vd_account *a, const vd_run *run, const vd_memory_plan *memory, vd_error *err) {
    const vd_plan *p = run->plan;
    VD_TRY(grow_joined(a, p->task_count, err));
    for (int i = 0; i < p->task_count; i++) {
        const vd_task_clock *clock = &run->clocks[p->order[i]];
        if (clock->end == 0)
            continue;
        int at = a->joined.task_count++;
        a->joined.tasks[at] = p->tasks[p->order[i]];
        a->joined.tasks[at].sample += run->first_sample;
        a->joined.tasks[at].handoff_in = a->joined.tasks[at].handoff_out = -1;
        a->start[at] = clock->start;
        a->end[at] = clock->end;
    }
    a->several = a->steps != 0;
    a->steps = p->steps;
    a->decode = p->decode;
    a->costs = run->costs;
    a->report->mode = vd_mode_name(p->mode);
    snprintf(a->report->reason, sizeof a->report->reason, "%s", p->reason);
    add_device_figures(a, run, memory);
    add_memory_figures(a->report, memory);
    return VD_OK;
}

/* The joined plan's orders: tasks of each device as they were added. */
static vd_code order_joined(vd_account *a, vd_error *err) {
    vd_plan *p = &a->joined;
    p->devices = a->report->device_count;
    p->samples = a->report->sample_count;
    p->steps = a->steps;
    p->decode = a->decode;
    p->order = malloc(((size_t)p->task_count + 1) * sizeof *p->order);
    p->order_start = malloc(((size_t)p->devices + 1) * sizeof *p->order_start);
    if (!p->order || !p->order_start)
        return vd_fail_memory(err, "a report's order", (size_t)p->task_count * sizeof *p->order);
    int at = 0;
    for (int d = 0; d < p->devices; d++) {
        p->order_start[d] = at;
        for (int t = 0; t < p->task_count; t++)
            if (p->tasks[t].device == d)
                p->order[at++] = t;
    }
    p->order_start[p->devices] = at;
    return VD_OK;
}

/* Median over tasks of their time per step. */
static double median_step(const vd_account *a) {
    double *steps = malloc(((size_t)a->joined.task_count + 1) * sizeof *steps), median = 0;
    int count = 0;
    for (int t = 0; steps && t < a->joined.task_count; t++) {
        const vd_task *task = &a->joined.tasks[t];
        if (task->kind == VD_TASK_STEPS)
            steps[count++] = (a->end[t] - a->start[t]) / (task->last - task->first + 1);
    }
    if (count)
        median = vd_nearest_rank(steps, count, 0.5);
    free(steps);
    return median;
}

/* A sample's own clock runs until its files are written. */
static void use_file_times(const vdpp_report *r, vd_timeline *t) {
    for (int s = 0; s < r->sample_count; s++) {
        t->admitted[s] = r->samples[s].admitted_s;
        t->finished[s] = r->samples[s].finished_s;
    }
}

static vd_code reduce_times(vd_account *a, vd_error *err) {
    vdpp_report *r = a->report;
    vd_timeline t;
    VD_TRY(vd_timeline_alloc(&a->joined, &t, err));
    memcpy(t.start, a->start, (size_t)a->joined.task_count * sizeof *t.start);
    memcpy(t.end, a->end, (size_t)a->joined.task_count * sizeof *t.end);
    vd_timeline_reduce(&a->joined, &t);
    use_file_times(r, &t);
    vd_timeline_latency(&a->joined, &t);
    r->steady_interval_s = t.steady_interval;
    r->fill_s = t.fill;
    r->drain_s = t.drain;
    r->bubble_share = t.bubble_share;
    r->latency_p50_s = t.latency_p50;
    r->latency_p95_s = t.latency_p95;
    for (int d = 0; d < r->device_count; d++) {
        r->devices[d].busy_s = t.busy[d];
        r->devices[d].busy_share = t.makespan > 0 ? t.busy[d] / t.makespan : 0;
    }
    vd_timeline_free(&t);
    return VD_OK;
}

/* Mean seconds of the tasks of a kind, per step for steps. */
static double mean_cost(const vd_account *a, vd_task_kind kind) {
    double sum = 0;
    int count = 0;
    for (int t = 0; t < a->joined.task_count; t++) {
        const vd_task *task = &a->joined.tasks[t];
        if (task->kind != kind)
            continue;
        sum += a->end[t] - a->start[t];
        count += kind == VD_TASK_STEPS ? task->last - task->first + 1 : 1;
    }
    return count ? sum / count : 0;
}

static double simulated_wall(const vd_account *a, vd_mode mode, const vd_costs *costs) {
    vd_plan_request request = a->engine->plan;
    request.devices = a->report->device_count;
    request.samples = a->report->sample_count;
    request.steps = a->steps;
    request.decode = a->decode;
    request.costs = *costs;
    request.mode = mode;
    vd_plan *plan;
    vd_timeline t;
    vd_error ignored;
    double wall = 0;
    if (vd_plan_make(&request, &plan, &ignored) != VD_OK)
        return 0;
    if (vd_simulate(plan, costs, &t, &ignored) == VD_OK) {
        wall = t.makespan;
        vd_timeline_free(&t);
    }
    vd_plan_free(plan);
    return wall;
}

/* Whether another mode would have been faster with the costs that were measured. */
static void compare_modes(vd_account *a) {
    static const vd_mode modes[] = {VD_MODE_PIPELINE, VD_MODE_DATA, VD_MODE_WRAP};
    vd_costs costs = {mean_cost(a, VD_TASK_ENCODE), mean_cost(a, VD_TASK_STEPS), mean_cost(a, VD_TASK_DECODE),
                      0};
    vdpp_report *r = a->report;
    vd_mode ran;
    if (a->several || !vd_mode_parse(r->mode, &ran))
        return;
    double best = r->simulated_wall_s = simulated_wall(a, ran, &costs);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        double wall = simulated_wall(a, modes[i], &costs);
        if (wall <= 0 || wall >= 0.98 * best)
            continue;
        best = wall;
        snprintf(r->better_mode, sizeof r->better_mode, "%s", vd_mode_name(modes[i]));
        r->better_wall_s = wall;
    }
}

/* The ways that any plan of the call used. */
static vd_code list_links(vdpp_report *r, const vd_devices *d, vd_error *err) {
    int pairs = d->count * d->count;
    r->links = calloc((size_t)pairs, sizeof *r->links);
    if (!r->links)
        return vd_fail_memory(err, "a report's links", (size_t)pairs * sizeof *r->links);
    for (int i = 0; i < pairs; i++) {
        const vd_route_info *route = &d->routes[i];
        if (d->connected[i])
            r->links[r->link_count++] = (vdpp_link_result){.from = i / d->count,
                                                           .to = i % d->count,
                                                           .route = vd_route_name(route->route),
                                                           .damaged = route->damaged,
                                                           .bytes_per_s = route->bytes_per_s,
                                                           .latency_s = route->latency_s};
    }
    return VD_OK;
}

static void count_samples(vdpp_report *r) {
    for (int i = 0; i < r->sample_count; i++) {
        const vdpp_sample_result *s = &r->samples[i];
        r->made += s->code == VD_OK;
        r->failed += s->code != VD_OK && s->code != VD_ERR_TRY_AGAIN;
        if (s->code == VD_OK && (r->first_sample_s == 0 || s->finished_s < r->first_sample_s))
            r->first_sample_s = s->finished_s;
    }
}

static void describe_machine(vdpp_report *r, const vdpp_engine *engine) {
    const vd_backend *b = engine->devices.backend;
    vd_device_info info;
    vd_error unknown;
    char processor[96];
    if (b->table->describe(b, engine->devices.ordinals[0], &info, &unknown) != VD_OK)
        snprintf(info.model, sizeof info.model, "unknown device");
    if (b->own_memory)
        snprintf(r->machine, sizeof r->machine, "%s, %d of them; %s, %d CPUs", info.model, b->table->count(b),
                 vd_machine_model(processor, sizeof processor), vd_cpu_count());
    else
        snprintf(r->machine, sizeof r->machine, "%s, %d CPUs", info.model, vd_cpu_count());
    snprintf(r->dtype, sizeof r->dtype, "%s", vd_dtype_name(engine->dtype));
    snprintf(r->model, sizeof r->model, "%s", engine->options.model);
}

vd_code vd_account_finish(vd_account *a, double began, double loaded, double ended, vdpp_report **out,
                          vd_error *err) {
    vdpp_report *r = a->report;
    count_samples(r);
    describe_machine(r, a->engine);
    VD_TRY(list_links(r, &a->engine->devices, err));
    r->load_s = loaded - began;
    r->wall_s = ended - began;
    r->throughput_sps = r->wall_s > 0 ? r->made / r->wall_s : 0;
    if (a->joined.task_count > 0 && r->made == r->sample_count) {
        VD_TRY(order_joined(a, err));
        VD_TRY(reduce_times(a, err));
        r->step_median_s = median_step(a);
        compare_modes(a);
    }
    a->report = NULL;
    *out = r;
    return VD_OK;
}
