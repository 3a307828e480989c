/* What lies around the network: the input and the result of a step, rows of tables, sinusoids. */
#include "device/cuda_lower.h"

#include <stdlib.h>

static vd_code input_run(const vd_op *generic, const vd_cuda_step *s, const vd_cuda_call *call,
                         vd_error *err) {
    (void)s;
    const vd_unet_input *op = &generic->unet_input;
    vd_shape latents = vd_program_shape(call->program, op->latents),
             dst = vd_program_shape(call->program, op->dst);
    vdk_unet_input i = {.latents = vd_cuda_value(call, op->latents),
                        .image = vd_cuda_value(call, op->image),
                        .sigmas = vd_cuda_value(call, op->sigmas),
                        .step = vd_cuda_value(call, op->step),
                        .y = vd_cuda_value(call, op->dst),
                        .frames = latents.n,
                        .pixels = latents.h * latents.w,
                        .c = latents.c,
                        .halves = (int)(dst.n / latents.n),
                        .dtype = vd_cuda_dtype(call->program, op->dst)};
    return vd_cuda_ran(call, vdk_run_unet_input(&i, call->stream), "input of the network", err);
}

static vd_code euler_run(const vd_op *generic, const vd_cuda_step *s, const vd_cuda_call *call,
                         vd_error *err) {
    (void)s;
    const vd_euler_step *op = &generic->euler_step;
    vd_shape latents = vd_program_shape(call->program, op->latents),
             v = vd_program_shape(call->program, op->v);
    vdk_euler_step e = {.v = vd_cuda_value(call, op->v),
                        .guidance = vd_cuda_value(call, op->guidance),
                        .sigmas = vd_cuda_value(call, op->sigmas),
                        .image = vd_cuda_value(call, op->image),
                        .step = vd_cuda_value(call, op->step),
                        .latents = vd_cuda_value(call, op->latents),
                        .next = vd_cuda_value(call, op->next),
                        .frames = latents.n,
                        .pixels = latents.h * latents.w,
                        .c = latents.c,
                        .halves = (int)(v.n / latents.n),
                        .dtype = call->program->dtype};
    return vd_cuda_ran(call, vdk_run_euler_step(&e, call->stream), "Euler step", err);
}

static vd_code gather_run(const vd_op *generic, const vd_cuda_step *s, const vd_cuda_call *call,
                          vd_error *err) {
    (void)s;
    const vd_gather_row *op = &generic->gather_row;
    vd_shape table = vd_program_shape(call->program, op->table);
    return vd_cuda_ran(call,
                       vdk_run_gather_row(vd_cuda_value(call, op->table), vd_cuda_value(call, op->index),
                                          vd_cuda_value(call, op->dst), table.w, table.c, call->stream),
                       "row of a table", err);
}

/* ---- sinusoids: frequencies are the host's, so that all backends use the same ---- */

struct vd_cuda_step {
    const char *device;
    int64_t count;      /* of frequencies */
    float *frequencies; /* device memory */
};

static vd_code sinusoid_plan(const vd_cuda_planner *pl, const vd_op *op, vd_cuda_step *s, size_t *scratch,
                             vd_error *err) {
    (void)scratch, (void)err;
    s->device = vd_cuda_weights_device(pl->weights);
    s->count = vd_program_shape(pl->program, op->sinusoid.dst).c / 2;
    return VD_OK;
}

static vd_code sinusoid_load(vd_cuda_step *s, vd_error *err) {
    size_t bytes = (size_t)s->count * sizeof(float);
    if (s->frequencies || s->count == 0)
        return VD_OK;
    float *values = malloc(bytes);
    if (!values)
        return vd_fail_memory(err, "frequencies", bytes);
    for (int64_t j = 0; j < s->count; j++)
        values[j] = vd_sinusoid_frequency(j, s->count);
    cudaError_t result = cudaMalloc((void **)&s->frequencies, bytes);
    if (result == cudaSuccess)
        result = cudaMemcpy(s->frequencies, values, bytes, cudaMemcpyHostToDevice);
    if (result == cudaSuccess) /* the copy may return while the last of it is on its way */
        result = cudaStreamSynchronize(cudaStreamLegacy);
    free(values);
    return vd_cuda_check(result, s->device, "frequencies", err);
}

static void sinusoid_close(vd_cuda_step *s) {
    if (s->frequencies)
        (void)cudaFree(s->frequencies); /* what failed before has been reported */
}

static vd_code sinusoid_run(const vd_op *generic, const vd_cuda_step *s, const vd_cuda_call *call,
                            vd_error *err) {
    const vd_sinusoid *op = &generic->sinusoid;
    vd_shape dst = vd_program_shape(call->program, op->dst);
    return vd_cuda_ran(call,
                       vdk_run_sinusoid(vd_cuda_value(call, op->positions), s->frequencies,
                                        vd_cuda_value(call, op->dst), dst.w, dst.c,
                                        vd_cuda_dtype(call->program, op->dst), call->stream),
                       "sinusoids", err);
}

const vd_cuda_op vd_cuda_unet_input = {.run = input_run};
const vd_cuda_op vd_cuda_euler_step = {.run = euler_run};
const vd_cuda_op vd_cuda_gather_row = {.run = gather_run};
const vd_cuda_op vd_cuda_sinusoid = {.step_bytes = sizeof(vd_cuda_step),
                                     .plan = sinusoid_plan,
                                     .load = sinusoid_load,
                                     .run = sinusoid_run,
                                     .close = sinusoid_close};
