/* Element by element over rows. */
#include "kernels/device.cuh"

namespace vdk {

/* Vectors of both types: 16 bytes of the larger. */
template <class A, class B> constexpr int common_lanes = lanes<A> < lanes<B> ? lanes<A> : lanes<B>;

/* ---- bias, activation, residual ---- */

/* erf within 1.5e-7 (Abramowitz and Stegun, 7.1.26), in a third of the instructions of erff. */
__device__ __forceinline__ float rough_erf(float x) {
    float t = __fdividef(1.0f, 1.0f + 0.3275911f * fabsf(x));
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    return copysignf(1.0f - p * t * __expf(-x * x), x);
}

/* For a result that is rounded to T: with erff a gate over 16 bits would wait for arithmetic, not for
 * memory. */
template <class T> __device__ __forceinline__ float gelu(float x) {
    float y = x * 0.70710678f;
    return 0.5f * x * (1.0f + (std::is_same<T, float>::value ? erff(y) : rough_erf(y)));
}

template <class T> __device__ __forceinline__ float activated(vdk_act act, float x) {
    switch (act) {
    case VDK_ACT_SILU:
        return swish(x, 1.0f);
    case VDK_ACT_GELU:
        return gelu<T>(x);
    case VDK_ACT_QUICK_GELU:
        return swish(x, 1.702f);
    default:
        return x;
    }
}

/* x + bias at column j. */
template <int N, class T>
__device__ __forceinline__ void biased(const T *x, const float *bias, int64_t j, float (&out)[N]) {
    load<N>(x + j, out);
    if (bias) {
        float b[N];
        load<N>(bias + j, b);
        for (int i = 0; i < N; i++)
            out[i] += b[i];
    }
}

template <class From, class To, int N>
__global__ void __launch_bounds__(block_size) activate(vdk_activate a) {
    bool gated = a.act == VDK_ACT_GEGLU;
    int64_t columns = gated ? 2 * a.c : a.c;
    for_cells<N>(a.rows, a.c, [&](int64_t row, int64_t j) {
        const From *x = static_cast<const From *>(a.x) + row * columns;
        const float *bias = a.bias ? a.bias + divide(row, a.rows / a.runs).whole * columns : nullptr;
        float y[N], more[N];
        biased<N>(x, bias, j, y);
        if (gated)
            biased<N>(x, bias, a.c + j, more);
        for (int i = 0; i < N; i++)
            y[i] = gated ? y[i] * gelu<To>(more[i]) : activated<To>(a.act, y[i]);
        if (a.residual) {
            load<N>(static_cast<const To *>(a.residual) + row * a.c + j, more);
            for (int i = 0; i < N; i++)
                y[i] += more[i];
        }
        store<N>(static_cast<To *>(a.y) + row * a.c + j, y);
    });
}

/* ---- casts ---- */

template <class From, class To, int N> __global__ void __launch_bounds__(block_size) cast(vdk_cast a) {
    for_cells<N>(a.rows, a.to_pitch, [&](int64_t row, int64_t j) {
        float y[N] = {};
        if (j < a.c)
            load<N>(static_cast<const From *>(a.x) + row * a.from_pitch + j, y);
        for (int i = 0; i < N; i++)
            y[i] *= a.scale;
        store<N>(static_cast<To *>(a.y) + row * a.to_pitch + j, y);
    });
}

/* Rows without gaps are one long row. */
static vdk_cast flattened(vdk_cast a) {
    if (a.from_pitch == a.c && a.to_pitch == a.c) {
        a.c = a.from_pitch = a.to_pitch = a.rows * a.c;
        a.rows = 1;
    }
    return a;
}

/* ---- nearest neighbour ---- */

template <class T, int N> __global__ void __launch_bounds__(block_size) resize(vdk_resize a) {
    for_cells<N>(a.n * a.h * a.w, a.c, [&](int64_t pixel, int64_t j) {
        quotient line = divide(pixel, a.w), image = divide(line.whole, a.h);
        int64_t from_line = image.whole * a.sh + divide(image.rest * a.sh, a.h).whole;
        int64_t from = from_line * a.sw + divide(line.rest * a.sw, a.w).whole;
        float x[N];
        load<N>(static_cast<const T *>(a.x) + from * a.c + j, x);
        store<N>(static_cast<T *>(a.y) + pixel * a.c + j, x);
    });
}

/* ---- phases of twice the size ---- */

template <class T, int N> __global__ void __launch_bounds__(block_size) unphase(vdk_unphase a) {
    for_cells<N>(4 * a.n * a.h * a.w, a.c, [&](int64_t pixel, int64_t j) {
        quotient line = divide(pixel, 2 * a.w), image = divide(line.whole, 2 * a.h);
        int64_t row = image.rest, column = line.rest, phase = row % 2 * 2 + column % 2;
        int64_t from = (image.whole * (a.h + 1) + (row + 1) / 2) * (a.w + 1) + (column + 1) / 2;
        *reinterpret_cast<pack<T, N> *>(static_cast<T *>(a.y) + pixel * a.c + j) =
            load_pack<N>(static_cast<const T *>(a.x) + (4 * from + phase) * a.c + j);
    });
}

/* ---- pictures ---- */

/* A comparison with NaN is false, so NaN becomes 0. */
__device__ __forceinline__ uint8_t to_byte(float x) {
    float y = __fadd_rn(__fmul_rn(x, 0.5f), 0.5f);
    y = y > 0.0f ? y : 0.0f;
    y = y < 1.0f ? y : 1.0f;
    return (uint8_t)__float2int_rn(__fmul_rn(y, 255.0f));
}

template <class T>
__global__ void __launch_bounds__(block_size) frames_u8(const T *x, uint8_t *y, int64_t count) {
    constexpr int N = lanes<T>;
    for (int64_t i = grid_thread() * N; i < count; i += grid_threads() * N)
        if (i + N <= count) {
            float in[N];
            pack<uint8_t, N> out;
            load<N>(x + i, in);
            for (int k = 0; k < N; k++)
                out.v[k] = to_byte(in[k]);
            *reinterpret_cast<pack<uint8_t, N> *>(y + i) = out;
        } else
            for (int64_t k = i; k < count; k++)
                y[k] = to_byte(to_float(x[k]));
}

/* ---- patches of a convolution ---- */

template <class T, int N> __global__ void __launch_bounds__(block_size) patches(vdk_patches a) {
    for_cells<N>(a.rows, a.pitch, [&](int64_t row, int64_t j) {
        quotient line = divide(a.first + row, a.ow), image = divide(line.whole, a.oh), tap = divide(j, a.c);
        int kh = (int)tap.whole / a.kw, kw = (int)tap.whole % a.kw;
        int64_t h = image.rest * a.stride + kh - a.pad_top, w = line.rest * a.stride + kw - a.pad_left;
        float x[N] = {};
        if (kh < a.kh && h >= 0 && h < a.h && w >= 0 && w < a.w)
            load<N>(static_cast<const T *>(a.x) + ((image.whole * a.h + h) * a.w + w) * a.c + tap.rest, x);
        store<N>(static_cast<T *>(a.y) + row * a.pitch + j, x);
    });
}

} // namespace vdk

