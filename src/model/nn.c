#include "model/nn.h"

#include <math.h>

vd_code vd_net_begin(vd_net *n, const char *name, vd_dtype dtype, vd_weights *w, vd_error *err) {
    *n = (vd_net){vd_program_new(name, dtype), w};
    return n->p ? VD_OK : vd_fail_memory(err, "a program", sizeof *n->p);
}

vd_code vd_net_finish(vd_net *n, vd_program **out, vd_error *err) {
    vd_code code = vd_weights_error(n->w, err);
    if (code == VD_OK)
        code = vd_program_finish(n->p, err);
    if (code == VD_OK)
        *out = n->p;
    else
        vd_program_free(n->p);
    n->p = NULL;
    return code;
}

vd_value vd_net_input(vd_net *n, const char *name, vd_shape shape, float scale) {
    vd_value given = vd_program_external(n->p, name, VD_F32, shape);
    if (n->p->dtype == VD_F32 && scale == 1)
        return given;
    vd_value x = vd_program_temporary(n->p, n->p->dtype, shape);
    return vd_program_cast(n->p, (vd_cast){.src = given, .dst = x, .scale = scale});
}

/* ---- layers ---- */

vd_layer vd_net_dense(vd_net *n, vd_name at, int64_t out, int64_t in) {
    return (vd_layer){vd_weights_matrix(n->w, vd_name_in(at, "weight"), out, in),
                      vd_weights_vector(n->w, vd_name_in(at, "bias"), out)};
}

vd_layer vd_net_kernel(vd_net *n, vd_name at, int64_t out, int64_t in, int64_t size) {
    return (vd_layer){vd_weights_kernel(n->w, vd_name_in(at, "weight"), out, in, size),
                      vd_weights_vector(n->w, vd_name_in(at, "bias"), out)};
}

static vd_norm norm_of(vd_net *n, vd_norm_kind kind, vd_name at, int64_t channels, float eps) {
    return (vd_norm){.kind = kind,
                     .gamma = vd_weights_vector(n->w, vd_name_in(at, "weight"), channels),
                     .beta = vd_weights_vector(n->w, vd_name_in(at, "bias"), channels),
                     .eps = eps};
}

vd_norm vd_net_group_norm(vd_net *n, vd_name at, int64_t channels, float eps, bool silu) {
    vd_norm norm = norm_of(n, VD_NORM_GROUP, at, channels, eps);
    norm.groups = VD_NORM_GROUPS;
    norm.silu = silu;
    return norm;
}

vd_norm vd_net_layer_norm(vd_net *n, vd_name at, int64_t channels, float eps) {
    return norm_of(n, VD_NORM_LAYER, at, channels, eps);
}

vd_value vd_net_linear(vd_net *n, vd_name at, vd_value x, int64_t out, vd_act act) {
    vd_layer l = vd_net_dense(n, at, out, vd_program_shape(n->p, x).c);
    return vd_program_linear(n->p, VD_LINEAR(.src = x, .weight = l.weight, .bias = l.bias, .act = act));
}

vd_value vd_net_downsample(vd_net *n, vd_name at, vd_value x, int before) {
    int64_t c = vd_program_shape(n->p, x).c;
    vd_layer l = vd_net_kernel(n, at, c, c, 3);
    return vd_program_conv(n->p,
                           VD_CONV(.src = x, .weight = l.weight, .bias = l.bias, .stride = 2,
                                   .pad_top = before, .pad_left = before, .pad_bottom = 1, .pad_right = 1));
}

/* 3 x 3 convolution that keeps the size. */
static vd_conv same_conv(vd_value x, vd_norm norm, vd_layer l) {
    return VD_CONV(.src = x, .norm = norm, .weight = l.weight, .bias = l.bias, .pad_top = 1, .pad_left = 1,
                   .pad_bottom = 1, .pad_right = 1);
}

vd_value vd_net_upsample(vd_net *n, vd_name at, vd_value x, int64_t h, int64_t w) {
    int64_t c = vd_program_shape(n->p, x).c;
    vd_conv conv = same_conv(x, (vd_norm){0}, vd_net_kernel(n, at, c, c, 3));
    conv.in_h = (int)h;
    conv.in_w = (int)w;
    return vd_program_conv(n->p, conv);
}

