/* A plan with its timeline, as a drawing for people and as JSON for tools (design.md section 8). Both return
 * malloc'ed text that the caller frees, NULL when out of memory. */
#ifndef VD_SCHEDULE_PRINT_H
#define VD_SCHEDULE_PRINT_H

#include "schedule/simulate.h"

/* A row of figures, then one row per device with time from left to right; lines are `columns` long (80 to
 * 240). Times are in the timeline's unit, which the caller names. */
char *vd_plan_text(const vd_plan *plan, const vd_timeline *t, int columns);
/* `first` and `last` of encode and decode are null. */
char *vd_plan_json(const vd_plan *plan, const vd_timeline *t);

#endif
