/* Rates of the CPU backend's own kernels on one thread: row kernels in GB/s (bytes read once and written
 * once), attention in GFLOP/s (4 * tokens^2 * width a head and sequence) and GB/s (qkv read once, result
 * written once).
 *
 *     bench_kernels [sse2|avx2|avx512] [filter]
 *
 * A time is that of one call, the shortest of as many as fit into 60 ms, at least 5, after one call that
 * warms up. Row kernels run on 512 KiB (second-level cache) and on 64 MiB (memory). */
#include "base/thread.h"
#include "device/cpu_kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct bench {
    const vd_kernels *k;
    const char *filter;
    vd_dtype dtype;
    int64_t rows, c;
    void *x, *y, *scratch;
    float *scale, *shift;
    double *mean, *m2;
    const vd_attention *attention;
} bench;

/* Memory of ones; an exit is all that a benchmark can do about a failure. */
static void *filled(size_t bytes) {
    void *memory = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!memory) {
        fprintf(stderr, "bench_kernels: no memory for %zu bytes\n", bytes);
        exit(VD_ERR_UNAVAILABLE);
    }
    memset(memory, 0x3c, bytes); /* about 0.01 in fp32 and bf16, 1.06 in fp16 */
    return memory;
}

static double shortest(void (*run)(bench *), bench *b) {
    double best = 1e9, begin = vd_now();
    run(b);
    for (int i = 0; i < 5 || vd_now() - begin < 0.06; i++) {
        double start = vd_now();
        run(b);
        double time = vd_now() - start;
        best = time < best ? time : best;
    }
    return best;
}

static vd_cells cells(const bench *b, void *data, int64_t c) {
    return (vd_cells){data, b->dtype, c};
}

/* The centre is any vector: only the time counts. */
static vd_affine affine_of(const bench *b) {
    return (vd_affine){b->shift, b->scale, b->shift};
}

static void run_stats(bench *b) {
    b->k->column_stats(cells(b, b->x, b->c), b->rows, b->c, b->mean, b->m2);
}
static void run_scale(bench *b) {
    b->k->affine(cells(b, b->y, b->c), cells(b, b->x, b->c), b->rows, b->c, affine_of(b), false);
}
static void run_scale_silu(bench *b) {
    b->k->affine(cells(b, b->y, b->c), cells(b, b->x, b->c), b->rows, b->c, affine_of(b), true);
}
static void run_layer_norm(bench *b) {
    b->k->layer_norm(cells(b, b->y, b->c), cells(b, b->x, b->c), b->rows, b->c, b->scale, b->shift, 1e-5f);
}
static void run_gelu(bench *b) {
    b->k->activate(cells(b, b->y, b->c), cells(b, b->x, b->c), b->rows, b->c, VD_ACT_GELU);
}
static void run_finish(bench *b) {
    vd_cells y = cells(b, b->y, b->c);
    b->k->finish(y, cells(b, b->x, b->c), y, (vd_cells){0}, 0, b->rows, b->c);
}
static void run_convert(bench *b) {
    b->k->convert((vd_cells){b->y, VD_F32, b->c}, cells(b, b->x, b->c), b->rows, b->c, 1);
}
static void run_attention(bench *b) {
    b->k->attention(b->attention, b->dtype, b->x, b->y, b->scratch);
}

typedef struct row_case {
    const char *name;
    void (*run)(bench *);
    int reads,
        writes; /* matrices of the storage type; a write of fp32 is counted as one of the storage type */
} row_case;

static const row_case row_cases[] = {
    {"column_stats", run_stats, 1, 0},
    {"scale_shift", run_scale, 1, 1},
    {"scale_shift + silu", run_scale_silu, 1, 1},
    {"layer_norm", run_layer_norm, 1, 1},
    {"gelu", run_gelu, 1, 1},
    {"finish, residual", run_finish, 2, 1},
    {"convert to fp32", run_convert, 1, 1},
};

