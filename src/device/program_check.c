/* Shapes and types of every operation, checked once, above all backends. A failure is a bug of whoever built
 * the program, so the code is VD_ERR_INTERNAL and the message names program, operation and operand. */
#include "device/program.h"

#include <stdarg.h>
#include <stdio.h>

vd_code vd_program_check_op(const vd_program *p, const vd_op *op, vd_error *err);

typedef struct checker {
    const vd_program *p;
    vd_op_kind kind;
    vd_error *err;
} checker;

static vd_code bad(const checker *c, const char *operand, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static vd_code bad(const checker *c, const char *operand, const char *format, ...) {
    char what[256];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return vd_fail(c->err, VD_ERR_INTERNAL, "program %s, operation %d (%s): %s %s", c->p->name,
                   c->p->op_count, vd_op_name(c->kind), operand, what);
}

static vd_code is_shape(const checker *c, const char *operand, vd_value v, vd_shape want) {
    if (v < 0 || v >= c->p->value_count)
        return bad(c, operand, "is missing");
    vd_shape s = c->p->values[v].shape;
    if (s.n != want.n || s.h != want.h || s.w != want.w || s.c != want.c)
        return bad(c, operand, "is [%lld,%lld,%lld,%lld], expected [%lld,%lld,%lld,%lld]", (long long)s.n,
                   (long long)s.h, (long long)s.w, (long long)s.c, (long long)want.n, (long long)want.h,
                   (long long)want.w, (long long)want.c);
    return VD_OK;
}

static vd_code is_type(const checker *c, const char *operand, vd_value v, vd_dtype want) {
    if (v < 0 || v >= c->p->value_count)
        return bad(c, operand, "is missing");
    vd_dtype t = c->p->values[v].dtype;
    return t == want ? VD_OK : bad(c, operand, "is %s, expected %s", vd_dtype_name(t), vd_dtype_name(want));
}

static vd_code is_value(const checker *c, const char *operand, vd_value v, vd_dtype type, vd_shape shape) {
    VD_TRY(is_shape(c, operand, v, shape));
    return is_type(c, operand, v, type);
}

/* Results may be of the program's type or fp32; epilogue operands have the result's type. */
static vd_code is_result(const checker *c, vd_value dst, vd_shape shape) {
    VD_TRY(is_shape(c, "dst", dst, shape));
    vd_dtype t = c->p->values[dst].dtype;
    if (t != VD_F32 && t != c->p->dtype)
        return bad(c, "dst", "is %s", vd_dtype_name(t));
    return VD_OK;
}

static vd_code is_optional(const checker *c, const char *operand, vd_value v, vd_dtype type, vd_shape shape) {
    return v == VD_NONE ? VD_OK : is_value(c, operand, v, type, shape);
}

static vd_code is_constant(const checker *c, const char *operand, const vd_constant *k, int64_t out,
                           int64_t in, int64_t kh, int64_t kw) {
    if (!k)
        return bad(c, operand, "is missing");
    if (k->dims[0] != out || k->dims[1] != in || k->dims[2] != kh || k->dims[3] != kw)
        return bad(c, operand, "(%s) is [%lld,%lld,%lld,%lld], expected [%lld,%lld,%lld,%lld]", k->name,
                   (long long)k->dims[0], (long long)k->dims[1], (long long)k->dims[2], (long long)k->dims[3],
                   (long long)out, (long long)in, (long long)kh, (long long)kw);
    return VD_OK;
}

static vd_code is_vector(const checker *c, const char *operand, const vd_constant *k, int64_t count) {
    return is_constant(c, operand, k, count, 1, 1, 1);
}

static vd_code check_norm(const checker *c, const vd_norm *n, int64_t channels) {
    if (n->kind == VD_NORM_NONE)
        return VD_OK;
    VD_TRY(is_vector(c, "norm.gamma", n->gamma, channels));
    VD_TRY(is_vector(c, "norm.beta", n->beta, channels));
    if (n->kind == VD_NORM_GROUP && (n->groups < 1 || channels % n->groups))
        return bad(c, "norm.groups", "%d does not divide %lld channels", n->groups, (long long)channels);
    return n->eps > 0 ? VD_OK : bad(c, "norm.eps", "is %g", (double)n->eps);
}

/* A bias is a constant, or rows of a value that divide the images evenly, or absent. */
static vd_code check_bias(const checker *c, const vd_constant *bias, vd_value value, int64_t k,
                          int64_t rows) {
    if (bias && value != VD_NONE)
        return bad(c, "bias", "and bias_value exclude each other");
    if (bias)
        return is_vector(c, "bias", bias, k);
    if (value == VD_NONE)
        return VD_OK;
    int64_t g = vd_program_shape(c->p, value).n;
    if (g < 1 || rows % g)
        return bad(c, "bias_value", "has %lld rows, which do not divide %lld", (long long)g, (long long)rows);
    return is_value(c, "bias_value", value, VD_F32, (vd_shape){g, 1, 1, k});
}

static vd_code check_conv(const checker *c, const vd_conv *o) {
    const vd_program *p = c->p;
    if (!o->weight || o->stride < 1)
        return bad(c, "weight", "is missing or the stride is %d", o->stride);
    const int64_t *d = o->weight->dims;
    VD_TRY(is_type(c, "src", o->src, p->dtype));
    vd_shape s = p->values[o->src].shape, s1 = s;
    s1.c = 0;
    if (o->src1 != VD_NONE) {
        s1.c = vd_program_shape(p, o->src1).c;
        VD_TRY(is_value(c, "src1", o->src1, p->dtype, s1));
        if (o->norm.kind == VD_NORM_NONE)
            return bad(c, "src1", "needs a norm");
    }
    VD_TRY(check_norm(c, &o->norm, s.c + s1.c));
    if (o->norm.kind == VD_NORM_LAYER || (o->norm.kind && (o->in_h != s.h || o->in_w != s.w)))
        return bad(c, "norm", "must be a group norm without a resize");
    VD_TRY(is_constant(c, "weight", o->weight, d[0], s.c + s1.c, d[2], d[3]));
    VD_TRY(check_bias(c, o->bias, o->bias_value, d[0], 1));
    vd_shape out = {s.n, (o->in_h + o->pad_top + o->pad_bottom - d[2]) / o->stride + 1,
                    (o->in_w + o->pad_left + o->pad_right - d[3]) / o->stride + 1, d[0]};
    if (out.h < 1 || out.w < 1)
        return bad(c, "src", "is smaller than the kernel");
    VD_TRY(is_result(c, o->dst, out));
    return is_optional(c, "residual", o->residual, p->values[o->dst].dtype, out);
}

static vd_code check_linear(const checker *c, const vd_linear *o) {
    VD_TRY(is_type(c, "src", o->src, c->p->dtype));
    vd_shape s = c->p->values[o->src].shape;
    VD_TRY(check_norm(c, &o->norm, s.c));
    if (!o->weight)
        return bad(c, "weight", "is missing");
    VD_TRY(is_constant(c, "weight", o->weight, o->weight->dims[0], s.c, 1, 1));
    s.c = o->weight->dims[0];
    VD_TRY(check_bias(c, o->bias, o->bias_value, s.c, vd_shape_rows(s)));
    if (o->act == VD_ACT_GEGLU)
        return bad(c, "act", "cannot be geglu");
    VD_TRY(is_result(c, o->dst, s));
    return is_optional(c, "residual", o->residual, c->p->values[o->dst].dtype, s);
}

static vd_code check_feed_forward(const checker *c, const vd_feed_forward *o) {
    vd_dtype t = c->p->dtype;
    VD_TRY(is_type(c, "src", o->src, t));
    vd_shape s = c->p->values[o->src].shape;
    if (o->norm.kind != VD_NORM_LAYER || o->act == VD_ACT_NONE || o->act == VD_ACT_SILU)
        return bad(c, "norm", "must be a layer norm and act geglu, gelu or quick_gelu");
    VD_TRY(check_norm(c, &o->norm, s.c));
    if (o->add != VD_NONE)
        VD_TRY(is_value(c, "add", o->add, VD_F32, (vd_shape){vd_program_shape(c->p, o->add).n, 1, 1, s.c}));
    if (!o->down_weight)
        return bad(c, "down_weight", "is missing");
    int64_t hidden = o->down_weight->dims[1], up = o->act == VD_ACT_GEGLU ? 2 * hidden : hidden;
    VD_TRY(is_constant(c, "down_weight", o->down_weight, s.c, hidden, 1, 1));
    VD_TRY(is_vector(c, "down_bias", o->down_bias, s.c));
    VD_TRY(is_constant(c, "up_weight", o->up_weight, up, s.c, 1, 1));
    VD_TRY(is_vector(c, "up_bias", o->up_bias, up));
    VD_TRY(is_optional(c, "mix", o->mix, t, s));
    return is_value(c, "dst", o->dst, t, s);
}

static vd_code check_attention(const checker *c, const vd_attention *o) {
    VD_TRY(is_type(c, "qkv", o->qkv, c->p->dtype));
    vd_shape s = c->p->values[o->qkv].shape;
    int64_t width = (int64_t)o->heads * o->width;
    if (o->heads < 1 || o->width < 1 || s.c != 3 * width)
        return bad(c, "qkv", "has %lld channels, not 3 x %d heads x %d", (long long)s.c, o->heads, o->width);
    int64_t last = (o->outer - 1) * o->outer_stride + (o->inner - 1) * o->inner_stride +
                   (o->tokens - 1) * o->token_stride;
    if (o->outer < 1 || o->inner < 1 || o->tokens < 1 || last >= vd_shape_rows(s) ||
        o->outer * o->inner * o->tokens != vd_shape_rows(s))
        return bad(c, "qkv", "has %lld rows; the sequences do not cover them", (long long)vd_shape_rows(s));
    s.c = width;
    return is_value(c, "dst", o->dst, c->p->dtype, s);
}

static vd_code check_layer_norm(const checker *c, const vd_layer_norm *o) {
    VD_TRY(is_type(c, "src", o->src, c->p->dtype));
    vd_shape s = c->p->values[o->src].shape;
    if (o->norm.kind != VD_NORM_LAYER || o->norm.silu)
        return bad(c, "norm", "must be a plain layer norm");
    VD_TRY(check_norm(c, &o->norm, s.c));
    return is_value(c, "dst", o->dst, c->p->dtype, s);
}

static vd_code check_sinusoid(const checker *c, const vd_sinusoid *o) {
    VD_TRY(is_type(c, "dst", o->dst, c->p->dtype));
    vd_shape s = c->p->values[o->dst].shape;
    VD_TRY(is_shape(c, "dst", o->dst, (vd_shape){1, 1, s.w, s.c}));
    return is_optional(c, "positions", o->positions, VD_F32, vd_vector_shape(s.w));
}

static vd_code check_gather_row(const checker *c, const vd_gather_row *o) {
    vd_shape s = vd_program_shape(c->p, o->table);
    VD_TRY(is_value(c, "table", o->table, VD_F32, (vd_shape){1, 1, s.w, s.c}));
    VD_TRY(is_value(c, "index", o->index, VD_I32, vd_vector_shape(1)));
    return is_value(c, "dst", o->dst, VD_F32, vd_vector_shape(s.c));
}

/* sigmas and the step counter, common to both ends of a step. */
static vd_code check_schedule(const checker *c, vd_value sigmas, vd_value step) {
    VD_TRY(is_value(c, "sigmas", sigmas, VD_F32, vd_vector_shape(vd_program_shape(c->p, sigmas).c)));
    return is_value(c, "step", step, VD_I32, vd_vector_shape(1));
}

static vd_code check_unet_input(const checker *c, const vd_unet_input *o) {
    vd_shape s = vd_program_shape(c->p, o->latents), d = vd_program_shape(c->p, o->dst);
    VD_TRY(check_schedule(c, o->sigmas, o->step));
    VD_TRY(is_type(c, "latents", o->latents, VD_F32));
    VD_TRY(is_value(c, "image", o->image, VD_F32, (vd_shape){1, s.h, s.w, s.c}));
    return is_value(c, "dst", o->dst, c->p->dtype, (vd_shape){d.n == 2 * s.n ? d.n : s.n, s.h, s.w, 2 * s.c});
}

static vd_code check_euler_step(const checker *c, const vd_euler_step *o) {
    vd_shape s = vd_program_shape(c->p, o->latents), v = s;
    VD_TRY(check_schedule(c, o->sigmas, o->step));
    VD_TRY(is_type(c, "latents", o->latents, VD_F32));
    VD_TRY(is_value(c, "guidance", o->guidance, VD_F32, vd_vector_shape(s.n)));
    v.n = vd_program_shape(c->p, o->v).n == 2 * s.n ? 2 * s.n : s.n;
    VD_TRY(is_value(c, "v", o->v, VD_F32, v));
    if (o->next == VD_NONE)
        return VD_OK;
    VD_TRY(is_value(c, "image", o->image, VD_F32, (vd_shape){1, s.h, s.w, s.c}));
    return is_value(c, "next", o->next, c->p->dtype, (vd_shape){v.n, s.h, s.w, 2 * s.c});
}

static bool is_float(vd_dtype t) {
    return t == VD_F32 || t == VD_F16 || t == VD_BF16;
}

static vd_code check_cast(const checker *c, const vd_cast *o) {
    vd_shape s = vd_program_shape(c->p, o->src), d = vd_program_shape(c->p, o->dst);
    VD_TRY(is_shape(c, "src", o->src, s));
    VD_TRY(is_shape(c, "dst", o->dst, d));
    bool floats = is_float(c->p->values[o->src].dtype) && is_float(c->p->values[o->dst].dtype);
    return floats && vd_shape_count(s) == vd_shape_count(d) ? VD_OK : bad(c, "dst", "does not match src");
}

static vd_code check_frames_u8(const checker *c, const vd_frames_u8 *o) {
    vd_shape s = vd_program_shape(c->p, o->src);
    VD_TRY(is_shape(c, "src", o->src, s));
    if (!is_float(c->p->values[o->src].dtype))
        return bad(c, "src", "is %s", vd_dtype_name(c->p->values[o->src].dtype));
    return is_value(c, "dst", o->dst, VD_U8, s);
}

static size_t value_bytes(const vd_program *p, vd_value v) {
    return (size_t)vd_shape_count(p->values[v].shape) * vd_dtype_bytes(p->values[v].dtype);
}

static vd_code check_copy(const checker *c, const vd_copy *o) {
    VD_TRY(is_shape(c, "src", o->src, vd_program_shape(c->p, o->src)));
    VD_TRY(is_shape(c, "dst", o->dst, vd_program_shape(c->p, o->dst)));
    return value_bytes(c->p, o->src) == value_bytes(c->p, o->dst) ? VD_OK
                                                                  : bad(c, "dst", "has other bytes than src");
}

static vd_code check_checksum(const checker *c, const vd_checksum *o) {
    VD_TRY(is_value(c, "dst", o->dst, VD_U64, vd_vector_shape(1)));
    VD_TRY(is_shape(c, "src", o->src, vd_program_shape(c->p, o->src)));
    return value_bytes(c->p, o->src) % 4 == 0 ? VD_OK : bad(c, "src", "is not a whole number of words");
}

static vd_code check_nonfinite(const checker *c, const vd_nonfinite *o) {
    VD_TRY(is_value(c, "dst", o->dst, VD_I32, vd_vector_shape(1)));
    VD_TRY(is_shape(c, "src", o->src, vd_program_shape(c->p, o->src)));
    return is_float(c->p->values[o->src].dtype) ? VD_OK : bad(c, "src", "is not floating point");
}

#define VD_OP_CHECK(upper, lower)                                                                            \
    case VD_OP_##upper:                                                                                      \
        return check_##lower(&c, &op->lower);

vd_code vd_program_check_op(const vd_program *p, const vd_op *op, vd_error *err) {
    checker c = {p, op->kind, err};
    switch (op->kind) {
        VD_OPS(VD_OP_CHECK)
    case VD_OP_COUNT:
        break;
    }
    return vd_fail(err, VD_ERR_INTERNAL, "program %s: unknown operation %d", p->name, (int)op->kind);
}
