/* Compiles the .cu files of kernels as plain C++ for the host: g++ -x c++ -include shim.h. A launch
 * becomes a call of shim_enqueue (enqueue.h); a grid runs block after block, each thread of a block as a
 * fiber that gives way where threads of a GPU wait for each other. Which fiber goes first changes from
 * round to round, so that a missing barrier shows; where ThreadSanitizer looks, every one that it comes
 * across does. Shared memory has exactly the size that was asked for and begins as NaN; calls that the lanes
 * of a warp must make together end the program when they do not. */
#ifndef VD_TESTS_CUDA_SHIM_SHIM_H
#define VD_TESTS_CUDA_SHIM_SHIM_H

#include "enqueue.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <vector_functions.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __launch_bounds__
#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

/* ---- threads ---- */

extern thread_local uint3 threadIdx, blockIdx, blockDim, gridDim; /* of the running thread */

struct shim_grid {
    int64_t blocks;
    int threads;   /* of a block; a multiple of 32 */
    size_t shared; /* bytes */
    const void *kernel;
};

/* False: no GPU of ours would take such a launch. */
bool shim_grid_valid(const shim_grid &grid);
void shim_run_grid(const shim_grid &grid, const std::function<void()> &thread);

unsigned char *shim_shared_memory();
#define VDK_SHARED_MEMORY(name) unsigned char *name = shim_shared_memory()

namespace vdk {
constexpr int64_t most_blocks = 2; /* so that kernels loop, and still have a neighbour to race with */
}

/* ---- the runtime's calls for a launch ---- */

/* Bytes of shared memory that a kernel's launches may have. An error too where a kernel that had more is to
 * have less: a graph that is already there may want that. */
cudaError_t shim_raise_shared_limit(const void *kernel, int bytes);

template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
        return cudaErrorInvalidValue;
    return shim_raise_shared_limit((const void *)kernel, value);
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
    shim_grid grid = {config->gridDim.x, (int)config->blockDim.x, config->dynamicSmemBytes,
                      (const void *)kernel};
    if (!shim_grid_valid(grid))
        return cudaErrorInvalidConfiguration;
    shim_enqueue(config->stream, [=] { shim_run_grid(grid, [&] { kernel(arguments...); }); });
    return cudaSuccess;
}

/* ---- what threads do together ---- */

void shim_wait_block();
void shim_wait_warp();

/* Every lane gives `bytes` <= 64 to its warp and waits for the others; `call` names what is called, the
 * same in each. The results, 64 bytes apart, stay until the call after the next. */
const unsigned char *shim_exchange(const char *call, const void *mine, size_t bytes);
constexpr size_t shim_slot = 64;

#define __syncthreads() shim_wait_block()
#define __syncwarp(...) shim_wait_warp()

template <class T> T shim_from_lane(const unsigned char *slots, int lane) {
    T value;
    memcpy(&value, slots + (lane & 31) * shim_slot, sizeof value);
    return value;
}

static inline int shim_lane() {
    return (int)(threadIdx.x & 31);
}

template <class T> T __shfl_xor_sync(unsigned, T value, int mask) {
    return shim_from_lane<T>(shim_exchange("__shfl_xor_sync", &value, sizeof value), shim_lane() ^ mask);
}

template <class T> T __shfl_sync(unsigned, T value, int lane) {
    return shim_from_lane<T>(shim_exchange("__shfl_sync", &value, sizeof value), lane);
}

/* Ends the program where `call` may not have such an address. */
void shim_expect_aligned(const char *call, const void *address);

/* Copies of 16 bytes, or of zeros, that are made when their thread waits for them, and no sooner; until then
 * there is NaN in their place. */
void shim_copy_later(void *to, const void *from, bool inside);
void shim_commit_copies();
void shim_wait_for_copies(int left);

/* ---- arithmetic ---- */

#define __expf expf /* glibc has that name too */
using std::max;
using std::min;

static inline float __fadd_rn(float a, float b) {
    return a + b;
}
static inline float __fmul_rn(float a, float b) {
    return a * b;
}
static inline float __fdiv_rn(float a, float b) {
    return a / b;
}
static inline float __fsqrt_rn(float a) {
    return sqrtf(a);
}
static inline float __fdividef(float a, float b) {
    return a / b;
}
static inline float rsqrtf(float a) {
    return 1.0f / sqrtf(a);
}
static inline int __float2int_rn(float a) {
    return (int)lrintf(a);
}
static inline float __int_as_float(int a) {
    float f;
    memcpy(&f, &a, sizeof f);
    return f;
}

/* ---- tensor cores: what kernels/mma.cuh spells in PTX ---- */

namespace vdk {

static inline float shim_half(uint32_t two, int which, __half) {
    __half_raw raw;
    raw.x = (uint16_t)(two >> 16 * which);
    return __half2float(raw);
}
static inline float shim_half(uint32_t two, int which, __nv_bfloat16) {
    return __int_as_float((int)(which ? two & 0xffff0000u : two << 16));
}

/* Lane 4r + q holds of A rows r and r + 8, of B and of the sums columns as in PTX's m16n8k16. Registers only:
 * ThreadSanitizer has nothing to see, and would take a third of its time to look. */
template <class T>
[[gnu::no_sanitize("thread")]] void mma(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    const unsigned char *slots = shim_exchange("mma", mine, sizeof mine);
    int row = shim_lane() / 4, column = shim_lane() % 4 * 2;
    for (int k = 0; k < 16; k++) {
        int quad = k % 8 / 2, high = k / 8;
        const uint32_t *left = (const uint32_t *)(slots + (row * 4 + quad) * shim_slot);
        float upper = shim_half(left[2 * high], k % 2, T()),
              lower = shim_half(left[2 * high + 1], k % 2, T());
        for (int j = 0; j < 2; j++) {
            const uint32_t *right = (const uint32_t *)(slots + ((column + j) * 4 + quad) * shim_slot);
            float b = shim_half(right[4 + high], k % 2, T());
            sums[j] += upper * b;
            sums[2 + j] += lower * b;
        }
    }
}

/* Lane l's address is that of row l % 8 of matrix l / 8, 16 bytes; with `transposed` lanes receive
 * columns. */
static inline void shim_load_matrices(uint32_t *out, int count, const void *row, bool transposed) {
    shim_expect_aligned("ldmatrix", row);
    const unsigned char *slots = shim_exchange("ldmatrix", &row, sizeof row);
    int r = shim_lane() / 4, q = shim_lane() % 4 * 2;
    for (int m = 0; m < count; m++) {
        uint16_t two[2];
        for (int j = 0; j < 2; j++) {
            int line = transposed ? q + j : r, at = transposed ? r : q + j;
            two[j] = shim_from_lane<const uint16_t *>(slots, 8 * m + line)[at];
        }
        out[m] = two[0] | (uint32_t)two[1] << 16;
    }
}

static inline void load_matrices(uint32_t (&out)[4], const void *row) {
    shim_load_matrices(out, 4, row, false);
}
static inline void load_matrices_transposed(uint32_t (&out)[4], const void *row) {
    shim_load_matrices(out, 4, row, true);
}

static inline void copy_async(void *to, const void *from, bool inside) {
    shim_copy_later(to, from, inside);
}
static inline void commit_copies() {
    shim_commit_copies();
}
template <int left> void wait_for_copies() {
    shim_wait_for_copies(left);
}

} // namespace vdk

#endif
