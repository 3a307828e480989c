/* The products of device/cuda_products.h as loops on the host, for tests without a GPU: sums in fp32 over
 * short runs and in fp64 above, one rounding at the end. As with the libraries there is no attention in
 * fp32, and a plan wants a workspace, which it scribbles over. A profile of "no convolutions" takes those
 * away too, so that callers go their other way. */
#include "cuda/shim/enqueue.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

extern "C" {
#include "base/half.h"
#include "device/cuda_products.h"
}

struct vd_cuda_math {
    bool convolutions;
    void (*chosen)(void *user, const char *problem, const char *plan);
    void *user;
};

enum class kind { product, gate, attention };

/* A matrix product is the convolution of a single column of pixels with a 1x1 filter; a gated one has
 * value and gate side by side. */
struct vd_cuda_plan {
    kind what;
    const char *name;
    size_t workspace;
    vd_cuda_conv_spec conv;
    int64_t runs;
    vd_dtype out;
    vd_cuda_sdpa_spec sdpa;
};

namespace {

constexpr size_t workspace_bytes = 1024;
typedef std::vector<float> floats;

/* ---- elements ---- */

float load(const void *from, int64_t i, vd_dtype dtype) {
    if (dtype == VD_F32)
        return static_cast<const float *>(from)[i];
    uint16_t bits = static_cast<const uint16_t *>(from)[i];
    return dtype == VD_F16 ? vd_f16_to_f32(bits) : vd_bf16_to_f32(bits);
}

void store(void *to, int64_t i, vd_dtype dtype, double value) {
    float rounded = static_cast<float>(value);
    if (dtype == VD_F32)
        static_cast<float *>(to)[i] = rounded;
    else
        static_cast<uint16_t *>(to)[i] = dtype == VD_F16 ? vd_f32_to_f16(rounded) : vd_f32_to_bf16(rounded);
}

/* Columns `first` .. `first + width` of a row-major matrix. */
floats load_columns(const void *from, int64_t rows, int64_t pitch, int64_t first, int64_t width,
                    vd_dtype dtype) {
    floats out(static_cast<size_t>(rows * width));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < width; c++)
            out[static_cast<size_t>(r * width + c)] = load(from, r * pitch + first + c, dtype);
    return out;
}

floats transpose(const floats &in, int64_t rows, int64_t columns) {
    floats out(in.size());
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            out[static_cast<size_t>(c * rows + r)] = in[static_cast<size_t>(r * columns + c)];
    return out;
}

/* ---- y [rows, width] = x [rows, depth] w [depth, width] ---- */

constexpr int64_t row_block = 4, column_block = 32, depth_block = 128;

inline __attribute__((always_inline)) void multiply_block(const float *x, const float *w, double *y,
                                                          int64_t rows, int64_t columns, int64_t depth,
                                                          int64_t width) {
    double sum[row_block][column_block] = {};
    for (int64_t first = 0; first < depth; first += depth_block) {
        float part[row_block][column_block] = {};
        int64_t last = first + depth_block < depth ? first + depth_block : depth;
        for (int64_t d = first; d < last; d++)
            for (int64_t r = 0; r < rows; r++)
                for (int64_t c = 0; c < columns; c++)
                    part[r][c] += x[r * depth + d] * w[d * width + c];
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < columns; c++)
                sum[r][c] += part[r][c];
    }
    for (int64_t r = 0; r < rows; r++)
        memcpy(y + r * width, sum[r], static_cast<size_t>(columns) * sizeof(double));
}

/* Of a full block the compiler knows the sizes. */
void multiply(const float *x, const float *w, double *y, int64_t rows, int64_t depth, int64_t width) {
    for (int64_t r = 0; r < rows; r += row_block)
        for (int64_t c = 0; c < width; c += column_block) {
            const float *a = x + r * depth, *b = w + c;
            double *out = y + r * width + c;
            if (rows - r >= row_block && width - c >= column_block)
                multiply_block(a, b, out, row_block, column_block, depth, width);
            else
                multiply_block(a, b, out, std::min(row_block, rows - r), std::min(column_block, width - c),
                               depth, width);
        }
}

/* ---- convolutions and matrix products ---- */

struct operands {
    const void *x, *weights, *bias, *z;
    void *y, *workspace;
};

/* What the filter sees at one pixel of the result: (kh, kw, c), zeros outside. */
void gather_patch(const vd_cuda_conv_spec &s, const void *x, int64_t n, int64_t oy, int64_t ox, float *out) {
    for (int64_t i = 0; i < s.kh; i++)
        for (int64_t j = 0; j < s.kw; j++, out += s.c) {
            int64_t y = oy * s.stride - s.pad_top + i, at = ox * s.stride - s.pad_left + j;
            bool inside = y >= 0 && y < s.h && at >= 0 && at < s.w;
            for (int64_t c = 0; c < s.c; c++)
                out[c] = inside ? load(x, ((n * s.h + y) * s.w + at) * s.c + c, s.dtype) : 0;
        }
}