/* ---- launchers ---- */

using namespace vdk;

cudaError_t vdk_run_activate(const vdk_activate *a, cudaStream_t stream) {
    return for_type(a->from, [&](auto from) {
        return for_type(a->to, [&](auto to) {
            using From = decltype(from);
            using To = decltype(to);
            constexpr int widest = common_lanes<From, To>;
            return for_width<widest>(a->c % widest == 0, [&](auto width) {
                constexpr int N = decltype(width)::value;
                return launch(activate<From, To, N>, blocks_for(a->rows * (a->c / N), block_size), block_size,
                              0, stream, *a);
            });
        });
    });
}

cudaError_t vdk_run_cast(const vdk_cast *given, cudaStream_t stream) {
    vdk_cast a = flattened(*given);
    return for_type(a.from, [&](auto from) {
        return for_type(a.to, [&](auto to) {
            using From = decltype(from);
            using To = decltype(to);
            constexpr int widest = common_lanes<From, To>;
            bool vectors = (a.c | a.from_pitch | a.to_pitch) % widest == 0;
            return for_width<widest>(vectors, [&](auto width) {
                constexpr int N = decltype(width)::value;
                return launch(cast<From, To, N>, blocks_for(a.rows * (a.to_pitch / N), block_size),
                              block_size, 0, stream, a);
            });
        });
    });
}

cudaError_t vdk_run_resize(const vdk_resize *a, cudaStream_t stream) {
    return for_type(a->dtype, [&](auto type) {
        using T = decltype(type);
        return for_width<lanes<T>>(a->c % lanes<T> == 0, [&](auto width) {
            constexpr int N = decltype(width)::value;
            return launch(resize<T, N>, blocks_for(a->n * a->h * a->w * (a->c / N), block_size), block_size,
                          0, stream, *a);
        });
    });
}

cudaError_t vdk_run_unphase(const vdk_unphase *a, cudaStream_t stream) {
    return for_type(a->dtype, [&](auto type) {
        using T = decltype(type);
        return for_width<lanes<T>>(a->c % lanes<T> == 0, [&](auto width) {
            constexpr int N = decltype(width)::value;
            return launch(unphase<T, N>, blocks_for(4 * a->n * a->h * a->w * (a->c / N), block_size),
                          block_size, 0, stream, *a);
        });
    });
}

cudaError_t vdk_run_frames_u8(const void *x, vd_dtype from, uint8_t *y, int64_t count, cudaStream_t stream) {
    return for_type(from, [&](auto type) {
        using T = decltype(type);
        return launch(frames_u8<T>, blocks_for(ceil_div(count, lanes<T>), block_size), block_size, 0, stream,
                      static_cast<const T *>(x), y, count);
    });
}

cudaError_t vdk_run_patches(const vdk_patches *a, cudaStream_t stream) {
    return for_type(a->dtype, [&](auto type) {
        using T = decltype(type);
        return for_width<lanes<T>>((a->c | a->pitch) % lanes<T> == 0, [&](auto width) {
            constexpr int N = decltype(width)::value;
            return launch(patches<T, N>, blocks_for(a->rows * (a->pitch / N), block_size), block_size, 0,
                          stream, *a);
        });
    });
}
