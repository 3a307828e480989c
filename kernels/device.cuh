/* What the kernels share: element types in vectors of up to 16 bytes, indices, sums over a warp, launches. */
#ifndef VD_KERNELS_DEVICE_CUH
#define VD_KERNELS_DEVICE_CUH

#include "kernels/kernels.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <type_traits>

/* Other compilers see these files through the tests' host shim, which has its own. */
#ifdef __CUDACC__
#include <cuda_runtime.h>

/* The launch's dynamic shared memory, 16-byte aligned; kernels have no other. */
#define VDK_SHARED_MEMORY(name) extern __shared__ __align__(16) unsigned char name[]

namespace vdk {

constexpr int64_t most_blocks = 1 << 30; /* of a grid */

} // namespace vdk
#endif

namespace vdk {

/* ---- launches ---- */

/* More shared memory than `plain` has to be asked for, kernel by kernel. What is asked for is always the most
 * that every GPU we run on has: less than before would be taken from graphs that are already there. */
constexpr size_t plain_shared_memory = 48 << 10;
constexpr int most_shared_memory = 99 << 10;

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared,
                   cudaStream_t stream, Arguments... arguments) {
    if (blocks == 0)
        return cudaSuccess;
    if (shared > plain_shared_memory) {
        cudaError_t result =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most_shared_memory);
        if (result != cudaSuccess)
            return result;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)blocks);
    config.blockDim = dim3((unsigned)threads);
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

/* ---- element types ---- */

using bf16 = __nv_bfloat16;

__device__ __forceinline__ float to_float(float x) {
    return x;
}
__device__ __forceinline__ float to_float(__half x) {
    return __half2float(x);
}
__device__ __forceinline__ float to_float(bf16 x) {
    return __bfloat162float(x);
}

/* Elements of T in 16 bytes. */
template <class T> constexpr int lanes = 16 / (int)sizeof(T);

template <class T, int N> struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) pack { T v[N]; };

template <int N> __device__ __forceinline__ void round_all(const float (&x)[N], pack<float, N> &y) {
    for (int i = 0; i < N; i++)
        y.v[i] = x[i];
}

/* In pairs, which are one instruction. */
template <int N> __device__ __forceinline__ void round_all(const float (&x)[N], pack<__half, N> &y) {
    for (int i = 0; i + 1 < N; i += 2) {
        __half2 two = __floats2half2_rn(x[i], x[i + 1]);
        y.v[i] = __low2half(two);
        y.v[i + 1] = __high2half(two);
    }
    if (N % 2)
        y.v[N - 1] = __float2half_rn(x[N - 1]);
}

template <int N> __device__ __forceinline__ void round_all(const float (&x)[N], pack<bf16, N> &y) {
    for (int i = 0; i + 1 < N; i += 2) {
        __nv_bfloat162 two = __floats2bfloat162_rn(x[i], x[i + 1]);
        y.v[i] = __low2bfloat16(two);
        y.v[i + 1] = __high2bfloat16(two);
    }
    if (N % 2)
        y.v[N - 1] = __float2bfloat16_rn(x[N - 1]);
}

/* N elements at p, which is aligned to as many bytes, at most 16. */
template <int N, class T> __device__ __forceinline__ pack<T, N> load_pack(const T *p) {
    return *reinterpret_cast<const pack<T, N> *>(p);
}

template <int N, class T> __device__ __forceinline__ void unpack(const pack<T, N> &raw, float (&out)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++)
        out[i] = to_float(raw.v[i]);
}

template <int N, class T> __device__ __forceinline__ void load(const T *p, float (&out)[N]) {
    unpack(load_pack<N>(p), out);
}

template <int N, class T> __device__ __forceinline__ void store(T *p, const float (&x)[N]) {
    pack<T, N> raw;
    round_all(x, raw);
    *reinterpret_cast<pack<T, N> *>(p) = raw;
}

/* f(T()) for the type that `dtype` names. */
template <class F> cudaError_t for_type(vd_dtype dtype, F f) {
    switch (dtype) {
    case VD_F32:
        return f(float());
    case VD_F16:
        return f(__half());
    case VD_BF16:
        return f(bf16());
    default:
        return cudaErrorInvalidValue;
    }
}

/* f(an integral constant): N where counts allow vectors, else 1. */
template <int N, class F> cudaError_t for_width(bool vectors, F f) {
    return vectors ? f(std::integral_constant<int, N>()) : f(std::integral_constant<int, 1>());
}

/* ---- indices ---- */

constexpr int warp_size = 32;
constexpr int block_size = 256; /* of kernels that go element by element */

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* Blocks of `threads` for `work` items; kernels loop over what most_blocks cannot hold. */
inline int64_t blocks_for(int64_t work, int threads) {
    int64_t blocks = ceil_div(work, threads);
    return blocks < most_blocks ? blocks : most_blocks;
}

struct quotient {
    int64_t whole, rest;
};

/* 64-bit division costs a hundred instructions, and is hardly ever needed. */
__device__ __forceinline__ quotient divide(int64_t a, int64_t b) {
    if ((a | b) >> 32 == 0) {
        uint32_t whole = (uint32_t)a / (uint32_t)b;
        return {whole, (uint32_t)a - whole * (uint32_t)b};
    }
    return {a / b, a % b};
}

__device__ __forceinline__ int64_t grid_thread() {
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ int64_t grid_threads() {
    return (int64_t)gridDim.x * blockDim.x;
}

/* body(row, column) for every N-th column of a matrix, spread over the grid. */
template <int N, class F> __device__ __forceinline__ void for_cells(int64_t rows, int64_t columns, F body) {
    int64_t per_row = columns / N;
    for (int64_t i = grid_thread(); i < rows * per_row; i += grid_threads()) {
        quotient at = divide(i, per_row);
        body(at.whole, at.rest * N);
    }
}

/* ---- arithmetic ---- */

constexpr unsigned all_lanes = 0xffffffffu;

/* The sum over the lanes of a warp, in every lane. */
template <class T> __device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
    for (int distance = warp_size / 2; distance > 0; distance /= 2)
        x += __shfl_xor_sync(all_lanes, x, distance);
    return x;
}

/* x / (1 + exp(-slope * x)): SiLU and its relative. */
__device__ __forceinline__ float swish(float x, float slope) {
    return __fdividef(x, 1.0f + __expf(-slope * x));
}

} // namespace vdk

#endif
