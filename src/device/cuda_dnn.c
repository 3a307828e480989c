/* Problems spelled as cuDNN's graphs, and their tensors bound to pointers when a plan runs. Convolutions are
 * spelled so that precompiled kernels have them; products are 1x1 convolutions. */
#include "device/cuda_math.h"

/* What pointers are bound by. */
enum {
    ID_X = 1,
    ID_WEIGHTS,
    ID_BIAS,
    ID_Z,
    ID_Y,
    ID_GATE_WEIGHTS,
    ID_GATE_BIAS,
    ID_Q,
    ID_K,
    ID_V,
    ID_SCALE,
    ID_INNER
};

/* ---- convolutions ---- */

/* [n, h, w, c] in memory; cuDNN names the sizes in the order n, c, h, w whatever the layout. */
static vd_dnn_desc make_image(vd_dnn_builder *b, int id, int64_t n, int64_t h, int64_t w, int64_t c,
                              cudnnDataType_t type) {
    return vd_dnn_make_tensor(b, &(vd_dnn_tensor){.id = id,
                                                  .rank = 4,
                                                  .dims = {n, c, h, w},
                                                  .strides = {h * w * c, 1, w * c, c},
                                                  .type = type,
                                                  .alignment = VD_CUDA_ALIGNMENT,
                                                  .internal = id >= ID_INNER});
}

/* The result after a stage that `left` more follow: y itself, or an fp32 value that never reaches memory. */
static vd_dnn_desc make_stage(vd_dnn_builder *b, const vd_cuda_conv_spec *s, int left) {
    if (left == 0)
        return make_image(b, ID_Y, s->n, s->oh, s->ow, s->k, vd_dnn_type(s->dtype));
    return make_image(b, ID_INNER + left, s->n, s->oh, s->ow, s->k, CUDNN_DATA_FLOAT);
}

/* conv, ADD z, ADD bias; alpha belongs to the first addition, or to the convolution where there is none. */
static vd_dnn_desc make_conv_graph(vd_dnn_builder *b, const vd_cuda_conv_spec *s) {
    const cudnnDataType_t type = vd_dnn_type(s->dtype);
    const vd_dnn_window window = {.stride = {s->stride, s->stride},
                                  .pad_before = {s->pad_top, s->pad_left},
                                  .pad_after = {s->pad_bottom, s->pad_right},
                                  .alpha = s->add || s->bias ? 1 : s->alpha};
    vd_dnn_desc operations[3];
    int count = 0, left = s->add + s->bias;
    vd_dnn_desc x = make_image(b, ID_X, s->n, s->h, s->w, s->c, type);
    vd_dnn_desc weights = make_image(b, ID_WEIGHTS, s->k, s->kh, s->kw, s->c, type);
    vd_dnn_desc y = make_stage(b, s, left);
    operations[count++] = vd_dnn_convolution(b, x, weights, y, &window);
    if (s->add) {
        vd_dnn_desc sum = make_stage(b, s, --left);
        vd_dnn_desc z = make_image(b, ID_Z, s->n, s->oh, s->ow, s->k, type);
        operations[count++] = vd_dnn_add(b, y, z, sum, s->alpha);
        y = sum;
    }
    if (s->bias) {
        vd_dnn_desc bias = make_image(b, ID_BIAS, 1, 1, 1, s->k, type);
        operations[count++] = vd_dnn_add(b, y, bias, make_stage(b, s, 0), s->add ? 1 : s->alpha);
    }
    return vd_dnn_graph(b, operations, count);
}

/* A run of rows as an image of 1x1 pixels. */
static vd_cuda_conv_spec as_conv(const vd_cuda_gemm_spec *s) {
    int64_t rows = s->m / s->runs;
    return (vd_cuda_conv_spec){.n = 1,
                               .h = rows,
                               .w = 1,
                               .c = s->k,
                               .oh = rows,
                               .ow = 1,
                               .k = s->n,
                               .kh = 1,
                               .kw = 1,
                               .stride = 1,
                               .dtype = s->dtype,
                               .bias = s->bias,
                               .add = s->add,
                               .alpha = s->alpha};
}

