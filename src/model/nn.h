/* What the networks share: names and weights of layers, residual blocks, self-attention. A block is a
 * function that appends operations to a program. */
#ifndef VD_MODEL_NN_H
#define VD_MODEL_NN_H

#include "device/program.h"
#include "model/weights.h"

/* A network under construction. */
typedef struct vd_net {
    vd_program *p;
    vd_weights *w;
} vd_net;

vd_code vd_net_begin(vd_net *n, const char *name, vd_dtype dtype, vd_weights *w, vd_error *err);
/* Hands the finished program over, or frees it and returns the first failure: of the weights, else of the
 * program. */
vd_code vd_net_finish(vd_net *n, vd_program **out, vd_error *err);

/* The fp32 external `name`, times `scale`, as the program's type. */
vd_value vd_net_input(vd_net *n, const char *name, vd_shape shape, float scale);

/* Weight and bias below the name `at`: a matrix [out, in], or a square kernel. */
typedef struct vd_layer {
    const vd_constant *weight, *bias;
} vd_layer;
vd_layer vd_net_dense(vd_net *n, vd_name at, int64_t out, int64_t in);
vd_layer vd_net_kernel(vd_net *n, vd_name at, int64_t out, int64_t in, int64_t size);

enum { VD_NORM_GROUPS = 32 };
vd_norm vd_net_group_norm(vd_net *n, vd_name at, int64_t channels, float eps, bool silu);
vd_norm vd_net_layer_norm(vd_net *n, vd_name at, int64_t channels, float eps);

/* Linear layer with weight and bias at `at`. */
vd_value vd_net_linear(vd_net *n, vd_name at, vd_value x, int64_t out, vd_act act);
/* 3 x 3 convolution that keeps the size, with weight and bias at `at`. */
vd_value vd_net_conv(vd_net *n, vd_name at, vd_value x, int64_t out);
/* 3 x 3 convolution with stride 2, padded by one at the right and the bottom and by `before` at the top and
 * the left. */
vd_value vd_net_downsample(vd_net *n, vd_name at, vd_value x, int before);
/* vd_net_conv after nearest-neighbour resizing to h x w. */
vd_value vd_net_upsample(vd_net *n, vd_name at, vd_value x, int64_t h, int64_t w);
/* conv_out(silu(conv_norm_out(x))) below `at`, into `dst` (VD_NONE: a temporary). */
vd_value vd_net_head(vd_net *n, vd_name at, vd_value x, int64_t out, float eps, vd_value dst);

/* Residual block of 7.5 and 6. */
typedef struct vd_resnet {
    vd_value x;    /* [n, h, w, in] */
    vd_value skip; /* [n, h, w, more channels after x's]; VD_NONE */
    int64_t out;   /* channels */
    float eps;
    vd_value bias; /* f32 [out]: conv1's bias with the time projection; VD_NONE: conv1's bias */
    int frames; /* the n images are clips of so many; used by vd_net_video_resnet alone, like all that follows
                 */
    float frame_eps; /* of the temporal half's norms */
    vd_value frame_bias;
    bool switched; /* sigmoid(mix_factor) weighs the temporal half, not the spatial one (7.8) */
} vd_resnet;

vd_value vd_net_resnet(vd_net *n, vd_name at, const vd_resnet *r);
vd_value vd_net_video_resnet(vd_net *n, vd_name at, const vd_resnet *r);

/* Self-attention without its output projection. */
typedef struct vd_self_attention {
    vd_value x; /* [n, h, w, c] */
    vd_norm norm;
    const char *const *names; /* [3] of the q, k and v projections below `at` */
    bool biased;
    int heads;
    int frames; /* 0: over the pixels of each image; else over the frames of each pixel, clips of so many */
} vd_self_attention;

vd_value vd_net_self_attention(vd_net *n, vd_name at, const vd_self_attention *a);

#endif