vd_value vd_net_conv(vd_net *n, vd_name at, vd_value x, int64_t out) {
    vd_layer l = vd_net_kernel(n, at, out, vd_program_shape(n->p, x).c, 3);
    return vd_program_conv(n->p, same_conv(x, (vd_norm){0}, l));
}

vd_value vd_net_head(vd_net *n, vd_name at, vd_value x, int64_t out, float eps, vd_value dst) {
    int64_t in = vd_program_shape(n->p, x).c;
    vd_conv conv = same_conv(x, vd_net_group_norm(n, vd_name_in(at, "conv_norm_out."), in, eps, true),
                             vd_net_kernel(n, vd_name_in(at, "conv_out."), out, in, 3));
    conv.dst = dst;
    return vd_program_conv(n->p, conv);
}

/* ---- residual blocks ---- */

/* Columns [first, first + count) of conv_shortcut, a 1 x 1 kernel over `in` channels, as a matrix. */
static const vd_constant *shortcut_columns(vd_net *n, vd_name at, int64_t out, int64_t in, int64_t first,
                                           int64_t count) {
    vd_part part = VD_PART(.name = vd_name_in(at, "conv_shortcut.weight"), .dims = {out, in, 1, 1},
                           .column = first, .columns = count);
    return vd_weights_constant(n->w, (int64_t[4]){out, count, 1, 1}, &part, 1);
}

/* What the block adds its work to: the input, or its projection. The concatenation with the skip is never
 * made: each half meets its own columns of the projection. */
static vd_value shortcut(vd_net *n, vd_name at, const vd_resnet *r, int64_t x_channels,
                         int64_t skip_channels) {
    int64_t in = x_channels + skip_channels;
    if (in == r->out)
        return r->x;
    const vd_constant *bias = vd_weights_vector(n->w, vd_name_in(at, "conv_shortcut.bias"), r->out);
    vd_value sum =
        vd_program_linear(n->p, VD_LINEAR(.src = r->x, .bias = bias,
                                          .weight = shortcut_columns(n, at, r->out, in, 0, x_channels)));
    if (r->skip == VD_NONE)
        return sum;
    const vd_constant *rest = shortcut_columns(n, at, r->out, in, x_channels, skip_channels);
    return vd_program_linear(n->p, VD_LINEAR(.src = r->skip, .weight = rest, .residual = sum));
}

/* The tensor of these dims, times `scale`; its first dimension is the constant's. */
static const vd_constant *scaled(vd_net *n, vd_name name, const int64_t dims[VD_PART_RANK], float scale) {
    vd_part part = {.name = name, .scale = scale};
    int64_t shape[4];
    for (int i = 0; i < VD_PART_RANK; i++)
        part.dims[i] = dims[i];
    for (int i = 0; i < 4; i++)
        shape[i] = dims[i] ? dims[i] : 1;
    return vd_weights_constant(n->w, shape, &part, 1);
}

/* A convolution's bias, unless a value is given in its place. */
static const vd_constant *bias_unless(vd_net *n, vd_value given, vd_name name, int64_t count, float scale) {
    return given == VD_NONE ? scaled(n, name, (int64_t[VD_PART_RANK]){count}, scale) : NULL;
}

vd_value vd_net_resnet(vd_net *n, vd_name at, const vd_resnet *r) {
    int64_t x_channels = vd_program_shape(n->p, r->x).c;
    int64_t skip_channels = r->skip == VD_NONE ? 0 : vd_program_shape(n->p, r->skip).c;
    int64_t in = x_channels + skip_channels;
    vd_layer first = {vd_weights_kernel(n->w, vd_name_in(at, "conv1.weight"), r->out, in, 3),
                      bias_unless(n, r->bias, vd_name_in(at, "conv1.bias"), r->out, 1)};
    vd_conv conv1 = same_conv(r->x, vd_net_group_norm(n, vd_name_in(at, "norm1."), in, r->eps, true), first);
    conv1.src1 = r->skip;
    conv1.bias_value = r->bias;
    vd_value inner = vd_program_conv(n->p, conv1);
    vd_conv conv2 = same_conv(inner, vd_net_group_norm(n, vd_name_in(at, "norm2."), r->out, r->eps, true),
                              vd_net_kernel(n, vd_name_in(at, "conv2."), r->out, r->out, 3));
    conv2.residual = shortcut(n, at, r, x_channels, skip_channels);
    return vd_program_conv(n->p, conv2);
}

