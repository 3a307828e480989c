/* Convolutions: a group norm or a resize into scratch, then the library's convolution with bias and
 * residual, or, where it has none, the patches of the input as a matrix and a product, piece by piece.
 * Images do not depend on each other: where scratch for all of them would be large, some are done at a
 * time, always the same number, so that one plan is enough.
 *
 * A 3x3 convolution of an input that nearest neighbour doubled sees every pixel of the source more than
 * once. It is four 2x2 convolutions of the source, one for each phase of the result: here one convolution
 * with four times the channels, put in order afterwards (cuda.md 2.4). */
#include "device/cuda_lower.h"

enum {
    SCRATCH_BYTES = 256 << 20, /* where more would be needed, some images at a time */
    PATCH_BYTES = 64 << 20,    /* of one piece */
    CHANNELS = 8,              /* libraries want rows of 16 bytes: 16-bit channels are filled up to this */
};

struct vd_cuda_step {
    vd_cuda_norm norm;
    vd_cuda_bias bias;
    vd_cuda_constant *weight; /* [out, kh, kw, in] */
    vd_cuda_plan *conv;       /* NULL: by patches */
    vd_cuda_plan *product[2]; /* of a whole piece and of the last one; the same when pieces divide */
    vd_cuda_conv_spec spec;   /* as the library sees it: padded channels, resized input, phases */
    int64_t turns;            /* everything below is for one of so many equal shares of the images */
    vd_shape src;             /* of the first source */
    int64_t c, k;             /* channels as they are */
    int64_t pixels;           /* of dst */
    int64_t rows, piece;      /* pixels of the library's result; of a piece */
    bool resized, phased;
    bool direct; /* the library's result, with the residual, is dst but for its phases; else raw_at gets it */
    size_t resized_at, padded_at, patches_at, phases_at, raw_at, cropped_at, workspace;
};

static int64_t padded(int64_t channels, vd_dtype dtype) {
    return dtype == VD_F32 ? channels : (channels + CHANNELS - 1) / CHANNELS * CHANNELS;
}

/* Whether the input is doubled and then read by a 3x3 kernel that keeps the size. */
static bool has_phases(const vd_conv *op, vd_shape src) {
    bool doubled = op->in_h == 2 * src.h && op->in_w == 2 * src.w;
    bool same = op->pad_top == 1 && op->pad_left == 1 && op->pad_bottom == 1 && op->pad_right == 1;
    return doubled && same && op->stride == 1 && op->weight->dims[2] == 3 && op->weight->dims[3] == 3;
}

/* The convolution that gives all phases at once: pixel (i, j) of its result sees the 2x2 pixels of the
 * source that end at (i, j), so that there is one row and one column more than in the source. */
static void spread_phases(vd_cuda_conv_spec *c, vd_shape src) {
    c->h = src.h;
    c->w = src.w;
    c->oh = src.h + 1;
    c->ow = src.w + 1;
    c->k *= VD_CUDA_PHASE_COUNT;
    c->kh = c->kw = 2;
}

static vd_cuda_conv_spec spec_of(const vd_program *p, const vd_conv *op, const vd_cuda_step *s) {
    vd_shape to = vd_program_shape(p, op->dst);
    return (vd_cuda_conv_spec){.n = s->src.n,
                               .h = op->in_h ? op->in_h : s->src.h,
                               .w = op->in_w ? op->in_w : s->src.w,
                               .c = padded(s->c, p->dtype),
                               .oh = to.h,
                               .ow = to.w,
                               .k = padded(s->k, p->dtype),
                               .kh = op->weight->dims[2],
                               .kw = op->weight->dims[3],
                               .stride = op->stride,
                               .pad_top = op->pad_top,
                               .pad_left = op->pad_left,
                               .pad_bottom = op->pad_bottom,
                               .pad_right = op->pad_right,
                               .dtype = p->dtype,
                               .bias = vd_cuda_has_bias(&s->bias),
                               .add = s->direct && op->residual != VD_NONE,
                               .alpha = 1};
}

/* Without padding and stride, a 1 x 1 kernel is a product of what lies there. */
static bool is_product(const vd_cuda_conv_spec *c) {
    return c->kh * c->kw * c->stride == 1 && c->pad_top + c->pad_left + c->pad_bottom + c->pad_right == 0;
}

