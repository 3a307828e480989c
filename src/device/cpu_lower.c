#include "device/cpu_lower.h"
#include "base/layout.h"

#include <math.h>

int64_t vd_chunk_size(int64_t total, size_t item_bytes, size_t budget) {
    int64_t most = (int64_t)(budget / item_bytes);
    if (most >= total)
        return total;
    if (most < 1)
        most = 1;
    for (int64_t size = most; 2 * size > most; size--)
        if (total % size == 0)
            return size;
    int64_t count = (total + most - 1) / most;
    return (total + count - 1) / count;
}

static vd_code plan_one(vd_cpu_library *l, const vd_product_spec *spec, const vd_constant *weight,
                        vd_dtype storage, vd_chunked *out, int index, vd_error *err) {
    VD_TRY(vd_product_open(l, spec, &out->product[index], err));
    size_t scratch = vd_align_up(vd_product_scratch(out->product[index]));
    if (scratch > out->scratch)
        out->scratch = scratch;
    return vd_cpu_constant_plan_packed(l, weight, storage, out->product[index], &out->weights[index], err);
}

vd_code vd_chunked_plan(vd_cpu_library *l, const vd_product_spec *spec, const vd_product_spec *rest,
                        const vd_constant *weight, const vd_constant *bias, vd_dtype storage, vd_chunked *out,
                        vd_error *err) {
    *out = (vd_chunked){0};
    if (bias)
        VD_TRY(vd_cpu_constant_plan(l, bias, VD_F32, &out->bias, err));
    VD_TRY(plan_one(l, spec, weight, storage, out, 0, err));
    vd_product_spec alike = *rest;
    alike.like = out->product[0];
    bool same_size = rest->n == spec->n && rest->h == spec->h && rest->w == spec->w;
    return plan_one(l, same_size ? spec : &alike, weight, storage, out, 1, err);
}

vd_code vd_chunked_load(const vd_chunked *c, vd_error *err) {
    for (int i = 0; i < 2; i++)
        VD_TRY(vd_product_load(c->product[i], err));
    if (c->bias)
        VD_TRY(vd_cpu_constant_load(c->bias, err));
    VD_TRY(vd_cpu_constant_load(c->weights[0], err));
    return vd_cpu_constant_load(c->weights[1], err);
}

const float *vd_chunked_bias(const vd_chunked *c, const float *given) {
    return given || !c->bias ? given : vd_cpu_constant_data(c->bias);
}

vd_code vd_chunked_run(const vd_chunked *c, bool rest, vd_cpu_worker *w, const void *src, const float *bias,
                       void *dst, void *scratch, vd_error *err) {
    return vd_product_run(c->product[rest], w, src, vd_cpu_constant_data(c->weights[rest]),
                          vd_chunked_bias(c, bias), dst, scratch, err);
}

vd_code vd_normaliser_plan(vd_cpu_library *l, const vd_norm *norm, int64_t c, vd_normaliser *out,
                           vd_error *err) {
    *out = (vd_normaliser){.norm = *norm, .c = c};
    if (norm->kind == VD_NORM_NONE)
        return VD_OK;
    if (norm->kind == VD_NORM_GROUP)
        out->scratch = vd_align_up((size_t)c * (3 * sizeof(float) + 2 * sizeof(double)));
    VD_TRY(vd_cpu_constant_plan(l, norm->gamma, VD_F32, &out->gamma, err));
    return vd_cpu_constant_plan(l, norm->beta, VD_F32, &out->beta, err);
}

vd_code vd_normaliser_load(const vd_normaliser *n, vd_error *err) {
    if (n->norm.kind == VD_NORM_NONE)
        return VD_OK;
    VD_TRY(vd_cpu_constant_load(n->gamma, err));
    return vd_cpu_constant_load(n->beta, err);
}

/* Mean and 1 / sqrt(variance + eps) of `width` channels of equally many rows, from those of each channel. */
static void combine(const double *mean, const double *m2, int64_t width, int64_t rows, double eps,
                    double *group_mean, double *inverse) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < width; i++)
        sum += mean[i];
    double centre = sum / (double)width;
    for (int64_t i = 0; i < width; i++)
        squares += m2[i] + (double)rows * (mean[i] - centre) * (mean[i] - centre);
    *group_mean = centre;
    *inverse = 1 / sqrt(squares / ((double)rows * (double)width) + eps);
}

void vd_group_statistics(const vd_normaliser *n, const vd_kernels *k, const vd_cells x[2], const int64_t c[2],
                         int64_t rows, void *scratch) {
    double *mean = scratch, *m2 = mean + n->c;
    float *centres = (float *)(mean + 2 * n->c), *scale = centres + n->c, *shift = scale + n->c;
    const float *gamma = vd_cpu_constant_data(n->gamma), *beta = vd_cpu_constant_data(n->beta);
    k->column_stats(x[0], rows, c[0], mean, m2);
    if (c[1])
        k->column_stats(x[1], rows, c[1], mean + c[0], m2 + c[0]);
    int64_t width = n->c / n->norm.groups;
    for (int64_t first = 0; first < n->c; first += width) {
        double centre, inverse;
        combine(mean + first, m2 + first, width, rows, (double)n->norm.eps, &centre, &inverse);
        for (int64_t i = first; i < first + width; i++) {
            centres[i] = (float)centre;
            scale[i] = (float)(inverse * (double)gamma[i]);
            shift[i] = (float)((double)beta[i] - (centre - (double)centres[i]) * (double)scale[i]);
        }
    }
}

vd_cells vd_value_cells(const vd_program *p, const vd_cpu_call *call, vd_value v) {
    return (vd_cells){call->at[v], p->values[v].dtype, p->values[v].shape.c};
}
