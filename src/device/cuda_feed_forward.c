/* Feed-forward layers: the layer norm, which also leaves what the result is added to (the carry, in dst);
 * then, piece by piece so that the hidden layer never exists as a whole, the product up with its gate or
 * activation, and the product down onto the carry. gamma and beta are folded into the first product,
 * 1 - alpha into the second. */
#include "device/cuda_lower.h"

enum { HIDDEN_BYTES = 256 << 20 }; /* of one piece: what goes up and what comes out of the gate */

/* The two products for so many rows. */
typedef struct piece {
    int64_t rows;
    vd_cuda_plan *up, *down; /* up: with the gate where there is one */
} piece;

struct vd_cuda_step {
    vd_cuda_bias up_bias, down_bias;
    vd_cuda_constant *up, *down;
    piece pieces[2]; /* whole; the last, without rows when pieces divide */
    int64_t images, rows, c;
    int64_t hidden; /* columns that come out of the gate */
    size_t normed_at, hidden_at, workspace;
};

static bool carries(const vd_feed_forward *op) {
    return op->add != VD_NONE || op->mix != VD_NONE;
}

static float share(const vd_feed_forward *op) {
    return op->mix == VD_NONE ? 1 : 1 - op->alpha;
}

static vd_code plan_constants(const vd_cuda_planner *pl, const vd_feed_forward *op, vd_cuda_step *s,
                              size_t *scratch, vd_error *err) {
    vd_dtype dtype = pl->program->dtype;
    vd_cuda_packing up = VD_CUDA_PACKING(.constant = op->up_weight, .dtype = dtype, .gamma = op->norm.gamma,
                                         .beta = op->norm.beta, .bias = op->up_bias, .bias_dtype = dtype);
    vd_cuda_packing down = VD_CUDA_PACKING(.constant = op->down_weight, .dtype = dtype);
    vd_cuda_packing down_bias = VD_CUDA_PACKING(.constant = op->down_bias);
    down_bias.scale = share(op);
    VD_TRY(vd_cuda_constant_plan(pl->weights, &up, &s->up, err));
    VD_TRY(vd_cuda_constant_plan(pl->weights, &down, &s->down, err));
    s->up_bias = vd_cuda_bias_behind(s->up, &up);
    return vd_cuda_bias_plan(pl, &down_bias, VD_NONE, dtype, s->c, s->c, &s->down_bias, scratch, err);
}

static vd_code open_up(const vd_cuda_planner *pl, const vd_feed_forward *op, const vd_cuda_step *s,
                       int64_t rows, vd_cuda_plan **out, vd_error *err) {
    vd_dtype dtype = pl->program->dtype;
    vd_cuda_gate_spec gate = {.m = rows, .k = s->c, .n = s->hidden, .dtype = dtype};
    vd_cuda_gemm_spec plain = {.m = rows,
                               .k = s->c,
                               .n = s->hidden,
                               .runs = 1,
                               .dtype = dtype,
                               .out = dtype,
                               .bias = true,
                               .alpha = 1};
    if (op->act != VD_ACT_GEGLU)
        return vd_cuda_product_open(pl, &plain, out, err);
    return vd_cuda_gate_product_open(pl, &gate, out, err);
}

static vd_code open_piece(const vd_cuda_planner *pl, const vd_feed_forward *op, const vd_cuda_step *s,
                          int64_t rows, piece *out, vd_error *err) {
    vd_cuda_gemm_spec down = {.m = rows,
                              .k = s->hidden,
                              .n = s->c,
                              .runs = 1,
                              .dtype = pl->program->dtype,
                              .out = pl->program->dtype,
                              .bias = true,
                              .add = true,
                              .alpha = share(op)};
    out->rows = rows;
    if (rows == 0)
        return VD_OK;
    VD_TRY(open_up(pl, op, s, rows, &out->up, err));
    return vd_cuda_product_open(pl, &down, &out->down, err);
}

static size_t most_workspace(const vd_cuda_step *s) {
    size_t most = 0;
    for (int i = 0; i < 2; i++)
        if (s->pieces[i].rows) {
            size_t up = vd_cuda_plan_workspace(s->pieces[i].up),
                   down = vd_cuda_plan_workspace(s->pieces[i].down);
            size_t larger = up > down ? up : down;
            most = larger > most ? larger : most;
        }
    return most;
}

