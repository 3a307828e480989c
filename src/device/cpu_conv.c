/* Convolutions: chunks of images, of output rows, or of columns; each is normalised, resized or converted
 * into scratch, convolved, and finished. What is written to memory is the result alone. */
#include "base/layout.h"
#include "device/cpu_lower.h"

#include <string.h>

/* How the work is cut. Bands of output rows take the rows that they need from above and below, vertical
 * padding being rows of zeros in scratch. Columns are independent where the kernel is one column wide
 * (temporal convolutions). */
typedef enum conv_split { SPLIT_IMAGES, SPLIT_BANDS, SPLIT_COLUMNS } conv_split;

struct vd_cpu_plan {
    const vd_kernels *kernels;
    vd_normaliser norm;
    vd_chunked product;
    conv_split split;
    int64_t total, step; /* images, output rows of an image, or columns of an image */
    int64_t n, sh, sw, c[2];
    int64_t h, w, oh, ow, k, kh, stride, pad_top;
    vd_dtype in, out; /* of the product */
    bool direct_in, direct_out;
    bool taps;                 /* few output channels: cpu_taps.c */
    vd_product_spec window[2]; /* the convolution of a whole chunk and of the rest */
    size_t in_at, taps_at, out_at, product_at;
};

/* One chunk: images [n, n + images), output rows [y, y + rows), columns [x, x + cols) of each. */
typedef struct conv_chunk {
    int64_t n, images, y, rows, x, cols;
    bool rest;
} conv_chunk;

/* ---- planning ---- */

static void plan_sizes(vd_cpu_plan *t, const vd_program *p, const vd_conv *op) {
    vd_shape s = vd_program_shape(p, op->src), d = vd_program_shape(p, op->dst);
    t->n = s.n;
    t->sh = s.h;
    t->sw = s.w;
    t->c[0] = s.c;
    t->c[1] = op->src1 == VD_NONE ? 0 : vd_program_shape(p, op->src1).c;
    t->h = op->in_h ? op->in_h : s.h;
    t->w = op->in_w ? op->in_w : s.w;
    t->oh = d.h;
    t->ow = d.w;
    t->k = d.c;
    t->kh = op->weight->dims[2];
    t->stride = op->stride;
    t->pad_top = op->pad_top;
}

/* Whole images where one fits; else columns for a temporal kernel, else bands. */
static void plan_split(vd_cpu_plan *t, const vd_conv *op) {
    const int64_t *d = op->weight->dims;
    size_t in = vd_dtype_bytes(t->in), out = vd_dtype_bytes(t->out), c = (size_t)d[1], k = (size_t)t->k;
    size_t weights = (size_t)(d[0] * d[1] * d[2] * d[3]) * in;
    size_t budget = vd_chunk_budget(VD_CHUNK_BYTES, weights);
    size_t column = (size_t)t->h * c * in + (size_t)t->oh * k * out;
    size_t row = (size_t)(t->w * t->stride) * c * in + (size_t)t->ow * k * out;
    size_t image = (size_t)(t->h * t->w) * c * in + (size_t)(t->oh * t->ow) * k * out;
    bool columns = d[3] == 1 && t->stride == 1 && !op->pad_left && !op->pad_right && d[2] > 1;
    t->split = image <= 2 * budget || t->direct_in ? SPLIT_IMAGES : columns ? SPLIT_COLUMNS : SPLIT_BANDS;
    t->total = t->split == SPLIT_IMAGES ? t->n : t->split == SPLIT_BANDS ? t->oh : t->w;
    t->step = vd_chunk_size(t->total,
                            t->split == SPLIT_IMAGES  ? image
                            : t->split == SPLIT_BANDS ? row
                                                      : column,
                            budget);
}

/* The convolution of a chunk of `size` items. */
static vd_product_spec chunk_window(const vd_cpu_plan *t, const vd_conv *op, int64_t size) {
    const int64_t *d = op->weight->dims;
    vd_product_spec s = {.n = 1, .h = t->h, .w = t->w, .c = d[1], .oh = t->oh, .ow = t->ow, .k = d[0]};
    s.kh = d[2];
    s.kw = d[3];
    s.stride = t->stride;
    s.pad_top = op->pad_top;
    s.pad_left = op->pad_left;
    s.pad_bottom = op->pad_bottom;
    s.pad_right = op->pad_right;
    s.in = t->in;
    s.out = t->out;
    s.bias = op->bias || op->bias_value != VD_NONE;
    s.add = t->direct_out && op->residual != VD_NONE;
    if (t->split == SPLIT_IMAGES)
        s.n = size;
    if (t->split == SPLIT_COLUMNS)
        s.w = s.ow = size;
    if (t->split == SPLIT_BANDS) {
        s.oh = size;
        s.h = (size - 1) * t->stride + t->kh;
        s.pad_top = s.pad_bottom = 0;
    }
    return s;
}

