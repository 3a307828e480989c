/* Kernels that go over the rows of a matrix. Compiled once per instruction set (VD_ISA). */
#include "device/cpu_kernels_isa.h"
#include "device/cpu_vmath.h"

#include <math.h>

/* switch (to type, from type) { each pair: body(to type, from type, ...) } with the types as constants. */
#define TYPE_CASE(a, b, body, ...)                                                                           \
    case (a)*3 + (b):                                                                                        \
        body(a, b, __VA_ARGS__);                                                                             \
        break;
#define FOR_TYPES(to, from, body, ...)                                                                       \
    switch ((int)(to)*3 + (int)(from)) {                                                                     \
        TYPE_CASE(VD_F32, VD_F32, body, __VA_ARGS__)                                                         \
        TYPE_CASE(VD_F32, VD_F16, body, __VA_ARGS__)                                                         \
        TYPE_CASE(VD_F32, VD_BF16, body, __VA_ARGS__)                                                        \
        TYPE_CASE(VD_F16, VD_F32, body, __VA_ARGS__)                                                         \
        TYPE_CASE(VD_F16, VD_F16, body, __VA_ARGS__)                                                         \
        TYPE_CASE(VD_F16, VD_BF16, body, __VA_ARGS__)                                                        \
        TYPE_CASE(VD_BF16, VD_F32, body, __VA_ARGS__)                                                        \
        TYPE_CASE(VD_BF16, VD_F16, body, __VA_ARGS__)                                                        \
        TYPE_CASE(VD_BF16, VD_BF16, body, __VA_ARGS__)                                                       \
    }

VD_INLINE char *row_of(vd_cells m, vd_dtype t, int64_t r) {
    return (char *)m.data + (size_t)(r * m.pitch) * vd_float_bytes(t);
}

/* Everything that a value of the destination may depend on. */
typedef struct sources {
    vd_cells x, residual, mix;
    vd_affine affine;
    const float *row; /* [c] */
    float factor;     /* convert: the scale; finish: alpha */
    int64_t c;
} sources;

/* Elements j .. j + n - 1 of row r of the result; x is of type t. */
typedef vd_vec formula(const sources *s, vd_dtype t, int64_t r, int64_t j, int64_t n);

VD_INLINE void map_rows(vd_dtype to_type, vd_dtype from_type, vd_cells to, const sources *s, int64_t rows,
                        formula *f) {
    for (int64_t r = 0; r < rows; r++) {
        char *out = row_of(to, to_type, r);
        int64_t j = 0;
        for (; j + VD_LANES <= s->c; j += VD_LANES)
            vd_store(out, to_type, j, f(s, from_type, r, j, VD_LANES));
        if (j < s->c)
            vd_store_part(out, to_type, j, s->c - j, f(s, from_type, r, j, s->c - j));
    }
}

#define MAP(f) FOR_TYPES(to.dtype, s.x.dtype, map_rows, to, &s, rows, f)

VD_INLINE vd_vec at(vd_cells m, vd_dtype t, int64_t r, int64_t j, int64_t n) {
    return vd_load_part(row_of(m, t, r), t, j, n);
}

VD_INLINE vd_vec scaled(const sources *s, vd_dtype t, int64_t r, int64_t j, int64_t n) {
    vd_vec centre = vd_load_part(s->affine.centre, VD_F32, j, n);
    vd_vec scale = vd_load_part(s->affine.scale, VD_F32, j, n);
    return vd_fma(at(s->x, t, r, j, n) - centre, scale, vd_load_part(s->affine.shift, VD_F32, j, n));
}

VD_INLINE vd_vec scaled_silu(const sources *s, vd_dtype t, int64_t r, int64_t j, int64_t n) {
    return vd_swish(scaled(s, t, r, j, n), 1.0f);
}

VD_INLINE vd_vec shifted(const sources *s, vd_dtype t, int64_t r, int64_t j, int64_t n) {
    return at(s->x, t, r, j, n) + vd_load_part(s->row, VD_F32, j, n);
}

VD_INLINE vd_vec silu(const sources *s, vd_dtype t, int64_t r, int64_t j, int64_t n) {
    return vd_swish(at(s->x, t, r, j, n), 1.0f);
}

VD_INLINE vd_vec gelu(const sources *s, vd_dtype t, int64_t r, int64_t j, int64_t n) {
    return vd_gelu(at(s->x, t, r, j, n));
}

VD_INLINE vd_vec quick_gelu(const sources *s, vd_dtype t, int64_t r, int64_t j, int64_t n) {
    return vd_swish(at(s->x, t, r, j, n), 1.702f);
}

VD_INLINE vd_vec geglu(const sources *s, vd_dtype t, int64_t r, int64_t j, int64_t n) {
    return at(s->x, t, r, j, n) * vd_gelu(at(s->x, t, r, s->c + j, n));
}