static vd_code plan(const vd_cuda_planner *pl, const vd_op *generic, vd_cuda_step *s, size_t *scratch,
                    vd_error *err) {
    const vd_feed_forward *op = &generic->feed_forward;
    vd_shape src = vd_program_shape(pl->program, op->src);
    size_t element = vd_dtype_bytes(pl->program->dtype);
    s->images = src.n;
    s->rows = src.h * src.w;
    s->c = src.c;
    s->hidden = op->down_weight->dims[1];
    VD_TRY(plan_constants(pl, op, s, scratch, err));
    size_t row = (size_t)(op->up_weight->dims[0] + s->hidden) * element;
    int64_t total = vd_shape_rows(src), whole = vd_cuda_piece_rows(total, row, HIDDEN_BYTES);
    VD_TRY(open_piece(pl, op, s, whole, &s->pieces[0], err));
    VD_TRY(open_piece(pl, op, s, total % whole, &s->pieces[1], err));
    s->normed_at = vd_cuda_take(scratch, (size_t)(total * s->c) * element);
    s->hidden_at = vd_cuda_take(scratch, (size_t)(whole * s->hidden) * element);
    s->workspace = vd_cuda_take(scratch, most_workspace(s));
    return VD_OK;
}

static vd_code load(vd_cuda_step *s, vd_error *err) {
    VD_TRY(vd_cuda_bias_load(&s->up_bias, err));
    VD_TRY(vd_cuda_bias_load(&s->down_bias, err));
    VD_TRY(vd_cuda_constant_load(s->up, err));
    return vd_cuda_constant_load(s->down, err);
}

static vd_code normalise(const vd_feed_forward *op, const vd_cuda_step *s, const vd_cuda_call *call,
                         vd_error *err) {
    vdk_layer_norm l = {.x = vd_cuda_value(call, op->src),
                        .add = vd_cuda_value(call, op->add),
                        .y = vd_cuda_at(call, s->normed_at),
                        .mix = vd_cuda_value(call, op->mix),
                        .carry = carries(op) ? vd_cuda_value(call, op->dst) : NULL,
                        .images = s->images,
                        .rows = s->rows,
                        .c = s->c,
                        .add_rows = op->add == VD_NONE ? 0 : call->program->values[op->add].shape.n,
                        .eps = op->norm.eps,
                        .alpha = op->alpha,
                        .dtype = call->program->dtype};
    return vd_cuda_ran(call, vdk_run_layer_norm(&l, call->stream), "layer norm", err);
}

static vd_code run_up(const vd_feed_forward *op, const vd_cuda_step *s, const vd_cuda_call *call,
                      const piece *p, const void *x, void *hidden, vd_error *err) {
    const void *bias, *weights = vd_cuda_constant_data(s->up);
    void *workspace = vd_cuda_at(call, s->workspace);
    vd_dtype dtype = call->program->dtype;
    VD_TRY(vd_cuda_bias_data(&s->up_bias, call, &bias, err));
    if (op->act == VD_ACT_GEGLU)
        return vd_cuda_gate_run(p->up, call->stream, x, weights, bias, hidden, workspace, err);
    VD_TRY(vd_cuda_gemm_run(p->up, call->stream, x, weights, bias, NULL, hidden, workspace, err));
    return vd_cuda_activate(call, op->act, hidden, dtype, p->rows, s->hidden, NULL, hidden, dtype, err);
}

/* Rows [first, first + p->rows): `carry` and `dst` begin with the first of them. */
static vd_code run_piece(const vd_feed_forward *op, const vd_cuda_step *s, const vd_cuda_call *call,
                         const piece *p, const void *x, const void *carry, void *dst, vd_error *err) {
    void *hidden = vd_cuda_at(call, s->hidden_at), *workspace = vd_cuda_at(call, s->workspace);
    const void *down_bias;
    VD_TRY(run_up(op, s, call, p, x, hidden, err));
    VD_TRY(vd_cuda_bias_data(&s->down_bias, call, &down_bias, err));
    return vd_cuda_gemm_run(p->down, call->stream, hidden, vd_cuda_constant_data(s->down), down_bias, carry,
                            dst, workspace, err);
}

static vd_code run(const vd_op *generic, const vd_cuda_step *s, const vd_cuda_call *call, vd_error *err) {
    const vd_feed_forward *op = &generic->feed_forward;
    const char *carry = vd_cuda_value(call, carries(op) ? op->dst : op->src),
               *x = vd_cuda_at(call, s->normed_at);
    char *dst = vd_cuda_value(call, op->dst);
    size_t row = (size_t)s->c * vd_dtype_bytes(call->program->dtype);
    int64_t total = s->images * s->rows;
    VD_TRY(normalise(op, s, call, err));
    for (int64_t first = 0; first < total; first += s->pieces[0].rows) {
        const piece *p = &s->pieces[total - first < s->pieces[0].rows];
        size_t at = (size_t)first * row;
        VD_TRY(run_piece(op, s, call, p, x + at, carry + at, dst + at, err));
    }
    return VD_OK;
}

static void close_step(vd_cuda_step *s) {
    for (int i = 0; i < 2; i++) {
        vd_cuda_plan_close(s->pieces[i].up);
        vd_cuda_plan_close(s->pieces[i].down);
    }
}

const vd_cuda_op vd_cuda_feed_forward = {
    .step_bytes = sizeof(vd_cuda_step), .plan = plan, .load = load, .run = run, .close = close_step};