static void plan_types(vd_cpu_plan *t, const vd_cpu_library *l, const vd_program *p, const vd_conv *op) {
    vd_dtype dst = p->values[op->dst].dtype;
    t->in = vd_library_compute_type(l, p->dtype);
    bool resized = t->h != t->sh || t->w != t->sw;
    t->direct_in = op->norm.kind == VD_NORM_NONE && !resized && t->in == p->dtype;
    t->direct_out = dst == VD_F32 || dst == t->in;
    t->out = t->direct_out ? dst : VD_F32;
    plan_split(t, op);
    vd_product_spec whole = chunk_window(t, op, t->total);
    t->taps = vd_taps_pay(&whole);
    if (t->split == SPLIT_COLUMNS || t->taps) {
        t->direct_out = false;
        t->out = VD_F32;
    }
}

/* What is run for it: itself, or a matrix product. */
static vd_product_spec product_of(const vd_cpu_plan *t, const vd_product_spec *window) {
    const vd_product_spec *s = window;
    if (t->taps)
        return vd_taps_product(s);
    if (s->kh > 1 || s->kw > 1 || s->stride > 1 || s->h != s->oh || s->w != s->ow)
        return *s;
    return (vd_product_spec){.matrix = 1,
                             .n = s->n * s->h * s->w,
                             .c = s->c,
                             .k = s->k,
                             .in = s->in,
                             .out = s->out,
                             .bias = s->bias,
                             .add = s->add};
}

static void plan_scratch(vd_cpu_plan *t, size_t *scratch) {
    const vd_product_spec *s = &t->window[0];
    size_t in_pixels = (size_t)(s->n * s->h * s->w), out_pixels = (size_t)(s->n * s->oh * s->ow);
    size_t in = in_pixels * (size_t)s->c * vd_dtype_bytes(t->in);
    size_t taps = in_pixels * (size_t)(s->kh * s->kw * s->k) * sizeof(float);
    size_t out = out_pixels * (size_t)s->k * vd_dtype_bytes(t->out);
    t->in_at = t->norm.scratch;
    t->taps_at = t->in_at + (t->direct_in ? 0 : vd_align_up(in));
    t->out_at = t->taps_at + (t->taps ? vd_align_up(taps) : 0);
    t->product_at = t->out_at + (t->direct_out ? 0 : vd_align_up(out));
    *scratch = t->product_at + t->product.scratch;
}

static vd_code plan(vd_cpu_library *l, const vd_program *p, const vd_op *generic, vd_cpu_plan *t,
                    size_t *scratch, vd_error *err) {
    const vd_conv *op = &generic->conv;
    t->kernels = l->kernels;
    plan_sizes(t, p, op);
    plan_types(t, l, p, op);
    t->window[0] = chunk_window(t, op, t->step);
    t->window[1] = chunk_window(t, op, t->total % t->step ? t->total % t->step : t->step);
    vd_product_spec spec = product_of(t, &t->window[0]), rest = product_of(t, &t->window[1]);
    VD_TRY(vd_normaliser_plan(l, &op->norm, t->c[0] + t->c[1], &t->norm, err));
    VD_TRY(vd_chunked_plan(l, &spec, &rest, op->weight, op->bias, p->dtype, &t->product, err));
    plan_scratch(t, scratch);
    return VD_OK;
}

static vd_code load(vd_cpu_library *l, vd_cpu_plan *t, vd_error *err) {
    (void)l;
    VD_TRY(vd_normaliser_load(&t->norm, err));
    return vd_chunked_load(&t->product, err);
}

/* ---- what the product reads ---- */

/* A source's pixels, or none. */
typedef struct conv_sources {
    vd_cells x[2];
    const void *norm; /* scratch with the affine of the current image; NULL: no norm */
} conv_sources;

