/* The closed list of operations. A backend implements each of them, nothing else runs on a device. They
 * are as coarse as a fast backend wants them: normalisation is a prologue and the residual an epilogue of
 * the product that needs them, so that no backend has to write an intermediate to memory that it can keep
 * close.
 *
 * T is the storage type of the program (fp32, fp16 or bf16); sums, norms, softmax and epilogues are fp32
 * inside. Results are rounded to the destination's type once. Sections are those of svd-spec.md. */
#ifndef VD_DEVICE_OPS_H
#define VD_DEVICE_OPS_H

#include "base/error.h"
#include "device/tensor.h"

#include <stdbool.h>

/* Index of a value of a program (program.h). */
typedef int vd_value;
enum { VD_NONE = -1 };

/* A weight, computed once at load. Identity is the address: programs that share a constant share its
 * packed copy. */
typedef struct vd_constant vd_constant;
struct vd_constant {
    const char *name;
    int64_t dims[4]; /* convolution [out, in, kh, kw]; matrix [out, in, 1, 1]; vector [count, 1, 1, 1] */
    /* Writes the product of dims values, row-major, fp32. Called from any thread. */
    vd_code (*fill)(const vd_constant *self, float *out, vd_error *err);
};

typedef enum vd_norm_kind { VD_NORM_NONE, VD_NORM_GROUP, VD_NORM_LAYER } vd_norm_kind;

/* y = (x - mean) / sqrt(variance + eps) * gamma + beta, biased variance; then silu when asked (7.1).
 * Group: `groups` groups of neighbouring channels, statistics over h, w and the group's channels of each n.
 * Layer: statistics over the channels of each row. */
typedef struct vd_norm {
    vd_norm_kind kind;
    const vd_constant *gamma, *beta; /* [c] of the (concatenated) input */
    int groups;                      /* group only; divides c */
    float eps;
    bool silu;
} vd_norm;

typedef enum vd_act { VD_ACT_NONE, VD_ACT_SILU, VD_ACT_GELU, VD_ACT_QUICK_GELU, VD_ACT_GEGLU } vd_act;

/* Cross-correlation: dst = w * y + bias + residual, where y is silu(norm(concat(src, src1))), or src
 * resized to in_h x in_w by nearest neighbour (source pixel floor(i * src / in), 7.4), or src itself. Norm
 * and resize exclude each other. A temporal convolution is one over [B, F, H*W, C] with kernel [3, 1],
 * padding 1 above and below. */
typedef struct vd_conv {
    vd_value src;              /* [n, sh, sw, c0] T */
    vd_value src1;             /* [n, sh, sw, c1] T, channels after src's; VD_NONE; only with a norm */
    vd_norm norm;              /* VD_NORM_NONE or VD_NORM_GROUP */
    int in_h, in_w;            /* size that the convolution sees; 0: the source's */
    const vd_constant *weight; /* [k, c0 + c1, kh, kw] */
    const vd_constant *bias;   /* [k]; NULL: none or bias_value */
    vd_value bias_value;       /* [1,1,1,k] f32 on the device instead of `bias`; VD_NONE */
    int stride;
    int pad_top, pad_left, pad_bottom, pad_right;
    vd_value residual; /* [n, oh, ow, k] of dst's type; VD_NONE; may be the same memory as dst */
    vd_value dst;      /* [n, oh, ow, k] T or f32; oh = (in_h + pad_top + pad_bottom - kh) / stride + 1 */
} vd_conv;

/* dst = act(norm(src) W^T + bias) + residual, row by row. */
typedef struct vd_linear {
    vd_value src;              /* [n, h, w, c] T */
    vd_norm norm;              /* any kind; group statistics per n over h*w */
    const vd_constant *weight; /* [k, c] */
    const vd_constant *bias;   /* [k] or NULL */
    /* [g,1,1,k] f32 instead of `bias`: the rows fall into g equal runs, run i uses row i; VD_NONE */
    vd_value bias_value;
    vd_act act;        /* not GEGLU */
    vd_value residual; /* [n, h, w, k] of dst's type; VD_NONE; may be the same memory as dst */
    vd_value dst;      /* [n, h, w, k] T or f32 */
} vd_linear;

/* x = src + add; dst = alpha * mix + (1 - alpha) * (x + down(act(up(layer_norm(x))))), or without a mix
 * the bracket alone (7.1, 7.6). GEGLU: up gives [value ; gate], act is value * gelu(gate). Rows are
 * independent: backends chunk them so that the hidden layer never exists as a whole. */
typedef struct vd_feed_forward {
    vd_value src;                               /* [n, h, w, c] T */
    vd_value add;                               /* [m,1,1,c] f32: rows of image n get add[n mod m]; VD_NONE */
    vd_norm norm;                               /* VD_NORM_LAYER */
    vd_act act;                                 /* GEGLU, GELU or QUICK_GELU */
    const vd_constant *up_weight, *up_bias;     /* [hidden or 2*hidden, c], [same] */
    const vd_constant *down_weight, *down_bias; /* [c, hidden], [c] */
    vd_value mix;                               /* [n, h, w, c] T; VD_NONE */
    float alpha;
    vd_value dst; /* [n, h, w, c] T; may be the memory of src or mix */
} vd_feed_forward;

/* softmax(scale * q k^T) v for `outer * inner` sequences and `heads` heads. Token t of sequence (o, i) is
 * row o*outer_stride + i*inner_stride + t*token_stride of the token matrix: spatial attention has outer =
 * B*F, inner = 1, tokens = H*W, token_stride 1; temporal has outer = B, inner = H*W, tokens = F,
 * token_stride = H*W. */