VD_INLINE vd_vec multiplied(const sources *s, vd_dtype t, int64_t r, int64_t j, int64_t n) {
    return at(s->x, t, r, j, n) * s->factor;
}

VD_INLINE vd_vec finished(const sources *s, vd_dtype t, int64_t r, int64_t j, int64_t n) {
    vd_vec y = at(s->x, t, r, j, n);
    if (s->residual.data)
        y += at(s->residual, s->residual.dtype, r, j, n);
    if (s->mix.data)
        y = vd_fma(vd_all(s->factor), at(s->mix, s->mix.dtype, r, j, n), y * (1.0f - s->factor));
    return y;
}

static void affine(vd_cells to, vd_cells x, int64_t rows, int64_t c, vd_affine given, bool silu_too) {
    sources s = {.x = x, .affine = given, .c = c};
    if (silu_too)
        MAP(scaled_silu)
    else
        MAP(scaled)
}

static void add_row(vd_cells to, vd_cells x, int64_t rows, int64_t c, const float *row) {
    sources s = {.x = x, .row = row, .c = c};
    MAP(shifted)
}

/* Without a vector per column, dense rows are one long row. */
VD_INLINE bool dense(vd_cells m, int64_t c) {
    return !m.data || m.pitch == c;
}

static void activate(vd_cells to, vd_cells x, int64_t rows, int64_t c, vd_act act) {
    bool flat = act != VD_ACT_GEGLU && dense(to, c) && dense(x, c);
    sources s = {.x = x, .c = flat ? rows * c : c};
    rows = flat ? 1 : rows;
    if (act == VD_ACT_SILU)
        MAP(silu)
    else if (act == VD_ACT_GELU)
        MAP(gelu)
    else if (act == VD_ACT_QUICK_GELU)
        MAP(quick_gelu)
    else
        MAP(geglu)
}

static void finish(vd_cells to, vd_cells x, vd_cells residual, vd_cells mix, float alpha, int64_t rows,
                   int64_t c) {
    bool flat = dense(to, c) && dense(x, c) && dense(residual, c) && dense(mix, c);
    sources s = {.x = x, .residual = residual, .mix = mix, .factor = alpha, .c = flat ? rows * c : c};
    rows = flat ? 1 : rows;
    MAP(finished)
}

static void convert(vd_cells to, vd_cells x, int64_t rows, int64_t c, float scale) {
    bool flat = dense(to, c) && dense(x, c);
    sources s = {.x = x, .factor = scale, .c = flat ? rows * c : c};
    rows = flat ? 1 : rows;
    MAP(multiplied)
}

/* Sums of a row around `shift` and of the squares: the mean is shift + sum / c. Several chains of additions
 * hide their latency. */
VD_INLINE void row_sums(const char *x, vd_dtype t, int64_t c, float shift, float *sum, float *squares) {
    enum { CHAINS = 4 };
    vd_vec total[CHAINS] = {0}, square[CHAINS] = {0}, first = vd_all(shift);
    int64_t j = 0;
    for (; j + CHAINS * VD_LANES <= c; j += CHAINS * VD_LANES)
        for (int i = 0; i < CHAINS; i++) {
            vd_vec d = vd_load(x, t, j + i * VD_LANES) - first;
            total[i] += d;
            square[i] = vd_fma(d, d, square[i]);
        }
    for (; j < c; j += VD_LANES) {
        int64_t n = vd_part_of(j, c);
        vd_vec d = vd_keep(vd_load_part(x, t, j, n) - first, n);
        total[0] += d;
        square[0] = vd_fma(d, d, square[0]);
    }
    *sum = vd_sum((total[0] + total[1]) + (total[2] + total[3]));
    *squares = vd_sum((square[0] + square[1]) + (square[2] + square[3]));
}

/* The first pass finds the mean to a few ulp; the second, around that, corrects it and gives the variance. */
VD_INLINE void normalise_rows(vd_dtype to_type, vd_dtype from_type, vd_cells to, vd_cells x, int64_t rows,
                              int64_t c, const float *gamma, const float *beta, float eps) {
    float share = 1.0f / (float)c;
    for (int64_t r = 0; r < rows; r++) {
        const char *in = row_of(x, from_type, r);
        char *out = row_of(to, to_type, r);
        float sum, squares;
        row_sums(in, from_type, c, 0.0f, &sum, &squares);
        float mean = sum * share;
        row_sums(in, from_type, c, mean, &sum, &squares);
        float rest = sum * share, variance = (squares - sum * rest) * share;
        vd_vec first = vd_all(mean), second = vd_all(rest), inverse = vd_all(1.0f / sqrtf(variance + eps));
        for (int64_t j = 0; j < c; j += VD_LANES) {
            int64_t n = vd_part_of(j, c);
            vd_vec y = (vd_load_part(in, from_type, j, n) - first - second) * inverse;
            y = vd_fma(y, vd_load_part(gamma, VD_F32, j, n), vd_load_part(beta, VD_F32, j, n));
            vd_store_part(out, to_type, j, n, y);
        }
    }
}

