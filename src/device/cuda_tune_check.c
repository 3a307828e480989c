#include "device/cuda_tune.h"

#include "base/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PERIOD = 1000003 }; /* elements after which random numbers repeat: prime, so no row is like another */
static const double BUDGET = 64e6;   /* multiply-adds for all samples together */
static const double ATTENTION_X = 3; /* q and k of this size give scores that differ */

/* ---- elements ---- */

static double load(const void *from, int64_t i, vd_dtype dtype) {
    if (dtype == VD_F32)
        return (double)((const float *)from)[i];
    uint16_t bits = ((const uint16_t *)from)[i];
    return (double)(dtype == VD_F16 ? vd_f16_to_f32(bits) : vd_bf16_to_f32(bits));
}

static void store(void *to, int64_t i, vd_dtype dtype, float value) {
    if (dtype == VD_F32)
        ((float *)to)[i] = value;
    else
        ((uint16_t *)to)[i] = dtype == VD_F16 ? vd_f32_to_f16(value) : vd_f32_to_bf16(value);
}

static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Even over [-size, size). */
static void draw(void *out, size_t bytes, vd_dtype dtype, double size, uint64_t seed) {
    size_t element = vd_dtype_bytes(dtype), period = PERIOD * element;
    size_t fresh = bytes < period ? bytes : period;
    for (size_t i = 0; i < fresh / element; i++)
        store(out, (int64_t)i, dtype, (float)(size * ((double)(mix(seed + i) >> 11) * 0x1p-52 - 1)));
    for (size_t done = fresh; done < bytes; done += period)
        memcpy((char *)out + done, out, bytes - done < period ? bytes - done : period);
}

/* ---- a problem's parts ---- */

/* What all kinds of products have in common: `rows` results of `width`, each a sum over `depth`. */
typedef struct product {
    int64_t rows, depth, width, runs;
    vd_dtype in, out;
    bool bias, add;
    double alpha;
} product;

static product product_of(const vd_cuda_problem *problem) {
    const vd_cuda_conv_spec *c = &problem->conv;
    const vd_cuda_gemm_spec *g = &problem->gemm;
    const vd_cuda_gate_spec *u = &problem->gate;
    if (problem->kind == VD_CUDA_GEMM)
        return (product){g->m, g->k, g->n, g->runs, g->dtype, g->out, g->bias, g->add, (double)g->alpha};
    if (problem->kind == VD_CUDA_GATE) /* both of them side by side */
        return (product){u->m, u->k, 2 * u->n, 1, u->dtype, u->dtype, true, false, 1};
    return (product){c->n * c->oh * c->ow, c->kh * c->kw * c->c, c->k, 1, c->dtype, c->dtype, c->bias, c->add,
                     (double)c->alpha};
}

static size_t count_bytes(int64_t count, vd_dtype dtype) {
    return (size_t)count * vd_dtype_bytes(dtype);
}

static void measure_product(vd_cuda_trial_data *d) {
    const vd_cuda_conv_spec *c = &d->problem->conv;
    product p = product_of(d->problem);
    int64_t x = d->problem->kind == VD_CUDA_CONV ? c->n * c->h * c->w * c->c : p.rows * p.depth;
    d->y_bytes = count_bytes(p.rows * p.width, p.out) / (d->problem->kind == VD_CUDA_GATE ? 2 : 1);
    d->bytes[VD_CUDA_X] = count_bytes(x, p.in);
    d->bytes[VD_CUDA_WEIGHTS] = count_bytes(p.width * p.depth, p.in);
    d->bytes[VD_CUDA_BIAS] = p.bias ? count_bytes(p.runs * p.width, p.out) : 0;
    d->bytes[VD_CUDA_Z] = p.add ? d->y_bytes : 0;
}

static void measure_attention(vd_cuda_trial_data *d) {
    const vd_cuda_sdpa_spec *s = &d->problem->sdpa;
    d->y_bytes = count_bytes(s->batch * s->tokens * s->heads * s->width, s->dtype);
    d->bytes[VD_CUDA_X] = 3 * d->y_bytes;
}

/* Sizes that give results of about 1. */
static void draw_operands(vd_cuda_trial_data *d) {
    if (d->problem->kind == VD_CUDA_SDPA) {
        draw(d->operands[VD_CUDA_X], d->bytes[VD_CUDA_X], d->problem->sdpa.dtype, ATTENTION_X, VD_CUDA_X);
        return;
    }
    product p = product_of(d->problem);
    for (int i = 0; i < VD_CUDA_OPERANDS; i++)
        if (d->bytes[i])
            draw(d->operands[i], d->bytes[i], i == VD_CUDA_BIAS || i == VD_CUDA_Z ? p.out : p.in,
                 i == VD_CUDA_WEIGHTS ? 3 / sqrt((double)p.depth) : 1, mix((uint64_t)i));
}

/* ---- what is right ---- */

static double conv_sum(const vd_cuda_trial_data *d, int64_t row, int64_t k) {
    const vd_cuda_conv_spec *s = &d->problem->conv;
    int64_t n = row / (s->oh * s->ow), oy = row / s->ow % s->oh, ox = row % s->ow;
    double sum = 0;
    for (int64_t i = 0; i < s->kh; i++)
        for (int64_t j = 0; j < s->kw; j++) {
            int64_t y = oy * s->stride - s->pad_top + i, x = ox * s->stride - s->pad_left + j;
            if (y < 0 || y >= s->h || x < 0 || x >= s->w)
                continue;
            int64_t from = ((n * s->h + y) * s->w + x) * s->c, weights = ((k * s->kh + i) * s->kw + j) * s->c;
            for (int64_t c = 0; c < s->c; c++)
                sum += load(d->operands[VD_CUDA_X], from + c, s->dtype) *
                       load(d->operands[VD_CUDA_WEIGHTS], weights + c, s->dtype);
        }
    return sum;
}

