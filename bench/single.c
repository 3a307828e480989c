#include "single.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

/* ---- in words ---- */

static void say_value(vd_text *t, const vd_program *p, vd_value v) {
    const vd_value_info *i = &p->values[v];
    vd_text_add(t, "%lldx%lldx%lldx%lld", (long long)i->shape.n, (long long)i->shape.h, (long long)i->shape.w,
                (long long)i->shape.c);
    if (i->dtype != p->dtype)
        vd_text_add(t, " %s", vd_dtype_name(i->dtype));
}

static void say_operands(vd_text *t, const vd_program *p, const vd_op *op, bool written) {
    vd_operand operands[VD_MAX_OPERANDS];
    int count = vd_op_operands(op, operands), said = 0;
    for (int i = 0; i < count; i++)
        if (written ? operands[i].writes : operands[i].reads) {
            vd_text_add(t, said++ ? " + " : "");
            say_value(t, p, operands[i].value);
        }
}

static void say_norm(vd_text *t, const vd_norm *n) {
    if (n->kind != VD_NORM_NONE)
        vd_text_add(t, n->kind == VD_NORM_GROUP ? ", group norm" : ", layer norm");
    if (n->silu)
        vd_text_add(t, " silu");
}

static void say_conv(vd_text *t, const vd_program *p, const vd_conv *o) {
    vd_shape s = p->values[o->src].shape;
    vd_text_add(t, ", %lldx%lld/%d", (long long)o->weight->dims[2], (long long)o->weight->dims[3], o->stride);
    if (o->in_h != s.h || o->in_w != s.w)
        vd_text_add(t, " of %dx%d", o->in_h, o->in_w);
    say_norm(t, &o->norm);
    if (o->residual != VD_NONE)
        vd_text_add(t, ", residual");
}

static void say_linear(vd_text *t, const vd_linear *o) {
    static const char *const acts[] = {
        [VD_ACT_SILU] = ", silu", [VD_ACT_GELU] = ", gelu", [VD_ACT_QUICK_GELU] = ", quick gelu"};
    say_norm(t, &o->norm);
    vd_text_add(t, "%s%s", o->act == VD_ACT_NONE ? "" : acts[o->act],
                o->residual != VD_NONE ? ", residual" : "");
}

static void say_feed_forward(vd_text *t, const vd_feed_forward *o) {
    vd_text_add(t, ", %lld hidden%s%s%s", (long long)o->down_weight->dims[1],
                o->act == VD_ACT_GEGLU ? " geglu" : "", o->add != VD_NONE ? ", add" : "",
                o->mix != VD_NONE ? ", mix" : "");
}

static void say_attention(vd_text *t, const vd_attention *o) {
    vd_text_add(t, ", %d heads of %d, %lld sequences of %lld%s", o->heads, o->width,
                (long long)(o->outer * o->inner), (long long)o->tokens,
                o->token_stride > 1 ? " strided" : "");
}

static void say_extras(vd_text *t, const vd_program *p, const vd_op *op) {
    if (op->kind == VD_OP_CONV)
        say_conv(t, p, &op->conv);
    else if (op->kind == VD_OP_LINEAR)
        say_linear(t, &op->linear);
    else if (op->kind == VD_OP_FEED_FORWARD)
        say_feed_forward(t, &op->feed_forward);
    else if (op->kind == VD_OP_ATTENTION)
        say_attention(t, &op->attention);
}

/* NULL: out of memory; the caller frees. */
static char *describe(const vd_program *p, int index) {
    const vd_op *op = &p->ops[index];
    vd_text t = {0};
    vd_text_add(&t, "%s ", vd_op_name(op->kind));
    say_operands(&t, p, op, false);
    vd_text_add(&t, " -> ");
    say_operands(&t, p, op, true);
    say_extras(&t, p, op);
    if (t.failed)
        vd_text_free(&t);
    return t.text;
}

/* ---- groups ---- */

static op_group *find(op_group *groups, int count, const char *what) {
    for (int i = 0; i < count; i++)
        if (strcmp(groups[i].what, what) == 0)
            return &groups[i];
    return NULL;
}

