/* Layer norm: one warp per row. Rows of up to 1280 channels stay in registers between the passes; longer
 * ones are read again. */
#include "kernels/device.cuh"

namespace vdk {

/* One row as the lanes of a warp see it: vector v of a lane is column (v * 32 + lane) * N. */
template <class T, int N> struct row_input {
    const T *x;       /* [c] */
    const float *add; /* [c] or NULL */

    __device__ __forceinline__ void read(int64_t j, float (&u)[N]) const {
        load<N>(x + j, u);
        if (add) {
            float more[N];
            load<N>(add + j, more);
            for (int i = 0; i < N; i++)
                u[i] += more[i];
        }
    }
};

/* Calls body(column, elements) for each vector of this lane; V vectors are kept in registers, or with V =
 * 0 all are read again each time. */
template <class T, int N, int V> struct row_values {
    row_input<T, N> input;
    int64_t c;
    float kept[V == 0 ? 1 : V][N];

    __device__ __forceinline__ int64_t column(int64_t v) const {
        return (v * warp_size + threadIdx.x % warp_size) * N;
    }

    __device__ __forceinline__ void keep() {
#pragma unroll
        for (int v = 0; v < V; v++)
            if (column(v) < c)
                input.read(column(v), kept[v]);
    }

    template <class F> __device__ __forceinline__ void each(F body) {
        if (V == 0)
#pragma unroll 1
            for (int64_t v = 0; column(v) < c; v++) {
                input.read(column(v), kept[0]);
                body(column(v), kept[0]);
            }
#pragma unroll
        for (int v = 0; v < V; v++)
            if (column(v) < c)
                body(column(v), kept[v]);
    }
};

/* y = (u - first - second) * inverse; the mean in two parts keeps its digits where it is far from zero. */
struct row_statistics {
    float first, second, inverse;
};

template <int N, class Values>
__device__ __forceinline__ row_statistics statistics_of(Values &values, int64_t c, float eps) {
    float share = 1.0f / (float)c, sum = 0, rest = 0, squares = 0;
    values.each([&](int64_t, const float(&u)[N]) {
        for (int i = 0; i < N; i++)
            sum += u[i];
    });
    float mean = warp_sum(sum) * share;
    values.each([&](int64_t, const float(&u)[N]) {
        for (int i = 0; i < N; i++) {
            float d = u[i] - mean;
            rest += d;
            squares += d * d;
        }
    });
    rest = warp_sum(rest);
    float variance = (warp_sum(squares) - rest * rest * share) * share;
    return {mean, rest * share, rsqrtf(variance + eps)};
}

template <class T, int N, int V> __global__ void __launch_bounds__(block_size) layer_norm(vdk_layer_norm a) {
    int64_t rows = a.images * a.rows;
    for (int64_t row = grid_thread() / warp_size; row < rows; row += grid_threads() / warp_size) {
        const T *x = static_cast<const T *>(a.x) + row * a.c;
        const T *mix = a.mix ? static_cast<const T *>(a.mix) + row * a.c : nullptr;
        const float *add = nullptr;
        if (a.add)
            add = a.add + divide(divide(row, a.rows).whole, a.add_rows).rest * a.c;
        T *y = static_cast<T *>(a.y) + row * a.c, *carry = static_cast<T *>(a.carry) + row * a.c;
        row_values<T, N, V> values = {{x, add}, a.c, {}};
        values.keep();
        row_statistics s = statistics_of<N>(values, a.c, a.eps);
        values.each([&](int64_t j, const float(&u)[N]) {
            float out[N], gamma[N], beta[N];
            for (int i = 0; i < N; i++)
                out[i] = (u[i] - s.first - s.second) * s.inverse;
            if (a.gamma) {
                load<N>(a.gamma + j, gamma);
                load<N>(a.beta + j, beta);
                for (int i = 0; i < N; i++)
                    out[i] = out[i] * gamma[i] + beta[i];
            }
            store<N>(y + j, out);
            if (!a.carry)
                return;
            for (int i = 0; i < N; i++)
                out[i] = u[i];
            if (mix) {
                load<N>(mix + j, out);
                for (int i = 0; i < N; i++)
                    out[i] = a.alpha * out[i] + (1.0f - a.alpha) * u[i];
            }
            store<N>(carry + j, out);
        });
    }
}

/* Values that a lane keeps: few, so that more warps fit, or many. Rows that are no vectors are rare, and
 * are read again. */
constexpr int few_values = 16, many_values = 40;

template <class T, int N> static cudaError_t run(const vdk_layer_norm *a, cudaStream_t stream) {
    int64_t blocks = blocks_for(a->images * a->rows * warp_size, block_size);
    if (N > 1 && a->c <= few_values * warp_size)
        return launch(layer_norm < T, N, N == 1 ? 0 : few_values / N >, blocks, block_size, 0, stream, *a);
    if (N > 1 && a->c <= many_values * warp_size)
        return launch(layer_norm < T, N, N == 1 ? 0 : many_values / N >, blocks, block_size, 0, stream, *a);
    return launch(layer_norm<T, N, 0>, blocks, block_size, 0, stream, *a);
}

} // namespace vdk

/* ---- launcher ---- */

using namespace vdk;

cudaError_t vdk_run_layer_norm(const vdk_layer_norm *a, cudaStream_t stream) {
    return for_type(a->dtype, [&](auto type) {
        using T = decltype(type);
        return for_width<lanes<T>>(a->c % lanes<T> == 0, [&](auto width) {
            constexpr int N = decltype(width)::value;
            return run<T, N>(a, stream);
        });
    });
}
