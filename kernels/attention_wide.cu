/* Attention over many tokens in 16 bits on tensor cores, for heads of 64 to 512 channels: what no library has
 * beyond 256, and the VAE's is 512 wide.
 *
 * A block of 8 warps takes 64 queries of one head and goes over the keys 64 at a time with an online softmax.
 * Its q stay in shared memory; k, then v, of each 64 keys pass through a ring of tiles, 64 channels each,
 * while the next ones are on their way. A warp has 16 queries and one half: of a tile's keys for the scores,
 * of each tile's columns for the result, which thereby fits its registers. The halves meet in the largest
 * score of each row and in the weights.
 *
 * A tile is 64 rows of 8 units of 16 bytes; unit u of row r lies at u xor r mod 8, so that neither rows
 * nor columns of units meet in the same banks. */
#include "kernels/attention.cuh"
#include "kernels/mma.cuh"

namespace vdk {

constexpr int tile_rows = 64, tile_columns = 64, tile_cells = tile_rows * tile_columns, unit = 8;
constexpr int most_chunks = 8, ring_tiles = 3, wide_threads = 256;

template <class T> struct wide_memory {
    T ring[ring_tiles][tile_cells];
    T weights[tile_cells];          /* [query][key] */
    float row_values[2][tile_rows]; /* of either half */
    T q[1][tile_cells];             /* as many as the head has chunks of 64 channels */
};

/* Everything about one block's work that all of its threads share. */
template <class T> struct wide_task {
    head<T> h;
    wide_memory<T> *memory;
    int64_t tokens, first; /* query */
    int chunks;
    int pieces; /* tiles of k and v, in the order of their use */
};

/* Where a thread works: its warp's queries and half, its place in fragments. */
struct wide_lane {
    int rows, half;     /* first of 16 queries; 0 or 1 */
    int row, pair;      /* fragment row 0..7 and first of its two columns */
    int matrix, offset; /* for load_matrices: row l % 16 and unit l / 16 of lane l */
};

__device__ __forceinline__ wide_lane lane_of_thread() {
    int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
    return {warp % 4 * 16, warp / 4, lane / 4, lane % 4 * 2, lane % 16, lane / 16};
}

__device__ __forceinline__ int cell(int row, int u) {
    return row * tile_columns + (u ^ row % 8) * unit;
}

/* Starts to copy 64 tokens by 64 channels from channel c on; zeros after the last token. */
template <class T>
__device__ __forceinline__ void stage_tile(const wide_task<T> &k, const T *x, int64_t token, int c, T *to) {
#pragma unroll
    for (int n = 0; n < tile_cells / unit / wide_threads; n++) {
        int i = threadIdx.x + n * wide_threads, row = i / 8, u = i % 8;
        bool inside = token + row < k.tokens;
        const T *from = x + (inside ? token + row : 0) * k.h.pitch + c + u * unit;
        copy_async(to + cell(row, u), from, inside);
    }
}

/* Piece i: of each 64 keys first k chunk by chunk, then v. One group of copies, empty after the last. */
template <class T> __device__ __forceinline__ void stage_piece(const wide_task<T> &k, int i) {
    if (i < k.pieces) {
        int run = (unsigned)i / (unsigned)k.chunks, chunk = i - run * k.chunks; /* runs: k, v, k, v ... */
        stage_tile(k, run % 2 ? k.h.v : k.h.k, (int64_t)(run / 2) * tile_rows, chunk * tile_columns,
                   k.memory->ring[(unsigned)i % ring_tiles]);
    }
    commit_copies();
}

/* Piece i once it has arrived; then the one before is free to be overwritten. */
template <class T> __device__ __forceinline__ const T *take_piece(const wide_task<T> &k, int i) {
    wait_for_copies<1>();
    __syncthreads();
    stage_piece(k, i + 2);
    return k.memory->ring[(unsigned)i % ring_tiles];
}

/* s += q k^T over one chunk, 16 queries by 32 keys. */
template <class T>
__device__ __forceinline__ void add_scores(const wide_lane &at, const T *q, const T *keys, float (&s)[4][4]) {
#pragma unroll
    for (int d = 0; d < tile_columns / 16; d++) {
        uint32_t a[4], b[4];
        load_matrices(a, q + cell(at.rows + at.matrix, 2 * d + at.offset));
#pragma unroll
        for (int n = 0; n < 4; n += 2) {
            int row = at.half * 32 + n * 8 + at.offset * 8 + at.matrix % 8;
            load_matrices(b, keys + cell(row, 2 * d + at.matrix / 8));
            mma<T>(s[n], a, b[0], b[1]);
            mma<T>(s[n + 1], a, b[2], b[3]);
        }
    }
}

/* y += weights * v over one chunk, 16 queries by 32 columns. */
template <class T>
__device__ __forceinline__ void add_values(const wide_lane &at, const uint32_t (&weights)[4][4],
                                           const T *values, float (&y)[4][4]) {
#pragma unroll
    for (int t = 0; t < tile_rows / 16; t++)
#pragma unroll
        for (int n = 0; n < 4; n += 2) {
            uint32_t b[4];
            load_matrices_transposed(b, values + cell(t * 16 + at.matrix, at.half * 4 + n + at.offset));
            mma<T>(y[n], weights[t], b[0], b[1]);
            mma<T>(y[n + 1], weights[t], b[2], b[3]);
        }
}

__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(all_lanes, x, 1));
    return fmaxf(x, __shfl_xor_sync(all_lanes, x, 2));
}

