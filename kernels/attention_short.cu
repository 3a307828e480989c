/* Attention over a few tokens, as between frames: one warp does one head of one sequence, from loads of 16
 * bytes to stores of 16 bytes. Memory is what it waits for.
 *
 * A product q.k does not care in which order channels are summed, so lane q of a quad takes channels 8q ..
 * 8q + 7 of each half of the head, from q and k alike: their fragments come straight from memory. Only v
 * goes through shared memory, to be transposed; the result takes its place to leave in whole rows. */
#include "kernels/attention.cuh"
#include "kernels/mma.cuh"

namespace vdk {

constexpr int width = 64, warps = 4;
constexpr int pitch = width + 8; /* of rows in shared memory: spreads them over its banks */

/* 16 bytes of token t; zeros after the last. */
template <class T>
__device__ __forceinline__ uint4 piece_of(const T *x, int64_t x_pitch, int t, int tokens, int channel) {
    if (t >= tokens)
        return uint4{0, 0, 0, 0};
    return *reinterpret_cast<const uint4 *>(x + t * x_pitch + channel);
}

/* Eight keys for each n, as B matrices: of k one half of the head each. */
template <class T, int TILES>
__device__ __forceinline__ void load_keys(const head<T> &h, int tokens, uint4 (&keys)[2 * TILES][2]) {
    int row = threadIdx.x % warp_size / 4, quad = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < 2 * TILES; n++)
        for (int half = 0; half < 2; half++)
            keys[n][half] = piece_of(h.k, h.pitch, n * 8 + row, tokens, half * 32 + quad * 8);
}

/* Scores of 16 queries times `factor`; those of keys that do not exist are so low that they vanish. */
template <class T, int TILES>
__device__ __forceinline__ void score(const head<T> &h, int tokens, int first, float factor,
                                      const uint4 (&keys)[2 * TILES][2], float (&s)[2 * TILES][4]) {
    int row = threadIdx.x % warp_size / 4, quad = threadIdx.x % 4;
    uint4 q[2][2];
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 2; i++)
            q[half][i] = piece_of(h.q, h.pitch, first + 8 * i + row, tokens, half * 32 + quad * 8);
#pragma unroll
    for (int n = 0; n < 2 * TILES; n++) {
        for (int i = 0; i < 4; i++)
            s[n][i] = 0;
        for (int half = 0; half < 2; half++) {
            const uint4 &upper = q[half][0], &lower = q[half][1], &k = keys[n][half];
            mma<T>(s[n], {upper.x, lower.x, upper.y, lower.y}, k.x, k.y);
            mma<T>(s[n], {upper.z, lower.z, upper.w, lower.w}, k.z, k.w);
        }
        for (int i = 0; i < 4; i++)
            s[n][i] = n * 8 + quad * 2 + i % 2 < tokens ? s[n][i] * factor : -1e30f;
    }
}

/* The largest or the sum of a row's values: they are in the four lanes of a quad. */
template <class F> __device__ __forceinline__ float over_quad(float x, F f) {
    x = f(x, __shfl_xor_sync(all_lanes, x, 1));
    return f(x, __shfl_xor_sync(all_lanes, x, 2));
}

/* Scores, in units of log 2, to weights as A matrices, and one over the sum of each of the two rows'
 * weights. */
template <class T, int TILES>
__device__ __forceinline__ void weigh(const float (&s)[2 * TILES][4], uint32_t (&p)[TILES][4],
                                      float (&inverse)[2]) {
    for (int row = 0; row < 2; row++) {
        float top = s[0][2 * row], sum = 0;
#pragma unroll
        for (int n = 0; n < 2 * TILES; n++)
            top = fmaxf(top, fmaxf(s[n][2 * row], s[n][2 * row + 1]));
        top = over_quad(top, [](float a, float b) { return fmaxf(a, b); });
#pragma unroll
        for (int n = 0; n < 2 * TILES; n++) {
            float first = exp2f(s[n][2 * row] - top), second = exp2f(s[n][2 * row + 1] - top);
            sum += first + second;
            p[n / 2][n % 2 * 2 + row] = rounded_pair<T>(first, second);
        }
        inverse[row] = 1.0f / over_quad(sum, [](float a, float b) { return a + b; });
    }
}