/* Whether every run of rows begins where a tensor may, and cuDNN has a kernel at hand: a sum without a bias
 * it would compile. */
static bool fits_conv(const vd_cuda_gemm_spec *s) {
    int64_t bytes = (int64_t)vd_dtype_bytes(s->dtype), rows = s->m / s->runs;
    bool aligned = vd_cuda_alignment(rows * s->k * bytes) == VD_CUDA_ALIGNMENT &&
                   vd_cuda_alignment(s->n * bytes) == VD_CUDA_ALIGNMENT;
    return s->out == s->dtype && (s->bias || !s->add) && (s->runs == 1 || aligned);
}

/* ---- gated products ---- */

/* A matrix [rows, columns], row-major, or with `transposed` the other way round in the same memory. */
static vd_dnn_desc make_matrix(vd_dnn_builder *b, int id, int64_t rows, int64_t columns, bool transposed,
                               cudnnDataType_t type, int64_t alignment) {
    vd_dnn_tensor t = {.id = id,
                       .rank = 3,
                       .dims = {1, rows, columns},
                       .strides = {rows * columns, columns, 1},
                       .type = type,
                       .alignment = alignment,
                       .internal = id >= ID_INNER};
    if (transposed) {
        t.strides[1] = 1;
        t.strides[2] = rows;
    }
    return vd_dnn_make_tensor(b, &t);
}

/* Of value or gate: where its weights and biases begin, in bytes. */
static size_t gate_weights_at(const vd_cuda_gate_spec *s) {
    return (size_t)(s->n * s->k) * vd_dtype_bytes(s->dtype);
}
static size_t gate_bias_at(const vd_cuda_gate_spec *s) {
    return (size_t)s->n * vd_dtype_bytes(s->dtype);
}

/* An fp32 value of the graph's inside. */
static vd_dnn_desc make_inner(vd_dnn_builder *b, int index, const vd_cuda_gate_spec *s) {
    return make_matrix(b, ID_INNER + index, s->m, s->n, false, CUDNN_DATA_FLOAT, VD_CUDA_ALIGNMENT);
}

/* Both products share x. The order is the one in which cuDNN has a kernel for it. */
static vd_dnn_desc make_gate_graph(vd_dnn_builder *b, const vd_cuda_gate_spec *s) {
    const cudnnDataType_t type = vd_dnn_type(s->dtype);
    const int64_t lower = vd_cuda_alignment((int64_t)gate_weights_at(s)),
                  right = vd_cuda_alignment((int64_t)gate_bias_at(s));
    vd_dnn_desc x = make_matrix(b, ID_X, s->m, s->k, false, type, VD_CUDA_ALIGNMENT);
    vd_dnn_desc value_weights = make_matrix(b, ID_WEIGHTS, s->k, s->n, true, type, VD_CUDA_ALIGNMENT);
    vd_dnn_desc gate_weights = make_matrix(b, ID_GATE_WEIGHTS, s->k, s->n, true, type, lower);
    vd_dnn_desc value_bias = make_matrix(b, ID_BIAS, 1, s->n, false, type, VD_CUDA_ALIGNMENT);
    vd_dnn_desc gate_bias = make_matrix(b, ID_GATE_BIAS, 1, s->n, false, type, right);
    vd_dnn_desc y = make_matrix(b, ID_Y, s->m, s->n, false, type, VD_CUDA_ALIGNMENT);
    vd_dnn_desc inner[5];
    for (int i = 0; i < 5; i++)
        inner[i] = make_inner(b, i, s);
    const vd_dnn_desc operations[] = {vd_dnn_product(b, x, value_weights, inner[0]),
                                      vd_dnn_product(b, x, gate_weights, inner[1]),
                                      vd_dnn_add(b, inner[0], value_bias, inner[2], 1),
                                      vd_dnn_add(b, inner[1], gate_bias, inner[3], 1),
                                      vd_dnn_gelu(b, inner[3], inner[4]),
                                      vd_dnn_multiply(b, inner[2], inner[4], y)};
    return vd_dnn_graph(b, operations, sizeof operations / sizeof *operations);
}