__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(all_lanes, x, 1);
    return x + __shfl_xor_sync(all_lanes, x, 2);
}

/* The softmax so far of a thread's two queries; sums are of its own keys only. */
struct wide_running {
    float top[2], sum[2];
};

/* Of one of this warp's rows and half; four threads have the same. */
template <class T>
__device__ __forceinline__ void leave_row_value(const wide_task<T> &k, const wide_lane &at, int i,
                                                float value) {
    if (at.pair == 0)
        k.memory->row_values[at.half][at.rows + at.row + 8 * i] = value;
}

/* Scores to weights in shared memory, in powers of two; corrections are for what was summed before. */
template <class T>
__device__ __forceinline__ void weigh_tile(const wide_task<T> &k, const wide_lane &at, int64_t key,
                                           float factor, float (&s)[4][4], wide_running &r,
                                           float (&correction)[2]) {
    float top[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int n = 0; n < 4; n++)
        for (int i = 0; i < 4; i++) {
            bool inside = key + at.half * 32 + n * 8 + at.pair + i % 2 < k.tokens;
            s[n][i] = inside ? s[n][i] * factor : -INFINITY;
            top[i / 2] = fmaxf(top[i / 2], s[n][i]);
        }
    for (int i = 0; i < 2; i++)
        leave_row_value(k, at, i, quad_max(top[i]));
    __syncthreads();
    for (int i = 0; i < 2; i++) {
        int row = at.rows + at.row + 8 * i;
        float both = fmaxf(k.memory->row_values[0][row], k.memory->row_values[1][row]);
        top[i] = fmaxf(r.top[i], both);
        correction[i] = exp2f(r.top[i] - top[i]);
        r.top[i] = top[i];
        r.sum[i] *= correction[i];
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const float two[2] = {exp2f(s[n][2 * i] - top[i]), exp2f(s[n][2 * i + 1] - top[i])};
            r.sum[i] += two[0] + two[1];
            store<2>(k.memory->weights + cell(row, at.half * 4 + n) + at.pair, two);
        }
    }
}

/* One over the sums of both halves. */
template <class T>
__device__ __forceinline__ void join_halves(const wide_task<T> &k, const wide_lane &at, const wide_running &r,
                                            float (&inverse)[2]) {
    __syncthreads();
    for (int i = 0; i < 2; i++)
        leave_row_value(k, at, i, quad_sum(r.sum[i]));
    __syncthreads();
    for (int i = 0; i < 2; i++) {
        int row = at.rows + at.row + 8 * i;
        inverse[i] = 1.0f / (k.memory->row_values[0][row] + k.memory->row_values[1][row]);
    }
}

