#include "device/program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* program_check.c: shapes and types of one operation; program_plan.c: places. */
vd_code vd_program_check_op(const vd_program *p, const vd_op *op, vd_error *err);
vd_code vd_program_plan_memory(vd_program *p, vd_error *err);

vd_program *vd_program_new(const char *name, vd_dtype dtype) {
    vd_program *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    snprintf(p->name, sizeof p->name, "%s", name);
    p->dtype = dtype;
    return p;
}

void vd_program_free(vd_program *p) {
    if (!p)
        return;
    free(p->values);
    free(p->ops);
    free(p);
}

/* Makes room for one more element; false (and the program's error) when memory is out. */
static bool grow(vd_program *p, void **items, int count, int *capacity, size_t item_bytes) {
    if (count < *capacity)
        return true;
    int wider = *capacity ? 2 * *capacity : 64;
    void *more = realloc(*items, (size_t)wider * item_bytes);
    if (!more) {
        if (!p->error.code)
            vd_fail_memory(&p->error, "a program", (unsigned long long)wider * item_bytes);
        return false;
    }
    *items = more;
    *capacity = wider;
    return true;
}

static vd_value add_value(vd_program *p, vd_value_info info) {
    if (!grow(p, (void **)&p->values, p->value_count, &p->value_capacity, sizeof *p->values))
        return VD_NONE;
    p->values[p->value_count] = info;
    return p->value_count++;
}

vd_value vd_program_external(vd_program *p, const char *name, vd_dtype dtype, vd_shape shape) {
    return add_value(
        p, (vd_value_info){.storage = VD_STORAGE_EXTERNAL, .dtype = dtype, .shape = shape, .name = name});
}

vd_value vd_program_constant(vd_program *p, const vd_constant *constant, vd_dtype dtype, vd_shape shape) {
    return add_value(
        p, (vd_value_info){
               .storage = VD_STORAGE_CONSTANT, .dtype = dtype, .shape = shape, .constant = constant});
}

vd_value vd_program_temporary(vd_program *p, vd_dtype dtype, vd_shape shape) {
    return add_value(p, (vd_value_info){.storage = VD_STORAGE_ARENA, .dtype = dtype, .shape = shape});
}

static bool is_value(const vd_program *p, vd_value v) {
    return v >= 0 && v < p->value_count;
}

vd_value vd_program_view(vd_program *p, vd_value value, vd_shape shape, int64_t offset) {
    if (!is_value(p, value))
        return VD_NONE;
    vd_value_info v = p->values[value];
    size_t bytes = (size_t)offset * vd_dtype_bytes(v.dtype);
    if (offset < 0 || offset + vd_shape_count(shape) > vd_shape_count(v.shape)) {
        if (!p->error.code)
            vd_fail(&p->error, VD_ERR_INTERNAL,
                    "program %s: a view of %lld elements from %lld leaves its value of %lld", p->name,
                    (long long)vd_shape_count(shape), (long long)offset, (long long)vd_shape_count(v.shape));
        return VD_NONE;
    }
    bool nested = v.storage == VD_STORAGE_VIEW;
    return add_value(p, (vd_value_info){.storage = VD_STORAGE_VIEW,
                                        .dtype = v.dtype,
                                        .shape = shape,
                                        .parent = nested ? v.parent : value,
                                        .offset = bytes + (nested ? v.offset : 0)});
}

vd_shape vd_program_shape(const vd_program *p, vd_value value) {
    return is_value(p, value) ? p->values[value].shape : (vd_shape){1, 1, 1, 1};
}

vd_value vd_program_find(const vd_program *p, const char *name) {
    for (vd_value v = 0; v < p->value_count; v++)
        if (p->values[v].storage == VD_STORAGE_EXTERNAL && strcmp(p->values[v].name, name) == 0)
            return v;
    return VD_NONE;
}

/* Keeps the operation; its operands are checked at once so that the error points at the builder's line. */
static void add_op(vd_program *p, vd_op op) {
    if (p->error.code || vd_program_check_op(p, &op, &p->error) != VD_OK)
        return;
    if (grow(p, (void **)&p->ops, p->op_count, &p->op_capacity, sizeof *p->ops))
        p->ops[p->op_count++] = op;
}

/* Destination of the shape given, or the one that the caller chose. */
static vd_value destination(vd_program *p, vd_value chosen, vd_dtype dtype, vd_shape shape) {
    return chosen != VD_NONE ? chosen : vd_program_temporary(p, dtype, shape);
}