/* alpha * sums + z + bias at row r of `all` in the result, `sum` being that row's sum in column k. */
double finish(const vd_cuda_plan &p, const operands &o, double sum, int64_t r, int64_t k, int64_t all) {
    const vd_cuda_conv_spec &s = p.conv;
    double value = s.alpha * sum;
    if (s.add)
        value += load(o.z, r * s.k + k, p.out);
    if (s.bias)
        value += load(o.bias, r / (all / p.runs) * s.k + k, p.out);
    return value;
}

double gelu(double x) {
    return 0.5 * x * (1 + std::erf(x * M_SQRT1_2));
}

/* The results of `rows` rows from `first`. */
void finish_rows(const vd_cuda_plan &p, const operands &o, const std::vector<double> &sums, int64_t first,
                 int64_t rows, int64_t all) {
    const bool gated = p.what == kind::gate;
    const int64_t width = gated ? p.conv.k / 2 : p.conv.k;
    for (int64_t r = first; r < first + rows; r++) {
        const double *row = sums.data() + (r - first) * p.conv.k;
        for (int64_t k = 0; k < width; k++) {
            double value = finish(p, o, row[k], r, k, all);
            if (gated)
                value *= gelu(finish(p, o, row[width + k], r, width + k, all));
            store(o.y, r * width + k, p.out, value);
        }
    }
}

void run_product(const vd_cuda_plan &p, const operands &o) {
    const vd_cuda_conv_spec &s = p.conv;
    constexpr int64_t chunk = 64;
    const int64_t depth = s.kh * s.kw * s.c, all = s.n * s.oh * s.ow;
    const floats weights = transpose(load_columns(o.weights, s.k, depth, 0, depth, s.dtype), s.k, depth);
    floats patches(static_cast<size_t>(chunk * depth));
    std::vector<double> sums(static_cast<size_t>(chunk * s.k));
    memset(o.workspace, 0xff, p.workspace);
    for (int64_t first = 0; first < all; first += chunk) {
        int64_t rows = all - first < chunk ? all - first : chunk;
        for (int64_t r = first; r < first + rows; r++)
            gather_patch(s, o.x, r / (s.oh * s.ow), r / s.ow % s.oh, r % s.ow,
                         patches.data() + (r - first) * depth);
        multiply(patches.data(), weights.data(), sums.data(), rows, depth, s.k);
        finish_rows(p, o, sums, first, rows, all);
    }
}

/* ---- attention ---- */

/* exp(scale * (score - largest)), and 1 / their sum. */
double soften(const double *scores, int64_t count, double scale, float *out) {
    double largest = scores[0], sum = 0;
    for (int64_t i = 1; i < count; i++)
        largest = scores[i] > largest ? scores[i] : largest;
    for (int64_t i = 0; i < count; i++) {
        out[i] = std::exp(static_cast<float>(scale * (scores[i] - largest)));
        sum += out[i];
    }
    return 1 / sum;
}

void attend(const vd_cuda_sdpa_spec &s, const void *qkv, void *y, int64_t head) {
    const int64_t width = s.heads * s.width, pitch = 3 * width, at = head * s.width;
    const floats q = load_columns(qkv, s.tokens, pitch, at, s.width, s.dtype);
    const floats k =
        transpose(load_columns(qkv, s.tokens, pitch, width + at, s.width, s.dtype), s.tokens, s.width);
    const floats v = load_columns(qkv, s.tokens, pitch, 2 * width + at, s.width, s.dtype);
    std::vector<double> scores(static_cast<size_t>(s.tokens)), sums(static_cast<size_t>(s.width));
    floats weights(static_cast<size_t>(s.tokens));
    for (int64_t t = 0; t < s.tokens; t++) {
        multiply(q.data() + t * s.width, k.data(), scores.data(), 1, s.width, s.tokens);
        double share = soften(scores.data(), s.tokens, static_cast<double>(s.scale), weights.data());
        multiply(weights.data(), v.data(), sums.data(), 1, s.tokens, s.width);
        for (int64_t c = 0; c < s.width; c++)
            store(y, t * width + at + c, s.dtype, share * sums[static_cast<size_t>(c)]);
    }
}

void run_attention(const vd_cuda_plan &p, const operands &o) {
    const vd_cuda_sdpa_spec &s = p.sdpa;
    size_t rows = static_cast<size_t>(s.tokens * s.heads * s.width) * vd_dtype_bytes(s.dtype);
    memset(o.workspace, 0xff, p.workspace);
    for (int64_t b = 0; b < s.batch; b++)
        for (int64_t head = 0; head < s.heads; head++)
            attend(s, static_cast<const char *>(o.x) + static_cast<size_t>(3 * b) * rows,
                   static_cast<char *>(o.y) + static_cast<size_t>(b) * rows, head);
}

/* The kind of problem stands for the problem. */
vd_code keep(const vd_cuda_math *m, const char *problem, const vd_cuda_plan &plan, vd_cuda_plan **out,
             vd_error *err) {
    *out = new (std::nothrow) vd_cuda_plan(plan);
    if (m->chosen)
        m->chosen(m->user, problem, plan.name);
    return *out ? VD_OK : vd_fail_memory(err, "a plan", sizeof plan);
}

