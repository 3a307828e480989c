/* Constants as the libraries and kernels of the CUDA backend want them. */
#include "base/layout.h"
#include "device/cpu_kernels.h"
#include "device/cuda.h"

#include <stdlib.h>
#include <string.h>

static int64_t count_of(const vd_constant *c) {
    return c->dims[0] * c->dims[1] * c->dims[2] * c->dims[3];
}

/* Rows before any padding; of zeros alone there is nothing else. */
static int64_t own_rows(const vd_cuda_packing *p) {
    return p->constant ? p->constant->dims[0] : p->pad_k;
}

static int64_t phases(const vd_cuda_packing *p) {
    return p->layout == VD_CUDA_PHASES ? VD_CUDA_PHASE_COUNT : 1;
}

/* Rows of each phase and channels of the packed tensor, padding included. */
static int64_t packed_rows(const vd_cuda_packing *p) {
    int64_t rows = own_rows(p);
    return p->pad_k > rows ? p->pad_k : rows;
}
static int64_t packed_channels(const vd_cuda_packing *p) {
    int64_t channels = p->constant ? p->constant->dims[1] : 1;
    return p->pad_c > channels ? p->pad_c : channels;
}
static int64_t taps(const vd_cuda_packing *p) {
    return p->constant ? p->constant->dims[2] * p->constant->dims[3] : 1;
}

/* Of `size` taps in a row, those that see different pixels before these are doubled. */
static int64_t distinct(int64_t size) {
    return (size + 1) / 2;
}

static int64_t packed_taps(const vd_cuda_packing *p) {
    const vd_constant *c = p->constant;
    return p->layout == VD_CUDA_PHASES ? distinct(c->dims[2]) * distinct(c->dims[3]) : taps(p);
}

static int64_t packed_count(const vd_cuda_packing *p) {
    return phases(p) * packed_rows(p) * packed_taps(p) * packed_channels(p);
}

static size_t own_bytes(const vd_cuda_packing *p) {
    return (size_t)packed_count(p) * vd_dtype_bytes(p->dtype);
}

size_t vd_cuda_packed_bias_at(const vd_cuda_packing *p) {
    return vd_align_up(own_bytes(p));
}

size_t vd_cuda_packed_bytes(const vd_cuda_packing *p) {
    if (!p->beta)
        return own_bytes(p);
    return vd_cuda_packed_bias_at(p) + (size_t)own_rows(p) * vd_dtype_bytes(p->bias_dtype);
}

/* A new array with the values of `c`, or an error. */
static vd_code filled(const vd_constant *c, float **out, vd_error *err) {
    size_t bytes = (size_t)count_of(c) * sizeof(float);
    *out = malloc(bytes);
    if (!*out)
        return vd_fail_memory(err, c->name, bytes);
    vd_code code = c->fill(c, *out, err);
    if (code != VD_OK) {
        free(*out);
        *out = NULL;
    }
    return code;
}

/* values [k, c, taps]: column j of every row times factor[j]. */
static void scale_columns(float *values, const vd_constant *c, const float *factor) {
    int64_t inner = c->dims[2] * c->dims[3];
    for (int64_t i = 0, count = count_of(c); i < count; i++)
        values[i] *= factor[i / inner % c->dims[1]];
}

/* values [k] += matrix [k, c] times x [c]. */
static void add_product(double *values, const float *matrix, const float *x, int64_t k, int64_t c) {
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < c; j++)
            values[i] += (double)matrix[i * c + j] * (double)x[j];
}

static vd_code fold_gamma(const vd_cuda_packing *p, float *values, vd_error *err) {
    float *gamma;
    if (!p->gamma)
        return VD_OK;
    VD_TRY(filled(p->gamma, &gamma, err));
    scale_columns(values, p->constant, gamma);
    free(gamma);
    return VD_OK;
}

static void convert(float *from, int64_t count, float scale, vd_dtype dtype, void *out) {
    vd_cells to = {out, dtype, count}, x = {from, VD_F32, count};
    vd_kernels_choose(NULL)->convert(to, x, 1, count, scale);
}

/* values [k] = values + matrix * beta */
static vd_code add_beta(const vd_cuda_packing *p, const float *matrix, float *values, vd_error *err) {
    int64_t k = own_rows(p);
    float *beta = NULL;
    double *sums = calloc((size_t)k, sizeof *sums);
    vd_code code =
        sums ? filled(p->beta, &beta, err) : vd_fail_memory(err, p->constant->name, (size_t)k * sizeof *sums);
    if (code == VD_OK)
        add_product(sums, matrix, beta, k, p->constant->dims[1]);
    for (int64_t i = 0; code == VD_OK && i < k; i++)
        values[i] = (float)((double)values[i] + sums[i]);
    free(sums);
    free(beta);
    return code;
}