static vd_code plan_constants(const vd_cuda_planner *pl, const vd_conv *op, vd_cuda_step *s, size_t *scratch,
                              vd_error *err) {
    vd_dtype dtype = pl->program->dtype;
    int64_t k = padded(s->k, dtype);
    vd_cuda_packing weight =
        VD_CUDA_PACKING(.constant = op->weight, .dtype = dtype, .pad_k = k, .pad_c = padded(s->c, dtype));
    vd_cuda_packing bias = VD_CUDA_PACKING(.constant = op->bias);
    weight.layout = s->phased ? VD_CUDA_PHASES : VD_CUDA_FILTER;
    bias.layout = s->phased ? VD_CUDA_PHASES : VD_CUDA_DENSE;
    VD_TRY(vd_cuda_norm_plan(pl, &op->norm, false, s->src, s->c - s->src.c, &s->norm, scratch, err));
    VD_TRY(vd_cuda_constant_plan(pl->weights, &weight, &s->weight, err));
    VD_TRY(vd_cuda_bias_plan(pl, &bias, op->bias_value, dtype, s->k, k, &s->bias, scratch, err));
    if (!s->direct || op->residual == VD_NONE || vd_cuda_has_bias(&s->bias))
        return VD_OK;
    /* A sum without a bias would be a kernel compiled at run time. */
    vd_cuda_packing zeros = VD_CUDA_PACKING(.dtype = dtype, .pad_k = k);
    return vd_cuda_constant_plan(pl->weights, &zeros, &s->bias.constant, err);
}

static vd_code open_product(const vd_cuda_planner *pl, const vd_cuda_step *s, int64_t rows,
                            vd_cuda_plan **out, vd_error *err) {
    const vd_cuda_conv_spec *c = &s->spec;
    vd_cuda_gemm_spec spec = {.m = rows,
                              .k = c->kh * c->kw * c->c,
                              .n = c->k,
                              .runs = 1,
                              .dtype = c->dtype,
                              .out = c->dtype,
                              .bias = c->bias,
                              .add = c->add,
                              .alpha = 1};
    return vd_cuda_product_open(pl, &spec, out, err);
}

static vd_code plan_pieces(const vd_cuda_planner *pl, vd_cuda_step *s, size_t *scratch, vd_error *err) {
    const vd_cuda_conv_spec *c = &s->spec;
    size_t row = (size_t)(c->kh * c->kw * c->c) * vd_dtype_bytes(c->dtype);
    s->piece = is_product(c) ? s->rows : vd_cuda_piece_rows(s->rows, row, PATCH_BYTES);
    int64_t rest = s->rows % s->piece;
    VD_TRY(open_product(pl, s, s->piece, &s->product[0], err));
    s->product[1] = s->product[0];
    if (rest) {
        s->product[1] = NULL;
        VD_TRY(open_product(pl, s, rest, &s->product[1], err));
    }
    if (!is_product(c))
        s->patches_at = vd_cuda_take(scratch, (size_t)s->piece * row);
    size_t whole = vd_cuda_plan_workspace(s->product[0]), last = vd_cuda_plan_workspace(s->product[1]);
    s->workspace = vd_cuda_take(scratch, whole > last ? whole : last);
    return VD_OK;
}

static vd_code plan_library(const vd_cuda_planner *pl, vd_cuda_step *s, size_t *scratch, vd_error *err) {
    if (!is_product(&s->spec))
        VD_TRY(vd_cuda_conv_open(pl->math, &s->spec, &s->conv, err));
    if (!s->conv)
        return plan_pieces(pl, s, scratch, err);
    s->workspace = vd_cuda_take(scratch, vd_cuda_plan_workspace(s->conv));
    return VD_OK;
}

static void plan_scratch(const vd_conv *op, vd_cuda_step *s, size_t *scratch) {
    size_t element = vd_dtype_bytes(s->spec.dtype);
    size_t in = (size_t)(s->spec.n * s->spec.h * s->spec.w), out = (size_t)s->pixels;
    if (s->resized)
        s->resized_at = vd_cuda_take(scratch, in * (size_t)s->c * element);
    if (s->spec.c != s->c)
        s->padded_at = vd_cuda_take(scratch, in * (size_t)s->spec.c * element);
    if (s->phased)
        s->phases_at = vd_cuda_take(scratch, (size_t)(s->rows * s->spec.k) * element);
    if (!s->direct)
        s->raw_at = vd_cuda_take(scratch, out * (size_t)padded(s->k, s->spec.dtype) * element);
    if (!s->direct && op->residual != VD_NONE)
        s->cropped_at = vd_cuda_take(scratch, out * (size_t)s->k * element);
}

/* Bytes of one turn's share of a value. */
static size_t share_bytes(const vd_program *p, vd_value v, int64_t turns) {
    int64_t count = v == VD_NONE ? 0 : vd_shape_count(vd_program_shape(p, v));
    return count ? (size_t)(count / turns) * vd_dtype_bytes(vd_cuda_dtype(p, v)) : 0;
}

/* Whether all shares are equal and begin where tensors may. */
static bool divides(const vd_program *p, const vd_conv *op, int64_t turns) {
    size_t bytes =
        share_bytes(p, op->src, turns) | share_bytes(p, op->src1, turns) | share_bytes(p, op->dst, turns);
    return vd_program_shape(p, op->src).n % turns == 0 && bytes % VD_CUDA_ALIGNMENT == 0;
}

