/* What planners share; private to this layer.
 *
 * The work of one sample is a row of units: 0 is its encode, 1 .. steps are its steps, steps + 1 is its
 * decode. A planner cuts that row into pieces [begin, end) and gives each to a device; everything else
 * follows. Without decoding the first and the last unit cost nothing and make no task, but the row keeps its
 * shape. */
#ifndef VD_SCHEDULE_PLANNER_H
#define VD_SCHEDULE_PLANNER_H

#include "schedule/plan.h"

/* Cost of the units [begin, end) of one sample. */
double vd_units_cost(const vd_plan_request *request, int begin, int end);

/* An empty plan with room for `pieces` pieces of every sample. */
vd_code vd_plan_new(const vd_plan_request *request, vd_mode mode, int pieces, vd_plan **out, vd_error *err);

/* Adds the tasks of one piece, with a hand-off when the sample comes from another device. The pieces of a
 * sample are added one after another in the order of its units; each device runs its tasks in the order in
 * which they are added. */
void vd_plan_add(vd_plan *plan, int device, int sample, int begin, int end);

/* After the last piece: writes the order of every device. */
void vd_plan_close(vd_plan *plan);

/* Tasks in an order that every device's order and every hand-off allows: sorted [task_count]. Returns how
 * many could be placed; fewer than task_count means that devices wait for each other in a circle. `next`
 * [devices] and `done` [task_count] are scratch. Indices in the plan must be in range. */
int vd_plan_sort(const vd_plan *plan, int *sorted, int *next, bool *done);

vd_code vd_plan_pipeline(const vd_plan_request *request, vd_plan **out, vd_error *err);
vd_code vd_plan_data(const vd_plan_request *request, vd_plan **out, vd_error *err);
vd_code vd_plan_wrap(const vd_plan_request *request, vd_plan **out, vd_error *err);
vd_code vd_plan_auto(const vd_plan_request *request, vd_plan **out, vd_error *err);

#endif
