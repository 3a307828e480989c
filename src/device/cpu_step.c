/* Both ends of a sampling step (svd-spec 1.4 and 8), with the reference's bits: each operation is rounded to
 * fp32 by itself, divisions are divisions. The compiler may vectorise but not contract (-ffp-contract=off).
 */
#include "device/cpu_simple.h"

#include <math.h>
#include <string.h>

/* sigmas[*step], and that there is a next one. */
static vd_code current_sigma(const vd_program *p, const vd_cpu_call *call, vd_value sigmas, vd_value step,
                             const float **out, vd_error *err) {
    int32_t i = *(const int32_t *)call->at[step];
    int64_t steps = vd_program_shape(p, sigmas).c - 1;
    if (i < 0 || i >= steps)
        return vd_fail(err, VD_ERR_INTERNAL, "program %s: step %d of %lld", p->name, (int)i,
                       (long long)steps);
    *out = (const float *)call->at[sigmas] + i;
    return VD_OK;
}

static vd_code input_plan(vd_cpu_library *l, const vd_program *p, const vd_op *op, vd_cpu_plan *t,
                          size_t *scratch, vd_error *err) {
    vd_shape s = vd_program_shape(p, op->unet_input.image);
    *scratch = (size_t)vd_shape_count(s) * sizeof(float); /* one frame */
    return vd_cpu_simple_plan(l, p, op, t, scratch, err);
}

static void scale_down(float *restrict to, const float *restrict x, int64_t count, float divisor) {
    for (int64_t i = 0; i < count; i++)
        to[i] = x[i] / divisor;
}

static vd_code input_run(const vd_program *p, const vd_op *op, const vd_cpu_plan *plan,
                         const vd_cpu_call *call, vd_error *err) {
    const vd_unet_input *o = &op->unet_input;
    const float *sigma = NULL;
    VD_TRY(current_sigma(p, call, o->sigmas, o->step, &sigma, err));
    float divisor = sqrtf(*sigma * *sigma + 1.0f);
    vd_shape s = vd_program_shape(p, o->latents);
    int64_t pixels = s.h * s.w, count = pixels * s.c, frames = vd_program_shape(p, o->dst).n;
    bool guided = frames > s.n;
    vd_cells dst = vd_value_cells(p, call, o->dst), frame = {call->scratch, VD_F32, s.c};
    for (int64_t n = 0; n < frames; n++) {
        vd_cells first = vd_cells_at(dst, n * pixels), second = first;
        second.data = (char *)first.data + (size_t)s.c * vd_dtype_bytes(dst.dtype);
        scale_down(frame.data, (const float *)call->at[o->latents] + n % s.n * count, count, divisor);
        plan->kernels->convert(first, frame, pixels, s.c, 1.0f);
        if (guided && n < s.n)
            memset(frame.data, 0, (size_t)count * sizeof(float));
        vd_cells image = guided && n < s.n ? frame : vd_value_cells(p, call, o->image);
        plan->kernels->convert(second, image, pixels, s.c, 1.0f);
    }
    return VD_OK;
}

/* The coefficients of one step. */
typedef struct euler {
    float sigma, c, q, change;
} euler;

static euler euler_of(const float *sigma) {
    euler e = {.sigma = sigma[0], .q = sigma[0] * sigma[0] + 1.0f, .change = sigma[1] - sigma[0]};
    e.c = -e.sigma / sqrtf(e.q);
    return e;
}

static inline float advance(euler e, float x, float v) {
    float x0 = v * e.c + x / e.q;
    float d = (x - x0) / e.sigma;
    return x + d * e.change;
}

static void step_plain(euler e, float *restrict x, const float *restrict v, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        x[i] = advance(e, x[i], v[i]);
}

static void step_guided(euler e, float *restrict x, const float *restrict without, const float *restrict with,
                        float guidance, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        x[i] = advance(e, x[i], without[i] + guidance * (with[i] - without[i]));
}

static vd_code euler_run(const vd_program *p, const vd_op *op, const vd_cpu_plan *plan,
                         const vd_cpu_call *call, vd_error *err) {
    (void)plan;
    const vd_euler_step *o = &op->euler_step;
    const float *sigma = NULL, *v = call->at[o->v], *guidance = call->at[o->guidance];
    VD_TRY(current_sigma(p, call, o->sigmas, o->step, &sigma, err));
    euler e = euler_of(sigma);
    vd_shape s = vd_program_shape(p, o->latents);
    int64_t frame = s.h * s.w * s.c, all = s.n * frame;
    float *x = call->at[o->latents];
    if (vd_program_shape(p, o->v).n == s.n)
        step_plain(e, x, v, all);
    else
        for (int64_t n = 0; n < s.n; n++)
            step_guided(e, x + n * frame, v + n * frame, v + all + n * frame, guidance[n], frame);
    ++*(int32_t *)call->at[o->step];
    return VD_OK;
}

const vd_cpu_op vd_cpu_unet_input = {.plan_bytes = sizeof(vd_cpu_plan), .plan = input_plan, .run = input_run};
const vd_cpu_op vd_cpu_euler_step = {.run = euler_run};
