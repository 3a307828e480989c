/* Pipeline: every sample passes all devices in order, each device owning the same steps of every sample. */
#include "schedule/planner.h"

#include <stdlib.h>

/* More devices than pieces of work could only pass a sample on. */
static int useful_devices(const vd_plan_request *request) {
    int ends = (vd_units_cost(request, 0, 1) > 0) +
               (vd_units_cost(request, request->steps + 1, request->steps + 2) > 0);
    return request->devices < request->steps + ends ? request->devices : request->steps + ends;
}

/* Steps are alike, so giving each to the device with the least work so far makes the largest load as small as
 * it can be; ties go to the front: 25 on 7 is 4,4,4,4,3,3,3. Encode counts on the first device, decode on the
 * last. */
static void balance(const vd_plan_request *request, int devices, int *split) {
    double first = vd_units_cost(request, 0, 1);
    double last = vd_units_cost(request, request->steps + 1, request->steps + 2);
    for (int step = 0; step < request->steps; step++) {
        int best = 0;
        double least = 0;
        for (int d = 0; d < devices; d++) {
            double load =
                split[d] * request->costs.step + (d == 0 ? first : 0) + (d == devices - 1 ? last : 0);
            if (d == 0 || load < least) {
                best = d;
                least = load;
            }
        }
        split[best]++;
    }
}

static void add_sample(vd_plan *plan, int sample, int devices, const int *split) {
    int begin = 0, end = 1; /* units; the encode is the first device's */
    for (int d = 0; d < devices; d++, begin = end) {
        end += split[d];
        if (d == devices - 1)
            end = plan->steps + 2;
        if (begin < end)
            vd_plan_add(plan, d, sample, begin, end);
    }
}

vd_code vd_plan_pipeline(const vd_plan_request *request, vd_plan **out, vd_error *err) {
    int devices = request->split ? request->devices : useful_devices(request);
    int pieces = request->devices < request->steps + 2 ? request->devices : request->steps + 2;
    vd_plan *plan;
    VD_TRY(vd_plan_new(request, VD_MODE_PIPELINE, pieces, &plan, err));
    int *balanced = calloc((size_t)devices, sizeof *balanced);
    if (!balanced) {
        vd_plan_free(plan);
        return vd_fail_memory(err, "a plan's split", (unsigned long long)devices * sizeof *balanced);
    }
    if (!request->split)
        balance(request, devices, balanced);
    for (int s = 0; s < request->samples; s++)
        add_sample(plan, s, devices, request->split ? request->split : balanced);
    free(balanced);
    vd_plan_close(plan);
    *out = plan;
    return VD_OK;
}