static vd_code pack_bias(const vd_cuda_packing *p, const float *matrix, void *out, vd_error *err) {
    int64_t k = own_rows(p);
    float *bias = NULL;
    if (p->bias)
        VD_TRY(filled(p->bias, &bias, err));
    else if (!(bias = calloc((size_t)k, sizeof *bias)))
        return vd_fail_memory(err, p->constant->name, (size_t)k * sizeof *bias);
    vd_code code = add_beta(p, matrix, bias, err);
    if (code == VD_OK)
        convert(bias, k, 1, p->bias_dtype, out);
    free(bias);
    return code;
}

/* The constant's values in its own order, or zeros. */
static vd_code make_plain(const vd_cuda_packing *p, float **out, vd_error *err) {
    if (p->constant)
        return filled(p->constant, out, err);
    *out = calloc((size_t)own_rows(p), sizeof **out);
    return *out ? VD_OK : vd_fail_memory(err, "packed weights", (size_t)own_rows(p) * sizeof **out);
}

/* Where tap `t` of a filter goes. For pixel 2i + a of a result, tap x of three sees pixel 2i + a + x - 1 of a
 * doubled row, which was i - 1 + a + (x + 1 - a) / 2. A single tap stays what it is. */
static int64_t packed_tap(const vd_cuda_packing *p, int64_t phase, int64_t t) {
    if (p->layout != VD_CUDA_PHASES)
        return t;
    int64_t width = p->constant->dims[3], a = phase / 2, b = phase % 2;
    return (t / width + 1 - a) / 2 * distinct(width) + (t % width + 1 - b) / 2;
}

/* plain [k, c, taps] -> to [rows, taps, channels], which is zero: one phase. */
static void arrange_phase(const vd_cuda_packing *p, int64_t phase, const float *plain, float *to) {
    int64_t k = own_rows(p), c = p->constant ? p->constant->dims[1] : 1;
    int64_t inner = taps(p), outer = packed_taps(p), channels = packed_channels(p);
    for (int64_t i = 0; i < k; i++)
        for (int64_t t = 0; t < inner; t++) {
            float *row = to + (i * outer + packed_tap(p, phase, t)) * channels;
            for (int64_t j = 0; j < c; j++)
                row[j] += plain[(i * c + j) * inner + t];
        }
}

/* Zeros where there is padding. Without that, taps and phases this is the order it has. */
static void arrange(const vd_cuda_packing *p, const float *plain, float *to) {
    int64_t count = packed_count(p), part = count / phases(p);
    memset(to, 0, (size_t)count * sizeof *to);
    for (int64_t phase = 0; phase < phases(p); phase++)
        arrange_phase(p, phase, plain, to + phase * part);
}

static bool in_order(const vd_cuda_packing *p) {
    int64_t own = p->constant ? count_of(p->constant) : own_rows(p);
    return own == packed_count(p) && (p->layout == VD_CUDA_DENSE || taps(p) == 1);
}

static vd_code pack_values(const vd_cuda_packing *p, float *plain, void *out, vd_error *err) {
    int64_t count = packed_count(p);
    if (in_order(p)) {
        convert(plain, count, p->scale, p->dtype, out);
        return VD_OK;
    }
    float *arranged = malloc((size_t)count * sizeof *arranged);
    if (!arranged)
        return vd_fail_memory(err, "packed weights", (size_t)count * sizeof *arranged);
    arrange(p, plain, arranged);
    convert(arranged, count, p->scale, p->dtype, out);
    free(arranged);
    return VD_OK;
}

/* The bias wants the matrix as it was before gamma. */
vd_code vd_cuda_pack(const vd_cuda_packing *p, void *out, vd_error *err) {
    float *plain = NULL;
    VD_TRY(make_plain(p, &plain, err));
    vd_code code =
        p->beta ? pack_bias(p, plain, (unsigned char *)out + vd_cuda_packed_bias_at(p), err) : VD_OK;
    if (code == VD_OK)
        code = fold_gamma(p, plain, err);
    if (code == VD_OK)
        code = pack_values(p, plain, out, err);
    free(plain);
    return code;
}
