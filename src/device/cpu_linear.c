/* Linear layers: rows in chunks; a norm goes before each chunk, activation and residual after it. */
#include "base/layout.h"
#include "device/cpu_lower.h"

#include <string.h>

struct vd_cpu_plan {
    const vd_kernels *kernels;
    vd_normaliser norm;
    vd_chunked product;
    int64_t runs, run_rows, step; /* a run has one bias; chunks stay within it */
    vd_dtype in, out;             /* of the product */
    bool direct_in;               /* the product reads the source itself */
    bool direct_out; /* the product writes the destination itself, adding to it what is there already */
    size_t in_at, out_at, product_at;
};

static void plan_shape(vd_cpu_plan *t, const vd_cpu_library *l, const vd_program *p, const vd_linear *op) {
    vd_dtype dst = p->values[op->dst].dtype;
    t->kernels = l->kernels;
    t->in = vd_library_compute_type(l, p->dtype);
    t->direct_in = op->norm.kind == VD_NORM_NONE && t->in == p->dtype;
    t->direct_out = op->act == VD_ACT_NONE && (dst == VD_F32 || dst == t->in);
    t->out = t->direct_out ? dst : VD_F32;
    t->runs = op->bias_value == VD_NONE ? 1 : vd_program_shape(p, op->bias_value).n;
    t->run_rows = vd_shape_rows(vd_program_shape(p, op->src)) / t->runs;
    int64_t c = op->weight->dims[1], k = op->weight->dims[0];
    size_t row = (size_t)c * vd_dtype_bytes(t->in) + (size_t)k * vd_dtype_bytes(t->out);
    t->step = vd_chunk_size(t->run_rows, row,
                            vd_chunk_budget(VD_CHUNK_BYTES, (size_t)(c * k) * vd_dtype_bytes(t->in)));
}

static vd_code plan(vd_cpu_library *l, const vd_program *p, const vd_op *generic, vd_cpu_plan *t,
                    size_t *scratch, vd_error *err) {
    const vd_linear *op = &generic->linear;
    plan_shape(t, l, p, op);
    int64_t c = op->weight->dims[1], k = op->weight->dims[0];
    vd_product_spec spec = {.matrix = 1, .n = t->step, .c = c, .k = k, .in = t->in, .out = t->out};
    spec.bias = op->bias || op->bias_value != VD_NONE;
    spec.add = t->direct_out && op->residual != VD_NONE;
    vd_product_spec rest = spec;
    rest.n = t->run_rows % t->step ? t->run_rows % t->step : t->step;
    VD_TRY(vd_normaliser_plan(l, &op->norm, c, &t->norm, err));
    VD_TRY(vd_chunked_plan(l, &spec, &rest, op->weight, op->bias, p->dtype, &t->product, err));
    size_t in = t->direct_in ? 0 : (size_t)(t->step * c) * vd_dtype_bytes(t->in);
    size_t out = t->direct_out ? 0 : (size_t)(t->step * k) * vd_dtype_bytes(t->out);
    t->in_at = t->norm.scratch;
    t->out_at = t->in_at + vd_align_up(in);
    t->product_at = t->out_at + vd_align_up(out);
    *scratch = t->product_at + t->product.scratch;
    return VD_OK;
}

static vd_code load(vd_cpu_library *l, vd_cpu_plan *t, vd_error *err) {
    (void)l;
    VD_TRY(vd_normaliser_load(&t->norm, err));
    return vd_chunked_load(&t->product, err);
}

/* Group norm of rows [first, first + rows), which may lie in several images. Statistics are made when an
 * image begins. */
