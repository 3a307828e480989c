/* What the attention kernels share. */
#ifndef VD_KERNELS_ATTENTION_CUH
#define VD_KERNELS_ATTENTION_CUH

#include "kernels/device.cuh"

namespace vdk {

constexpr float log2_e = 1.44269504f;

/* One head of one sequence: token t of q, k and v is t * pitch further, of y t * y_pitch. */
template <class T> struct head {
    const T *q, *k, *v; /* [tokens][width] */
    T *y;               /* [tokens][width] */
    int64_t pitch, y_pitch;
};

/* Heads are counted head, then inner, then outer: neighbours share rows. */
template <class T> __device__ __forceinline__ head<T> head_of(const vdk_attention &a, int64_t index) {
    quotient sequence = divide(index, a.heads), outer = divide(sequence.whole, a.inner);
    int64_t row = outer.whole * a.outer_stride + outer.rest * a.inner_stride,
            columns = (int64_t)a.heads * a.width;
    const T *q = static_cast<const T *>(a.qkv) + row * 3 * columns + sequence.rest * a.width;
    T *y = static_cast<T *>(a.y) + row * columns + sequence.rest * a.width;
    return {q, q + columns, q + 2 * columns, y, a.token_stride * 3 * columns, a.token_stride * columns};
}

__host__ __device__ inline int64_t head_count(const vdk_attention &a) {
    return a.outer * a.inner * a.heads;
}

/* Up to 32 tokens of width 64 in 16 bits, on tensor cores (attention_short.cu). */
bool attention_is_short(const vdk_attention *a);
cudaError_t run_short_attention(const vdk_attention *a, cudaStream_t stream);

/* Any number of tokens of a width of 64, 128 .. 512 in 16 bits, on tensor cores (attention_wide.cu). */
bool attention_is_wide(const vdk_attention *a);
cudaError_t run_wide_attention(const vdk_attention *a, cudaStream_t stream);

} // namespace vdk

#endif