static void layer_norm(vd_cells to, vd_cells x, int64_t rows, int64_t c, const float *gamma,
                       const float *beta, float eps) {
    FOR_TYPES(to.dtype, x.dtype, normalise_rows, to, x, rows, c, gamma, beta, eps)
}

/* Column statistics go over the matrix once: blocks of few rows are summed in fp32 around the mean so far,
 * and joined in double (Chan, Golub and LeVeque). A row far from that mean adds as much to the result as to
 * its error. */
enum { TILE = 256, BLOCK = 32, STEP = 4 };

typedef struct column_sums { /* of one block */
    float shift[TILE], sum[TILE], squares[TILE];
} column_sums;

VD_INLINE void add_rows(vd_dtype t, const char *x, size_t pitch, int rows, int64_t c, column_sums *s) {
    for (int64_t j = 0; j < c; j += VD_LANES) {
        int64_t n = vd_part_of(j, c);
        vd_vec shift = vd_load(s->shift, VD_F32, j), sum = vd_load(s->sum, VD_F32, j);
        vd_vec squares = vd_load(s->squares, VD_F32, j);
        for (int r = 0; r < rows; r++) {
            vd_vec d = vd_load_part(x + (size_t)r * pitch, t, j, n) - shift;
            sum += d;
            squares = vd_fma(d, d, squares);
        }
        vd_store(s->sum, VD_F32, j, sum);
        vd_store(s->squares, VD_F32, j, squares);
    }
}

/* Joins a block of `rows` rows to the `before` rows behind mean and m2. */
static void join(const column_sums *s, int64_t before, int64_t rows, int64_t c, double *mean, double *m2) {
    double count = (double)rows, share = count / (double)(before + rows);
    for (int64_t j = 0; j < c; j++) {
        double offset = s->sum[j] / count;
        double own = s->squares[j] - s->sum[j] * offset;
        double delta = s->shift[j] + offset - mean[j];
        mean[j] += delta * share;
        m2[j] += (own > 0 ? own : 0) + delta * delta * share * (double)before;
    }
}

/* Sums a block around the means so far. */
VD_INLINE void block_sums(vd_dtype t, const char *x, size_t pitch, int64_t rows, int64_t c,
                          const double *mean, column_sums *s) {
    int64_t r = 0;
    for (int64_t j = 0; j < c; j++)
        s->shift[j] = (float)mean[j];
    memset(s->sum, 0, sizeof s->sum);
    memset(s->squares, 0, sizeof s->squares);
    for (; r + STEP <= rows; r += STEP)
        add_rows(t, x + (size_t)r * pitch, pitch, STEP, c, s);
    for (; r < rows; r++)
        add_rows(t, x + (size_t)r * pitch, pitch, 1, c, s);
}

/* c <= TILE. The first block is gone over twice: its own mean is the first shift. */
VD_INLINE void tile_stats(vd_dtype t, vd_cells x, int64_t rows, int64_t c, double *mean, double *m2) {
    size_t pitch = (size_t)x.pitch * vd_float_bytes(t);
    int64_t first = rows < BLOCK ? rows : BLOCK;
    column_sums s = {0};
    memset(mean, 0, (size_t)c * sizeof *mean);
    memset(m2, 0, (size_t)c * sizeof *m2);
    block_sums(t, x.data, pitch, first, c, mean, &s);
    for (int64_t j = 0; j < c; j++)
        mean[j] = s.sum[j] / (double)first;
    for (int64_t r = 0; r < rows; r += BLOCK) {
        int64_t block = rows - r < BLOCK ? rows - r : BLOCK;
        block_sums(t, row_of(x, t, r), pitch, block, c, mean, &s);
        join(&s, r, block, c, mean, m2);
    }
}

static void column_stats(vd_cells x, int64_t rows, int64_t c, double *mean, double *m2) {
    for (int64_t j = 0; j < c; j += TILE) {
        int64_t n = c - j < TILE ? c - j : TILE;
        vd_cells part = x;
        part.data = (char *)x.data + (size_t)j * vd_float_bytes(x.dtype);
        if (x.dtype == VD_F32)
            tile_stats(VD_F32, part, rows, n, mean + j, m2 + j);
        else if (x.dtype == VD_F16)
            tile_stats(VD_F16, part, rows, n, mean + j, m2 + j);
        else
            tile_stats(VD_BF16, part, rows, n, mean + j, m2 + j);
    }
}

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const vd_kernels VD_ISA_NAME(vd_kernels) = {
    .isa = TEXT(VD_ISA),
    .column_stats = column_stats,
    .affine = affine,
    .layer_norm = layer_norm,
    .add_row = add_row,
    .activate = activate,
    .finish = finish,
    .convert = convert,
    .attention = VD_ISA_NAME(vd_attention),
    .attention_scratch = VD_ISA_NAME(vd_attention_scratch),
};
