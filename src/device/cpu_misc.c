/* Conversions, copies and checks. */
#include "base/hash.h"
#include "device/cpu_simple.h"

#include <string.h>

enum { PIECE = 1024 }; /* elements converted at a time */

vd_code vd_cpu_simple_plan(vd_cpu_library *library, const vd_program *p, const vd_op *op, vd_cpu_plan *plan,
                           size_t *scratch, vd_error *err) {
    (void)p, (void)op, (void)scratch, (void)err;
    plan->kernels = vd_cpu_library_kernels(library);
    return VD_OK;
}

/* A value as one row. */
static vd_cells flat(const vd_program *p, const vd_cpu_call *call, vd_value v) {
    return (vd_cells){call->at[v], p->values[v].dtype, vd_shape_count(p->values[v].shape)};
}

static vd_code cast_run(const vd_program *p, const vd_op *op, const vd_cpu_plan *t, const vd_cpu_call *call,
                        vd_error *err) {
    (void)err;
    vd_cells src = flat(p, call, op->cast.src), dst = flat(p, call, op->cast.dst);
    t->kernels->convert(dst, src, 1, src.pitch, op->cast.scale);
    return VD_OK;
}

/* A comparison with NaN is false, so NaN becomes 0. In [2^23, 2^24) the spacing of floats is 1, so adding 1.5
 * * 2^23 rounds to even; unlike rintf it vectorises on every machine. */
static void to_bytes(uint8_t *restrict to, const float *restrict x, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        float y = x[i] * 0.5f + 0.5f;
        y = y > 0.0f ? y : 0.0f;
        y = y < 1.0f ? y : 1.0f;
        to[i] = (uint8_t)(int)(y * 255.0f + 12582912.0f - 12582912.0f);
    }
}

static vd_code frames_run(const vd_program *p, const vd_op *op, const vd_cpu_plan *t, const vd_cpu_call *call,
                          vd_error *err) {
    (void)err;
    float piece[PIECE];
    uint8_t *to = call->at[op->frames_u8.dst];
    vd_cells src = flat(p, call, op->frames_u8.src), x = src, buffer = {piece, VD_F32, PIECE};
    for (int64_t i = 0; i < src.pitch; i += PIECE) {
        int64_t count = src.pitch - i < PIECE ? src.pitch - i : PIECE;
        x.data = (char *)src.data + (size_t)i * vd_dtype_bytes(src.dtype);
        t->kernels->convert(buffer, x, 1, count, 1.0f);
        to_bytes(to + i, piece, count);
    }
    return VD_OK;
}

static vd_code copy_run(const vd_program *p, const vd_op *op, const vd_cpu_plan *t, const vd_cpu_call *call,
                        vd_error *err) {
    (void)t;
    (void)err;
    memcpy(call->at[op->copy.dst], call->at[op->copy.src], vd_value_bytes(p, op->copy.src));
    return VD_OK;
}

static vd_code checksum_run(const vd_program *p, const vd_op *op, const vd_cpu_plan *t,
                            const vd_cpu_call *call, vd_error *err) {
    (void)t;
    (void)err;
    *(uint64_t *)call->at[op->checksum.dst] =
        vd_hash64(call->at[op->checksum.src], vd_value_bytes(p, op->checksum.src));
    return VD_OK;
}

/* Elements whose exponent is all ones. */
static int32_t count_f32(const uint32_t *x, int64_t count) {
    int32_t found = 0;
    for (int64_t i = 0; i < count; i++)
        found += (x[i] & 0x7f800000u) == 0x7f800000u;
    return found;
}

static int32_t count_halves(const uint16_t *x, int64_t count, uint16_t exponent) {
    int32_t found = 0;
    for (int64_t i = 0; i < count; i++)
        found += (x[i] & exponent) == exponent;
    return found;
}

static vd_code nonfinite_run(const vd_program *p, const vd_op *op, const vd_cpu_plan *t,
                             const vd_cpu_call *call, vd_error *err) {
    (void)t;
    (void)err;
    vd_cells src = flat(p, call, op->nonfinite.src);
    *(int32_t *)call->at[op->nonfinite.dst] += src.dtype == VD_F32 ? count_f32(src.data, src.pitch)
                                               : src.dtype == VD_F16
                                                   ? count_halves(src.data, src.pitch, 0x7c00)
                                                   : count_halves(src.data, src.pitch, 0x7f80);
    return VD_OK;
}

const vd_cpu_op vd_cpu_cast = {
    .plan_bytes = sizeof(vd_cpu_plan), .plan = vd_cpu_simple_plan, .run = cast_run};
const vd_cpu_op vd_cpu_frames_u8 = {
    .plan_bytes = sizeof(vd_cpu_plan), .plan = vd_cpu_simple_plan, .run = frames_run};
const vd_cpu_op vd_cpu_copy = {.run = copy_run};
const vd_cpu_op vd_cpu_checksum = {.run = checksum_run};
const vd_cpu_op vd_cpu_nonfinite = {.run = nonfinite_run};
