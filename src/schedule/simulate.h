/* Discrete-event simulation of a plan with given costs: the same accounting that a measured run gets. */
#ifndef VD_SCHEDULE_SIMULATE_H
#define VD_SCHEDULE_SIMULATE_H

#include "schedule/plan.h"

/* Start and end of every task, whatever their source (simulated or measured), reduced to the figures of design.md
 * section 4. Times share one unit (step-times or seconds). */
typedef struct vd_timeline {
    double *start, *end;      /* [task_count] */
    double *admitted, *finished; /* [samples]: start of the sample's first task, end of its last */
    double *busy;             /* [devices] */
    double makespan;          /* first start to last end */
    double first_result;      /* from the first start to the first finished sample */
    double steady_interval;   /* mean distance of finished samples between fill and drain; 0 with fewer than 2 samples */
    double fill, drain;       /* until the last device started; since the first device finished for good */
    double bubble_share;      /* 1 - sum(busy) / (devices * makespan) */
    double latency_p50, latency_p95; /* of finished - admitted */
} vd_timeline;

vd_code vd_simulate(const vd_plan *plan, const vd_costs *costs, vd_timeline *out, vd_error *err);
/* Fills every figure of `t` from start[] and end[] (already set by the caller, arrays allocated by
 * vd_timeline_alloc). */
void vd_timeline_reduce(const vd_plan *plan, vd_timeline *t);
vd_code vd_timeline_alloc(const vd_plan *plan, vd_timeline *t, vd_error *err);
void vd_timeline_free(vd_timeline *t);

#endif
