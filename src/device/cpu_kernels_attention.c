/* Attention that never holds a matrix of scores: online softmax over blocks of keys. Compiled once per
 * instruction set.
 *
 * Lanes are queries. A tile is up to VECTORS vectors of queries of one head; for it, scores^T = K Q^T and
 * out^T = V^T P^T, so both products broadcast single elements of plain K and V rows, and the softmax runs
 * down the columns. Only Q is transposed on the way in and the result on the way out. Several tiles share one
 * pass over the keys, whose blocks are brought to dense fp32 once per pass. */
#include "device/cpu_kernels_isa.h"
#include "device/cpu_vmath.h"

#include <float.h>

/* ROWS x VECTORS accumulators, VECTORS operands and a broadcast fill the registers. */
enum {
    ROWS = VD_LANES == 16 ? 8 : 4,
    HALF = ROWS / 2,
    VECTORS = 3,
    QUERIES = VECTORS * VD_LANES,
    KEYS = 64, /* of a block; a multiple of ROWS */
    MAX_TILES = 8,
    TILE_FLOATS = 65536, /* of transposed queries together: a share of the second-level cache */
};

typedef struct tile {
    float *query;         /* [width][QUERIES], times scale * log2(e) */
    float *out;           /* [padded][QUERIES], to be divided by sum */
    float *max;           /* [QUERIES], so far */
    float *sum;           /* [QUERIES] of 2^(score - max) */
    int64_t first, count; /* queries */
} tile;

typedef struct pass {
    int64_t width, padded; /* head width; the same rounded up to HALF */
    int tiles;             /* room for */
    float *keys;           /* [KEYS][width] */
    float *values;         /* [KEYS][padded] */
    float *scores;         /* [KEYS][QUERIES], then the probabilities */
    float *decay;          /* [QUERIES]: 2^(old max - new max) */
    tile tile[MAX_TILES];
} pass;

static int64_t round_up(int64_t x, int64_t to) {
    return (x + to - 1) / to * to;
}

/* Sizes in floats, of whole vectors; one vector more where rows are written in whole vectors. */
static int64_t keys_floats(const pass *p) {
    return KEYS * p->width + 16;
}
static int64_t values_floats(const pass *p) {
    return KEYS * p->padded + 16;
}
static int64_t tile_floats(const pass *p) {
    return (p->width + p->padded + 2) * QUERIES;
}
static int64_t pass_floats(const pass *p) {
    return keys_floats(p) + values_floats(p) + (KEYS + 1) * QUERIES + p->tiles * tile_floats(p);
}

static pass size_pass(const vd_attention *args) {
    int64_t wanted = round_up(args->tokens, QUERIES) / QUERIES, fit = TILE_FLOATS / (QUERIES * args->width);
    int64_t tiles = fit < 2 ? 2 : fit > MAX_TILES ? MAX_TILES : fit;
    return (pass){.width = args->width,
                  .padded = round_up(args->width, HALF),
                  .tiles = (int)(wanted < tiles ? wanted : tiles)};
}

static void place_pass(pass *p, float *scratch) {
    p->keys = scratch;
    p->values = p->keys + keys_floats(p);
    p->scores = p->values + values_floats(p);
    p->decay = p->scores + KEYS * QUERIES;
    for (int i = 0; i < p->tiles; i++) {
        tile *t = &p->tile[i];
        t->query = p->decay + QUERIES + i * tile_floats(p);
        t->out = t->query + p->width * QUERIES;
        t->max = t->out + p->padded * QUERIES;
        t->sum = t->max + QUERIES;
    }
}

/* One head of one sequence in memory. */
typedef struct head {
    const char *q, *k, *v; /* of token 0 */
    char *to;
    size_t pitch, to_pitch; /* bytes between tokens */
    int64_t width, tokens;
    float scale;
} head;

/* Rows of `width` elements become dense fp32 rows of `pitch`; the gap is zero. */
VD_INLINE void unpack(vd_dtype t, float *to, int64_t pitch, const char *from, size_t from_pitch, int64_t rows,
                      int64_t width) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < width; j += VD_LANES)
            vd_store(to + r * pitch, VD_F32, j,
                     vd_load_part(from + (size_t)r * from_pitch, t, j, vd_part_of(j, width)));
}

/* m[i] lane j becomes m[j] lane i: log2(VD_LANES) perfect shuffles. */
VD_INLINE void transpose(vd_vec m[VD_LANES]) {
#if VD_LANES == 16
#define VD_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define VD_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif VD_LANES == 8
#define VD_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define VD_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define VD_LOW 0, 4, 1, 5
#define VD_HIGH 2, 6, 3, 7
#endif
    for (int span = 1; span < VD_LANES; span *= 2) {
        vd_vec next[VD_LANES];
        for (int i = 0; i < VD_LANES / 2; i++) {
            next[2 * i] = __builtin_shufflevector(m[i], m[i + VD_LANES / 2], VD_LOW);
            next[2 * i + 1] = __builtin_shufflevector(m[i], m[i + VD_LANES / 2], VD_HIGH);
        }
        memcpy(m, next, sizeof next);
    }
#undef VD_LOW
#undef VD_HIGH
}