/* ---- attention ---- */

/* One of q, k, v or the result, in rows of `row` elements. */
static vd_dnn_desc make_heads(vd_dnn_builder *b, int id, const vd_cuda_sdpa_spec *s, int64_t row) {
    int64_t start = s->heads * s->width * (int64_t)vd_dtype_bytes(s->dtype);
    return vd_dnn_make_tensor(b, &(vd_dnn_tensor){.id = id,
                                                  .rank = 4,
                                                  .dims = {s->batch, s->heads, s->tokens, s->width},
                                                  .strides = {s->tokens * row, s->width, row, 1},
                                                  .type = vd_dnn_type(s->dtype),
                                                  .alignment = vd_cuda_alignment(start)});
}

static vd_dnn_desc make_sdpa_graph(vd_dnn_builder *b, const vd_cuda_sdpa_spec *s) {
    int64_t width = s->heads * s->width;
    vd_dnn_desc q = make_heads(b, ID_Q, s, 3 * width), k = make_heads(b, ID_K, s, 3 * width);
    vd_dnn_desc v = make_heads(b, ID_V, s, 3 * width), y = make_heads(b, ID_Y, s, width);
    vd_dnn_desc scale = vd_dnn_make_tensor(b, &(vd_dnn_tensor){.id = ID_SCALE,
                                                               .rank = 4,
                                                               .dims = {1, 1, 1, 1},
                                                               .strides = {1, 1, 1, 1},
                                                               .type = CUDNN_DATA_FLOAT,
                                                               .alignment = sizeof(float),
                                                               .by_value = true});
    vd_dnn_desc operation = vd_dnn_attention(b, q, k, v, y, scale);
    return vd_dnn_graph(b, &operation, 1);
}

/* ---- any problem ---- */

vd_dnn_desc vd_dnn_spell(vd_dnn_builder *b, const vd_cuda_problem *problem) {
    if (problem->kind == VD_CUDA_SDPA)
        return make_sdpa_graph(b, &problem->sdpa);
    if (problem->kind == VD_CUDA_GATE)
        return make_gate_graph(b, &problem->gate);
    vd_cuda_conv_spec conv = problem->kind == VD_CUDA_CONV ? problem->conv : as_conv(&problem->gemm);
    return make_conv_graph(b, &conv);
}

bool vd_dnn_spells(const vd_cuda_problem *problem) {
    if (problem->kind == VD_CUDA_GEMM)
        return fits_conv(&problem->gemm);
    return problem->kind != VD_CUDA_GATE || problem->gate.dtype != VD_F32;
}

/* ---- running ---- */

enum { MAX_BOUND = 6 };
typedef struct bound {
    int64_t ids[MAX_BOUND];
    void *pointers[MAX_BOUND];
    int count;
} bound;

/* cuDNN takes what it reads as void * too. */
static void bind(bound *all, int64_t id, const void *pointer) {
    all->ids[all->count] = id;
    all->pointers[all->count++] = (void *)(uintptr_t)pointer;
}

static const void *forward(const void *pointer, size_t bytes) {
    return pointer ? (const char *)pointer + bytes : NULL;
}

