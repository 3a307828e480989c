/* EulerDiscreteScheduler as Stable Video Diffusion uses it: v-prediction, Karras sigmas, continuous timesteps
 * (svd-spec.md section 8). Tables are the reference's bits. */
#ifndef VD_DIFFUSION_SCHEDULER_H
#define VD_DIFFUSION_SCHEDULER_H

#include "base/error.h"

#include <stdbool.h>

enum { VD_STEPS_MAX = 1000 };

/* sigmas [steps + 1], the last 0; timesteps [steps] = 0.25 ln sigma of the rounded sigma. Steps outside
 * 1..VD_STEPS_MAX are VD_ERR_USAGE, sigmas that are not 0 < min <= max VD_ERR_DATA. */
vd_code vd_schedule_tables(double sigma_min, double sigma_max, int steps, float *sigmas, float *timesteps,
                           vd_error *err);

/* What unit-variance noise is multiplied by before the first step, in fp32 as the reference computes it.
 * `leading_spacing` (timestep_spacing "leading"): sqrt(sigma_max^2 + 1); otherwise sigma_max (2.5). */
float vd_schedule_init_scale(bool leading_spacing, const float *sigmas, int steps);

/* Guidance per frame, torch.linspace(min, max, frames) bit for bit (1.4). One frame gets `min`. */
void vd_guidance_ramp(float min, float max, int frames, float *out);

#endif
