/* Conversions, copies and sums. */
#include "device/cuda_lower.h"

static int64_t count_of(const vd_cuda_call *call, vd_value v) {
    return vd_shape_count(vd_program_shape(call->program, v));
}

static size_t bytes_of(const vd_cuda_call *call, vd_value v) {
    return (size_t)count_of(call, v) * vd_dtype_bytes(vd_cuda_dtype(call->program, v));
}

static vd_code cast_run(const vd_op *generic, const vd_cuda_step *s, const vd_cuda_call *call,
                        vd_error *err) {
    (void)s;
    const vd_cast *op = &generic->cast;
    int64_t count = count_of(call, op->src);
    vdk_cast cast = {.x = vd_cuda_value(call, op->src),
                     .y = vd_cuda_value(call, op->dst),
                     .rows = 1,
                     .c = count,
                     .from_pitch = count,
                     .to_pitch = count,
                     .scale = op->scale,
                     .from = vd_cuda_dtype(call->program, op->src),
                     .to = vd_cuda_dtype(call->program, op->dst)};
    return vd_cuda_ran(call, vdk_run_cast(&cast, call->stream), "cast", err);
}

static vd_code frames_run(const vd_op *generic, const vd_cuda_step *s, const vd_cuda_call *call,
                          vd_error *err) {
    (void)s;
    const vd_frames_u8 *op = &generic->frames_u8;
    return vd_cuda_ran(call,
                       vdk_run_frames_u8(vd_cuda_value(call, op->src), vd_cuda_dtype(call->program, op->src),
                                         vd_cuda_value(call, op->dst), count_of(call, op->src), call->stream),
                       "frames", err);
}

static vd_code copy_run(const vd_op *generic, const vd_cuda_step *s, const vd_cuda_call *call,
                        vd_error *err) {
    (void)s;
    const vd_copy *op = &generic->copy;
    return vd_cuda_ran(call,
                       cudaMemcpyAsync(vd_cuda_value(call, op->dst), vd_cuda_value(call, op->src),
                                       bytes_of(call, op->src), cudaMemcpyDeviceToDevice, call->stream),
                       "copy", err);
}

/* ---- sums, with scratch for their parts ---- */

static vd_code sum_plan(const vd_cuda_planner *pl, const vd_op *op, vd_cuda_step *s, size_t *scratch,
                        vd_error *err) {
    (void)pl, (void)op, (void)s, (void)err;
    vd_cuda_take(scratch, VDK_REDUCE_SCRATCH);
    return VD_OK;
}

static vd_code checksum_run(const vd_op *generic, const vd_cuda_step *s, const vd_cuda_call *call,
                            vd_error *err) {
    (void)s;
    const vd_checksum *op = &generic->checksum;
    return vd_cuda_ran(call,
                       vdk_run_checksum(vd_cuda_value(call, op->src), bytes_of(call, op->src),
                                        vd_cuda_value(call, op->dst), call->scratch, call->stream),
                       "checksum", err);
}

static vd_code nonfinite_run(const vd_op *generic, const vd_cuda_step *s, const vd_cuda_call *call,
                             vd_error *err) {
    (void)s;
    const vd_nonfinite *op = &generic->nonfinite;
    return vd_cuda_ran(call,
                       vdk_run_nonfinite(vd_cuda_value(call, op->src), vd_cuda_dtype(call->program, op->src),
                                         count_of(call, op->src), vd_cuda_value(call, op->dst), call->scratch,
                                         call->stream),
                       "count of non-finite values", err);
}

const vd_cuda_op vd_cuda_cast = {.run = cast_run};
const vd_cuda_op vd_cuda_frames_u8 = {.run = frames_run};
const vd_cuda_op vd_cuda_copy = {.run = copy_run};
const vd_cuda_op vd_cuda_checksum = {.plan = sum_plan, .run = checksum_run};
const vd_cuda_op vd_cuda_nonfinite = {.plan = sum_plan, .run = nonfinite_run};
