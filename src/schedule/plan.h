/* Plans are data (design.md section 4): for each device its tasks in order, and the hand-offs between them.
 * Planners are pure functions; the checker proves any plan before it runs; the simulator times it. */
#ifndef VD_SCHEDULE_PLAN_H
#define VD_SCHEDULE_PLAN_H

#include "base/error.h"

#include <stdbool.h>

typedef enum vd_task_kind { VD_TASK_ENCODE, VD_TASK_STEPS, VD_TASK_DECODE } vd_task_kind;

typedef struct vd_task {
    vd_task_kind kind;
    int device;      /* 0 .. devices-1 */
    int sample;      /* 0 .. samples-1 */
    int first, last; /* steps, counted from 0, both included; -1 for encode and decode */
    int handoff_in;  /* index of the hand-off that brings the sample's state here; -1 when it is already on
                        this device */
    int handoff_out; /* index of the hand-off that takes it away after this task; -1 */
} vd_task;

typedef struct vd_handoff {
    int sample;
    int from, to;           /* devices; never equal */
    int after_step;         /* last finished step; -1 after encode */
    int producer, consumer; /* indices into tasks */
} vd_handoff;

typedef enum vd_mode { VD_MODE_PIPELINE, VD_MODE_DATA, VD_MODE_WRAP, VD_MODE_AUTO } vd_mode;
typedef enum vd_goal {
    VD_GOAL_MAKESPAN, /* all samples done as early as possible */
    VD_GOAL_LATENCY,  /* each sample done soon after it was begun: p95 of the latencies */
    VD_GOAL_CADENCE,  /* results come evenly: the longest wait from one to the next is short */
} vd_goal;

/* Times in step-times: one step costs `step` (1 by default), never 0. */
typedef struct vd_costs {
    double encode, step, decode, handoff;
} vd_costs;

typedef struct vd_plan_request {
    int devices, samples, steps; /* all >= 1; steps per sample */
    vd_mode mode;
    vd_goal goal; /* for auto */
    vd_costs costs;
    const int
        *split;  /* [devices] or NULL; pipeline only: steps per device, sums to `steps`, entries >= 0. The
                  * first  device always encodes and the last always decodes. NULL: balanced by cost */
    bool decode; /* false: latents only, no encode of an image and no decode; their costs do not count */
} vd_plan_request;

typedef struct vd_plan {
    vd_mode mode;     /* never auto */
    char reason[256]; /* why auto chose it; "" otherwise */
    int devices, samples, steps;
    bool decode;
    int task_count, handoff_count;
    vd_task *tasks; /* grouped by nothing; `order` says what each device runs */
    vd_handoff *handoffs;
    int *order;       /* task indices, device after device */
    int *order_start; /* [devices + 1]: device d runs order[order_start[d]] .. order[order_start[d+1] - 1] */
} vd_plan;

const char *vd_mode_name(vd_mode mode);
bool vd_mode_parse(const char *name, vd_mode *out);
bool vd_goal_parse(const char *name, vd_goal *out);

/* Makes, checks and returns a plan; free with vd_plan_free. Impossible requests (a split that does not add
 * up) are VD_ERR_USAGE. */
vd_code vd_plan_make(const vd_plan_request *request, vd_plan **out, vd_error *err);
void vd_plan_free(vd_plan *plan);

/* Proves: every sample is encoded once, its steps are covered exactly once and in order, decoded once (when
 * asked); each hand-off joins consecutive tasks of one sample on different devices; device orders and
 * dependencies together have no cycle. VD_ERR_INTERNAL names the first violation. */
vd_code vd_plan_check(const vd_plan *plan, vd_error *err);

#endif