/* Everything but the library's plans, for the images of one of `turns` turns. */
static vd_code plan_turn(const vd_cuda_planner *pl, const vd_conv *op, vd_cuda_step *s, int64_t turns,
                         size_t *scratch, vd_error *err) {
    const vd_program *p = pl->program;
    s->turns = turns;
    s->src = vd_program_shape(p, op->src);
    s->src.n /= turns;
    s->pixels = vd_shape_rows(vd_program_shape(p, op->dst)) / turns;
    VD_TRY(plan_constants(pl, op, s, scratch, err));
    s->spec = spec_of(p, op, s);
    if (s->phased)
        spread_phases(&s->spec, s->src);
    s->rows = s->spec.n * s->spec.oh * s->spec.ow;
    s->resized = s->spec.h != s->src.h || s->spec.w != s->src.w;
    plan_scratch(op, s, scratch);
    return VD_OK;
}

static vd_code plan(const vd_cuda_planner *pl, const vd_op *generic, vd_cuda_step *s, size_t *scratch,
                    vd_error *err) {
    const vd_conv *op = &generic->conv;
    const vd_program *p = pl->program;
    const size_t limit = pl->piece_bytes ? pl->piece_bytes : SCRATCH_BYTES, before = *scratch;
    s->c = op->weight->dims[1];
    s->k = op->weight->dims[0];
    s->phased = has_phases(op, vd_program_shape(p, op->src));
    s->direct = s->k == padded(s->k, p->dtype) && vd_cuda_dtype(p, op->dst) == p->dtype &&
                !(s->phased && op->residual != VD_NONE);
    VD_TRY(plan_turn(pl, op, s, 1, scratch, err));
    for (int64_t turns = 2; *scratch - before > limit && turns <= vd_program_shape(p, op->src).n; turns++)
        if (divides(p, op, turns)) {
            *scratch = before;
            VD_TRY(plan_turn(pl, op, s, turns, scratch, err));
        }
    return plan_library(pl, s, scratch, err);
}

static vd_code load(vd_cuda_step *s, vd_error *err) {
    VD_TRY(vd_cuda_norm_load(&s->norm, err));
    VD_TRY(vd_cuda_bias_load(&s->bias, err));
    return vd_cuda_constant_load(s->weight, err);
}

static vd_code resize(const vd_cuda_step *s, const vd_cuda_call *call, const void **x, vd_error *err) {
    vdk_resize r = {.x = *x,
                    .y = vd_cuda_at(call, s->resized_at),
                    .n = s->src.n,
                    .sh = s->src.h,
                    .sw = s->src.w,
                    .h = s->spec.h,
                    .w = s->spec.w,
                    .c = s->c,
                    .dtype = s->spec.dtype};
    *x = r.y;
    return vd_cuda_ran(call, vdk_run_resize(&r, call->stream), "resize", err);
}

/* One turn's operands. */
typedef struct operands {
    const void *src, *src1, *bias, *residual;
    void *dst;
} operands;

static void *share(const vd_cuda_step *s, const vd_cuda_call *call, vd_value v, int64_t turn) {
    char *value = vd_cuda_value(call, v);
    return value ? value + (size_t)turn * share_bytes(call->program, v, s->turns) : NULL;
}

/* What the convolution reads. */
static vd_code prepare(const vd_conv *op, const vd_cuda_step *s, const vd_cuda_call *call, const operands *o,
                       const void **x, vd_error *err) {
    const vd_cuda_conv_spec *c = &s->spec;
    *x = o->src;
    if (op->norm.kind != VD_NORM_NONE)
        VD_TRY(vd_cuda_norm_run(&s->norm, call, o->src, o->src1, x, err));
    if (s->resized)
        VD_TRY(resize(s, call, x, err));
    if (c->c == s->c)
        return VD_OK;
    const void *narrow = *x;
    void *wide = vd_cuda_at(call, s->padded_at);
    *x = wide;
    return vd_cuda_repitch(call, narrow, c->dtype, s->c, wide, c->dtype, c->c, c->n * c->h * c->w, err);
}

static vd_code gather_patches(const vd_cuda_step *s, const vd_cuda_call *call, const void *x, int64_t first,
                              int64_t rows, vd_error *err) {
    const vd_cuda_conv_spec *c = &s->spec;
    vdk_patches p = {.x = x,
                     .y = vd_cuda_at(call, s->patches_at),
                     .n = c->n,
                     .h = c->h,
                     .w = c->w,
                     .c = c->c,
                     .oh = c->oh,
                     .ow = c->ow,
                     .first = first,
                     .rows = rows,
                     .pitch = c->kh * c->kw * c->c,
                     .kh = (int)c->kh,
                     .kw = (int)c->kw,
                     .stride = (int)c->stride,
                     .pad_top = (int)c->pad_top,
                     .pad_left = (int)c->pad_left,
                     .dtype = c->dtype};
    return vd_cuda_ran(call, vdk_run_patches(&p, call->stream), "patches", err);
}