static int conv_out(int64_t in, int before, int after, int64_t kernel, int stride) {
    return (int)((in + before + after - kernel) / stride + 1);
}

vd_value vd_program_conv(vd_program *p, vd_conv o) {
    vd_shape s = vd_program_shape(p, o.src);
    o.in_h = o.in_h ? o.in_h : (int)s.h;
    o.in_w = o.in_w ? o.in_w : (int)s.w;
    if (!o.weight || o.stride < 1) {
        add_op(p, (vd_op){.kind = VD_OP_CONV, .conv = o});
        return VD_NONE;
    }
    const int64_t *d = o.weight->dims;
    vd_shape out = {s.n, conv_out(o.in_h, o.pad_top, o.pad_bottom, d[2], o.stride),
                    conv_out(o.in_w, o.pad_left, o.pad_right, d[3], o.stride), d[0]};
    o.dst = destination(p, o.dst, p->dtype, out);
    add_op(p, (vd_op){.kind = VD_OP_CONV, .conv = o});
    return o.dst;
}

vd_value vd_program_linear(vd_program *p, vd_linear o) {
    vd_shape s = vd_program_shape(p, o.src);
    s.c = o.weight ? o.weight->dims[0] : s.c;
    o.dst = destination(p, o.dst, p->dtype, s);
    add_op(p, (vd_op){.kind = VD_OP_LINEAR, .linear = o});
    return o.dst;
}

vd_value vd_program_feed_forward(vd_program *p, vd_feed_forward o) {
    o.dst = destination(p, o.dst, p->dtype, vd_program_shape(p, o.src));
    add_op(p, (vd_op){.kind = VD_OP_FEED_FORWARD, .feed_forward = o});
    return o.dst;
}

vd_value vd_program_attention(vd_program *p, vd_attention o) {
    vd_shape s = vd_program_shape(p, o.qkv);
    s.c /= 3;
    o.dst = destination(p, o.dst, p->dtype, s);
    add_op(p, (vd_op){.kind = VD_OP_ATTENTION, .attention = o});
    return o.dst;
}

vd_value vd_program_layer_norm(vd_program *p, vd_layer_norm o) {
    o.dst = destination(p, o.dst, p->dtype, vd_program_shape(p, o.src));
    add_op(p, (vd_op){.kind = VD_OP_LAYER_NORM, .layer_norm = o});
    return o.dst;
}

vd_value vd_program_sinusoid(vd_program *p, vd_sinusoid o) {
    add_op(p, (vd_op){.kind = VD_OP_SINUSOID, .sinusoid = o});
    return o.dst;
}

vd_value vd_program_gather_row(vd_program *p, vd_gather_row o) {
    o.dst = destination(p, o.dst, VD_F32, vd_vector_shape(vd_program_shape(p, o.table).c));
    add_op(p, (vd_op){.kind = VD_OP_GATHER_ROW, .gather_row = o});
    return o.dst;
}

vd_value vd_program_unet_input(vd_program *p, vd_unet_input o) {
    add_op(p, (vd_op){.kind = VD_OP_UNET_INPUT, .unet_input = o});
    return o.dst;
}

void vd_program_euler_step(vd_program *p, vd_euler_step o) {
    add_op(p, (vd_op){.kind = VD_OP_EULER_STEP, .euler_step = o});
}

vd_value vd_program_cast(vd_program *p, vd_cast o) {
    add_op(p, (vd_op){.kind = VD_OP_CAST, .cast = o});
    return o.dst;
}

vd_value vd_program_frames_u8(vd_program *p, vd_frames_u8 o) {
    o.dst = destination(p, o.dst, VD_U8, vd_program_shape(p, o.src));
    add_op(p, (vd_op){.kind = VD_OP_FRAMES_U8, .frames_u8 = o});
    return o.dst;
}

void vd_program_copy(vd_program *p, vd_copy o) {
    add_op(p, (vd_op){.kind = VD_OP_COPY, .copy = o});
}

void vd_program_checksum(vd_program *p, vd_checksum o) {
    add_op(p, (vd_op){.kind = VD_OP_CHECKSUM, .checksum = o});
}

void vd_program_nonfinite(vd_program *p, vd_nonfinite o) {
    add_op(p, (vd_op){.kind = VD_OP_NONFINITE, .nonfinite = o});
}

vd_code vd_program_finish(vd_program *p, vd_error *err) {
    if (p->error.code) {
        *err = p->error;
        return err->code;
    }
    return vd_program_plan_memory(p, err);
}
