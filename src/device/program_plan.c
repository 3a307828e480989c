/* Places for a program's values: destinations take over sources that die in the same operation, every arena
 * value gets a lifetime, and the arena is packed. Also proves that nothing is read before it is written. */
#include "base/layout.h"
#include "device/program.h"

#include <stdlib.h>

vd_code vd_program_plan_memory(vd_program *p, vd_error *err);

typedef struct life {
    int first, last; /* operation indices; first -1: never written */
} life;

static vd_value root_of(const vd_program *p, vd_value v) {
    while (p->values[v].storage == VD_STORAGE_VIEW)
        v = p->values[v].parent;
    return v;
}

static vd_code measure_lives(const vd_program *p, life *lives, vd_error *err) {
    for (vd_value v = 0; v < p->value_count; v++)
        lives[v] = (life){-1, -1};
    for (int i = 0; i < p->op_count; i++) {
        vd_operand operands[VD_MAX_OPERANDS];
        int count = vd_op_operands(&p->ops[i], operands);
        for (int k = 0; k < count; k++) {
            vd_value root = root_of(p, operands[k].value);
            life *l = &lives[root];
            if (operands[k].reads && l->first < 0 && p->values[root].storage == VD_STORAGE_ARENA)
                return vd_fail(err, VD_ERR_INTERNAL,
                               "program %s, operation %d (%s) reads value %d before it is written", p->name,
                               i, vd_op_name(p->ops[i].kind), operands[k].value);
            if (operands[k].writes && p->values[root].storage == VD_STORAGE_CONSTANT)
                return vd_fail(err, VD_ERR_INTERNAL, "program %s, operation %d (%s) writes a constant",
                               p->name, i, vd_op_name(p->ops[i].kind));
            l->first = l->first < 0 ? i : l->first;
            l->last = i;
        }
    }
    return VD_OK;
}

/* Operands whose memory the operation's destination may be. */
static int inplace_candidates(const vd_op *op, vd_value out[2], vd_value *dst) {
    switch (op->kind) {
    case VD_OP_CONV:
        *dst = op->conv.dst, out[0] = op->conv.residual;
        return 1;
    case VD_OP_LINEAR:
        *dst = op->linear.dst, out[0] = op->linear.residual;
        return 1;
    case VD_OP_FEED_FORWARD:
        *dst = op->feed_forward.dst, out[0] = op->feed_forward.src, out[1] = op->feed_forward.mix;
        return 2;
    default:
        return 0;
    }
}

static bool same_place_fits(const vd_program *p, const life *lives, int op, vd_value from, vd_value dst) {
    if (from == VD_NONE)
        return false;
    const vd_value_info *f = &p->values[from], *d = &p->values[dst];
    vd_value root = root_of(p, from);
    const vd_value_info *r = &p->values[root];
    int64_t count = vd_shape_count(d->shape);
    bool born = d->storage == VD_STORAGE_ARENA && lives[dst].first == op;
    bool dying = r->storage == VD_STORAGE_ARENA && lives[root].last == op;
    bool alike =
        f->dtype == d->dtype && vd_shape_count(f->shape) == count && vd_shape_count(r->shape) == count;
    return born && dying && alike;
}

/* An operand read elsewhere in the same operation must not be overwritten while it is still needed. */
static bool read_otherwise(const vd_program *p, const vd_op *op, vd_value root) {
    vd_operand operands[VD_MAX_OPERANDS];
    int count = vd_op_operands(op, operands), reads = 0;
    for (int k = 0; k < count; k++)
        reads += operands[k].reads && root_of(p, operands[k].value) == root;
    return reads > 1;
}

static void take_over(vd_program *p, life *lives) {
    for (int i = 0; i < p->op_count; i++) {
        vd_value from[2], dst;
        int count = inplace_candidates(&p->ops[i], from, &dst);
        for (int k = 0; k < count; k++) {
            if (!same_place_fits(p, lives, i, from[k], dst) ||
                read_otherwise(p, &p->ops[i], root_of(p, from[k])))
                continue;
            vd_value root = root_of(p, from[k]);
            p->values[dst].storage = VD_STORAGE_VIEW;
            p->values[dst].parent = root;
            p->values[dst].offset = 0;
            lives[root].last = lives[dst].last;
            break;
        }
    }
}

/* After take_over a view's parent may itself be a view: point at the storage directly. */
static void flatten_views(vd_program *p) {
    for (vd_value v = 0; v < p->value_count; v++) {
        if (p->values[v].storage != VD_STORAGE_VIEW)
            continue;
        size_t offset = p->values[v].offset;
        vd_value parent = p->values[v].parent;
        while (p->values[parent].storage == VD_STORAGE_VIEW) {
            offset += p->values[parent].offset;
            parent = p->values[parent].parent;
        }
        p->values[v].parent = parent;
        p->values[v].offset = offset;
    }
}

static vd_code pack(vd_program *p, const life *lives, vd_error *err) {
    vd_span *spans = calloc((size_t)p->value_count + 1, sizeof *spans);
    if (!spans)
        return vd_fail_memory(err, "a memory plan", (unsigned long long)p->value_count * sizeof *spans);
    for (vd_value v = 0; v < p->value_count; v++)
        if (p->values[v].storage == VD_STORAGE_ARENA && lives[v].first >= 0)
            spans[v] =
                (vd_span){(size_t)vd_shape_count(p->values[v].shape) * vd_dtype_bytes(p->values[v].dtype),
                          lives[v].first, lives[v].last, 0};
    vd_code code = vd_layout_pack(spans, p->value_count, &p->arena_bytes, err);
    for (vd_value v = 0; v < p->value_count && code == VD_OK; v++)
        if (p->values[v].storage == VD_STORAGE_ARENA)
            p->values[v].offset = spans[v].offset;
    free(spans);
    return code;
}

vd_code vd_program_plan_memory(vd_program *p, vd_error *err) {
    life *lives = calloc((size_t)p->value_count + 1, sizeof *lives);
    if (!lives)
        return vd_fail_memory(err, "value lifetimes", (unsigned long long)p->value_count * sizeof *lives);
    vd_code code = measure_lives(p, lives, err);
    if (code == VD_OK) {
        take_over(p, lives);
        flatten_views(p);
        code = pack(p, lives, err);
    }
    free(lives);
    return code;
}
