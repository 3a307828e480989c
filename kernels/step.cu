/* Around the network: its input, the sampling step, embeddings. What the CPU backend computes in fp32
 * comes out with the same bits: each operation is spelled with its rounding, so that none is fused. */
#include "kernels/device.cuh"

namespace vdk {

__device__ __forceinline__ float square_plus_one(float sigma) {
    return __fadd_rn(__fmul_rn(sigma, sigma), 1.0f);
}

/* Channels j .. j + N - 1 of a row of the network's input, in each half of the batch: the latents `x` scaled,
 * and the image or zeros beside them. N is c, which makes the row one vector, or 1. */
template <class T, int N>
__device__ __forceinline__ void write_input(const vdk_unet_input &a, int64_t row, int64_t pixel, int64_t j,
                                            const float (&x)[N], float divisor) {
    float image[N], y[2 * N];
    load(a.image + pixel * a.c + j, image);
    for (int i = 0; i < N; i++)
        y[i] = __fdiv_rn(x[i], divisor);
#pragma unroll 1
    for (int half = 0; half < a.halves; half++) {
        T *to = static_cast<T *>(a.y) + (half * a.frames * a.pixels + row) * 2 * a.c + j;
        for (int i = 0; i < N; i++)
            y[N + i] = half == a.halves - 1 ? image[i] : 0.0f;
        if constexpr (N > 1) {
            store(to, y);
        } else {
            store<1>(to, {y[0]});
            store<1>(to + a.c, {y[1]});
        }
    }
}

template <class T, int N> __global__ void __launch_bounds__(block_size) unet_input(vdk_unet_input a) {
    float divisor = __fsqrt_rn(square_plus_one(a.sigmas[*a.step]));
    for_cells<N>(a.frames * a.pixels, a.c, [&](int64_t row, int64_t j) {
        float x[N];
        load(a.latents + row * a.c + j, x);
        write_input<T>(a, row, divide(row, a.pixels).rest, j, x, divisor);
    });
}

template <class T, int N> __global__ void __launch_bounds__(block_size) euler_step(vdk_euler_step a) {
    float sigma = a.sigmas[*a.step], following = a.sigmas[*a.step + 1];
    float q = square_plus_one(sigma), divisor = __fsqrt_rn(square_plus_one(following));
    float c = __fdiv_rn(-sigma, __fsqrt_rn(q)), change = __fadd_rn(following, -sigma);
    const vdk_unet_input next = {a.latents, a.image,  a.sigmas, a.step,   a.next,
                                 a.frames,  a.pixels, a.c,      a.halves, a.dtype};
    int64_t rows = a.frames * a.pixels;
    for_cells<N>(rows, a.c, [&](int64_t row, int64_t j) {
        quotient at = divide(row, a.pixels); /* frame and pixel */
        float *latents = a.latents + row * a.c + j;
        float x[N], v[N], with[N];
        load(latents, x);
        load(a.v + row * a.c + j, v);
        if (a.halves == 2) {
            load(a.v + (rows + row) * a.c + j, with);
            for (int i = 0; i < N; i++)
                v[i] = __fadd_rn(v[i], __fmul_rn(a.guidance[at.whole], __fadd_rn(with[i], -v[i])));
        }
        for (int i = 0; i < N; i++) {
            float x0 = __fadd_rn(__fmul_rn(v[i], c), __fdiv_rn(x[i], q));
            float d = __fdiv_rn(__fadd_rn(x[i], -x0), sigma);
            x[i] = __fadd_rn(x[i], __fmul_rn(d, change));
        }
        store(latents, x);
        if (a.next)
            write_input<T>(next, row, at.rest, j, x, divisor);
    });
}

__global__ void increment(int32_t *step) {
    if (threadIdx.x == 0)
        ++*step;
}

__global__ void __launch_bounds__(block_size)
    gather_row(const float *table, const int32_t *index, float *y, int64_t rows, int64_t c) {
    int64_t row = *index;
    bool inside = row >= 0 && row < rows;
    for (int64_t j = grid_thread(); j < c; j += grid_threads())
        y[j] = inside ? table[row * c + j] : __int_as_float(0x7fc00000);
}

template <class T>
__global__ void __launch_bounds__(block_size)
    sinusoid(const float *positions, const float *frequencies, T *y, int64_t count, int64_t dim) {
    int64_t half = dim / 2;
    for_cells<1>(count, dim, [&](int64_t r, int64_t j) {
        float value[1] = {0.0f};
        if (j < 2 * half) {
            float angle = (positions ? positions[r] : (float)r) * frequencies[j < half ? j : j - half];
            value[0] = j < half ? cosf(angle) : sinf(angle);
        }
        store<1>(y + r * dim + j, value);
    });
}

} // namespace vdk

/* ---- launchers ---- */

using namespace vdk;

/* f(T(), N, blocks) for a thread per N channels of the latents: a whole row where it is a vector, else 1. */
template <class A, class F> cudaError_t for_latents(const A *a, F f) {
    return for_type(a->dtype, [&](auto type) {
        return for_width<lanes<float>>(a->c == lanes<float>, [&](auto width) {
            return f(type, width, blocks_for(a->frames * a->pixels * (a->c / width), block_size));
        });
    });
}

cudaError_t vdk_run_unet_input(const vdk_unet_input *a, cudaStream_t stream) {
    return for_latents(a, [&](auto type, auto width, int64_t blocks) {
        return launch(unet_input<decltype(type), width>, blocks, block_size, 0, stream, *a);
    });
}

cudaError_t vdk_run_euler_step(const vdk_euler_step *a, cudaStream_t stream) {
    cudaError_t result = for_latents(a, [&](auto type, auto width, int64_t blocks) {
        return launch(euler_step<decltype(type), width>, blocks, block_size, 0, stream, *a);
    });
    return result == cudaSuccess ? launch(increment, 1, warp_size, 0, stream, a->step) : result;
}

cudaError_t vdk_run_gather_row(const float *table, const int32_t *index, float *y, int64_t rows, int64_t c,
                               cudaStream_t stream) {
    return launch(gather_row, blocks_for(c, block_size), block_size, 0, stream, table, index, y, rows, c);
}

cudaError_t vdk_run_sinusoid(const float *positions, const float *frequencies, void *y, int64_t count,
                             int64_t dim, vd_dtype dtype, cudaStream_t stream) {
    return for_type(dtype, [&](auto type) {
        using T = decltype(type);
        return launch(sinusoid<T>, blocks_for(count * dim, block_size), block_size, 0, stream, positions,
                      frequencies, static_cast<T *>(y), count, dim);
    });
}
