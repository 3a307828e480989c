/* Around the network: its input, the sampling step, embeddings. What the CPU backend computes in fp32
 * comes out with the same bits: each operation is spelled with its rounding, so that none is fused. */
#include "kernels/device.cuh"

namespace vdk {

template <class T, int N> __global__ void __launch_bounds__(block_size) unet_input(vdk_unet_input a) {
    float sigma = a.sigmas[*a.step];
    float divisor = __fsqrt_rn(__fadd_rn(__fmul_rn(sigma, sigma), 1.0f));
    int64_t half = a.frames * a.pixels;
    for_cells<N>(a.halves * half, 2 * a.c, [&](int64_t row, int64_t j) {
        bool conditional = a.halves == 1 || row >= half;
        int64_t from = row < half ? row : row - half;
        const float *latents = a.latents + from * a.c, *image = a.image + divide(from, a.pixels).rest * a.c;
        float y[N];
        for (int i = 0; i < N; i++) {
            int64_t channel = j + i;
            if (channel < a.c)
                y[i] = __fdiv_rn(latents[channel], divisor);
            else
                y[i] = conditional ? image[channel - a.c] : 0.0f;
        }
        store<N>(static_cast<T *>(a.y) + row * 2 * a.c + j, y);
    });
}

__global__ void __launch_bounds__(block_size) euler_step(vdk_euler_step a) {
    const float *sigma = a.sigmas + *a.step;
    float q = __fadd_rn(__fmul_rn(sigma[0], sigma[0]), 1.0f);
    float c = __fdiv_rn(-sigma[0], __fsqrt_rn(q)), change = __fadd_rn(sigma[1], -sigma[0]);
    int64_t frame = a.pixels * a.c, all = a.frames * frame;
#pragma unroll 1
    for (int64_t i = grid_thread(); i < all; i += grid_threads()) {
        float v = a.v[i], x = a.latents[i];
        if (a.halves == 2) {
            float difference = __fadd_rn(a.v[all + i], -v);
            v = __fadd_rn(v, __fmul_rn(a.guidance[divide(i, frame).whole], difference));
        }
        float x0 = __fadd_rn(__fmul_rn(v, c), __fdiv_rn(x, q));
        float d = __fdiv_rn(__fadd_rn(x, -x0), sigma[0]);
        a.latents[i] = __fadd_rn(x, __fmul_rn(d, change));
    }
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

cudaError_t vdk_run_unet_input(const vdk_unet_input *a, cudaStream_t stream) {
    return for_type(a->dtype, [&](auto type) {
        using T = decltype(type);
        return for_width<lanes<T>>(2 * a->c % lanes<T> == 0, [&](auto width) {
            constexpr int N = decltype(width)::value;
            int64_t cells = a->halves * a->frames * a->pixels * (2 * a->c / N);
            return launch(unet_input<T, N>, blocks_for(cells, block_size), block_size, 0, stream, *a);
        });
    });
}

cudaError_t vdk_run_euler_step(const vdk_euler_step *a, cudaStream_t stream) {
    int64_t count = a->frames * a->pixels * a->c;
    cudaError_t result = launch(euler_step, blocks_for(count, block_size), block_size, 0, stream, *a);
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
