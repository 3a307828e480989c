#include "device/ops.h"
#include "device/program.h"

#include <math.h>

#define VD_OP_NAME(upper, lower) #lower,

float vd_sinusoid_frequency(int64_t j, int64_t m) {
    return expf(-9.2103404f * (float)j / (float)m);
}

const char *vd_op_name(vd_op_kind kind) {
    static const char *const names[] = {VD_OPS(VD_OP_NAME)};
    return names[kind];
}

typedef struct operand_list {
    vd_operand *out;
    int count;
} operand_list;

static void touch(operand_list *l, vd_value value, bool reads, bool writes) {
    if (value != VD_NONE)
        l->out[l->count++] = (vd_operand){value, reads, writes};
}

static void reads(operand_list *l, vd_value value) {
    touch(l, value, true, false);
}

static void writes(operand_list *l, vd_value value) {
    touch(l, value, false, true);
}

static void conv_operands(operand_list *l, const vd_conv *o) {
    reads(l, o->src);
    reads(l, o->src1);
    reads(l, o->bias_value);
    reads(l, o->residual);
    writes(l, o->dst);
}

static void linear_operands(operand_list *l, const vd_linear *o) {
    reads(l, o->src);
    reads(l, o->bias_value);
    reads(l, o->residual);
    writes(l, o->dst);
}

static void feed_forward_operands(operand_list *l, const vd_feed_forward *o) {
    reads(l, o->src);
    reads(l, o->add);
    reads(l, o->mix);
    writes(l, o->dst);
}

static void unet_input_operands(operand_list *l, const vd_unet_input *o) {
    reads(l, o->latents);
    reads(l, o->image);
    reads(l, o->sigmas);
    reads(l, o->step);
    writes(l, o->dst);
}

static void euler_step_operands(operand_list *l, const vd_euler_step *o) {
    reads(l, o->v);
    reads(l, o->guidance);
    reads(l, o->sigmas);
    touch(l, o->step, true, true);
    touch(l, o->latents, true, true);
    if (o->next != VD_NONE)
        reads(l, o->image);
    writes(l, o->next);
}

static void one_to_one(operand_list *l, vd_value src, vd_value dst) {
    reads(l, src);
    writes(l, dst);
}

int vd_op_operands(const vd_op *op, vd_operand *out) {
    operand_list l = {out, 0};
    switch (op->kind) {
    case VD_OP_CONV:
        conv_operands(&l, &op->conv);
        break;
    case VD_OP_LINEAR:
        linear_operands(&l, &op->linear);
        break;
    case VD_OP_FEED_FORWARD:
        feed_forward_operands(&l, &op->feed_forward);
        break;
    case VD_OP_ATTENTION:
        one_to_one(&l, op->attention.qkv, op->attention.dst);
        break;
    case VD_OP_LAYER_NORM:
        one_to_one(&l, op->layer_norm.src, op->layer_norm.dst);
        break;
    case VD_OP_SINUSOID:
        one_to_one(&l, op->sinusoid.positions, op->sinusoid.dst);
        break;
    case VD_OP_GATHER_ROW:
        reads(&l, op->gather_row.index);
        one_to_one(&l, op->gather_row.table, op->gather_row.dst);
        break;
    case VD_OP_UNET_INPUT:
        unet_input_operands(&l, &op->unet_input);
        break;
    case VD_OP_EULER_STEP:
        euler_step_operands(&l, &op->euler_step);
        break;
    case VD_OP_CAST:
        one_to_one(&l, op->cast.src, op->cast.dst);
        break;
    case VD_OP_FRAMES_U8:
        one_to_one(&l, op->frames_u8.src, op->frames_u8.dst);
        break;
    case VD_OP_COPY:
        one_to_one(&l, op->copy.src, op->copy.dst);
        break;
    case VD_OP_CHECKSUM:
        one_to_one(&l, op->checksum.src, op->checksum.dst);
        break;
    case VD_OP_NONFINITE:
        reads(&l, op->nonfinite.src);
        touch(&l, op->nonfinite.dst, true, true);
        break;
    case VD_OP_COUNT:
        break;
    }
    return l.count;
}

int vd_op_constants(const vd_op *op, const vd_constant **out) {
    const vd_constant *all[VD_MAX_CONSTANTS] = {0};
    switch (op->kind) {
    case VD_OP_CONV:
        all[0] = op->conv.weight, all[1] = op->conv.bias;
        all[2] = op->conv.norm.gamma, all[3] = op->conv.norm.beta;
        break;
    case VD_OP_LINEAR:
        all[0] = op->linear.weight, all[1] = op->linear.bias;
        all[2] = op->linear.norm.gamma, all[3] = op->linear.norm.beta;
        break;
    case VD_OP_FEED_FORWARD:
        all[0] = op->feed_forward.up_weight, all[1] = op->feed_forward.up_bias;
        all[2] = op->feed_forward.down_weight, all[3] = op->feed_forward.down_bias;
        all[4] = op->feed_forward.norm.gamma, all[5] = op->feed_forward.norm.beta;
        break;
    case VD_OP_LAYER_NORM:
        all[0] = op->layer_norm.norm.gamma, all[1] = op->layer_norm.norm.beta;
        break;
    default:
        break;
    }
    int count = 0;
    for (int i = 0; i < VD_MAX_CONSTANTS; i++)
        if (all[i])
            out[count++] = all[i];
    return count;
}

static double op_flops(const vd_program *p, const vd_op *op) {
    switch (op->kind) {
    case VD_OP_CONV: {
        const int64_t *d = op->conv.weight->dims;
        return 2.0 * (double)vd_shape_count(p->values[op->conv.dst].shape) * (double)(d[1] * d[2] * d[3]);
    }
    case VD_OP_LINEAR:
        return 2.0 * (double)vd_shape_count(p->values[op->linear.dst].shape) *
               (double)op->linear.weight->dims[1];
    case VD_OP_FEED_FORWARD: {
        const vd_feed_forward *o = &op->feed_forward;
        double per_row = (double)(o->up_weight->dims[0] * o->up_weight->dims[1]) +
                         (double)(o->down_weight->dims[0] * o->down_weight->dims[1]);
        return 2.0 * (double)vd_shape_rows(p->values[o->src].shape) * per_row;
    }
    case VD_OP_ATTENTION: {
        const vd_attention *o = &op->attention;
        return 4.0 * (double)(o->outer * o->inner) * (double)(o->tokens * o->tokens) *
               (double)(o->heads * o->width);
    }
    default:
        return 0;
    }
}

double vd_program_flops(const vd_program *p) {
    double sum = 0;
    for (int i = 0; i < p->op_count; i++)
        sum += op_flops(p, &p->ops[i]);
    return sum;
}