VD_INLINE void transpose_queries(vd_dtype t, const head *h, tile *to) {
    const char *from = h->q + (size_t)to->first * h->pitch;
    const vd_vec none = {0};
    for (int64_t i = 0; i < to->count; i += VD_LANES)
        for (int64_t j = 0; j < h->width; j += VD_LANES) {
            int64_t tokens = vd_part_of(i, to->count), n = vd_part_of(j, h->width);
            vd_vec m[VD_LANES];
            for (int64_t r = 0; r < VD_LANES; r++)
                m[r] =
                    r < tokens ? vd_load_part(from + (size_t)(i + r) * h->pitch, t, j, n) * h->scale : none;
            transpose(m);
            for (int64_t r = 0; r < n; r++)
                vd_store(to->query + (j + r) * QUERIES, VD_F32, i, m[r]);
        }
}

VD_INLINE void transpose_result(vd_dtype t, const head *h, const tile *from) {
    char *to = h->to + (size_t)from->first * h->to_pitch;
    const vd_vec none = {0};
    for (int64_t i = 0; i < from->count; i += VD_LANES) {
        vd_vec inverse = 1.0f / vd_load(from->sum, VD_F32, i);
        for (int64_t j = 0; j < h->width; j += VD_LANES) {
            int64_t tokens = vd_part_of(i, from->count), n = vd_part_of(j, h->width);
            vd_vec m[VD_LANES];
            for (int64_t r = 0; r < VD_LANES; r++)
                m[r] = r < n ? vd_load(from->out + (j + r) * QUERIES, VD_F32, i) * inverse : none;
            transpose(m);
            for (int64_t r = 0; r < tokens; r++)
                vd_store_part(to + (size_t)(i + r) * h->to_pitch, t, j, n, m[r]);
        }
    }
}

/* Scores of ROWS keys, and the largest so far. */
VD_INLINE void score_rows(int vectors, const float *query, const float *keys, int64_t width, float *scores,
                          vd_vec max[VECTORS]) {
    vd_vec sum[ROWS][VECTORS] = {0};
    for (int64_t d = 0; d < width; d++) {
        vd_vec q[VECTORS];
        for (int v = 0; v < vectors; v++)
            q[v] = vd_load(query + d * QUERIES, VD_F32, v * VD_LANES);
        for (int i = 0; i < ROWS; i++) {
            vd_vec k = vd_all(keys[i * width + d]);
            for (int v = 0; v < vectors; v++)
                sum[i][v] = vd_fma(k, q[v], sum[i][v]);
        }
    }
    for (int i = 0; i < ROWS; i++)
        for (int v = 0; v < vectors; v++) {
            vd_store(scores + i * QUERIES, VD_F32, v * VD_LANES, sum[i][v]);
            max[v] = vd_at_least(sum[i][v], max[v]);
        }
}

/* Scores become probabilities relative to the maximum so far. */
VD_INLINE void soften(int vectors, bool first, float *scores, int64_t keys, const vd_vec max[VECTORS],
                      tile *t, float *decay) {
    vd_vec sum[VECTORS] = {0};
    for (int64_t k = 0; k < keys; k++)
        for (int v = 0; v < vectors; v++) {
            vd_vec p = vd_exp2_negative(vd_load(scores + k * QUERIES, VD_F32, v * VD_LANES) - max[v]);
            vd_store(scores + k * QUERIES, VD_F32, v * VD_LANES, p);
            sum[v] += p;
        }
    for (int v = 0; v < vectors; v++) {
        if (!first) {
            vd_vec fall = vd_exp2_negative(vd_load(t->max, VD_F32, v * VD_LANES) - max[v]);
            vd_store(decay, VD_F32, v * VD_LANES, fall);
            sum[v] = vd_fma(vd_load(t->sum, VD_F32, v * VD_LANES), fall, sum[v]);
        }
        vd_store(t->max, VD_F32, v * VD_LANES, max[v]);
        vd_store(t->sum, VD_F32, v * VD_LANES, sum[v]);
    }
}