static vd_code run_pieces(const vd_cuda_step *s, const vd_cuda_call *call, const void *x, const void *bias,
                          const char *residual, char *y, vd_error *err) {
    size_t row = (size_t)s->spec.k * vd_dtype_bytes(s->spec.dtype);
    for (int64_t first = 0; first < s->rows; first += s->piece) {
        int64_t rows = s->rows - first < s->piece ? s->rows - first : s->piece;
        const void *from = x;
        if (!is_product(&s->spec)) {
            VD_TRY(gather_patches(s, call, x, first, rows, err));
            from = vd_cuda_at(call, s->patches_at);
        }
        size_t done = (size_t)first * row;
        VD_TRY(vd_cuda_gemm_run(s->product[rows != s->piece], call->stream, from,
                                vd_cuda_constant_data(s->weight), bias, residual ? residual + done : NULL,
                                y + done, vd_cuda_at(call, s->workspace), err));
    }
    return VD_OK;
}

static vd_code unphase(const vd_cuda_step *s, const vd_cuda_call *call, void *y, vd_error *err) {
    vdk_unphase u = {.x = vd_cuda_at(call, s->phases_at),
                     .y = y,
                     .n = s->src.n,
                     .h = s->src.h,
                     .w = s->src.w,
                     .c = padded(s->k, s->spec.dtype),
                     .dtype = s->spec.dtype};
    return vd_cuda_ran(call, vdk_run_unphase(&u, call->stream), "phases", err);
}

/* From the raw result to dst: without the channels that filled it up, in dst's type, plus the residual. */
static vd_code finish(const vd_conv *op, const vd_cuda_step *s, const vd_cuda_call *call, const operands *o,
                      vd_error *err) {
    vd_dtype dtype = s->spec.dtype, to = vd_cuda_dtype(call->program, op->dst);
    int64_t wide = padded(s->k, dtype);
    const void *raw = vd_cuda_at(call, s->raw_at);
    void *cropped = vd_cuda_at(call, s->cropped_at);
    if (!o->residual)
        return vd_cuda_repitch(call, raw, dtype, wide, o->dst, to, s->k, s->pixels, err);
    VD_TRY(vd_cuda_repitch(call, raw, dtype, wide, cropped, dtype, s->k, s->pixels, err));
    return vd_cuda_activate(call, VD_ACT_NONE, cropped, dtype, s->pixels, s->k, o->residual, o->dst, to, err);
}

static vd_code run_turn(const vd_conv *op, const vd_cuda_step *s, const vd_cuda_call *call, const operands *o,
                        vd_error *err) {
    const void *x, *z = s->direct ? o->residual : NULL;
    void *whole = s->direct ? o->dst : vd_cuda_at(call, s->raw_at);
    void *y = s->phased ? vd_cuda_at(call, s->phases_at) : whole;
    VD_TRY(prepare(op, s, call, o, &x, err));
    if (s->conv)
        VD_TRY(vd_cuda_conv_run(s->conv, call->stream, x, vd_cuda_constant_data(s->weight), o->bias, z, y,
                                vd_cuda_at(call, s->workspace), err));
    else
        VD_TRY(run_pieces(s, call, x, o->bias, z, y, err));
    if (s->phased)
        VD_TRY(unphase(s, call, whole, err));
    return s->direct ? VD_OK : finish(op, s, call, o, err);
}

static vd_code run(const vd_op *generic, const vd_cuda_step *s, const vd_cuda_call *call, vd_error *err) {
    const vd_conv *op = &generic->conv;
    const void *bias;
    VD_TRY(vd_cuda_bias_data(&s->bias, call, &bias, err));
    for (int64_t i = 0; i < s->turns; i++) {
        operands o = {share(s, call, op->src, i), share(s, call, op->src1, i), bias,
                      share(s, call, op->residual, i), share(s, call, op->dst, i)};
        VD_TRY(run_turn(op, s, call, &o, err));
    }
    return VD_OK;
}

static void close_step(vd_cuda_step *s) {
    vd_cuda_plan_close(s->conv);
    if (s->product[1] != s->product[0])
        vd_cuda_plan_close(s->product[1]);
    vd_cuda_plan_close(s->product[0]);
}

const vd_cuda_op vd_cuda_conv = {
    .step_bytes = sizeof(vd_cuda_step), .plan = plan, .load = load, .run = run, .close = close_step};