template <class T>
__device__ __forceinline__ void write_rows(const wide_task<T> &k, const wide_lane &at,
                                           const float (&inverse)[2], float (&y)[most_chunks][4][4]) {
#pragma unroll
    for (int c = 0; c < most_chunks; c++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int64_t t = k.first + at.rows + at.row + 8 * i;
            T *to = k.h.y + t * k.h.y_pitch + c * tile_columns + at.half * 32 + at.pair;
#pragma unroll
            for (int n = 0; n < 4; n++)
                if (c < k.chunks && t < k.tokens) {
                    const float two[2] = {y[c][n][2 * i] * inverse[i], y[c][n][2 * i + 1] * inverse[i]};
                    store<2>(to + n * 8, two);
                }
        }
}

template <class T> __device__ __forceinline__ void attend_wide(const wide_task<T> &k, float factor) {
    wide_lane at = lane_of_thread();
    float y[most_chunks][4][4] = {}, correction[2], inverse[2];
    wide_running r = {{-INFINITY, -INFINITY}, {0, 0}};
    int piece = 0;
    for (int c = 0; c < k.chunks; c++)
        stage_tile(k, k.h.q, k.first, c * tile_columns, k.memory->q[c]);
    stage_piece(k, 0);
    stage_piece(k, 1);
    for (int64_t key = 0; key < k.tokens; key += tile_rows) {
        float s[4][4] = {};
        for (int c = 0; c < k.chunks; c++)
            add_scores(at, k.memory->q[c], take_piece(k, piece++), s);
        weigh_tile(k, at, key, factor, s, r, correction);
        uint32_t weights[4][4];
#pragma unroll
        for (int c = 0; c < most_chunks; c++)
            if (c < k.chunks) {
                const T *values = take_piece(k, piece++);
                for (int t = 0; c == 0 && t < 4; t++)
                    load_matrices(weights[t],
                                  k.memory->weights + cell(at.rows + at.matrix, 2 * t + at.offset));
                for (int i = 0; i < 16; i++)
                    y[c][i / 4][i % 4] *= correction[i % 4 / 2];
                add_values(at, weights, values, y[c]);
            }
    }
    join_halves(k, at, r, inverse);
    write_rows(k, at, inverse, y);
}

template <class T> __global__ void __launch_bounds__(wide_threads) attention_wide(vdk_attention a) {
    VDK_SHARED_MEMORY(memory);
    int64_t tiles = ceil_div(a.tokens, tile_rows), all = head_count(a) * tiles;
    int chunks = a.width / tile_columns;
    for (int64_t i = blockIdx.x; i < all; i += gridDim.x) {
        quotient tile = divide(i, tiles);
        wide_task<T> k = {head_of<T>(a, tile.whole),
                          reinterpret_cast<wide_memory<T> *>(memory),
                          a.tokens,
                          tile.rest * tile_rows,
                          chunks,
                          (int)(tiles * 2 * chunks)};
        attend_wide(k, a.scale * log2_e);
        __syncthreads();
    }
}

template <class T> static cudaError_t run(const vdk_attention *a, cudaStream_t stream) {
    int64_t blocks = head_count(*a) * ceil_div(a->tokens, tile_rows);
    size_t shared = sizeof(wide_memory<T>) + (a->width / tile_columns - 1) * tile_cells * sizeof(T);
    return launch(attention_wide<T>, blocks_for(blocks, 1), wide_threads, shared, stream, *a);
}

bool attention_is_wide(const vdk_attention *a) {
    return a->width % tile_columns == 0 && a->width <= most_chunks * tile_columns &&
           (a->dtype == VD_F16 || a->dtype == VD_BF16);
}

cudaError_t run_wide_attention(const vdk_attention *a, cudaStream_t stream) {
    return a->dtype == VD_F16 ? run<__half>(a, stream) : run<bf16>(a, stream);
}

} // namespace vdk
