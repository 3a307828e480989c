/* Discrete-event simulation of a plan with given costs: the same accounting that a measured run gets. */
#ifndef VD_SCHEDULE_SIMULATE_H
#define VD_SCHEDULE_SIMULATE_H

#include "schedule/plan.h"

/* Start and end of every task, whatever their source (simulated or measured), reduced to the figures of
 * design.md section 4. Times share one unit (step-times or seconds) and any origin. */
typedef struct vd_timeline {
    double *start, *end;         /* [task_count] */
    double *admitted, *finished; /* [samples]: start of the sample's first task, end of its last */
    double *busy;                /* [devices]: sum of its tasks' durations */
    double *sorted;              /* [samples]: scratch of vd_timeline_reduce */
    double makespan;             /* first start to last end */
    double first_result;         /* from the first start to the first finished sample */
    double steady_interval; /* distance of results while every finishing device produces: 1 / the sum over
                             * devices that finish samples of (samples it finished) / (its first start to its
                             * last finished sample); so fill, drain and results that come in bursts do not
                             * bend it. 0 with fewer than 2 samples */
    double longest_gap;  /* longest wait from one finished sample to the next; 0 with fewer than 2 samples */
    double fill;         /* from the first start until every device that has tasks has started */
    double drain;        /* from when the first device finished its last task until the last end */
    double bubble_share; /* 1 - sum(busy) / (devices * makespan); devices without tasks count */
    double latency_p50, latency_p95; /* of finished - admitted, by nearest rank */
} vd_timeline;

/* List scheduling: a task starts when its device is free and the sample is there, a hand-off's cost after it
 * left the other device. Fills all of `out`, which the caller frees with vd_timeline_free. */
vd_code vd_simulate(const vd_plan *plan, const vd_costs *costs, vd_timeline *out, vd_error *err);

/* For measured times: allocate, set start[] and end[] of every task, then reduce fills the rest. */
vd_code vd_timeline_alloc(const vd_plan *plan, vd_timeline *t, vd_error *err);
void vd_timeline_reduce(const vd_plan *plan, vd_timeline *t);
/* The latency percentiles alone, from admitted[] and finished[] as the caller has set them. */
void vd_timeline_latency(const vd_plan *plan, vd_timeline *t);
/* Sorts `values` [count >= 1] and returns the smallest that at least `share` of them do not exceed. */
double vd_nearest_rank(double *values, int count, double share);
void vd_timeline_free(vd_timeline *t); /* zeroed timelines are fine */

#endif
