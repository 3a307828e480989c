/* The proof of a plan. Each check may rely on those before it: first every index is in range, then every link
 * is mutual, then every sample is whole, and last there is no circle. */
#include "schedule/planner.h"

#include <stdlib.h>

#define BROKEN(err, ...) vd_fail(err, VD_ERR_INTERNAL, "broken plan: " __VA_ARGS__)

static bool within(int i, int count) {
    return i >= 0 && i < count;
}

static vd_code check_sizes(const vd_plan *p, vd_error *err) {
    if (!within(p->mode, VD_MODE_AUTO))
        return BROKEN(err, "mode %d is not one that runs", (int)p->mode);
    if (p->devices < 1 || p->samples < 1 || p->steps < 1 || p->task_count < 1 || p->handoff_count < 0)
        return BROKEN(err, "%d devices, %d samples, %d steps, %d tasks, %d hand-offs", p->devices, p->samples,
                      p->steps, p->task_count, p->handoff_count);
    if (p->order_start[0] != 0 || p->order_start[p->devices] != p->task_count)
        return BROKEN(err, "the devices' orders hold %d to %d of %d tasks", p->order_start[0],
                      p->order_start[p->devices], p->task_count);
    for (int d = 0; d < p->devices; d++)
        if (p->order_start[d] > p->order_start[d + 1])
            return BROKEN(err, "device %d has a negative number of tasks", d);
    return VD_OK;
}

static bool span_is_valid(const vd_plan *p, const vd_task *t) {
    if (t->kind == VD_TASK_STEPS)
        return t->first >= 0 && t->first <= t->last && t->last < p->steps;
    return (t->kind == VD_TASK_ENCODE || t->kind == VD_TASK_DECODE) && t->first == -1 && t->last == -1;
}

static vd_code check_tasks(const vd_plan *p, vd_error *err) {
    for (int i = 0; i < p->task_count; i++) {
        const vd_task *t = &p->tasks[i];
        if (!within(t->device, p->devices) || !within(t->sample, p->samples))
            return BROKEN(err, "task %d is sample %d on device %d", i, t->sample, t->device);
        if (!span_is_valid(p, t))
            return BROKEN(err, "task %d of kind %d has steps %d to %d", i, (int)t->kind, t->first, t->last);
        if (t->handoff_in < -1 || t->handoff_in >= p->handoff_count || t->handoff_out < -1 ||
            t->handoff_out >= p->handoff_count)
            return BROKEN(err, "task %d names the hand-offs %d and %d of %d", i, t->handoff_in,
                          t->handoff_out, p->handoff_count);
    }
    return VD_OK;
}

/* Every task stands once in an order, its own device's; place[task] becomes where (-1 before). */
static vd_code check_order(const vd_plan *p, int *place, vd_error *err) {
    for (int i = 0; i < p->task_count; i++)
        place[i] = -1;
    for (int d = 0; d < p->devices; d++)
        for (int i = p->order_start[d]; i < p->order_start[d + 1]; i++) {
            int task = p->order[i];
            if (!within(task, p->task_count) || place[task] != -1)
                return BROKEN(err, "device %d runs task %d, which does not exist or runs already", d, task);
            if (p->tasks[task].device != d)
                return BROKEN(err, "device %d runs task %d of device %d", d, task, p->tasks[task].device);
            place[task] = i;
        }
    return VD_OK;
}

static vd_code check_handoffs(const vd_plan *p, vd_error *err) {
    for (int i = 0; i < p->handoff_count; i++) {
        const vd_handoff *h = &p->handoffs[i];
        if (!within(h->producer, p->task_count) || !within(h->consumer, p->task_count))
            return BROKEN(err, "hand-off %d joins tasks %d and %d", i, h->producer, h->consumer);
        const vd_task *a = &p->tasks[h->producer], *b = &p->tasks[h->consumer];
        if (a->handoff_out != i || b->handoff_in != i)
            return BROKEN(err, "hand-off %d joins tasks %d and %d, which do not name it", i, h->producer,
                          h->consumer);
        if (h->from == h->to || h->from != a->device || h->to != b->device)
            return BROKEN(err, "hand-off %d goes from device %d to %d, its tasks from %d to %d", i, h->from,
                          h->to, a->device, b->device);
        if (h->sample != a->sample || h->sample != b->sample || h->after_step != a->last)
            return BROKEN(err, "hand-off %d carries sample %d after step %d, its tasks say otherwise", i,
                          h->sample, h->after_step);
    }
    return VD_OK;
}

/* The units of planner.h that a task covers. */
static int unit_begin(const vd_plan *p, const vd_task *t) {
    return t->kind == VD_TASK_ENCODE ? 0 : t->kind == VD_TASK_DECODE ? p->steps + 1 : t->first + 1;
}

static int unit_end(const vd_plan *p, const vd_task *t) {
    return t->kind == VD_TASK_STEPS ? t->last + 2 : unit_begin(p, t) + 1;
}

/* Sample `a` goes on in `b`, on the same device or through one hand-off; either is -1 at the ends of a
 * sample. */
