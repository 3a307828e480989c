/* Group norm in three launches: partial sums of runs of rows, one mean and variance per group, the result.
 *
 * Rows are cut into chunks and, where there are many channels, columns into tiles. A thread keeps one
 * vector of columns and walks down the rows of its chunk. A chunk's sums are taken around a shift of each
 * group's own, the mean of its first few rows, so that they lose nothing where the mean is large; they are
 * joined in double. A group that two tiles share has a piece in each: piece = group + tile, which is
 * unique since both only grow. */
#include "kernels/device.cuh"

namespace vdk {

constexpr int max_threads = 256;
constexpr int batch = 4; /* vectors that a thread has on their way: no store stands between their loads */
constexpr int wanted_blocks = 2048,
              rows_per_thread = 8; /* enough blocks for the largest GPU, enough work for each */

struct geometry {
    int64_t c, rows, images; /* c0 + c1 */
    int64_t per_group;       /* channels */
    int64_t tiles, tile;     /* of how many channels; a multiple of the vector */
    int64_t chunks, chunk;   /* of how many rows */
    int lines;               /* rows that a block reads at once */
    int threads;             /* lines * vectors of a tile, filled up to warps */
};

/* Channels fit 32 bits, whose division is cheap. */
__device__ __forceinline__ int group_of(const geometry &g, int64_t channel) {
    return (int)channel / (int)g.per_group;
}

/* One piece of a group in one chunk: sums of x - shift and of its square. */
struct partial {
    float shift, sum, squares;
};

/* y = (x - centre) * scale + shift; rest is what the fp32 centre lacks of the mean. */
struct statistics {
    float centre, rest, inverse;
};

struct workspace {
    partial *partials;  /* [images][chunks][groups + tiles] */
    statistics *groups; /* [images][groups] */
};

static geometry geometry_of(const vdk_group_norm *a, int width) {
    geometry g = {};
    g.c = a->c0 + a->c1, g.rows = a->rows, g.images = a->images, g.per_group = g.c / a->groups;
    int64_t vectors = g.c / width;
    g.tiles = ceil_div(vectors, max_threads);
    g.tile = ceil_div(vectors, g.tiles) * width;
    g.tiles = ceil_div(g.c, g.tile);
    int64_t across = g.tile / width;
    g.lines = (int)(max_threads / across);
    g.threads = (int)(ceil_div(g.lines * across, warp_size) * warp_size);
    int64_t wanted = ceil_div(wanted_blocks, g.images * g.tiles),
            most = ceil_div(g.rows, g.lines * rows_per_thread);
    g.chunk = ceil_div(g.rows, wanted < most ? wanted : most);
    g.chunks = ceil_div(g.rows, g.chunk);
    return g;
}

template <class T> static bool vectors_fit(const vdk_group_norm *a) {
    return (a->c0 | a->c1) % lanes<T> == 0;
}

static size_t partial_bytes(const vdk_group_norm *a, const geometry &g) {
    return (size_t)(g.images * g.chunks * (a->groups + g.tiles)) * sizeof(partial);
}

/* Where a thread works. */
struct place {
    int64_t image, chunk, tile;
    int64_t first, last; /* columns of the tile */
    int64_t column;      /* of this thread's vector; < last */
    int64_t row, end;    /* its first row, the end of its chunk */
    int line;
    bool idle; /* fills up a warp */
};

template <int N> __device__ __forceinline__ place place_of(const geometry &g) {
    place p;
    quotient tile = divide(blockIdx.x, g.tiles), chunk = divide(tile.whole, g.chunks);
    p.tile = tile.rest, p.chunk = chunk.rest, p.image = chunk.whole;
    p.first = p.tile * g.tile;
    p.last = min(p.first + g.tile, g.c);
    int across = (int)g.tile / N;
    p.line = threadIdx.x / across;
    p.column = p.first + (int)threadIdx.x % across * N;
    p.idle = p.line >= g.lines || p.column >= p.last;
    p.row = p.chunk * g.chunk + p.line;
    p.end = min((p.chunk + 1) * g.chunk, g.rows);
    return p;
}

/* Column j of the two sources side by side, in row 0 of an image, and the distance of rows. */
template <class T> struct column {
    const T *x;
    int64_t pitch;
};

template <class T>
__device__ __forceinline__ column<T> column_of(const vdk_group_norm &a, int64_t image, int64_t j) {
    if (j < a.c0)
        return {static_cast<const T *>(a.x0) + image * a.rows * a.c0 + j, a.c0};
    return {static_cast<const T *>(a.x1) + image * a.rows * a.c1 + j - a.c0, a.c1};
}

/* totals[i] = the sum of what the block's threads hold for piece i of the tile, divided by `lines` times
 * the piece's channels if it is to be a mean. cells: [lines][tile] floats. */
template <int N>
__device__ __forceinline__ void sum_pieces(const geometry &g, const place &p, const float (&x)[N],
                                           float *cells, float *totals, int lines, bool mean) {
    if (!p.idle)
        store<N>(cells + p.line * g.tile + (p.column - p.first), x);
    __syncthreads();
    int64_t group = p.first / g.per_group;
    int pieces = (int)((p.last - 1) / g.per_group - group) + 1;
    for (int i = threadIdx.x / warp_size; i < pieces; i += blockDim.x / warp_size) {
        int64_t from = max((group + i) * g.per_group, p.first),
                to = min((group + i + 1) * g.per_group, p.last);
        float sum = 0;
        for (int line = 0; line < lines; line++)
            for (int64_t j = from + threadIdx.x % warp_size; j < to; j += warp_size)
                sum += cells[line * g.tile + (j - p.first)];
        sum = warp_sum(sum);
        if (threadIdx.x % warp_size == 0)
            totals[i] = mean ? sum / (float)((to - from) * lines) : sum;
    }
    __syncthreads();
}

/* Shared memory of gather_sums: cells, then three numbers per piece. */
static size_t sum_memory(const geometry &g) {
    int64_t pieces = ceil_div(g.tile, g.per_group) + 1;
    return (size_t)(g.lines * g.tile + 3 * pieces) * sizeof(float);
}

template <class T, int N>
__global__ void __launch_bounds__(max_threads) gather_sums(vdk_group_norm a, geometry g, workspace w) {
    VDK_SHARED_MEMORY(memory);
    place p = place_of<N>(g);
    float *cells = reinterpret_cast<float *>(memory), *shifts = cells + g.lines * g.tile;
    int64_t group = p.first / g.per_group;
    int pieces = (int)((p.last - 1) / g.per_group - group) + 1;
    column<T> from = column_of<T>(a, p.image, p.idle ? 0 : p.column);
    int lines = (int)min((int64_t)g.lines, p.end - p.chunk * g.chunk);

    float shift[N] = {}, sum[N] = {}, squares[N] = {};
    if (!p.idle && p.row < p.end)
        load<N>(from.x + p.row * from.pitch, sum);
    sum_pieces<N>(g, p, sum, cells, shifts, lines, true);
    for (int i = 0; i < N; i++) {
        sum[i] = 0;
        shift[i] = p.idle ? 0 : shifts[group_of(g, p.column + i) - group];
    }
    if (!p.idle)
#pragma unroll 4
        for (int64_t row = p.row; row < p.end; row += g.lines) {
            float x[N];
            load<N>(from.x + row * from.pitch, x);
            for (int i = 0; i < N; i++) {
                float d = x[i] - shift[i];
                sum[i] += d;
                squares[i] += d * d;
            }
        }
    sum_pieces<N>(g, p, sum, cells, shifts + pieces, g.lines, false);
    sum_pieces<N>(g, p, squares, cells, shifts + 2 * pieces, g.lines, false);
    partial *out = w.partials + (p.image * g.chunks + p.chunk) * (a.groups + g.tiles) + group + p.tile;
    for (int i = threadIdx.x; i < pieces; i += blockDim.x)
        out[i] = {shifts[i], shifts[pieces + i], shifts[2 * pieces + i]};
}

/* One warp per group. In double the sums of x and of its square keep enough digits as they are. */
__global__ void __launch_bounds__(block_size) join_sums(vdk_group_norm a, geometry g, workspace w) {
    int64_t index = grid_thread() / warp_size;
    if (index >= g.images * a.groups)
        return;
    quotient at = divide(index, a.groups);
    int64_t from = at.rest * g.per_group, to = from + g.per_group;
    double sum = 0, squares = 0;
    for (int64_t tile = from / g.tile; tile <= (to - 1) / g.tile; tile++) {
        int64_t channels = min(to, (tile + 1) * g.tile) - max(from, tile * g.tile);
#pragma unroll 4
        for (int64_t chunk = threadIdx.x % warp_size; chunk < g.chunks; chunk += warp_size) {
            partial p = w.partials[(at.whole * g.chunks + chunk) * (a.groups + g.tiles) + at.rest + tile];
            double shift = p.shift,
                   count = (double)(channels * (min((chunk + 1) * g.chunk, g.rows) - chunk * g.chunk));
            sum += p.sum + count * shift;
            squares += p.squares + shift * (2.0 * p.sum + count * shift);
        }
    }
    double share = 1.0 / (double)(g.per_group * g.rows), mean = warp_sum(sum) * share;
    double variance = warp_sum(squares) * share - mean * mean;
    float centre = (float)mean;
    if (threadIdx.x % warp_size == 0)
        w.groups[index] = {centre, (float)(mean - centre), (float)(1.0 / sqrt(max(variance, 0.0) + a.eps))};
}

template <class T, int N>
__global__ void __launch_bounds__(max_threads) normalise(vdk_group_norm a, geometry g, workspace w) {
    place p = place_of<N>(g);
    if (p.idle)
        return;
    float centre[N], scale[N], shift[N];
    load<N>(a.gamma + p.column, scale);
    load<N>(a.beta + p.column, shift);
    for (int i = 0; i < N; i++) {
        statistics s = w.groups[p.image * a.groups + group_of(g, p.column + i)];
        centre[i] = s.centre;
        scale[i] *= s.inverse;
        shift[i] -= s.rest * scale[i];
    }
    column<T> from = column_of<T>(a, p.image, p.column);
    T *y = static_cast<T *>(a.y) + p.image * g.rows * g.c + p.column;
    for (int64_t row = p.row; row < p.end; row += batch * g.lines) {
        pack<T, N> raw[batch];
#pragma unroll
        for (int b = 0; b < batch; b++)
            if (row + b * g.lines < p.end)
                raw[b] = load_pack<N>(from.x + (row + b * g.lines) * from.pitch);
#pragma unroll
        for (int b = 0; b < batch; b++) {
            float x[N];
            unpack(raw[b], x);
            for (int i = 0; i < N; i++) {
                x[i] = (x[i] - centre[i]) * scale[i] + shift[i];
                if (a.silu)
                    x[i] = swish(x[i], 1.0f);
            }
            if (row + b * g.lines < p.end)
                store<N>(y + (row + b * g.lines) * g.c, x);
        }
    }
}

template <class T, int N> static cudaError_t run(const vdk_group_norm *a, cudaStream_t stream) {
    geometry g = geometry_of(a, N);
    workspace w = {static_cast<partial *>(a->scratch),
                   reinterpret_cast<statistics *>(static_cast<char *>(a->scratch) + partial_bytes(a, g))};
    int64_t blocks = g.images * g.chunks * g.tiles;
    cudaError_t result = launch(gather_sums<T, N>, blocks, g.threads, sum_memory(g), stream, *a, g, w);
    if (result == cudaSuccess)
        result = launch(join_sums, ceil_div(g.images * a->groups * warp_size, block_size), block_size, 0,
                        stream, *a, g, w);
    return result == cudaSuccess ? launch(normalise<T, N>, blocks, g.threads, 0, stream, *a, g, w) : result;
}

} // namespace vdk

/* ---- launchers ---- */

using namespace vdk;

size_t vdk_group_norm_scratch(const vdk_group_norm *a) {
    size_t bytes = 0;
    for_type(a->dtype, [&](auto type) {
        using T = decltype(type);
        geometry g = geometry_of(a, vectors_fit<T>(a) ? lanes<T> : 1);
        bytes = partial_bytes(a, g) + (size_t)(g.images * a->groups) * sizeof(statistics);
        return cudaSuccess;
    });
    return bytes;
}

cudaError_t vdk_run_group_norm(const vdk_group_norm *a, cudaStream_t stream) {
    return for_type(a->dtype, [&](auto type) {
        using T = decltype(type);
        return for_width<lanes<T>>(vectors_fit<T>(a), [&](auto width) {
            constexpr int N = decltype(width)::value;
            return run<T, N>(a, stream);
        });
    });
}