static vd_code execute(const vd_cuda_plan *p, const bound *all, void *workspace, vd_error *err) {
    vd_dnn_builder b = {0};
    vd_dnn_desc d = vd_dnn_make(&b, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    vd_dnn_set(&b, d, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, all->count, all->ids);
    vd_dnn_set(&b, d, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, all->count, all->pointers);
    vd_dnn_set(&b, d, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    vd_dnn_finish(&b, d, "pointers of a plan");
    vd_code status = vd_dnn_code(&b, err);
    if (status == VD_OK)
        status = vd_dnn_check(cudnnBackendExecute(p->math->dnn, p->dnn, d), "cudnnBackendExecute", err);
    vd_dnn_close(&b);
    return status;
}

static vd_code run_sdpa(const vd_cuda_plan *p, const vd_cuda_operands *o, void *workspace, vd_error *err) {
    const vd_cuda_sdpa_spec *s = &p->problem.sdpa;
    const char *qkv = o->x;
    size_t part = (size_t)(s->heads * s->width) * vd_dtype_bytes(s->dtype);
    bound all = {.count = 0};
    bind(&all, ID_Q, qkv);
    bind(&all, ID_K, qkv + part);
    bind(&all, ID_V, qkv + 2 * part);
    bind(&all, ID_SCALE, &s->scale);
    bind(&all, ID_Y, o->y);
    return execute(p, &all, workspace, err);
}

static vd_code run_gate(const vd_cuda_plan *p, const vd_cuda_operands *o, void *workspace, vd_error *err) {
    const vd_cuda_gate_spec *s = &p->problem.gate;
    bound all = {.count = 0};
    bind(&all, ID_X, o->x);
    bind(&all, ID_WEIGHTS, o->weights);
    bind(&all, ID_GATE_WEIGHTS, forward(o->weights, gate_weights_at(s)));
    bind(&all, ID_BIAS, o->bias);
    bind(&all, ID_GATE_BIAS, forward(o->bias, gate_bias_at(s)));
    bind(&all, ID_Y, o->y);
    return execute(p, &all, workspace, err);
}

static vd_code run_conv(const vd_cuda_plan *p, bool bias, bool add, const vd_cuda_operands *o,
                        void *workspace, vd_error *err) {
    bound all = {.count = 0};
    bind(&all, ID_X, o->x);
    bind(&all, ID_WEIGHTS, o->weights);
    bind(&all, ID_Y, o->y);
    if (bias)
        bind(&all, ID_BIAS, o->bias);
    if (add)
        bind(&all, ID_Z, o->z);
    return execute(p, &all, workspace, err);
}

/* One 1x1 convolution after another, each with its row of the bias. */
static vd_code run_gemm(const vd_cuda_plan *p, const vd_cuda_operands *o, void *workspace, vd_error *err) {
    const vd_cuda_gemm_spec *s = &p->problem.gemm;
    size_t element = vd_dtype_bytes(s->dtype), rows = (size_t)(s->m / s->runs);
    size_t in = rows * (size_t)s->k * element, out = rows * (size_t)s->n * element;
    vd_cuda_operands part = *o;
    for (int64_t i = 0; i < s->runs; i++) {
        VD_TRY(run_conv(p, s->bias, s->add, &part, workspace, err));
        part.x = forward(part.x, in);
        part.bias = forward(part.bias, (size_t)s->n * element);
        part.z = forward(part.z, out);
        part.y = (char *)part.y + out;
    }
    return VD_OK;
}

vd_code vd_dnn_run(const vd_cuda_plan *p, cudaStream_t stream, const vd_cuda_operands *o, void *workspace,
                   vd_error *err) {
    VD_TRY(vd_dnn_check(cudnnSetStream(p->math->dnn, stream), "cudnnSetStream", err));
    if (p->problem.kind == VD_CUDA_SDPA)
        return run_sdpa(p, o, workspace, err);
    if (p->problem.kind == VD_CUDA_GEMM)
        return run_gemm(p, o, workspace, err);
    if (p->problem.kind == VD_CUDA_GATE)
        return run_gate(p, o, workspace, err);
    return run_conv(p, p->problem.conv.bias, p->problem.conv.add, o, workspace, err);
}