typedef struct vd_attention {
    vd_value qkv;     /* [n, h, w, 3*heads*width] T: q, k, v side by side, head after head in each */
    int heads, width; /* head width 1..1024 */
    int64_t outer, inner, tokens;
    int64_t outer_stride, inner_stride, token_stride; /* in rows */
    float scale;                                      /* usually 1/sqrt(width) */
    vd_value dst;                                     /* [n, h, w, heads*width] T */
} vd_attention;

/* dst = layer_norm(src). */
typedef struct vd_layer_norm {
    vd_value src, dst; /* [n, h, w, c] T */
    vd_norm norm;      /* VD_NORM_LAYER, no silu */
} vd_layer_norm;

/* dst[r] = [cos(u_r w_0..m-1) ; sin(u_r w_0..m-1)], m = dim/2, one zero appended when dim is odd;
 * frequencies and angles in fp32 exactly as 7.2 says. */
typedef struct vd_sinusoid {
    vd_value positions; /* [1,1,1,count] f32; VD_NONE: 0 .. count-1 */
    vd_value dst;       /* [1,1,count,dim] T */
} vd_sinusoid;

/* w_j of 7.2 for j of m, the same for every backend. */
float vd_sinusoid_frequency(int64_t j, int64_t m);

/* dst = table[index]. */
typedef struct vd_gather_row {
    vd_value table; /* [1,1,rows,c] f32 */
    vd_value index; /* [1,1,1,1] i32; 0 <= index < rows */
    vd_value dst;   /* [1,1,1,c] f32 */
} vd_gather_row;

/* The network's input of step i = *step: channels 0..c-1 are latents / sqrt(sigma_i^2 + 1), channels
 * c..2c-1 the image latents of the conditional half and zero for the unconditional (1.2, 14a-b). Bit-exact
 * in fp32. */
typedef struct vd_unet_input {
    vd_value latents; /* [F,h,w,c] f32 */
    vd_value image;   /* [1,h,w,c] f32 */
    vd_value sigmas;  /* [1,1,1,steps+1] f32 */
    vd_value step;    /* [1,1,1,1] i32 */
    vd_value dst;     /* [G*F,h,w,2c] T; G = 2: unconditional frames first; G = 1: conditional only */
} vd_unet_input;

/* Guidance per frame, v-prediction Euler step in place, ++*step (1.4, 8); then the network's input of the new
 * step, as vd_unet_input makes it, with the last sigma after the last step. Bit-exact in fp32, no fused
 * operations. */
typedef struct vd_euler_step {
    vd_value v;        /* [G*F,h,w,c] f32 */
    vd_value guidance; /* [1,1,1,F] f32; ignored when G = 1 */
    vd_value sigmas;   /* [1,1,1,steps+1] f32 */
    vd_value step;     /* [1,1,1,1] i32, read and incremented */
    vd_value latents;  /* [F,h,w,c] f32, updated */
    vd_value image;    /* [1,h,w,c] f32; ignored without `next` */
    vd_value next;     /* [G*F,h,w,2c] T; VD_NONE: not wanted */
} vd_euler_step;

/* dst = scale * src, converted. */
typedef struct vd_cast {
    vd_value src, dst; /* same count; f32, f16 or bf16 */
    float scale;
} vd_cast;

/* dst = round_half_even(255 * clamp(src*0.5 + 0.5, 0, 1)) (9.3); NaN gives 0. */
typedef struct vd_frames_u8 {
    vd_value src; /* [n,h,w,c] T or f32 */
    vd_value dst; /* the same shape, u8 */
} vd_frames_u8;

typedef struct vd_copy {
    vd_value src, dst; /* equal bytes */
} vd_copy;

/* dst = vd_hash64 of the bytes of src. */
typedef struct vd_checksum {
    vd_value src; /* bytes a multiple of 4 */
    vd_value dst; /* [1,1,1,1] u64 */
} vd_checksum;

/* *dst += number of NaN and infinite elements of src. */
typedef struct vd_nonfinite {
    vd_value src; /* f32, f16, bf16 */
    vd_value dst; /* [1,1,1,1] i32 */
} vd_nonfinite;

/* X(enumerator, struct and field name) for every operation. */
#define VD_OPS(X)                                                                                            \
    X(CONV, conv)                                                                                            \
    X(LINEAR, linear)                                                                                        \
    X(FEED_FORWARD, feed_forward)                                                                            \
    X(ATTENTION, attention)                                                                                  \
    X(LAYER_NORM, layer_norm)                                                                                \
    X(SINUSOID, sinusoid)                                                                                    \
    X(GATHER_ROW, gather_row)                                                                                \
    X(UNET_INPUT, unet_input)                                                                                \
    X(EULER_STEP, euler_step)                                                                                \
    X(CAST, cast)                                                                                            \
    X(FRAMES_U8, frames_u8)                                                                                  \
    X(COPY, copy)                                                                                            \
    X(CHECKSUM, checksum)                                                                                    \
    X(NONFINITE, nonfinite)

#define VD_OP_ENUM(upper, lower) VD_OP_##upper,
#define VD_OP_FIELD(upper, lower) vd_##lower lower;

typedef enum vd_op_kind { VD_OPS(VD_OP_ENUM) VD_OP_COUNT } vd_op_kind;

typedef struct vd_op {
    vd_op_kind kind;
    union {
        VD_OPS(VD_OP_FIELD)
    };
} vd_op;

const char *vd_op_name(vd_op_kind kind);

#endif