vd_code enqueue(const vd_cuda_plan *p, cudaStream_t stream, const operands &o) {
    const vd_cuda_plan plan = *p;
    shim_enqueue(stream,
                 [plan, o] { plan.what == kind::attention ? run_attention(plan, o) : run_product(plan, o); });
    return VD_OK;
}

vd_cuda_conv_spec as_conv(int64_t rows, int64_t depth, int64_t width, vd_dtype dtype) {
    vd_cuda_conv_spec conv = {};
    conv.n = conv.w = conv.ow = conv.kh = conv.kw = conv.stride = 1;
    conv.h = conv.oh = rows;
    conv.c = depth;
    conv.k = width;
    conv.dtype = dtype;
    return conv;
}

} // namespace

/* ---- the interface ---- */

extern "C" {

vd_code vd_cuda_math_open(const vd_cuda_math_request *request, vd_cuda_math **out, vd_error *err) {
    bool convolutions = !request->profile || strcmp(request->profile, "no convolutions") != 0;
    *out = new (std::nothrow) vd_cuda_math{convolutions, request->chosen, request->user};
    return *out ? VD_OK : vd_fail_memory(err, "the products' state", sizeof **out);
}

void vd_cuda_math_close(vd_cuda_math *m) {
    delete m;
}

void vd_cuda_plan_close(vd_cuda_plan *p) {
    delete p;
}

size_t vd_cuda_plan_workspace(const vd_cuda_plan *p) {
    return p->workspace;
}

bool vd_cuda_plan_precompiled(const vd_cuda_plan *) {
    return true;
}

const char *vd_cuda_plan_name(const vd_cuda_plan *p) {
    return p->name;
}

/* There is one way only. Weak: the tuner's test has the real one. */
__attribute__((weak)) vd_code vd_cuda_tune_open(vd_cuda_math *, const vd_cuda_tuner *tuner, vd_error *) {
    const vd_cuda_trial trial = {"everything", "loops", 0, 0, true};
    tuner->tried(tuner->user, &trial);
    return VD_OK;
}

vd_code vd_cuda_conv_open(vd_cuda_math *m, const vd_cuda_conv_spec *spec, vd_cuda_plan **out, vd_error *err) {
    *out = nullptr;
    if (!m->convolutions)
        return VD_OK;
    return keep(m, "conv", {kind::product, "loops: convolution", workspace_bytes, *spec, 1, spec->dtype, {}},
                out, err);
}

vd_code vd_cuda_gemm_open(vd_cuda_math *m, const vd_cuda_gemm_spec *spec, vd_cuda_plan **out, vd_error *err) {
    vd_cuda_conv_spec conv = as_conv(spec->m, spec->k, spec->n, spec->dtype);
    conv.bias = spec->bias;
    conv.add = spec->add;
    conv.alpha = spec->alpha;
    return keep(m, "gemm",
                {kind::product, "loops: product", workspace_bytes, conv, spec->runs, spec->out, {}}, out,
                err);
}

/* As large a workspace as a plan of two kernels needs. */
vd_code vd_cuda_gate_open(vd_cuda_math *m, const vd_cuda_gate_spec *spec, vd_cuda_plan **out, vd_error *err) {
    const size_t wide = static_cast<size_t>(2 * spec->m * spec->n) * vd_dtype_bytes(spec->dtype);
    vd_cuda_conv_spec conv = as_conv(spec->m, spec->k, 2 * spec->n, spec->dtype);
    conv.bias = true;
    conv.alpha = 1;
    return keep(m, "gate", {kind::gate, "loops: gated product", wide, conv, 1, spec->dtype, {}}, out, err);
}

vd_code vd_cuda_sdpa_open(vd_cuda_math *m, const vd_cuda_sdpa_spec *spec, vd_cuda_plan **out, vd_error *err) {
    *out = nullptr;
    if (spec->dtype == VD_F32)
        return VD_OK;
    return keep(m, "sdpa", {kind::attention, "loops: attention", workspace_bytes, {}, 1, spec->dtype, *spec},
                out, err);
}

vd_code vd_cuda_conv_run(const vd_cuda_plan *p, cudaStream_t stream, const void *x, const void *weights,
                         const void *bias, const void *z, void *y, void *workspace, vd_error *) {
    return enqueue(p, stream, {x, weights, bias, z, y, workspace});
}

vd_code vd_cuda_gemm_run(const vd_cuda_plan *p, cudaStream_t stream, const void *x, const void *weights,
                         const void *bias, const void *z, void *y, void *workspace, vd_error *) {
    return enqueue(p, stream, {x, weights, bias, z, y, workspace});
}

vd_code vd_cuda_gate_run(const vd_cuda_plan *p, cudaStream_t stream, const void *x, const void *weights,
                         const void *bias, void *y, void *workspace, vd_error *) {
    return enqueue(p, stream, {x, weights, bias, nullptr, y, workspace});
}

vd_code vd_cuda_sdpa_run(const vd_cuda_plan *p, cudaStream_t stream, const void *qkv, void *y,
                         void *workspace, vd_error *) {
    return enqueue(p, stream, {qkv, nullptr, nullptr, nullptr, y, workspace});
}
}