/* `count` neighbouring pixels from pixel `from` of the sources, normalised or converted. */
static void prepare_pixels(const vd_cpu_plan *t, const conv_sources *s, vd_cells to, int64_t from,
                           int64_t count) {
    int64_t c = t->c[0] + t->c[1];
    if (!s->norm) {
        t->kernels->convert(to, vd_cells_at(s->x[0], from), count, c, 1.0f);
        return;
    }
    for (int i = 0; i < 2 && t->c[i]; i++) {
        int64_t first = i ? t->c[0] : 0;
        vd_cells part = {(char *)to.data + (size_t)first * vd_dtype_bytes(to.dtype), to.dtype, to.pitch};
        t->kernels->affine(part, vd_cells_at(s->x[i], from), count, t->c[i],
                           vd_group_affine(&t->norm, s->norm, first), t->norm.norm.silu);
    }
}

/* One row of the resized image; pixels that share a source pixel are copies of each other. */
static void resize_row(const vd_cpu_plan *t, const conv_sources *s, vd_cells to, int64_t row) {
    size_t bytes = (size_t)to.pitch * vd_dtype_bytes(to.dtype);
    int64_t before = -1;
    for (int64_t x = 0; x < t->w; x++) {
        int64_t from = x * t->sw / t->w;
        vd_cells pixel = vd_cells_at(to, x);
        if (from == before)
            memcpy(pixel.data, (char *)pixel.data - bytes, bytes);
        else
            prepare_pixels(t, s, pixel, row + from, 1);
        before = from;
    }
}

static void resize_rows(const vd_cpu_plan *t, const conv_sources *s, vd_cells to, int64_t n, int64_t y,
                        int64_t rows) {
    size_t bytes = (size_t)(t->w * to.pitch) * vd_dtype_bytes(to.dtype);
    int64_t before = -1;
    for (int64_t i = 0; i < rows; i++) {
        int64_t from = (y + i) * t->sh / t->h;
        vd_cells row = vd_cells_at(to, i * t->w);
        if (from == before)
            memcpy(row.data, (char *)row.data - bytes, bytes);
        else
            resize_row(t, s, row, (n * t->sh + from) * t->sw);
        before = from;
    }
}

/* Input rows [y, y + rows) of image n, columns [x, x + cols); all of these rows exist. */
static void prepare_rows(const vd_cpu_plan *t, const conv_sources *s, vd_cells to, int64_t n, int64_t y,
                         int64_t rows, int64_t x, int64_t cols) {
    int64_t first = (n * t->sh + y) * t->sw;
    if (t->h != t->sh || t->w != t->sw)
        resize_rows(t, s, to, n, y, rows);
    else if (cols == t->w)
        prepare_pixels(t, s, to, first, rows * cols);
    else
        for (int64_t i = 0; i < rows; i++)
            prepare_pixels(t, s, vd_cells_at(to, i * cols), first + i * t->sw + x, cols);
}

/* A band's input rows, with zeros where it hangs over the image. */
static void prepare_band(const vd_cpu_plan *t, const conv_sources *s, vd_cells to, const conv_chunk *c) {
    int64_t first = c->y * t->stride - t->pad_top, rows = (c->rows - 1) * t->stride + t->kh;
    int64_t begin = first < 0 ? -first : 0, end = first + rows > t->h ? t->h - first : rows;
    size_t row = (size_t)(t->w * to.pitch) * vd_dtype_bytes(to.dtype);
    memset(to.data, 0, (size_t)begin * row);
    prepare_rows(t, s, vd_cells_at(to, begin * t->w), c->n, first + begin, end - begin, 0, t->w);
    memset(vd_cells_at(to, end * t->w).data, 0, (size_t)(rows - end) * row);
}

/* Statistics of image n, once it is begun. */
static void begin_image(const vd_cpu_plan *t, const conv_sources *s, int64_t n, void *scratch) {
    if (!s->norm)
        return;
    int64_t pixels = t->sh * t->sw;
    vd_cells x[2] = {vd_cells_at(s->x[0], n * pixels)};
    if (t->c[1])
        x[1] = vd_cells_at(s->x[1], n * pixels);
    vd_group_statistics(&t->norm, t->kernels, x, t->c, pixels, scratch);
}

