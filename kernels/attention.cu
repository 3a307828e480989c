/* Attention of any width, length and type, in fp32, where no tensor core can do it. A block takes 64
 * queries of one head and goes over the keys 64 at a time, with an online softmax; of 16 x 16 threads each
 * has 4 queries by 4 keys, then 4 queries by 4 columns of every 64 of the result. Heads wider than a
 * block's columns are split over blocks, which then compute the same weights. */
#include "kernels/attention.cuh"

namespace vdk {

constexpr int queries = 64, keys = 64, depth = 32, columns = 64;
constexpr int side = 16, own = 4; /* threads along a tile, its cells of each */
constexpr int threads = side * side;
constexpr int pitch = 64 + 4;

/* Shared memory: q and k of `depth` channels, or v of `columns`; and the weights. */
struct tile_memory {
    union {
        struct {
            float q[depth * pitch], k[depth * pitch]; /* [channel][token] */
        };
        float v[keys * columns];
    };
    float weights[queries * pitch]; /* [query][key] */
};

/* What a block works on. */
template <class T> struct task {
    head<T> h;
    int64_t tokens, first; /* query */
    int64_t from;          /* column */
    int width;
    float factor; /* of scores, for powers of two */
};

/* Whether four channels are one load: where the width is a multiple of four. */
enum access { WHOLE, ONE_BY_ONE };

/* Channels c .. c + 3 of token t; zeros outside. */
template <access ACCESS, class T>
__device__ __forceinline__ void load_inside(const task<T> &k, const T *x, int64_t t, int64_t c,
                                            float (&out)[own]) {
    for (int i = 0; i < own; i++)
        out[i] = 0;
    if (t >= k.tokens || c >= k.width)
        return;
    const T *at = x + t * k.h.pitch + c;
    if (ACCESS == WHOLE)
        load<own>(at, out);
    else
        for (int i = 0; i < own && c + i < k.width; i++)
            out[i] = to_float(at[i]);
}

/* 64 tokens by `depth` channels, transposed. Sixteen tokens by eight channels to a warp: whole sectors of
 * memory, and different banks of shared memory. */
template <access ACCESS, class T>
__device__ __forceinline__ void stage_transposed(const task<T> &k, const T *x, int64_t first, int64_t c,
                                                 float *to) {
    for (int i = threadIdx.x; i < 64 * depth / own; i += threads) {
        int t = i % 16 + i / 32 % 4 * 16, channel = (i / 16 % 2 + i / 128 * 2) * own;
        float piece[own];
        load_inside<ACCESS>(k, x, first + t, c + channel, piece);
        for (int j = 0; j < own; j++)
            to[(channel + j) * pitch + t] = piece[j];
    }
}

template <access ACCESS, class T>
__device__ __forceinline__ void stage_values(const task<T> &k, int64_t first, int64_t c, float *to) {
#pragma unroll 2
    for (int i = threadIdx.x; i < keys * columns / own; i += threads) {
        int t = i / side, column = i % side * own;
        float piece[own];
        load_inside<ACCESS>(k, k.h.v, first + t, c + column, piece);
        store<own>(to + t * columns + column, piece);
    }
}

/* The cells of a tile that a thread has: rows own * y .. and columns own * x .. */
struct cells {
    int x, y;
};

__device__ __forceinline__ cells cells_of_thread() {
    return {(int)threadIdx.x % side, (int)threadIdx.x / side};
}

/* Scores of the queries with the keys from `key` on, times factor; -inf for keys that do not exist. */
template <access ACCESS, class T>
__device__ __forceinline__ void score(const task<T> &k, int64_t key, tile_memory &memory,
                                      float (&s)[own][own]) {
    cells at = cells_of_thread();
    bool busy = k.first + own * at.y < k.tokens && key + own * at.x < k.tokens;
    for (int i = 0; i < own; i++)
        for (int j = 0; j < own; j++)
            s[i][j] = 0;
    for (int c = 0; c < k.width; c += depth) {
        __syncthreads();
        stage_transposed<ACCESS>(k, k.h.q, k.first, c, memory.q);
        stage_transposed<ACCESS>(k, k.h.k, key, c, memory.k);
        __syncthreads();
#pragma unroll 4
        for (int d = 0; busy && d < depth; d++) {
            float left[own], right[own];
            load<own>(memory.q + d * pitch + own * at.y, left);
            load<own>(memory.k + d * pitch + own * at.x, right);
            for (int i = 0; i < own; i++)
                for (int j = 0; j < own; j++)
                    s[i][j] += left[i] * right[j];
        }
    }
    for (int i = 0; i < own; i++)
        for (int j = 0; j < own; j++)
            s[i][j] = key + own * at.x + j < k.tokens ? s[i][j] * k.factor : -INFINITY;
}

/* The softmax so far of a thread's queries. */
struct running {
    float top[own], sum[own];
};

/* Scores to weights, in shared memory; corrections are for what was summed before. A row is in 16
 * neighbouring lanes. */
__device__ __forceinline__ void weigh(float (&s)[own][own], running &r, float (&correction)[own],
                                      float *weights) {
    cells at = cells_of_thread();
    for (int i = 0; i < own; i++) {
        float top = fmaxf(fmaxf(s[i][0], s[i][1]), fmaxf(s[i][2], s[i][3])), sum = 0;
        for (int distance = 1; distance < side; distance *= 2)
            top = fmaxf(top, __shfl_xor_sync(all_lanes, top, distance));
        top = fmaxf(top, r.top[i]);
        for (int j = 0; j < own; j++) {
            s[i][j] = exp2f(s[i][j] - top);
            sum += s[i][j];
        }
        for (int distance = 1; distance < side; distance *= 2)
            sum += __shfl_xor_sync(all_lanes, sum, distance);
        correction[i] = exp2f(r.top[i] - top);
        r.sum[i] = r.sum[i] * correction[i] + sum;
        r.top[i] = top;
        store<own>(weights + (own * at.y + i) * pitch + own * at.x, s[i]);
    }
}

/* y = y * correction + weights * v for the columns from c on. */
template <access ACCESS, class T>
__device__ __forceinline__ void accumulate(const task<T> &k, int64_t key, int64_t c,
                                           const float (&correction)[own], tile_memory &memory,
                                           float (&y)[own][own]) {
    cells at = cells_of_thread();
    int64_t left = min(k.tokens - key, (int64_t)keys);
    if (c >= k.width)
        return;
    __syncthreads();
    stage_values<ACCESS>(k, key, c, memory.v);
    __syncthreads();
    if (k.first + own * at.y >= k.tokens)
        return;
    for (int i = 0; i < own; i++)
        for (int j = 0; j < own; j++)
            y[i][j] *= correction[i];
    for (int t = 0; t < left; t += own) {
        float p[own][own], v[own];
        for (int i = 0; i < own; i++)
            load<own>(memory.weights + (own * at.y + i) * pitch + t, p[i]);
#pragma unroll
        for (int n = 0; n < own; n++) {
            load<own>(memory.v + (t + n) * columns + own * at.x, v);
            for (int i = 0; i < own; i++)
                for (int j = 0; j < own; j++)
                    y[i][j] += p[i][n] * v[j];
        }
    }
}

/* Columns c .. of the result. */
template <access ACCESS, class T>
__device__ __forceinline__ void write_result(const task<T> &k, int64_t c, const running &r,
                                             float (&y)[own][own]) {
    cells at = cells_of_thread();
    for (int i = 0; i < own; i++) {
        int64_t t = k.first + own * at.y + i, column = c + own * at.x;
        if (t >= k.tokens || column >= k.width)
            continue;
        for (int j = 0; j < own; j++)
            y[i][j] /= r.sum[i];
        T *to = k.h.y + t * k.h.y_pitch + column;
        if (ACCESS == WHOLE)
            store<own>(to, y[i]);
        else
            for (int j = 0; j < own && column + j < k.width; j++) {
                const float one[1] = {y[i][j]};
                store<1>(to + j, one);
            }
    }
}

/* CHUNKS * `columns` columns. */
template <access ACCESS, int CHUNKS, class T>
__device__ __forceinline__ void attend(const task<T> &k, tile_memory &memory) {
    float y[CHUNKS][own][own] = {};
    running r;
    for (int i = 0; i < own; i++)
        r.top[i] = -INFINITY, r.sum[i] = 0;
    for (int64_t key = 0; key < k.tokens; key += keys) {
        float s[own][own], correction[own];
        score<ACCESS>(k, key, memory, s);
        weigh(s, r, correction, memory.weights);
#pragma unroll
        for (int n = 0; n < CHUNKS; n++)
            accumulate<ACCESS>(k, key, k.from + n * columns, correction, memory, y[n]);
    }
#pragma unroll
    for (int n = 0; n < CHUNKS; n++)
        write_result<ACCESS>(k, k.from + n * columns, r, y[n]);
}

template <class T, int CHUNKS, access ACCESS>
__global__ void __launch_bounds__(threads) attention(vdk_attention a, int splits) {
    VDK_SHARED_MEMORY(memory);
    int64_t tiles = ceil_div(a.tokens, queries), all = head_count(a) * tiles * splits;
    for (int64_t i = blockIdx.x; i < all; i += gridDim.x) {
        quotient split = divide(i, splits), tile = divide(split.whole, tiles);
        task<T> k = {head_of<T>(a, tile.whole),     a.tokens, tile.rest * queries,
                     split.rest * CHUNKS * columns, a.width,  a.scale * log2_e};
        attend<ACCESS, CHUNKS>(k, *reinterpret_cast<tile_memory *>(memory));
    }
}

template <class T, int CHUNKS, access ACCESS>
static cudaError_t run(const vdk_attention *a, cudaStream_t stream) {
    int splits = (int)ceil_div(a->width, CHUNKS * columns);
    int64_t blocks = head_count(*a) * ceil_div(a->tokens, queries) * splits;
    return launch(attention<T, CHUNKS, ACCESS>, blocks_for(blocks, 1), threads, sizeof(tile_memory), stream,
                  *a, splits);
}

} // namespace vdk

/* ---- launcher ---- */

using namespace vdk;

cudaError_t vdk_run_attention(const vdk_attention *a, cudaStream_t stream) {
    if (attention_is_short(a))
        return run_short_attention(a, stream);
    if (attention_is_wide(a))
        return run_wide_attention(a, stream);
    return for_type(a->dtype, [&](auto type) {
        using T = decltype(type);
        if (a->width % own != 0)
            return run<T, 8, ONE_BY_ONE>(a, stream);
        if constexpr (std::is_same<T, float>::value) { /* the common widths of 16 bits do not come here */
            if (a->width <= columns)
                return run<T, 1, WHOLE>(a, stream);
            if (a->width > 2 * columns)
                return run<T, 8, WHOLE>(a, stream);
        }
        return run<T, 2, WHOLE>(a, stream);
    });
}
