/* Launchers of vdpp's own CUDA kernels. Each enqueues on `stream` and returns what the launch returned;
 * nothing is allocated, nothing waits, so every launch can be captured into a graph. Pointers are device
 * memory, 16-byte aligned where they begin a tensor; tensors are dense, row-major, channels last. T is
 * `dtype`: VD_F32, VD_F16 or VD_BF16; all arithmetic inside is fp32 and each result is rounded once.
 * Offsets are 64-bit. Sums have a fixed order: the same input gives the same bits. Sections are those of
 * svd-spec.md. */
#ifndef VD_KERNELS_KERNELS_H
#define VD_KERNELS_KERNELS_H

#include "device/tensor.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- group_norm.cu ---- */

/* y = silu?((x - mean) / sqrt(variance + eps) * gamma + beta), biased variance over `rows` rows and the
 * channels of a group of each image; x is x0's channels, then x1's (7.1). Accurate where the mean is a
 * thousand deviations. */
typedef struct vdk_group_norm {
    const void *x0, *x1;       /* [images, rows, c0] T, [images, rows, c1] T; x1 NULL when c1 = 0 */
    const float *gamma, *beta; /* [c0 + c1] */
    void *y;                   /* [images, rows, c0 + c1] T */
    void *scratch;             /* vdk_group_norm_scratch bytes */
    int64_t images, rows, c0, c1;
    int groups; /* divides c0 + c1; may straddle the two sources */
    float eps;
    bool silu;
    vd_dtype dtype;
} vdk_group_norm;
size_t vdk_group_norm_scratch(const vdk_group_norm *a); /* from the sizes alone */
cudaError_t vdk_run_group_norm(const vdk_group_norm *a, cudaStream_t stream);

/* ---- layer_norm.cu ---- */

/* u = x + add[image mod add_rows]; y = layer_norm(u) * gamma + beta; carry = alpha * mix + (1 - alpha) * u
 * (7.6). */
typedef struct vdk_layer_norm {
    const void *x;             /* [images, rows, c] T */
    const float *add;          /* [add_rows, c]; NULL: none */
    const float *gamma, *beta; /* [c]; both NULL: 1 and 0 (folded into the weights that follow) */
    void *y;                   /* [images, rows, c] T */
    const void *mix;           /* [images, rows, c] T; NULL: carry = u */
    void *carry;               /* [images, rows, c] T; may be x or mix; NULL: not wanted */
    int64_t images, rows, c, add_rows;
    float eps, alpha;
    vd_dtype dtype;
} vdk_layer_norm;
cudaError_t vdk_run_layer_norm(const vdk_layer_norm *a, cudaStream_t stream);

/* ---- attention.cu ---- */

/* softmax(scale * q k^T) v, strided as vd_attention (device/ops.h): for every head width and length, all in
 * one pass with an online softmax. In 16 bits, up to 32 tokens of width 64, which is temporal attention, and
 * any number of a width of 64, 128 .. 512 take tensor cores, which round the weights to 16 bits. */
typedef struct vdk_attention {
    const void *qkv; /* [rows, 3 * heads * width] T */
    void *y;         /* [rows, heads * width] T */
    int heads, width;
    int64_t outer, inner, tokens, outer_stride, inner_stride, token_stride; /* strides in rows */
    float scale;
    vd_dtype dtype;
} vdk_attention;
cudaError_t vdk_run_attention(const vdk_attention *a, cudaStream_t stream);

/* ---- rows.cu: element by element over rows ---- */

typedef enum vdk_act { VDK_ACT_NONE, VDK_ACT_SILU, VDK_ACT_GELU, VDK_ACT_QUICK_GELU, VDK_ACT_GEGLU } vdk_act;

/* y = act(x + bias) + residual. GEGLU: x and bias have 2c columns, [value ; gate], and value * gelu(gate)
 * results, gelu in its erf form. */
typedef struct vdk_activate {
    const void *x;        /* [rows, c or 2c] of type `from` */
    const float *bias;    /* [runs, c or 2c]: row r uses run r / (rows / runs); NULL: none */
    const void *residual; /* [rows, c] of type `to`; NULL: none; may be y */
    void *y;              /* [rows, c] of type `to`; may be x where types and columns agree */
    int64_t rows, c, runs;
    vdk_act act;
    vd_dtype from, to;
} vdk_activate;
cudaError_t vdk_run_activate(const vdk_activate *a, cudaStream_t stream);

/* y = scale * x for the first `c` of `from_pitch` columns; columns c .. to_pitch - 1 of y become 0. */
typedef struct vdk_cast {
    const void *x; /* [rows, from_pitch] of type `from` */
    void *y;       /* [rows, to_pitch] of type `to` */
    int64_t rows, c, from_pitch, to_pitch;
    float scale;
    vd_dtype from, to; /* VD_F32, VD_F16, VD_BF16 */
} vdk_cast;
cudaError_t vdk_run_cast(const vdk_cast *a, cudaStream_t stream);

