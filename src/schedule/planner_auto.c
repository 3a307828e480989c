/* Auto: makes and simulates a plan of every mode and keeps the best one for the goal. */
#include "schedule/planner.h"
#include "schedule/simulate.h"

#include <math.h>
#include <stdio.h>

enum { CANDIDATES = VD_MODE_AUTO }; /* every mode before auto; equal ones rank in this order */

static const char *const aims[] = {
    [VD_GOAL_MAKESPAN] = "smallest makespan",
    [VD_GOAL_LATENCY] = "smallest p95 latency",
    [VD_GOAL_CADENCE] = "shortest wait between results",
};

static double figure(const vd_timeline *t, vd_goal goal) {
    switch (goal) {
    case VD_GOAL_MAKESPAN:
        return t->makespan;
    case VD_GOAL_LATENCY:
        return t->latency_p95;
    case VD_GOAL_CADENCE:
        return t->longest_gap;
    }
    return 0;
}

static vd_code try_mode(const vd_plan_request *request, vd_mode mode, vd_plan **plan, double *cost,
                        vd_error *err) {
    vd_plan_request one = *request;
    vd_timeline t = {0};
    one.mode = mode;
    VD_TRY(vd_plan_make(&one, plan, err));
    VD_TRY(vd_simulate(*plan, &request->costs, &t, err));
    *cost = figure(&t, request->goal);
    vd_timeline_free(&t);
    return VD_OK;
}

/* Whether `a` beats the earlier candidate `b`: by the goal's figure, then by fewer hand-offs. */
static bool better(double a, const vd_plan *plan_a, double b, const vd_plan *plan_b) {
    if (fabs(a - b) > 1e-9 * fmax(a, b))
        return a < b;
    return plan_a->handoff_count < plan_b->handoff_count;
}

static void explain(vd_plan *plan, vd_goal goal, const double *cost) {
    int used = snprintf(plan->reason, sizeof plan->reason, "%s has the %s, %.4g step-times (",
                        vd_mode_name(plan->mode), aims[goal], cost[plan->mode]);
    const char *comma = "";
    for (int m = 0; m < CANDIDATES; m++)
        if (m != (int)plan->mode) {
            used += snprintf(plan->reason + used, sizeof plan->reason - (size_t)used, "%s%s %.4g", comma,
                             vd_mode_name((vd_mode)m), cost[m]);
            comma = ", ";
        }
    snprintf(plan->reason + used, sizeof plan->reason - (size_t)used, ")");
}

vd_code vd_plan_auto(const vd_plan_request *request, vd_plan **out, vd_error *err) {
    vd_plan *plans[CANDIDATES] = {0};
    double cost[CANDIDATES];
    int best = 0;
    vd_code status = VD_OK;
    for (int m = 0; m < CANDIDATES && status == VD_OK; m++) {
        status = try_mode(request, (vd_mode)m, &plans[m], &cost[m], err);
        if (status == VD_OK && better(cost[m], plans[m], cost[best], plans[best]))
            best = m;
    }
    if (status == VD_OK) {
        explain(plans[best], request->goal, cost);
        *out = plans[best];
        plans[best] = NULL;
    }
    for (int m = 0; m < CANDIDATES; m++)
        vd_plan_free(plans[m]);
    return status;
}
