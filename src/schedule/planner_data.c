/* Data parallel: whole samples, dealt to the devices in turn. The makespan is ceil(samples / devices)
 * samples. */
#include "schedule/planner.h"

vd_code vd_plan_data(const vd_plan_request *request, vd_plan **out, vd_error *err) {
    vd_plan *plan;
    VD_TRY(vd_plan_new(request, VD_MODE_DATA, 1, &plan, err));
    for (int s = 0; s < request->samples; s++)
        vd_plan_add(plan, s % request->devices, s, 0, request->steps + 2);
    vd_plan_close(plan);
    *out = plan;
    return VD_OK;
}