/* Nearest neighbour: y[n, i, j] = x[n, floor(i * sh / h), floor(j * sw / w)] (7.4). */
typedef struct vdk_resize {
    const void *x; /* [n, sh, sw, c] T */
    void *y;       /* [n, h, w, c] T */
    int64_t n, sh, sw, h, w, c;
    vd_dtype dtype;
} vdk_resize;
cudaError_t vdk_run_resize(const vdk_resize *a, cudaStream_t stream);

/* The four phases of a picture of twice the size, side by side as channels, to their places: pixel
 * (2i + a, 2j + b) of y is phase 2a + b at pixel (i + a, j + b) of x. */
typedef struct vdk_unphase {
    const void *x; /* [n, h + 1, w + 1, 4, c] T */
    void *y;       /* [n, 2h, 2w, c] T */
    int64_t n, h, w, c;
    vd_dtype dtype;
} vdk_unphase;
cudaError_t vdk_run_unphase(const vdk_unphase *a, cudaStream_t stream);

/* y = round_half_even(255 * clamp(x * 0.5 + 0.5, 0, 1)); NaN gives 0 (9.3). No fused operations. */
cudaError_t vdk_run_frames_u8(const void *x, vd_dtype from, uint8_t *y, int64_t count, cudaStream_t stream);

/* The patches of a convolution as rows of a matrix, [n * oh * ow, pitch], columns (kh, kw, c), zeros
 * outside the image and from column kh*kw*c to `pitch`: what a product needs when no library has the
 * convolution. Rows `first` to `first + rows` only. */
typedef struct vdk_patches {
    const void *x; /* [n, h, w, c] T */
    void *y;       /* [rows, pitch] T */
    int64_t n, h, w, c, oh, ow, first, rows, pitch;
    int kh, kw, stride, pad_top, pad_left;
    vd_dtype dtype;
} vdk_patches;
cudaError_t vdk_run_patches(const vdk_patches *a, cudaStream_t stream);

/* ---- step.cu: around the network ---- */

/* Bit-exact in fp32 with the CPU backend: no fused operations, IEEE division and square root. */
typedef struct vdk_unet_input {
    const float *latents; /* [frames, pixels, c] */
    const float *image;   /* [pixels, c] */
    const float *sigmas;  /* [steps + 1] */
    const int32_t *step;
    void *y; /* [halves * frames, pixels, 2c] T; two halves: the first has zeros for the image */
    int64_t frames, pixels, c;
    int halves;
    vd_dtype dtype;
} vdk_unet_input;
cudaError_t vdk_run_unet_input(const vdk_unet_input *a, cudaStream_t stream);

/* Guidance, Euler step and the network's input of the step that follows, in one pass. */
typedef struct vdk_euler_step {
    const float *v;        /* [halves * frames, pixels, c] */
    const float *guidance; /* [frames] */
    const float *sigmas;   /* [steps + 1] */
    const float *image;    /* [pixels, c]; not read without `next` */
    int32_t *step;         /* incremented once everything has read it */
    float *latents;        /* [frames, pixels, c], updated */
    void *next;            /* as y of vdk_unet_input; NULL: not wanted */
    int64_t frames, pixels, c;
    int halves;
    vd_dtype dtype; /* of `next` */
} vdk_euler_step;
cudaError_t vdk_run_euler_step(const vdk_euler_step *a, cudaStream_t stream);

/* y = table[*index]; an index outside 0 .. rows - 1 gives NaN. */
cudaError_t vdk_run_gather_row(const float *table, const int32_t *index, float *y, int64_t rows, int64_t c,
                               cudaStream_t stream);

/* [cos ; sin] of position * frequency in the order of 7.2, one zero appended when dim is odd. `frequencies`
 * [dim / 2] come from the host, so that both backends use the same. positions NULL: 0 .. count - 1. */
cudaError_t vdk_run_sinusoid(const float *positions, const float *frequencies, void *y, int64_t count,
                             int64_t dim, vd_dtype dtype, cudaStream_t stream);

/* ---- reduce.cu ---- */

/* *sum = vd_hash64 of the bytes (base/hash.h); bytes a multiple of 4. `scratch`: VDK_REDUCE_SCRATCH bytes. */
enum { VDK_REDUCE_SCRATCH = 8192 };
cudaError_t vdk_run_checksum(const void *x, size_t bytes, uint64_t *sum, void *scratch, cudaStream_t stream);

/* *count += number of NaN and infinite elements. */
cudaError_t vdk_run_nonfinite(const void *x, vd_dtype dtype, int64_t elements, int32_t *count, void *scratch,
                              cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