/* Weights times values, row by row into `values`, which a warp has to itself. */
template <class T, int TILES>
__device__ __forceinline__ void mix(const uint32_t (&p)[TILES][TILES][4], const float (&inverse)[TILES][2],
                                    T *values) {
    int lane = threadIdx.x % warp_size;
    float y[TILES][width / 8][4] = {};
#pragma unroll
    for (int n = 0; n < width / 8; n += 2)
#pragma unroll
        for (int k = 0; k < TILES; k++) {
            uint32_t v[4];
            load_matrices_transposed(v, values + (k * 16 + lane % 16) * pitch + n * 8 + lane / 16 * 8);
#pragma unroll
            for (int m = 0; m < TILES; m++) {
                mma<T>(y[m][n], p[m][k], v[0], v[1]);
                mma<T>(y[m][n + 1], p[m][k], v[2], v[3]);
            }
        }
    __syncwarp();
#pragma unroll
    for (int m = 0; m < TILES; m++)
        for (int row = 0; row < 2; row++)
            for (int n = 0; n < width / 8; n++) {
                const float two[2] = {y[m][n][2 * row] * inverse[m][row],
                                      y[m][n][2 * row + 1] * inverse[m][row]};
                store<2>(values + (m * 16 + 8 * row + lane / 4) * pitch + n * 8 + lane % 4 * 2, two);
            }
}

template <class T, int TILES>
__global__ void __launch_bounds__(warps *warp_size) attention_short(vdk_attention a) {
    VDK_SHARED_MEMORY(memory);
    T *values = reinterpret_cast<T *>(memory) + threadIdx.x / warp_size * (16 * TILES * pitch);
    int row = threadIdx.x % warp_size / 8, channel = threadIdx.x % 8 * 8, tokens = (int)a.tokens;
    for (int64_t i = grid_thread() / warp_size; i < head_count(a); i += grid_threads() / warp_size) {
        head<T> h = head_of<T>(a, i);
#pragma unroll
        for (int t = row; t < 16 * TILES; t += 4)
            *reinterpret_cast<uint4 *>(values + t * pitch + channel) =
                piece_of(h.v, h.pitch, t, tokens, channel);
        uint4 keys[2 * TILES][2];
        load_keys<T, TILES>(h, tokens, keys);
        uint32_t p[TILES][TILES][4];
        float inverse[TILES][2];
#pragma unroll
        for (int m = 0; m < TILES; m++) {
            float s[2 * TILES][4];
            score<T, TILES>(h, tokens, m * 16, a.scale * log2_e, keys, s);
            weigh<T, TILES>(s, p[m], inverse[m]);
        }
        __syncwarp();
        mix<T, TILES>(p, inverse, values);
        __syncwarp();
        for (int t = row; t < tokens; t += 4)
            *reinterpret_cast<uint4 *>(h.y + t * h.y_pitch + channel) =
                *reinterpret_cast<const uint4 *>(values + t * pitch + channel);
        __syncwarp();
    }
}

template <class T, int TILES> static cudaError_t run(const vdk_attention *a, cudaStream_t stream) {
    size_t shared = warps * 16 * TILES * pitch * sizeof(T);
    return launch(attention_short<T, TILES>, blocks_for(head_count(*a), warps), warps * warp_size, shared,
                  stream, *a);
}

template <class T> static cudaError_t run_tiles(const vdk_attention *a, cudaStream_t stream) {
    return a->tokens <= 16 ? run<T, 1>(a, stream) : run<T, 2>(a, stream);
}

bool attention_is_short(const vdk_attention *a) {
    return a->width == width && a->tokens <= 32 && (a->dtype == VD_F16 || a->dtype == VD_BF16);
}

cudaError_t run_short_attention(const vdk_attention *a, cudaStream_t stream) {
    return a->dtype == VD_F16 ? run_tiles<__half>(a, stream) : run_tiles<bf16>(a, stream);
}

} // namespace vdk
