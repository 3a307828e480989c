/* Feed-forward: rows in chunks, so that the hidden layer lives in the cache and nowhere else. */
#include "base/layout.h"
#include "device/cpu_lower.h"

struct vd_cpu_plan {
    const vd_kernels *kernels;
    vd_normaliser norm;
    vd_chunked up, down;
    int64_t rows, step; /* of all and of a chunk */
    int64_t c, up_width, hidden;
    vd_dtype in; /* of both products; their results are fp32 */
    size_t sum_at, in_at, hidden_at, out_at, product_at;
};

static void plan_scratch(vd_cpu_plan *t, bool add, size_t *scratch) {
    size_t rows = (size_t)t->step, in = vd_dtype_bytes(t->in);
    size_t product = t->up.scratch > t->down.scratch ? t->up.scratch : t->down.scratch;
    t->sum_at = 0;
    t->in_at = add ? vd_align_up(rows * (size_t)t->c * sizeof(float)) : 0;
    t->hidden_at = t->in_at + vd_align_up(rows * (size_t)t->c * in);
    t->out_at = t->hidden_at + vd_align_up(rows * (size_t)t->up_width * sizeof(float));
    t->product_at = t->out_at + vd_align_up(rows * (size_t)t->c * sizeof(float));
    *scratch = t->product_at + product;
}

static vd_code plan(vd_cpu_library *l, const vd_program *p, const vd_op *generic, vd_cpu_plan *t,
                    size_t *scratch, vd_error *err) {
    const vd_feed_forward *op = &generic->feed_forward;
    vd_shape s = vd_program_shape(p, op->src);
    t->kernels = l->kernels;
    t->in = vd_library_compute_type(l, p->dtype);
    t->c = s.c;
    t->up_width = op->up_weight->dims[0];
    t->hidden = op->down_weight->dims[1];
    t->rows = vd_shape_rows(s);
    size_t row = (size_t)(t->up_width + 3 * t->c) * sizeof(float);
    size_t weights = (size_t)((t->up_width + t->hidden) * t->c) * vd_dtype_bytes(t->in);
    t->step = vd_chunk_size(t->rows, row, vd_chunk_budget(2 * VD_CHUNK_BYTES, weights));
    vd_product_spec up = {.matrix = 1, .n = t->step, .c = t->c, .k = t->up_width, .in = t->in, .bias = 1};
    vd_product_spec down = {.matrix = 1, .n = t->step, .c = t->hidden, .k = t->c, .in = t->in, .bias = 1};
    up.out = down.out = VD_F32;
    vd_product_spec up_rest = up, down_rest = down;
    up_rest.n = down_rest.n = t->rows % t->step ? t->rows % t->step : t->step;
    VD_TRY(vd_normaliser_plan(l, &op->norm, t->c, &t->norm, err));
    VD_TRY(vd_chunked_plan(l, &up, &up_rest, op->up_weight, op->up_bias, p->dtype, &t->up, err));
    VD_TRY(vd_chunked_plan(l, &down, &down_rest, op->down_weight, op->down_bias, p->dtype, &t->down, err));
    plan_scratch(t, op->add != VD_NONE, scratch);
    return VD_OK;
}

static vd_code load(vd_cpu_library *l, vd_cpu_plan *t, vd_error *err) {
    (void)l;
    VD_TRY(vd_normaliser_load(&t->norm, err));
    VD_TRY(vd_chunked_load(&t->up, err));
    return vd_chunked_load(&t->down, err);
}

/* to = src + add for rows [first, first + rows), which may lie in several images. */
static void add_rows(const vd_program *p, const vd_feed_forward *op, const vd_cpu_plan *t,
                     const vd_cpu_call *call, vd_cells to, vd_cells src, int64_t first, int64_t rows) {
    vd_shape s = vd_program_shape(p, op->src);
    int64_t image = s.h * s.w, cycle = vd_program_shape(p, op->add).n;
    const float *add = call->at[op->add];
    for (int64_t row = first, count; row < first + rows; row += count) {
        int64_t left = image - row % image, wanted = first + rows - row;
        count = left < wanted ? left : wanted;
        t->kernels->add_row(vd_cells_at(to, row - first), vd_cells_at(src, row - first), count, t->c,
                            add + row / image % cycle * t->c);
    }
}

static vd_code run_chunk(const vd_program *p, const vd_feed_forward *op, const vd_cpu_plan *t,
                         const vd_cpu_call *call, int64_t first, int64_t rows, vd_error *err) {
    const vd_kernels *k = t->kernels;
    char *scratch = call->scratch;
    bool rest = rows != t->step;
    vd_cells x = vd_cells_at(vd_value_cells(p, call, op->src), first), mix = {0};
    vd_cells sum = {scratch + t->sum_at, VD_F32, t->c}, in = {scratch + t->in_at, t->in, t->c};
    vd_cells up = {scratch + t->hidden_at, VD_F32, t->up_width}, hidden = {up.data, t->in, t->hidden};
    vd_cells out = {scratch + t->out_at, VD_F32, t->c};
    if (op->mix != VD_NONE)
        mix = vd_cells_at(vd_value_cells(p, call, op->mix), first);
    if (op->add != VD_NONE) {
        add_rows(p, op, t, call, sum, x, first, rows);
        x = sum;
    }
    k->layer_norm(in, x, rows, t->c, vd_cpu_constant_data(t->norm.gamma), vd_cpu_constant_data(t->norm.beta),
                  t->norm.norm.eps);
    void *product = scratch + t->product_at;
    VD_TRY(vd_chunked_run(&t->up, rest, call->worker, in.data, NULL, up.data, product, err));
    k->activate(hidden, up, rows, t->hidden, op->act);
    VD_TRY(vd_chunked_run(&t->down, rest, call->worker, hidden.data, NULL, out.data, product, err));
    k->finish(vd_cells_at(vd_value_cells(p, call, op->dst), first), out, x, mix, op->alpha, rows, t->c);
    return VD_OK;
}

static vd_code run(const vd_program *p, const vd_op *op, const vd_cpu_plan *t, const vd_cpu_call *call,
                   vd_error *err) {
    for (int64_t row = 0; row < t->rows; row += t->step) {
        int64_t rows = t->rows - row < t->step ? t->rows - row : t->step;
        VD_TRY(run_chunk(p, &op->feed_forward, t, call, row, rows, err));
    }
    return VD_OK;
}

const vd_cpu_op vd_cpu_feed_forward = {sizeof(vd_cpu_plan), plan, load, run};
