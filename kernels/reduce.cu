/* Sums over whole tensors: each block leaves one partial result, one last block adds them up. */
#include "kernels/device.cuh"

namespace vdk {

constexpr int max_partials = 1024;
static_assert(max_partials * sizeof(uint64_t) <= VDK_REDUCE_SCRATCH, "one partial sum per block");

/* The sum over a block of block_size threads, in its first thread. `memory`: a T per warp. */
template <class T> __device__ __forceinline__ T block_sum(T x, T *memory) {
    x = warp_sum(x);
    if (threadIdx.x % warp_size == 0)
        memory[threadIdx.x / warp_size] = x;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int warp = 1; warp < block_size / warp_size; warp++)
            x += memory[warp];
    return x;
}

constexpr size_t sum_memory = block_size / warp_size * sizeof(uint64_t);

/* The finaliser of splitmix64 (base/hash.h). */
__host__ __device__ constexpr uint64_t mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* What word `index` of a tensor adds to a sum. */
struct hash {
    using sum = uint64_t;

    __device__ static uint64_t of(uint32_t word, int64_t index) {
        return mix(((uint64_t)index << 32) + word);
    }
};

/* Elements whose exponent is all ones: one or two in a word. */
template <class T> struct nonfinite {
    using sum = int32_t;

    __device__ static int32_t of(uint32_t word, int64_t) {
        if (sizeof(T) == 4)
            return (word & 0x7f800000u) == 0x7f800000u;
        constexpr uint32_t exponent = std::is_same<T, bf16>::value ? 0x7f80u : 0x7c00u;
        return ((word & exponent) == exponent) + ((word >> 16 & exponent) == exponent);
    }
};

struct alignas(16) words {
    uint32_t v[4];
};

/* Word i of the bytes; those past their end are zeros. */
__device__ __forceinline__ uint32_t word_at(const uint8_t *bytes, size_t count, int64_t i) {
    uint32_t word = 0;
    for (int k = 0; k < 4; k++)
        if (4 * (size_t)i + k < count)
            word |= (uint32_t)bytes[4 * i + k] << 8 * k;
    return word;
}

template <class Term>
__global__ void __launch_bounds__(block_size)
    sum_words(const uint8_t *bytes, size_t count, typename Term::sum *partials) {
    VDK_SHARED_MEMORY(memory);
    typename Term::sum sum = 0;
    int64_t whole = (int64_t)(count / sizeof(words)), all = (int64_t)((count + 3) / 4);
    for (int64_t i = grid_thread(); i < whole; i += grid_threads()) {
        words four = reinterpret_cast<const words *>(bytes)[i];
        for (int k = 0; k < 4; k++)
            sum += Term::of(four.v[k], 4 * i + k);
    }
    int64_t rest = 4 * whole + grid_thread();
    if (rest < all)
        sum += Term::of(word_at(bytes, count, rest), rest);
    sum = block_sum(sum, reinterpret_cast<typename Term::sum *>(memory));
    if (threadIdx.x == 0)
        partials[blockIdx.x] = sum;
}

/* *total = start (+ *total) + the partials. */
template <class T>
__global__ void __launch_bounds__(block_size)
    sum_partials(const T *partials, int count, T start, bool add, T *total) {
    VDK_SHARED_MEMORY(memory);
    T sum = 0;
    for (int i = threadIdx.x; i < count; i += block_size)
        sum += partials[i];
    sum = block_sum(sum, reinterpret_cast<T *>(memory));
    if (threadIdx.x == 0)
        *total = start + (add ? *total : 0) + sum;
}

template <class Term>
static cudaError_t run(const void *x, size_t bytes, typename Term::sum start, bool add,
                       typename Term::sum *total, void *scratch, cudaStream_t stream) {
    using sum = typename Term::sum;
    int64_t wanted = ceil_div((int64_t)bytes, sizeof(words) * block_size);
    int blocks = (int)(wanted < 1 ? 1 : wanted < max_partials ? wanted : max_partials);
    sum *partials = static_cast<sum *>(scratch);
    cudaError_t result = launch(sum_words<Term>, blocks, block_size, sum_memory, stream,
                                static_cast<const uint8_t *>(x), bytes, partials);
    if (result != cudaSuccess)
        return result;
    return launch(sum_partials<sum>, 1, block_size, sum_memory, stream, partials, blocks, start, add, total);
}

} // namespace vdk

/* ---- launchers ---- */

using namespace vdk;

cudaError_t vdk_run_checksum(const void *x, size_t bytes, uint64_t *sum, void *scratch, cudaStream_t stream) {
    uint64_t start = mix(((uint64_t)UINT32_MAX << 32) + bytes);
    return run<hash>(x, bytes, start, false, sum, scratch, stream);
}

cudaError_t vdk_run_nonfinite(const void *x, vd_dtype dtype, int64_t elements, int32_t *count, void *scratch,
                              cudaStream_t stream) {
    return for_type(dtype, [&](auto type) {
        using T = decltype(type);
        return run<nonfinite<T>>(x, (size_t)elements * sizeof(T), 0, true, count, scratch, stream);
    });
}