static double matrix_sum(const vd_cuda_trial_data *d, const product *p, int64_t row, int64_t column) {
    double sum = 0;
    for (int64_t k = 0; k < p->depth; k++)
        sum += load(d->operands[VD_CUDA_X], row * p->depth + k, p->in) *
               load(d->operands[VD_CUDA_WEIGHTS], column * p->depth + k, p->in);
    return sum;
}

static double product_value(const vd_cuda_trial_data *d, int64_t row, int64_t column) {
    product p = product_of(d->problem);
    double value = p.alpha * (d->problem->kind == VD_CUDA_CONV ? conv_sum(d, row, column)
                                                               : matrix_sum(d, &p, row, column));
    if (p.add)
        value += load(d->operands[VD_CUDA_Z], row * p.width + column, p.out);
    if (p.bias)
        value += load(d->operands[VD_CUDA_BIAS], row / (p.rows / p.runs) * p.width + column, p.out);
    return value;
}

static double gate_value(const vd_cuda_trial_data *d, int64_t row, int64_t column) {
    double gate = product_value(d, row, d->problem->gate.n + column);
    return product_value(d, row, column) * 0.5 * gate * (1 + erf(gate * M_SQRT1_2));
}

/* With the softmax taken as it comes: scores stay far below what overflows an fp64. */
static double attention_value(const vd_cuda_trial_data *d, int64_t row, int64_t column) {
    const vd_cuda_sdpa_spec *s = &d->problem->sdpa;
    const int64_t all = s->heads * s->width;
    const int64_t first = row / s->tokens * s->tokens, head = column / s->width * s->width;
    const void *qkv = d->operands[VD_CUDA_X];
    double sum = 0, total = 0;
    for (int64_t t = first; t < first + s->tokens; t++) {
        double score = 0;
        for (int64_t c = head; c < head + s->width; c++)
            score += load(qkv, row * 3 * all + c, s->dtype) * load(qkv, t * 3 * all + all + c, s->dtype);
        double share = exp((double)s->scale * score);
        total += share;
        sum += share * load(qkv, t * 3 * all + 2 * all + column, s->dtype);
    }
    return sum / total;
}

static vd_dtype type_of_result(const vd_cuda_problem *problem) {
    return problem->kind == VD_CUDA_SDPA ? problem->sdpa.dtype : product_of(problem).out;
}

static int64_t width_of_result(const vd_cuda_problem *problem) {
    if (problem->kind == VD_CUDA_SDPA)
        return problem->sdpa.heads * problem->sdpa.width;
    return problem->kind == VD_CUDA_GATE ? problem->gate.n : product_of(problem).width;
}

static double value_at(const vd_cuda_trial_data *d, int64_t place) {
    int64_t width = width_of_result(d->problem), row = place / width, column = place % width;
    if (d->problem->kind == VD_CUDA_SDPA)
        return attention_value(d, row, column);
    return d->problem->kind == VD_CUDA_GATE ? gate_value(d, row, column) : product_value(d, row, column);
}

/* The corners of the result, and places spread over it. */
static void work_out(vd_cuda_trial_data *d) {
    const vd_cuda_sdpa_spec *s = &d->problem->sdpa;
    double cost = d->problem->kind == VD_CUDA_SDPA ? (double)(s->tokens * s->width)
                                                   : (double)product_of(d->problem).depth;
    int64_t count = (int64_t)(d->y_bytes / vd_dtype_bytes(type_of_result(d->problem)));
    d->samples = BUDGET / cost < VD_CUDA_SAMPLES ? (int)(BUDGET / cost) : VD_CUDA_SAMPLES;
    for (int i = 0; i < d->samples; i++) {
        int64_t place = i < 2 ? i * (count - 1) : (int64_t)(mix((uint64_t)i) % (uint64_t)count);
        d->places[i] = place;
        d->values[i] = value_at(d, place);
    }
}

/* ---- the interface ---- */

vd_code vd_cuda_trial_data_open(const vd_cuda_problem *problem, vd_cuda_trial_data *out, vd_error *err) {
    *out = (vd_cuda_trial_data){.problem = problem};
    if (problem->kind == VD_CUDA_SDPA)
        measure_attention(out);
    else
        measure_product(out);
    for (int i = 0; i < VD_CUDA_OPERANDS; i++)
        if (out->bytes[i] && !(out->operands[i] = malloc(out->bytes[i])))
            return vd_fail_memory(err, "operands to try plans with", out->bytes[i]);
    draw_operands(out);
    work_out(out);
    return VD_OK;
}

void vd_cuda_trial_data_close(vd_cuda_trial_data *d) {
    for (int i = 0; i < VD_CUDA_OPERANDS; i++)
        free(d->operands[i]);
}

double vd_cuda_trial_error(const vd_cuda_trial_data *d, const void *y) {
    vd_dtype out = type_of_result(d->problem);
    double worst = 0;
    for (int i = 0; i < d->samples; i++) {
        double error = fabs(load(y, d->places[i], out) - d->values[i]) / (1 + fabs(d->values[i]));
        if (!(error <= worst)) /* also a NaN */
            worst = isnan(error) ? INFINITY : error;
    }
    return worst;
}

/* Twice to four times what one rounding of the result, of attention's weights, of what a gate reads, or of
 * TF32's inputs can do. */
double vd_cuda_trial_tolerance(const vd_cuda_problem *problem, bool tf32) {
    vd_dtype dtype = vd_cuda_problem_dtype(problem);
    if (dtype == VD_F32)
        return tf32 ? 4e-3 : 1e-4;
    return dtype == VD_F16 ? 2e-3 : 1.6e-2;
}