/* Adds the block's values to `rows` channels of the result. */
VD_INLINE void mix_rows(int rows, int vectors, bool first, const float *scores, const float *values,
                        int64_t pitch, int64_t keys, const float *decay, float *out) {
    vd_vec sum[ROWS][VECTORS] = {0};
    for (int64_t k = 0; k < keys; k++) {
        vd_vec p[VECTORS];
        for (int v = 0; v < vectors; v++)
            p[v] = vd_load(scores + k * QUERIES, VD_F32, v * VD_LANES);
        for (int i = 0; i < rows; i++) {
            vd_vec x = vd_all(values[k * pitch + i]);
            for (int v = 0; v < vectors; v++)
                sum[i][v] = vd_fma(x, p[v], sum[i][v]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) {
            float *to = out + i * QUERIES;
            if (!first)
                sum[i][v] = vd_fma(vd_load(to, VD_F32, v * VD_LANES), vd_load(decay, VD_F32, v * VD_LANES),
                                   sum[i][v]);
            vd_store(to, VD_F32, v * VD_LANES, sum[i][v]);
        }
}

VD_INLINE void attend_block(int vectors, const pass *p, bool first, int64_t keys, tile *t) {
    vd_vec max[VECTORS];
    for (int v = 0; v < vectors; v++)
        max[v] = first ? vd_all(-FLT_MAX) : vd_load(t->max, VD_F32, v * VD_LANES);
    for (int64_t k = 0; k < keys; k += ROWS)
        score_rows(vectors, t->query, p->keys + k * p->width, p->width, p->scores + k * QUERIES, max);
    soften(vectors, first, p->scores, keys, max, t, p->decay);
    int64_t j = 0;
    for (; j + ROWS <= p->padded; j += ROWS)
        mix_rows(ROWS, vectors, first, p->scores, p->values + j, p->padded, keys, p->decay,
                 t->out + j * QUERIES);
    if (j < p->padded)
        mix_rows(HALF, vectors, first, p->scores, p->values + j, p->padded, keys, p->decay,
                 t->out + j * QUERIES);
}

static void attend(const pass *p, bool first, int64_t keys, tile *t) {
    int64_t vectors = round_up(t->count, VD_LANES) / VD_LANES;
    if (vectors == 1)
        attend_block(1, p, first, keys, t);
    else if (vectors == 2)
        attend_block(2, p, first, keys, t);
    else
        attend_block(VECTORS, p, first, keys, t);
}

VD_INLINE void start_tile(vd_dtype type, const head *h, int64_t first, tile *t) {
    int64_t left = h->tokens - first;
    t->first = first;
    t->count = left < QUERIES ? left : QUERIES;
    transpose_queries(type, h, t);
}

VD_INLINE void load_block(vd_dtype type, const head *h, int64_t first, int64_t keys, const pass *p) {
    size_t offset = (size_t)first * h->pitch;
    unpack(type, p->keys, p->width, h->k + offset, h->pitch, keys, p->width);
    /* Up to whole ROWS, copies of the last key: they raise no maximum. */
    for (int64_t k = keys; k < round_up(keys, ROWS); k++)
        memcpy(p->keys + k * p->width, p->keys + (keys - 1) * p->width, (size_t)p->width * sizeof(float));
    unpack(type, p->values, p->padded, h->v + offset, h->pitch, keys, p->width);
}

VD_INLINE void attend_head(vd_dtype type, const head *h, pass *p) {
    int64_t next = 0;
    while (next < h->tokens) {
        int tiles = 0;
        for (; tiles < p->tiles && next < h->tokens; tiles++, next += QUERIES)
            start_tile(type, h, next, &p->tile[tiles]);
        for (int64_t first = 0; first < h->tokens; first += KEYS) {
            int64_t keys = h->tokens - first < KEYS ? h->tokens - first : KEYS;
            load_block(type, h, first, keys, p);
            for (int i = 0; i < tiles; i++)
                attend(p, first == 0, keys, &p->tile[i]);
        }
        for (int i = 0; i < tiles; i++)
            transpose_result(type, h, &p->tile[i]);
    }
}

static void attend_head_f32(const head *h, pass *p) {
    attend_head(VD_F32, h, p);
}
static void attend_head_f16(const head *h, pass *p) {
    attend_head(VD_F16, h, p);
}
static void attend_head_bf16(const head *h, pass *p) {
    attend_head(VD_BF16, h, p);
}

void VD_ISA_NAME(vd_attention)(const vd_attention *args, vd_dtype dtype, const void *qkv, void *to,
                               void *scratch) {
    void (*run)(const head *, pass *) = dtype == VD_F32   ? attend_head_f32
                                        : dtype == VD_F16 ? attend_head_f16
                                                          : attend_head_bf16;
    size_t element = vd_float_bytes(dtype), slice = (size_t)args->width * element,
           row = (size_t)args->heads * slice;
    pass p = size_pass(args);
    place_pass(&p, scratch);
    for (int64_t o = 0; o < args->outer; o++)
        for (int64_t i = 0; i < args->inner; i++) {
            size_t first = (size_t)(o * args->outer_stride + i * args->inner_stride) * row;
            for (int n = 0; n < args->heads; n++) {
                const char *q = (const char *)qkv + 3 * first + (size_t)n * slice;
                head h = {.q = q,
                          .k = q + row,
                          .v = q + 2 * row,
                          .to = (char *)to + first + (size_t)n * slice,
                          .pitch = (size_t)args->token_stride * 3 * row,
                          .to_pitch = (size_t)args->token_stride * row,
                          .width = args->width,
                          .tokens = args->tokens,
                          .scale = args->scale * 1.44269504f};
                run(&h, &p);
            }
        }
}

size_t VD_ISA_NAME(vd_attention_scratch)(const vd_attention *args, vd_dtype dtype) {
    (void)dtype;
    pass p = size_pass(args);
    return (size_t)pass_floats(&p) * sizeof(float);
}
