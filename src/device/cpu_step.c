/* Both ends of a sampling step (svd-spec 1.4 and 8), with the reference's bits: each operation is rounded to
 * fp32 by itself, divisions are divisions. The compiler may vectorise, not contract (-ffp-contract=off). */
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

/* ---- the network's input ---- */

/* An input under construction, frame by frame of the latents. */
typedef struct input {
    const vd_kernels *kernels;
    vd_cells dst;    /* [G*F*h*w, 2c] */
    vd_cells scaled; /* [h*w, c] scratch */
    vd_cells image;  /* [h*w, c] */
    vd_cells blank;  /* [h*w, c] scratch: the image of the unconditional half */
    int64_t frames, halves, pixels, c;
    float divisor;
} input;

/* For `scaled` and `blank`. */
static size_t input_scratch(const vd_program *p, vd_value image) {
    return 2 * vd_value_bytes(p, image);
}

static input input_of(const vd_program *p, const vd_unet_input *o, float sigma, const vd_cpu_plan *plan,
                      const vd_cpu_call *call) {
    vd_shape s = vd_program_shape(p, o->latents);
    size_t frame = vd_value_bytes(p, o->image);
    input in = {.kernels = plan->kernels,
                .dst = vd_value_cells(p, call, o->dst),
                .scaled = {call->scratch, VD_F32, s.c},
                .image = vd_value_cells(p, call, o->image),
                .blank = {(char *)call->scratch + frame, VD_F32, s.c},
                .frames = s.n,
                .halves = vd_program_shape(p, o->dst).n / s.n,
                .pixels = s.h * s.w,
                .c = s.c,
                .divisor = sqrtf(sigma * sigma + 1.0f)};
    memset(in.blank.data, 0, frame);
    return in;
}

static void scale_down(float *restrict to, const float *restrict x, int64_t count, float divisor) {
    for (int64_t i = 0; i < count; i++)
        to[i] = x[i] / divisor;
}

/* Frame n, whose latents are `x`, in each half of the batch. */
static void write_frame(const input *in, int64_t n, const float *x) {
    scale_down(in->scaled.data, x, in->pixels * in->c, in->divisor);
    for (int64_t half = 0; half < in->halves; half++) {
        vd_cells first = vd_cells_at(in->dst, (half * in->frames + n) * in->pixels), second = first;
        second.data = (char *)first.data + (size_t)in->c * vd_dtype_bytes(first.dtype);
        vd_cells image = half == in->halves - 1 ? in->image : in->blank;
        in->kernels->convert(first, in->scaled, in->pixels, in->c, 1.0f);
        in->kernels->convert(second, image, in->pixels, in->c, 1.0f);
    }
}

static vd_code input_plan(vd_cpu_library *l, const vd_program *p, const vd_op *op, vd_cpu_plan *t,
                          size_t *scratch, vd_error *err) {
    *scratch = input_scratch(p, op->unet_input.image);
    return vd_cpu_simple_plan(l, p, op, t, scratch, err);
}

static vd_code input_run(const vd_program *p, const vd_op *op, const vd_cpu_plan *plan,
                         const vd_cpu_call *call, vd_error *err) {
    const vd_unet_input *o = &op->unet_input;
    const float *sigma = NULL, *x = call->at[o->latents];
    VD_TRY(current_sigma(p, call, o->sigmas, o->step, &sigma, err));
    input in = input_of(p, o, *sigma, plan, call);
    for (int64_t n = 0; n < in.frames; n++)
        write_frame(&in, n, x + n * in.pixels * in.c);
    return VD_OK;
}

/* ---- the step ---- */

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

static vd_code euler_plan(vd_cpu_library *l, const vd_program *p, const vd_op *op, vd_cpu_plan *t,
                          size_t *scratch, vd_error *err) {
    if (op->euler_step.next != VD_NONE)
        *scratch = input_scratch(p, op->euler_step.image);
    return vd_cpu_simple_plan(l, p, op, t, scratch, err);
}

/* Each frame's input is made while its latents are in cache. */
static vd_code euler_run(const vd_program *p, const vd_op *op, const vd_cpu_plan *plan,
                         const vd_cpu_call *call, vd_error *err) {
    const vd_euler_step *o = &op->euler_step;
    const vd_unet_input next = {o->latents, o->image, o->sigmas, o->step, o->next};
    const float *sigma = NULL, *v = call->at[o->v], *guidance = call->at[o->guidance];
    VD_TRY(current_sigma(p, call, o->sigmas, o->step, &sigma, err));
    euler e = euler_of(sigma);
    input in = {0};
    if (o->next != VD_NONE)
        in = input_of(p, &next, sigma[1], plan, call);
    vd_shape s = vd_program_shape(p, o->latents);
    int64_t frame = s.h * s.w * s.c;
    bool guided = vd_program_shape(p, o->v).n > s.n;
    float *x = call->at[o->latents];
    for (int64_t n = 0; n < s.n; n++, x += frame, v += frame) {
        if (guided)
            step_guided(e, x, v, v + s.n * frame, guidance[n], frame);
        else
            step_plain(e, x, v, frame);
        if (o->next != VD_NONE)
            write_frame(&in, n, x);
    }
    ++*(int32_t *)call->at[o->step];
    return VD_OK;
}

const vd_cpu_op vd_cpu_unet_input = {.plan_bytes = sizeof(vd_cpu_plan), .plan = input_plan, .run = input_run};
const vd_cpu_op vd_cpu_euler_step = {.plan_bytes = sizeof(vd_cpu_plan), .plan = euler_plan, .run = euler_run};
