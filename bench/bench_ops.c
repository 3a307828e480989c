/* Rates of convolutions, products and feed-forwards on one thread, beside the machine's own peak of fused
 * multiply-adds.
 *
 *     bench_ops [fp32|fp16|bf16] [filter]
 *
 * A time is that of one whole operation as the networks run it: norm and activation before the product, bias
 * and residual after it, from the call of its `run` to the return; planning, packing and memory are made
 * before. Each operation runs for at least 60 ms and 5 times; "best" is the fastest run, "median" the middle
 * one. Only the multiply-adds of products count, two each. The peak is measured between operations, the best
 * of all its windows of 2 ms. */
#include "base/thread.h"
#include "device/cpu.h"

#include "fma_peak.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RUNS = 400, MAX_VALUES = 8 };

typedef struct bench_case {
    const char *name;
    vd_op_kind kind;
    vd_shape src;
    int64_t c1, k; /* second source's channels; output channels or, of a feed-forward, hidden width */
    int64_t kh, kw;
    int stride, resize;  /* resize: factor of nearest neighbour before the convolution */
    bool norm, residual; /* group norm before convolutions (32 groups, silu), layer norm before linears */
} bench_case;

#define CONV(name, n, h, w, c, c1, k, kh, kw, stride, resize, norm, residual)                                \
    { name, VD_OP_CONV, {n, h, w, c}, c1, k, kh, kw, stride, resize, norm, residual }
#define LINEAR(name, n, h, w, c, k, norm, residual)                                                          \
    { name, VD_OP_LINEAR, {n, h, w, c}, 0, k, 1, 1, 1, 1, norm, residual }
#define FEED(name, n, h, w, c, hidden)                                                                       \
    { name, VD_OP_FEED_FORWARD, {n, h, w, c}, 0, hidden, 1, 1, 1, 1, true, true }

static const bench_case cases[] = {
    CONV("60M conv_in", 14, 16, 32, 8, 0, 64, 3, 3, 1, 1, false, false),
    CONV("60M level 0 conv", 14, 16, 32, 64, 0, 64, 3, 3, 1, 1, true, true),
    CONV("60M level 0 conv, skip", 14, 16, 32, 64, 64, 64, 3, 3, 1, 1, true, false),
    CONV("60M level 0 temporal", 2, 7, 512, 64, 0, 64, 3, 1, 1, 1, true, true),
    CONV("60M level 0 down", 14, 16, 32, 64, 0, 64, 3, 3, 2, 1, false, false),
    CONV("60M level 1 conv", 14, 8, 16, 128, 0, 128, 3, 3, 1, 1, true, true),
    CONV("60M level 1 temporal", 2, 7, 128, 128, 0, 128, 3, 1, 1, 1, true, true),
    CONV("60M level 2 conv", 14, 4, 8, 256, 0, 256, 3, 3, 1, 1, true, true),
    CONV("60M level 2 conv, skip", 14, 4, 8, 256, 256, 256, 3, 3, 1, 1, true, false),
    CONV("60M level 2 temporal", 2, 7, 32, 256, 0, 256, 3, 1, 1, 1, true, true),
    CONV("60M level 3 conv", 14, 2, 4, 256, 0, 256, 3, 3, 1, 1, true, true),
    CONV("60M level 3 temporal", 2, 7, 8, 256, 0, 256, 3, 1, 1, 1, true, true),
    CONV("60M level 2 up", 14, 4, 8, 256, 0, 256, 3, 3, 1, 2, false, false),
    CONV("60M conv_out", 14, 16, 32, 64, 0, 4, 3, 3, 1, 1, true, false),
    LINEAR("60M level 0 qkv", 14, 16, 32, 64, 192, true, false),
    LINEAR("60M level 0 out", 14, 16, 32, 64, 64, false, true),
    LINEAR("60M level 2 qkv", 14, 4, 8, 256, 768, true, false),
    LINEAR("60M time embedding", 1, 1, 1, 256, 256, false, false),
    FEED("60M level 0 feed-forward", 14, 16, 32, 64, 256),
    FEED("60M level 1 feed-forward", 14, 8, 16, 128, 512),
    FEED("60M level 2 feed-forward", 14, 4, 8, 256, 1024),
    CONV("tiny level 0 conv", 6, 32, 32, 32, 0, 32, 3, 3, 1, 1, true, true),
    CONV("tiny level 0 temporal", 2, 3, 1024, 32, 0, 32, 3, 1, 1, 1, true, true),
    CONV("tiny level 1 conv", 6, 16, 16, 64, 0, 64, 3, 3, 1, 1, true, true),
    CONV("tiny level 1 temporal", 2, 3, 256, 64, 0, 64, 3, 1, 1, 1, true, true),
    LINEAR("tiny level 0 qkv", 6, 32, 32, 32, 96, true, false),
    FEED("tiny level 0 feed-forward", 6, 32, 32, 32, 128),
    FEED("tiny level 1 feed-forward", 6, 16, 16, 64, 256),
    CONV("decoder 64 channels", 7, 128, 256, 64, 0, 64, 3, 3, 1, 1, true, true),
    CONV("decoder 64 temporal", 1, 7, 32768, 64, 0, 64, 3, 1, 1, 1, true, true),
    CONV("decoder 128 channels", 7, 64, 128, 128, 0, 128, 3, 3, 1, 1, true, true),
    CONV("decoder up", 7, 64, 128, 128, 0, 128, 3, 3, 1, 2, false, false),
    CONV("decoder conv_out", 7, 128, 256, 64, 0, 3, 3, 3, 1, 1, true, false),
    CONV("decoder time_conv_out", 1, 7, 32768, 3, 0, 3, 3, 1, 1, 1, false, false),
    CONV("CLIP patches", 1, 224, 224, 3, 0, 1280, 14, 14, 14, 1, false, false),
};