void groups_free(op_group *groups, int count) {
    for (int i = 0; i < count; i++)
        free(groups[i].what);
    free(groups);
}

op_group *groups_of(const vd_program *p, int *count) {
    op_group *groups = calloc((size_t)p->op_count, sizeof *groups);
    *count = 0;
    for (int i = 0; groups && i < p->op_count; i++) {
        char *what = describe(p, i);
        if (!what) {
            groups_free(groups, *count);
            *count = 0;
            return NULL;
        }
        op_group *same = find(groups, *count, what);
        if (same) {
            same->count++;
            free(what);
        } else {
            groups[(*count)++] = (op_group){what, i, 1};
        }
    }
    return groups;
}

/* ---- programs of one operation ---- */

/* The place of `v` among the operands; negative: it is none. */
static int place_of(const vd_operand *operands, int count, vd_value v) {
    int i = count - 1;
    while (i >= 0 && operands[i].value != v)
        i--;
    return i;
}

/* Values keep their indices, so that the operation can stay as it is; those that it does not touch take no
 * room. */
static void add_values(vd_program *one, const vd_program *p, const vd_op *op) {
    static const char *const names[VD_MAX_OPERANDS] = {"operand 0", "operand 1", "operand 2", "operand 3",
                                                       "operand 4", "operand 5", "operand 6", "operand 7"};
    vd_operand operands[VD_MAX_OPERANDS];
    int count = vd_op_operands(op, operands);
    for (vd_value v = 0; v < p->value_count; v++) {
        const vd_value_info *i = &p->values[v];
        int place = place_of(operands, count, v);
        if (place < 0)
            vd_program_temporary(one, i->dtype, vd_vector_shape(1));
        else if (i->storage == VD_STORAGE_CONSTANT)
            vd_program_constant(one, i->constant, i->dtype, i->shape);
        else
            vd_program_external(one, i->name ? i->name : names[place], i->dtype, i->shape);
    }
}

#define ADD_OP(upper, lower)                                                                                 \
    case VD_OP_##upper:                                                                                      \
        vd_program_##lower(one, op->lower);                                                                  \
        break;

static void add_op(vd_program *one, const vd_op *op) {
    switch (op->kind) {
        VD_OPS(ADD_OP)
    case VD_OP_COUNT:
        break;
    }
}

vd_code single_new(const vd_program *p, int op, int copies, vd_program **out, vd_error *err) {
    vd_program *one = vd_program_new(vd_op_name(p->ops[op].kind), p->dtype);
    if (!one)
        return vd_fail_memory(err, "a program", sizeof *one);
    add_values(one, p, &p->ops[op]);
    for (int i = 0; i < copies; i++)
        add_op(one, &p->ops[op]);
    vd_code code = vd_program_finish(one, err);
    if (code == VD_OK)
        *out = one;
    else
        vd_program_free(one);
    return code;
}

/* Of a table only the row that is gathered. */
static double operand_bytes(const vd_program *p, const vd_op *op, const vd_operand *o) {
    const vd_value_info *v = &p->values[o->value];
    bool table = op->kind == VD_OP_GATHER_ROW && o->value == op->gather_row.table;
    int64_t count = table ? v->shape.c : vd_shape_count(v->shape);
    return (o->reads + o->writes) * (double)count * (double)vd_dtype_bytes(v->dtype);
}

double op_bytes(const vd_program *p, int op) {
    vd_operand operands[VD_MAX_OPERANDS];
    const vd_constant *constants[VD_MAX_CONSTANTS];
    double bytes = 0;
    for (int i = vd_op_operands(&p->ops[op], operands); i-- > 0;)
        bytes += operand_bytes(p, &p->ops[op], &operands[i]);
    for (int i = vd_op_constants(&p->ops[op], constants); i-- > 0;) {
        const int64_t *d = constants[i]->dims;
        bytes += (double)(d[0] * d[1] * d[2] * d[3]) * (double)vd_dtype_bytes(p->dtype);
    }
    return bytes;
}