static const void *prepare(const vd_cpu_plan *t, const conv_sources *s, const conv_chunk *c, char *scratch) {
    if (t->direct_in)
        return vd_cells_at(s->x[0], c->n * t->h * t->w).data;
    vd_cells to = {scratch + t->in_at, t->in, t->c[0] + t->c[1]};
    if (t->split == SPLIT_BANDS)
        prepare_band(t, s, to, c);
    else if (t->split == SPLIT_COLUMNS)
        prepare_rows(t, s, to, c->n, 0, t->h, c->x, c->cols);
    else
        for (int64_t i = 0; i < c->images; i++) {
            begin_image(t, s, c->n + i, scratch);
            prepare_rows(t, s, vd_cells_at(to, i * t->h * t->w), c->n + i, 0, t->h, 0, t->w);
        }
    return to.data;
}

/* ---- running ---- */

/* Rounds a chunk that the product left in scratch, adding the residual. */
static void finish(const vd_cpu_plan *t, const conv_chunk *c, vd_cells dst, vd_cells out, vd_cells residual) {
    int64_t blocks = t->split == SPLIT_COLUMNS ? t->oh : 1;
    int64_t rows = t->split == SPLIT_COLUMNS ? c->cols : c->images * c->rows * c->cols;
    for (int64_t i = 0; i < blocks; i++) {
        int64_t at = i * t->ow;
        vd_cells add = residual.data ? vd_cells_at(residual, at) : residual;
        t->kernels->finish(vd_cells_at(dst, at), vd_cells_at(out, i * rows), add, (vd_cells){0}, 0.0f, rows,
                           t->k);
    }
}

static vd_code run_chunk(const vd_program *p, const vd_conv *op, const vd_cpu_plan *t,
                         const vd_cpu_call *call, const conv_sources *s, const conv_chunk *c, vd_error *err) {
    char *scratch = call->scratch;
    int64_t first = (c->n * t->oh + c->y) * t->ow + c->x;
    vd_cells dst = vd_cells_at(vd_value_cells(p, call, op->dst), first), residual = {0};
    if (op->residual != VD_NONE)
        residual = vd_cells_at(vd_value_cells(p, call, op->residual), first);
    vd_cells out = t->direct_out ? dst : (vd_cells){scratch + t->out_at, t->out, t->k};
    const void *in = prepare(t, s, c, scratch);
    if (t->direct_out && residual.data && residual.data != dst.data)
        memcpy(dst.data, residual.data,
               (size_t)(c->images * c->rows * c->cols * t->k) * vd_dtype_bytes(dst.dtype));
    const float *bias = op->bias_value == VD_NONE ? NULL : call->at[op->bias_value];
    void *made = t->taps ? scratch + t->taps_at : out.data;
    VD_TRY(vd_chunked_run(&t->product, c->rest, call->worker, in, bias, made, scratch + t->product_at, err));
    if (t->taps)
        vd_taps_gather(&t->window[c->rest], made, vd_chunked_bias(&t->product, bias), out.data);
    if (!t->direct_out)
        finish(t, c, dst, out, residual);
    return VD_OK;
}

static vd_code run(const vd_program *p, const vd_op *generic, const vd_cpu_plan *t, const vd_cpu_call *call,
                   vd_error *err) {
    const vd_conv *op = &generic->conv;
    conv_sources s = {.x[0] = vd_value_cells(p, call, op->src)};
    if (t->c[1])
        s.x[1] = vd_value_cells(p, call, op->src1);
    if (op->norm.kind == VD_NORM_GROUP)
        s.norm = call->scratch;
    int64_t passes = t->split == SPLIT_IMAGES ? 1 : t->n;
    for (int64_t n = 0; n < passes; n++) {
        if (t->split != SPLIT_IMAGES)
            begin_image(t, &s, n, call->scratch);
        for (int64_t i = 0; i < t->total; i += t->step) {
            int64_t size = t->total - i < t->step ? t->total - i : t->step;
            conv_chunk c = {.n = n, .images = 1, .rows = t->oh, .cols = t->ow, .rest = size != t->step};
            if (t->split == SPLIT_IMAGES)
                c.n = i, c.images = size;
            else if (t->split == SPLIT_BANDS)
                c.y = i, c.rows = size;
            else
                c.x = i, c.cols = size;
            VD_TRY(run_chunk(p, op, t, call, &s, &c, err));
        }
    }
    return VD_OK;
}

const vd_cpu_op vd_cpu_conv = {sizeof(vd_cpu_plan), plan, load, run};