/* ---- one operation ---- */

static void must(vd_code code, const vd_error *err) {
    if (code == VD_OK)
        return;
    fprintf(stderr, "bench_ops: %s\n", err->message);
    exit(code);
}

static vd_code fill(const vd_constant *self, float *out, vd_error *err) {
    (void)err;
    int64_t count = self->dims[0] * self->dims[1] * self->dims[2] * self->dims[3];
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)((i * 2654435761u >> 8 & 255) - 127) / 2048;
    return VD_OK;
}

/* The library knows constants by their address until it closes, so they stay until the program ends. */
static const vd_constant *constant(int64_t a, int64_t b, int64_t c, int64_t d) {
    vd_constant *k = malloc(sizeof *k);
    if (!k)
        exit(VD_ERR_UNAVAILABLE);
    *k = (vd_constant){"weight", {a, b, c, d}, fill};
    return k;
}

static double add_conv(vd_program *p, const bench_case *q) {
    vd_shape s = q->src;
    int64_t c = s.c + q->c1;
    vd_conv op =
        VD_CONV(.src = vd_program_external(p, "src", p->dtype, s), .weight = constant(q->k, c, q->kh, q->kw),
                .bias = constant(q->k, 1, 1, 1), .in_h = (int)s.h * q->resize, .in_w = (int)s.w * q->resize);
    op.stride = q->stride;
    op.pad_top = op.pad_bottom = q->stride == q->kh ? 0 : (int)q->kh / 2;
    op.pad_left = op.pad_right = q->stride == q->kh ? 0 : (int)q->kw / 2;
    if (q->c1)
        op.src1 = vd_program_external(p, "src1", p->dtype, (vd_shape){s.n, s.h, s.w, q->c1});
    if (q->norm)
        op.norm = (vd_norm){VD_NORM_GROUP, constant(c, 1, 1, 1), constant(c, 1, 1, 1), 32, 1e-5f, true};
    vd_shape d = {s.n, (op.in_h + 2 * op.pad_top - q->kh) / q->stride + 1,
                  (op.in_w + 2 * op.pad_left - q->kw) / q->stride + 1, q->k};
    op.dst = vd_program_external(p, "dst", p->dtype, d);
    if (q->residual)
        op.residual = vd_program_external(p, "residual", p->dtype, d);
    vd_program_conv(p, op);
    return 2.0 * (double)(vd_shape_count(d) * c * q->kh * q->kw);
}

static double add_linear(vd_program *p, const bench_case *q) {
    vd_shape s = q->src, d = {s.n, s.h, s.w, q->k};
    vd_linear op = VD_LINEAR(.src = vd_program_external(p, "src", p->dtype, s),
                             .weight = constant(q->k, s.c, 1, 1), .bias = constant(q->k, 1, 1, 1));
    if (q->norm)
        op.norm = (vd_norm){VD_NORM_LAYER, constant(s.c, 1, 1, 1), constant(s.c, 1, 1, 1), 0, 1e-5f, false};
    op.dst = vd_program_external(p, "dst", p->dtype, d);
    if (q->residual)
        op.residual = vd_program_external(p, "residual", p->dtype, d);
    vd_program_linear(p, op);
    return 2.0 * (double)(vd_shape_count(d) * s.c);
}