static void group_norm_rows(const vd_cpu_plan *t, vd_cells to, vd_cells src, int64_t image_rows,
                            int64_t first, int64_t rows, void *scratch) {
    const int64_t c[2] = {t->norm.c, 0};
    for (int64_t done = 0; done < rows;) {
        int64_t row = first + done, inside = row % image_rows;
        int64_t count = image_rows - inside < rows - done ? image_rows - inside : rows - done;
        if (!inside)
            vd_group_statistics(&t->norm, t->kernels, (vd_cells[2]){vd_cells_at(src, row)}, c, image_rows,
                                scratch);
        t->kernels->affine(vd_cells_at(to, done), vd_cells_at(src, row), count, c[0],
                           vd_group_affine(&t->norm, scratch, 0), t->norm.norm.silu);
        done += count;
    }
}

/* What the product reads for rows [first, first + rows). */
static const void *prepare(const vd_cpu_plan *t, vd_cells src, int64_t image_rows, int64_t first,
                           int64_t rows, char *scratch) {
    vd_cells from = vd_cells_at(src, first), to = {scratch + t->in_at, t->in, src.pitch};
    if (t->direct_in)
        return from.data;
    const vd_norm *norm = &t->norm.norm;
    if (norm->kind == VD_NORM_GROUP)
        group_norm_rows(t, to, src, image_rows, first, rows, scratch);
    else if (norm->kind == VD_NORM_LAYER)
        t->kernels->layer_norm(to, from, rows, src.pitch, vd_cpu_constant_data(t->norm.gamma),
                               vd_cpu_constant_data(t->norm.beta), norm->eps);
    else
        t->kernels->convert(to, from, rows, src.pitch, 1.0f);
    return to.data;
}

/* Activation, residual and rounding of a chunk that the product left in scratch. */
static void finish(const vd_cpu_plan *t, vd_act act, vd_cells to, vd_cells x, vd_cells residual,
                   int64_t rows) {
    if (act != VD_ACT_NONE)
        t->kernels->activate(residual.data ? x : to, x, rows, x.pitch, act);
    if (act == VD_ACT_NONE || residual.data)
        t->kernels->finish(to, x, residual, (vd_cells){0}, 0.0f, rows, x.pitch);
}

static vd_code run_chunk(const vd_program *p, const vd_linear *op, const vd_cpu_plan *t,
                         const vd_cpu_call *call, int64_t first, int64_t rows, const float *bias,
                         vd_error *err) {
    char *scratch = call->scratch;
    vd_shape s = vd_program_shape(p, op->src);
    vd_cells dst = vd_cells_at(vd_value_cells(p, call, op->dst), first), residual = {0};
    if (op->residual != VD_NONE)
        residual = vd_cells_at(vd_value_cells(p, call, op->residual), first);
    vd_cells out = t->direct_out ? dst : (vd_cells){scratch + t->out_at, t->out, dst.pitch};
    const void *in = prepare(t, vd_value_cells(p, call, op->src), s.h * s.w, first, rows, scratch);
    if (t->direct_out && residual.data && residual.data != dst.data)
        memcpy(dst.data, residual.data, (size_t)(rows * dst.pitch) * vd_dtype_bytes(dst.dtype));
    VD_TRY(vd_chunked_run(&t->product, rows != t->step, call->worker, in, bias, out.data,
                          scratch + t->product_at, err));
    if (!t->direct_out)
        finish(t, op->act, dst, out, residual, rows);
    return VD_OK;
}

static vd_code run(const vd_program *p, const vd_op *generic, const vd_cpu_plan *t, const vd_cpu_call *call,
                   vd_error *err) {
    const vd_linear *op = &generic->linear;
    for (int64_t i = 0; i < t->runs; i++) {
        const float *bias = op->bias_value == VD_NONE ? NULL : call->at[op->bias_value];
        if (bias)
            bias += i * op->weight->dims[0];
        for (int64_t row = 0; row < t->run_rows; row += t->step) {
            int64_t rows = t->run_rows - row < t->step ? t->run_rows - row : t->step;
            VD_TRY(run_chunk(p, op, t, call, i * t->run_rows + row, rows, bias, err));
        }
    }
    return VD_OK;
}

const vd_cpu_op vd_cpu_linear = {sizeof(vd_cpu_plan), plan, load, run};