/* Three taps along the frames of x [clips, frames, pixels, c] after norm and silu: convolution 1 or 2 of the
 * block. Its weight and bias are times `scale`. */
static vd_conv temporal_conv(vd_net *n, vd_name at, int which, vd_value x, float eps, float scale,
                             vd_value bias) {
    int64_t c = vd_program_shape(n->p, x).c;
    vd_conv conv = VD_CONV(.src = x, .bias_value = bias, .pad_top = 1, .pad_bottom = 1);
    conv.norm = vd_net_group_norm(n, vd_name_in(at, "norm%d.", which), c, eps, true);
    conv.weight =
        scaled(n, vd_name_in(at, "conv%d.weight", which), (int64_t[VD_PART_RANK]){c, c, 3, 1, 1}, scale);
    conv.bias = bias_unless(n, bias, vd_name_in(at, "conv%d.bias", which), c, scale);
    return conv;
}

/* With s the spatial result, the temporal half is s + h and the blend b*s + (1-b)*(s + h) = s + (1-b)*h: the
 * factor goes into the last convolution and no blend remains (performance.md A7). */
vd_value vd_net_video_resnet(vd_net *n, vd_name at, const vd_resnet *r) {
    vd_value s = vd_net_resnet(n, vd_name_in(at, "spatial_res_block."), r);
    vd_shape shape = vd_program_shape(n->p, s);
    vd_shape clips = {shape.n / r->frames, r->frames, shape.h * shape.w, shape.c};
    vd_value x = vd_program_view(n->p, s, clips, 0);
    float mix = vd_weights_mix(n->w, vd_name_in(at, "time_mixer.mix_factor"));
    at = vd_name_in(at, "temporal_res_block.");
    vd_value h = vd_program_conv(n->p, temporal_conv(n, at, 1, x, r->frame_eps, 1, r->frame_bias));
    vd_conv conv2 = temporal_conv(n, at, 2, h, r->frame_eps, r->switched ? mix : 1 - mix, VD_NONE);
    conv2.residual = x;
    return vd_program_view(n->p, vd_program_conv(n->p, conv2), shape, 0);
}

/* ---- attention ---- */

/* The three projections stacked, so that one product makes q, k and v side by side. */
static vd_layer stacked_qkv(vd_net *n, vd_name at, const char *const names[3], int64_t c, bool biased) {
    vd_part weights[3], biases[3];
    for (int i = 0; i < 3; i++) {
        weights[i] = VD_PART(.name = vd_name_in(at, "%s.weight", names[i]), .dims = {c, c}, .at = i * c);
        biases[i] = VD_PART(.name = vd_name_in(at, "%s.bias", names[i]), .dims = {c}, .at = i * c);
    }
    return (vd_layer){vd_weights_constant(n->w, (int64_t[4]){3 * c, c, 1, 1}, weights, 3),
                      biased ? vd_weights_constant(n->w, (int64_t[4]){3 * c, 1, 1, 1}, biases, 3) : NULL};
}

vd_value vd_net_self_attention(vd_net *n, vd_name at, const vd_self_attention *a) {
    vd_shape s = vd_program_shape(n->p, a->x);
    int64_t pixels = s.h * s.w;
    vd_layer qkv = stacked_qkv(n, at, a->names, s.c, a->biased);
    vd_attention op =
        VD_ATTENTION(.heads = a->heads, .width = (int)(s.c / a->heads), .outer = s.n, .inner = 1,
                     .tokens = pixels, .outer_stride = pixels, .inner_stride = 1, .token_stride = 1);
    op.scale = (float)(1 / sqrt(op.width));
    op.qkv = vd_program_linear(
        n->p, VD_LINEAR(.src = a->x, .norm = a->norm, .weight = qkv.weight, .bias = qkv.bias));
    if (a->frames) {
        op.outer = s.n / a->frames;
        op.inner = pixels;
        op.tokens = a->frames;
        op.outer_stride = a->frames * pixels;
        op.token_stride = pixels;
    }
    return vd_program_attention(n->p, op);
}