static double add_feed_forward(vd_program *p, const bench_case *q) {
    int64_t c = q->src.c;
    vd_feed_forward op =
        VD_FEED_FORWARD(.src = vd_program_external(p, "src", p->dtype, q->src), .act = VD_ACT_GEGLU);
    op.norm = (vd_norm){VD_NORM_LAYER, constant(c, 1, 1, 1), constant(c, 1, 1, 1), 0, 1e-5f, false};
    op.up_weight = constant(2 * q->k, c, 1, 1);
    op.up_bias = constant(2 * q->k, 1, 1, 1);
    op.down_weight = constant(c, q->k, 1, 1);
    op.down_bias = constant(c, 1, 1, 1);
    op.dst = vd_program_external(p, "dst", p->dtype, q->src);
    vd_program_feed_forward(p, op);
    return 6.0 * (double)(vd_shape_count(q->src) * q->k);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct bench_time {
    double best, median;
} bench_time;

static bench_time measure(const vd_program *p, const vd_cpu_plan *plan, const vd_cpu_call *call,
                          vd_error *err) {
    double seconds[MAX_RUNS], end = vd_now() + 0.06;
    int count = 0;
    const vd_cpu_op *table = vd_cpu_ops[p->ops[0].kind];
    must(table->run(p, &p->ops[0], plan, call, err), err);
    while (count < MAX_RUNS && (count < 5 || vd_now() < end)) {
        double begin = vd_now();
        must(table->run(p, &p->ops[0], plan, call, err), err);
        seconds[count++] = vd_now() - begin;
    }
    qsort(seconds, (size_t)count, sizeof *seconds, by_size);
    return (bench_time){seconds[0], seconds[count / 2]};
}

/* Memory of an external value, filled with small numbers so that no arithmetic is denormal. */
static void *memory_of(const vd_value_info *v) {
    size_t count = (size_t)vd_shape_count(v->shape);
    void *memory = NULL;
    if (posix_memalign(&memory, 256, count * vd_dtype_bytes(v->dtype)))
        exit(VD_ERR_UNAVAILABLE);
    for (size_t i = 0; i < count; i++)
        if (v->dtype == VD_F32)
            ((float *)memory)[i] = (float)(i * 2654435761u >> 24 & 255) / 256;
        else
            ((uint16_t *)memory)[i] =
                (uint16_t)((v->dtype == VD_F16 ? 0x3800 : 0x3f00) + (i * 2654435761u >> 24 & 63));
    return memory;
}

static bench_time run_case(vd_cpu_library *l, vd_cpu_worker *w, const bench_case *q, vd_dtype dtype,
                           double *flops) {
    vd_error err = {0};
    vd_program *p = vd_program_new("bench", dtype);
    if (!p)
        exit(VD_ERR_UNAVAILABLE);
    *flops = q->kind == VD_OP_CONV     ? add_conv(p, q)
             : q->kind == VD_OP_LINEAR ? add_linear(p, q)
                                       : add_feed_forward(p, q);
    must(vd_program_finish(p, &err), &err);
    void *at[MAX_VALUES] = {0};
    for (int v = 0; v < p->value_count; v++)
        at[v] = memory_of(&p->values[v]);
    vd_cpu_plan *plan = NULL;
    size_t scratch_bytes = 0;
    void *scratch = NULL;
    const vd_cpu_op *table = vd_cpu_ops[q->kind];
    must(vd_cpu_plan_new(table, l, p, &p->ops[0], &plan, &scratch_bytes, &err), &err);
    must(table->load(l, plan, &err), &err);
    if (posix_memalign(&scratch, 256, scratch_bytes + 256))
        exit(VD_ERR_UNAVAILABLE);
    bench_time time = measure(p, plan, &(vd_cpu_call){.at = at, .scratch = scratch, .worker = w}, &err);
    free(plan);
    free(scratch);
    for (int v = 0; v < p->value_count; v++)
        free(at[v]);
    vd_program_free(p);
    return time;
}

int main(int argc, char **argv) {
    const char *type = argc > 1 ? argv[1] : "fp32", *filter = argc > 2 ? argv[2] : "";
    vd_dtype dtype = !strcmp(type, "bf16") ? VD_BF16 : !strcmp(type, "fp16") ? VD_F16 : VD_F32;
    vd_error err = {0};
    vd_cpu_library *l = NULL;
    vd_cpu_worker *w = NULL;
    must(vd_cpu_library_open(&l, &err), &err);
    must(vd_cpu_worker_open(l, &w, &err), &err);
    vd_fma_peak p = {0};
    printf("%s storage, kernels of our own: %s\n", vd_dtype_name(dtype), vd_cpu_library_kernels(l)->isa);
    printf("%-28s %10s %10s %9s %7s\n", "operation", "best ms", "median ms", "GFLOP/s", "of peak");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double flops = 0;
        if (!strstr(cases[i].name, filter))
            continue;
        vd_fma_peak_measure(&p);
        bench_time t = run_case(l, w, &cases[i], dtype, &flops);
        printf("%-28s %10.3f %10.3f %9.1f %6.0f%%\n", cases[i].name, t.best * 1e3, t.median * 1e3,
               flops / t.best * 1e-9, 100 * flops / t.best / p.best);
    }
    printf("peak %.1f GFLOP/s fp32 (sum %g)\n", p.best * 1e-9, (double)p.sink);
    vd_cpu_worker_close(w);
    vd_cpu_library_close(l);
    return 0;
}