static void bench_rows(bench *b, size_t bytes) {
    b->rows = (int64_t)(bytes / vd_dtype_bytes(b->dtype)) / b->c;
    for (size_t i = 0; i < sizeof row_cases / sizeof *row_cases; i++) {
        const row_case *q = &row_cases[i];
        if (b->filter && !strstr(q->name, b->filter))
            continue;
        double moved =
            (double)(q->reads + q->writes) * (double)(b->rows * b->c) * (double)vd_dtype_bytes(b->dtype);
        printf("%-20s %s %5zu KiB c %4lld  %7.1f GB/s\n", q->name, vd_dtype_name(b->dtype), bytes >> 10,
               (long long)b->c, moved / shortest(q->run, b) * 1e-9);
    }
}

static void all_rows(bench *b) {
    const size_t most = 64 << 20;
    b->x = filled(most);
    b->y = filled(2 * most);
    b->scale = filled(4096 * sizeof(float));
    b->shift = filled(4096 * sizeof(float));
    b->mean = filled(4096 * sizeof(double));
    b->m2 = filled(4096 * sizeof(double));
    for (b->dtype = VD_F32; b->dtype <= VD_BF16; b->dtype++)
        for (b->c = 64; b->c <= 1280; b->c *= 20) {
            bench_rows(b, 512 << 10);
            bench_rows(b, most);
        }
    free(b->x);
    free(b->y);
    free(b->scale);
    free(b->shift);
    free(b->mean);
    free(b->m2);
}

typedef struct attention_case {
    const char *name;
    int heads, width;
    int64_t inner, tokens; /* inner > 1: temporal */
} attention_case;

static const attention_case attention_cases[] = {
    {"spatial 128 tokens", 4, 64, 1, 128},
    {"spatial 512 tokens", 4, 64, 1, 512},
    {"spatial 1024 tokens", 4, 64, 1, 1024},
    {"spatial 9216 tokens", 1, 64, 1, 9216},
    {"spatial 128 tokens", 4, 32, 1, 128},
    {"spatial 512 tokens", 4, 32, 1, 512},
    {"spatial 1024 tokens", 4, 32, 1, 1024},
    {"tiny model", 8, 4, 1, 1024},
    {"tiny model", 8, 8, 1, 256},
    {"CLIP", 16, 80, 1, 257},
    {"decoder", 1, 512, 1, 1024},
    {"temporal", 5, 64, 1024, 14},
    {"temporal", 5, 64, 1024, 25},
    {"temporal", 2, 32, 512, 7},
    {"temporal", 8, 4, 1024, 3},
};

static void bench_attention(bench *b, const attention_case *q) {
    vd_attention a = {
        .heads = q->heads, .width = q->width, .outer = 1, .inner = q->inner, .tokens = q->tokens};
    a.inner_stride = 1;
    a.token_stride = q->inner;
    a.scale = 1 / sqrtf((float)q->width);
    size_t row = (size_t)(q->heads * q->width) * vd_dtype_bytes(b->dtype),
           rows = (size_t)(q->inner * q->tokens);
    b->attention = &a;
    b->x = filled(3 * row * rows);
    b->y = filled(row * rows);
    b->scratch = filled(b->k->attention_scratch(&a, b->dtype));
    double time = shortest(run_attention, b);
    double flops =
        4.0 * (double)q->tokens * (double)q->tokens * (double)(q->heads * q->width) * (double)q->inner;
    printf("%-20s %s %2d x %3d, %4lld x %4lld tokens  %7.1f GFLOP/s %6.1f GB/s %9.3f ms\n", q->name,
           vd_dtype_name(b->dtype), q->heads, q->width, (long long)q->inner, (long long)q->tokens,
           flops / time * 1e-9, 4.0 * (double)(row * rows) / time * 1e-9, time * 1e3);
    free(b->x);
    free(b->y);
    free(b->scratch);
}

int main(int argc, char **argv) {
    bench b = {.k = vd_kernels_choose(argc > 1 ? argv[1] : NULL), .filter = argc > 2 ? argv[2] : NULL};
    printf("%s\n", b.k->isa);
    for (b.dtype = VD_F32; b.dtype <= VD_BF16; b.dtype += VD_BF16)
        for (size_t i = 0; i < sizeof attention_cases / sizeof *attention_cases; i++)
            if (!b.filter || strstr(attention_cases[i].name, b.filter))
                bench_attention(&b, &attention_cases[i]);
    all_rows(&b);
    return 0;
}
