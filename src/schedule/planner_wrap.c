/* McNaughton's wrap-around rule (1959): samples laid end to end on a line, and the line cut into one length
 * per device.
 *
 * A cut sample has its head on one device and its tail on the next. Here every sample lies on the line back
 * to front, so the head lies at the start of device d + 1 and the tail at the end of device d: the head runs
 * first thing, the tail last thing, and since a length is never shorter than a sample the two do not overlap.
 * Each boundary cuts one sample at most once: at most devices - 1 hand-offs, and no device waits.
 *
 * Work comes in units that cannot be cut (an encode, a step, a decode), so a device may stay short of the
 * length by less than the largest unit u. With T the cost of a sample, the shortest length that holds all is
 * therefore at most max(T, samples * T / devices + u); when only steps cost, it is max(T, samples * T /
 * devices) rounded up to whole steps. A hand-off that costs h delays a tail, and only when the length is less
 * than T + h: the makespan is at most max(length, T + h). */
#include "schedule/planner.h"

#include <math.h>
#include <stdlib.h>

/* Sums of the same costs differ in their last bits; this much of a step is no difference. */
static const double slack = 1e-6;

/* First unit of the longest tail of a sample that costs at most `room`; steps + 2 when no tail is worth a
 * cut, 0 when no head is. */
static int tail_begin(const vd_plan_request *r, double room) {
    int units = r->steps + 2;
    double decode = vd_units_cost(r, units - 1, units);
    double nothing = slack * r->costs.step;
    room += nothing;
    if (vd_units_cost(r, 0, units) <= room)
        return 0;
    if (decode > room)
        return units;
    double fit = floor((room - decode) / r->costs.step);
    int begin = units - 1 - (fit < r->steps ? (int)fit : r->steps);
    if (vd_units_cost(r, begin, units) <= nothing)
        return units;
    return vd_units_cost(r, 0, begin) > nothing ? begin : 0;
}

/* Lays the line with `length` per device: sample s has units [cut[s], steps + 2) on device home[s], and those
 * before on the next. `cut` and `home` may be NULL. Returns how many devices it takes. */
static int lay(const vd_plan_request *r, double length, int *cut, int *home) {
    int device = 0, units = r->steps + 2;
    double load = 0;
    for (int s = 0; s < r->samples; s++) {
        int begin = tail_begin(r, length - load);
        if (begin == units) {
            device++;
            load = 0;
            begin = 0;
        }
        if (cut) {
            cut[s] = begin;
            home[s] = device;
        }
        load += vd_units_cost(r, begin, units);
        if (begin > 0) {
            device++;
            load = vd_units_cost(r, 0, begin);
        }
    }
    return device + 1;
}

/* A longer length never needs more devices, so bisection finds the shortest that is enough. */
static double shortest_length(const vd_plan_request *r) {
    double sample = vd_units_cost(r, 0, r->steps + 2);
    double low = fmax(sample, sample * r->samples / r->devices);
    if (lay(r, low, NULL, NULL) <= r->devices)
        return low;
    double high = low + sample; /* a sample is not less than its largest unit */
    while (high - low > slack / 8 * r->costs.step && high - low > 1e-14 * high) {
        double middle = (low + high) / 2;
        if (lay(r, middle, NULL, NULL) <= r->devices)
            high = middle;
        else
            low = middle;
    }
    return high;
}

vd_code vd_plan_wrap(const vd_plan_request *request, vd_plan **out, vd_error *err) {
    vd_plan *plan;
    VD_TRY(vd_plan_new(request, VD_MODE_WRAP, 2, &plan, err));
    int *cut = calloc(2 * (size_t)request->samples, sizeof *cut);
    if (!cut) {
        vd_plan_free(plan);
        return vd_fail_memory(err, "a plan's cuts", 2ull * (unsigned)request->samples * sizeof *cut);
    }
    int *home = cut + request->samples;
    lay(request, shortest_length(request), cut, home);
    for (int s = 0; s < request->samples; s++) {
        if (cut[s] > 0)
            vd_plan_add(plan, home[s] + 1, s, 0, cut[s]);
        vd_plan_add(plan, home[s], s, cut[s], request->steps + 2);
    }
    free(cut);
    vd_plan_close(plan);
    *out = plan;
    return VD_OK;
}