static vd_code check_link(const vd_plan *p, const int *place, int a, int b, vd_error *err) {
    int out = a >= 0 ? p->tasks[a].handoff_out : -1, in = b >= 0 ? p->tasks[b].handoff_in : -1;
    bool moves = a >= 0 && b >= 0 && p->tasks[a].device != p->tasks[b].device;
    if (moves ? out < 0 || in != out || p->handoffs[out].producer != a || p->handoffs[out].consumer != b
              : out != -1 || in != -1)
        return BROKEN(err, "tasks %d and %d follow each other %s, but name the hand-offs %d and %d", a, b,
                      moves ? "on two devices" : "on one device", out, in);
    if (!moves && a >= 0 && b >= 0 && place[a] > place[b])
        return BROKEN(err, "device %d runs task %d before task %d", p->tasks[a].device, b, a);
    return VD_OK;
}

typedef struct piece {
    int sample, begin, task;
} piece;

static int by_sample_and_unit(const void *left, const void *right) {
    const piece *a = left, *b = right;
    return a->sample != b->sample ? (a->sample > b->sample) - (a->sample < b->sample)
                                  : (a->begin > b->begin) - (a->begin < b->begin);
}

/* One sample's tasks, sorted: they cover its units once, in order, and are linked. */
static vd_code check_sample(const vd_plan *p, const int *place, int sample, const piece *pieces, int count,
                            vd_error *err) {
    int at = p->decode ? 0 : 1, end = p->decode ? p->steps + 2 : p->steps + 1, previous = -1;
    for (int i = 0; i < count; i++) {
        int task = pieces[i].task;
        if (pieces[i].begin != at)
            return BROKEN(err, "sample %d: unit %d is done %s (0 is the encode, %d the decode)", sample, at,
                          pieces[i].begin < at ? "already when a task repeats it" : "by no task",
                          p->steps + 1);
        VD_TRY(check_link(p, place, previous, task, err));
        at = unit_end(p, &p->tasks[task]);
        previous = task;
    }
    if (at != end)
        return BROKEN(err, "sample %d ends before unit %d instead of %d", sample, at, end);
    return check_link(p, place, previous, -1, err);
}

static vd_code check_samples(const vd_plan *p, const int *place, piece *pieces, vd_error *err) {
    int at = 0;
    for (int i = 0; i < p->task_count; i++)
        pieces[i] = (piece){p->tasks[i].sample, unit_begin(p, &p->tasks[i]), i};
    qsort(pieces, (size_t)p->task_count, sizeof *pieces, by_sample_and_unit);
    for (int s = 0; s < p->samples; s++) {
        int first = at;
        while (at < p->task_count && pieces[at].sample == s)
            at++;
        VD_TRY(check_sample(p, place, s, pieces + first, at - first, err));
    }
    return VD_OK;
}

/* Moves device d on as far as it can go; returns the new number of sorted tasks. */
static int advance(const vd_plan *p, int d, int *sorted, int count, int *next, bool *done) {
    for (; next[d] < p->order_start[d + 1]; next[d]++) {
        int task = p->order[next[d]], handoff = p->tasks[task].handoff_in;
        if (handoff >= 0 && !done[p->handoffs[handoff].producer])
            break;
        done[task] = true;
        sorted[count++] = task;
    }
    return count;
}

int vd_plan_sort(const vd_plan *plan, int *sorted, int *next, bool *done) {
    int count = 0, before = -1;
    for (int d = 0; d < plan->devices; d++)
        next[d] = plan->order_start[d];
    for (int i = 0; i < plan->task_count; i++)
        done[i] = false;
    while (before < count) {
        before = count;
        for (int d = 0; d < plan->devices; d++)
            count = advance(plan, d, sorted, count, next, done);
    }
    return count;
}

static vd_code check_circles(const vd_plan *p, int *sorted, int *next, bool *done, vd_error *err) {
    int d = 0;
    if (vd_plan_sort(p, sorted, next, done) == p->task_count)
        return VD_OK;
    while (next[d] == p->order_start[d + 1]) /* some device has not reached its end */
        d++;
    return BROKEN(err, "devices wait for each other in a circle; device %d never gets to task %d", d,
                  p->order[next[d]]);
}

vd_code vd_plan_check(const vd_plan *plan, vd_error *err) {
    VD_TRY(check_sizes(plan, err));
    VD_TRY(check_tasks(plan, err));
    size_t tasks = (size_t)plan->task_count;
    vd_code status = VD_OK;
    int *place = malloc(tasks * sizeof *place), *next = malloc((size_t)plan->devices * sizeof *next);
    piece *pieces = malloc(tasks * sizeof *pieces);
    bool *done = malloc(tasks * sizeof *done);
    if (!place || !next || !pieces || !done)
        VD_TRY_GOTO(status, cleanup, vd_fail_memory(err, "the check of a plan", tasks * sizeof *pieces));
    VD_TRY_GOTO(status, cleanup, check_order(plan, place, err));
    VD_TRY_GOTO(status, cleanup, check_handoffs(plan, err));
    VD_TRY_GOTO(status, cleanup, check_samples(plan, place, pieces, err));
    VD_TRY_GOTO(status, cleanup, check_circles(plan, place, next, done, err));
cleanup:
    free(place);
    free(next);
    free(pieces);
    free(done);
    return status;
}
