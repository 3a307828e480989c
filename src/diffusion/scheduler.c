#include "diffusion/scheduler.h"

#include <math.h>

static const double rho = 7.0; /* Karras et al., equation 5 */

/* svd-spec.md 8: the ramp runs in double and only its result is rounded. */
vd_code vd_schedule_tables(double sigma_min, double sigma_max, int steps, float *sigmas, float *timesteps,
                           vd_error *err) {
    if (steps < 1 || steps > VD_STEPS_MAX)
        return vd_fail(err, VD_ERR_USAGE, "%d steps: give a number from 1 to %d with --steps", steps,
                       VD_STEPS_MAX);
    if (!(sigma_min > 0 && sigma_min <= sigma_max && sigma_max < INFINITY))
        return vd_fail(err, VD_ERR_DATA,
                       "the scheduler's sigma_min %g and sigma_max %g: want 0 < sigma_min <= sigma_max",
                       sigma_min, sigma_max);
    double high = pow(sigma_max, 1 / rho), low = pow(sigma_min, 1 / rho);
    for (int i = 0; i < steps; i++) {
        double ramp = steps > 1 ? (double)i / (steps - 1) : 0;
        sigmas[i] = (float)pow(high + ramp * (low - high), rho);
        timesteps[i] = 0.25f * (float)log(sigmas[i]);
    }
    sigmas[steps] = 0;
    return VD_OK;
}

float vd_schedule_init_scale(bool leading_spacing, const float *sigmas, int steps) {
    float max = 0;
    for (int i = 0; i <= steps; i++)
        max = fmaxf(max, sigmas[i]);
    return leading_spacing ? sqrtf(max * max + 1) : max;
}

/* Built from both ends towards the middle, one rounding per value, as torch's FMA kernels do. */
void vd_guidance_ramp(float min, float max, int frames, float *out) {
    float step = frames > 1 ? (max - min) / (float)(frames - 1) : 0;
    for (int i = 0; i < frames; i++)
        out[i] = i < frames / 2 ? fmaf(step, (float)i, min) : fmaf(-step, (float)(frames - 1 - i), max);
    if (frames == 1)
        out[0] = min;
}
