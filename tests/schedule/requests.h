/* Random requests, and the meaning of a plan worked out a second, slower way. */
#ifndef VD_TESTS_REQUESTS_H
#define VD_TESTS_REQUESTS_H

#include "schedule/simulate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_DEVICES = 16, MAX_SAMPLES = 40, MAX_STEPS = 60 };

static inline uint32_t draw(uint64_t *seed) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

static inline int draw_int(uint64_t *seed, int low, int high) {
    return low + (int)(draw(seed) % (uint32_t)(high - low + 1));
}

/* Nothing, next to nothing, whole numbers, or anything up to 8 step-times. */
static inline double draw_cost(uint64_t *seed) {
    int kind = draw_int(seed, 0, 6);
    return kind < 2 ? 0 : kind == 2 ? 1e-9 : kind < 5 ? draw_int(seed, 1, 8) : draw(seed) % 8000 / 1000.0;
}

/* `split` [MAX_DEVICES] is filled and used in a third of the requests. */
static inline vd_plan_request draw_request(uint64_t *seed, int *split) {
    vd_plan_request r = {.devices = draw_int(seed, 1, MAX_DEVICES),
                         .samples = draw_int(seed, 1, MAX_SAMPLES),
                         .steps = draw_int(seed, 1, MAX_STEPS),
                         .costs = {draw_cost(seed), 1, draw_cost(seed), draw_cost(seed) / 8},
                         .decode = draw_int(seed, 0, 3) > 0};
    if (draw_int(seed, 0, 1))
        r.costs.step = 0.05 + draw(seed) % 3000 / 1000.0;
    memset(split, 0, MAX_DEVICES * sizeof *split);
    for (int i = 0; i < r.steps; i++)
        split[draw_int(seed, 0, r.devices - 1)]++;
    r.split = draw_int(seed, 0, 2) == 0 ? split : NULL;
    return r;
}

static inline double sample_cost(const vd_plan_request *r) {
    return r->steps * r->costs.step + (r->decode ? r->costs.encode + r->costs.decode : 0);
}

static inline vd_plan *plan_of(vd_plan_request r, vd_mode mode) {
    vd_error err = {0};
    vd_plan *plan = NULL;
    r.mode = mode;
    if (vd_plan_make(&r, &plan, &err) != VD_OK)
        fail_msg("%s", err.message);
    return plan;
}

static inline vd_timeline timeline_of(const vd_plan *plan, const vd_costs *costs) {
    vd_error err = {0};
    vd_timeline t = {0};
    if (vd_simulate(plan, costs, &t, &err) != VD_OK)
        fail_msg("%s", err.message);
    return t;
}

/* What the plan's tasks are, said again: who does each unit (0 encode, 1.. steps, steps + 1 decode), what
 * runs before each task on its device, and what the sample did before. */
typedef struct second_look {
    int before_here[MAX_SAMPLES * (MAX_STEPS + 2)], before_sample[MAX_SAMPLES * (MAX_STEPS + 2)];
} second_look;

static inline int first_unit(const vd_plan *p, const vd_task *t) {
    return t->kind == VD_TASK_ENCODE ? 0 : t->kind == VD_TASK_DECODE ? p->steps + 1 : t->first + 1;
}

static inline bool carried(const vd_plan *p, int a, int b) {
    int found = 0;
    for (int i = 0; i < p->handoff_count; i++) {
        const vd_handoff *h = &p->handoffs[i];
        if (h->producer == a || h->consumer == b) {
            if (h->producer != a || h->consumer != b || h->from != p->tasks[a].device ||
                h->to != p->tasks[b].device || h->sample != p->tasks[a].sample ||
                h->after_step != p->tasks[a].last || p->tasks[a].handoff_out != i ||
                p->tasks[b].handoff_in != i)
                return false;
            found++;
        }
    }
    return found == (p->tasks[a].device != p->tasks[b].device);
}

/* Whether every unit has one owner and every move its hand-off. All indices must be in range. */
static inline bool plan_is_whole(const vd_plan *p, second_look *look) {
    static const int nobody = -1;
    int low = p->decode ? 0 : 1, high = p->decode ? p->steps + 1 : p->steps, moves = 0;
    for (int s = 0; s < p->samples; s++) {
        int owner[MAX_STEPS + 2];
        for (int u = 0; u < p->steps + 2; u++)
            owner[u] = nobody;
        for (int i = 0; i < p->task_count; i++) {
            const vd_task *t = &p->tasks[i];
            int units = t->kind == VD_TASK_STEPS ? t->last - t->first + 1 : 1;
            for (int u = first_unit(p, t); t->sample == s && units > 0; u++, units--) {
                if (owner[u] != nobody || u < low || u > high)
                    return false;
                owner[u] = i;
            }
        }
        for (int u = low; u <= high; u++) {
            if (owner[u] == nobody)
                return false;
            if (u > low && owner[u - 1] == owner[u])
                continue;
            look->before_sample[owner[u]] = u > low ? owner[u - 1] : nobody;
            if (u > low && !carried(p, owner[u - 1], owner[u]))
                return false;
            moves += u > low && p->tasks[owner[u - 1]].device != p->tasks[owner[u]].device;
        }
    }
    for (int d = 0; d < p->devices; d++)
        for (int i = p->order_start[d]; i < p->order_start[d + 1]; i++)
            look->before_here[p->order[i]] = i > p->order_start[d] ? p->order[i - 1] : nobody;
    return moves == p->handoff_count;
}

/* Pushes every task later until nothing moves. Returns false when that never ends: tasks wait in a circle. */
static inline bool settle(const vd_plan *p, const vd_costs *c, const second_look *look, double *start,
                          double *end) {
    bool moved = true;
    for (int i = 0; i < p->task_count; i++)
        start[i] = end[i] = 0;
    for (int round = 0; moved && round <= p->task_count + 1; round++) {
        moved = false;
        for (int i = 0; i < p->task_count; i++) {
            const vd_task *t = &p->tasks[i];
            int here = look->before_here[i], before = look->before_sample[i];
            double cost = t->kind == VD_TASK_ENCODE   ? c->encode
                          : t->kind == VD_TASK_DECODE ? c->decode
                                                      : (t->last - t->first + 1) * c->step;
            double from = here < 0 ? 0 : end[here];
            if (before >= 0)
                from = fmax(from, end[before] + (p->tasks[before].device == t->device ? 0 : c->handoff));
            moved |= from != start[i] || from + cost != end[i];
            start[i] = from;
            end[i] = from + cost;
        }
    }
    return !moved;
}

#endif
