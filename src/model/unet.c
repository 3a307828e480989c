/* One denoising step: the UNet, the Euler update, and the input of the next step (1.2 step 14, section 7). */
#include "model/model.h"

static const float transformer_eps = 1e-6f, layer_norm_eps = 1e-5f, out_eps = 1e-5f; /* 7.9 */

static const char *const projections[] = {"attn1.to_q", "attn1.to_k", "attn1.to_v"};

typedef struct unet {
    vd_net net;
    int frames, halves;          /* F, G */
    vd_value step_bias;          /* [1,1,1,P]: the row of this step */
    vd_value context, positions; /* as vd_build_condition made them */
    vd_value skips[VD_UNET_MAX_SKIPS];
    int skip_count;
} unet;

static vd_value pop(unet *u) {
    return u->skips[--u->skip_count];
}

static vd_value resnet(unet *u, const vd_block *b, vd_value x) {
    vd_program *p = u->net.p;
    vd_shape bias = vd_vector_shape(b->channels);
    vd_resnet r = {
        .x = x, .skip = b->pops ? pop(u) : VD_NONE, .out = b->channels, .eps = b->eps, .frame_eps = b->eps};
    r.bias = vd_program_view(p, u->step_bias, bias, b->step_bias);
    r.frame_bias = vd_program_view(p, u->step_bias, bias, b->step_bias + b->channels);
    r.frames = u->frames;
    return vd_net_video_resnet(&u->net, b->name, &r);
}

/* Feed-forward below `at` with its norm, GEGLU, hidden width 4c. The caller may add to it. */
static vd_feed_forward feed_forward(unet *u, vd_name at, const char *name, const char *norm, vd_value x) {
    int64_t c = vd_program_shape(u->net.p, x).c;
    vd_layer up = vd_net_dense(&u->net, vd_name_in(at, "%s.net.0.proj.", name), 8 * c, c);
    vd_layer down = vd_net_dense(&u->net, vd_name_in(at, "%s.net.2.", name), c, 4 * c);
    return VD_FEED_FORWARD(.src = x,
                           .norm = vd_net_layer_norm(&u->net, vd_name_in(at, "%s.", norm), c, layer_norm_eps),
                           .act = VD_ACT_GEGLU, .up_weight = up.weight, .up_bias = up.bias,
                           .down_weight = down.weight, .down_bias = down.bias);
}

/* x + attn1(norm1(x)) + attn2(norm2(.), the one key): the latter is the same vector for every token of a
 * half, and comes with to_out's bias from "context" (7.11). `frames` 0: over pixels. */
static vd_value attention(unet *u, const vd_block *b, vd_name at, vd_value x, int frames, int64_t context) {
    vd_net *n = &u->net;
    int64_t c = b->channels;
    vd_norm norm = vd_net_layer_norm(n, vd_name_in(at, "norm1."), c, layer_norm_eps);
    vd_self_attention self = {
        .x = x, .norm = norm, .names = projections, .heads = b->heads, .frames = frames};
    vd_value mixed = vd_net_self_attention(n, at, &self);
    vd_value bias = vd_program_view(n->p, u->context, (vd_shape){u->halves, 1, 1, c}, u->halves * context);
    return vd_program_linear(
        n->p, VD_LINEAR(.src = mixed, .bias_value = bias, .residual = x,
                        .weight = vd_weights_matrix(n->w, vd_name_in(at, "attn1.to_out.0.weight"), c, c)));
}

/* Layer l of a transformer: the spatial block, the temporal one on y + e_f, and their blend (7.6 step 4). */
static vd_value transformer_layer(unet *u, const vd_block *b, int l, vd_value y, float mix) {
    vd_program *p = u->net.p;
    vd_name spatial = vd_name_in(b->name, "transformer_blocks.%d.", l);
    vd_name temporal = vd_name_in(b->name, "temporal_transformer_blocks.%d.", l);
    int64_t c = b->channels, context = b->context + 2 * l * c;
    y = attention(u, b, spatial, y, 0, context);
    y = vd_program_feed_forward(p, feed_forward(u, spatial, "ff", "norm3", y));

    vd_feed_forward in = feed_forward(u, temporal, "ff_in", "norm_in", y);
    in.add = vd_program_view(p, u->positions, (vd_shape){u->frames, 1, 1, c}, u->frames * b->positions);
    vd_value m = vd_program_feed_forward(p, in);
    m = attention(u, b, temporal, m, u->frames, context + c);
    vd_feed_forward out = feed_forward(u, temporal, "ff", "norm3", m);
    out.mix = y;
    out.alpha = mix;
    return vd_program_feed_forward(p, out);
}

static vd_value transformer(unet *u, const vd_block *b, vd_value x) {
    vd_net *n = &u->net;
    int64_t c = b->channels;
    vd_layer in = vd_net_dense(n, vd_name_in(b->name, "proj_in."), c, c);
    vd_layer out = vd_net_dense(n, vd_name_in(b->name, "proj_out."), c, c);
    vd_norm norm = vd_net_group_norm(n, vd_name_in(b->name, "norm."), c, transformer_eps, false);
    float mix = vd_weights_mix(n->w, vd_name_in(b->name, "time_mixer.mix_factor"));
    vd_value y =
        vd_program_linear(n->p, VD_LINEAR(.src = x, .norm = norm, .weight = in.weight, .bias = in.bias));
    for (int l = 0; l < b->layers; l++)
        y = transformer_layer(u, b, l, y, mix);
    return vd_program_linear(n->p,
                             VD_LINEAR(.src = y, .weight = out.weight, .bias = out.bias, .residual = x));
}

/* To the size of the skip that comes next: twice x's, or one less where the way down rounded up (7.4). */
static vd_value upsample(unet *u, const vd_block *b, vd_value x) {
    vd_shape to = vd_program_shape(u->net.p, u->skips[u->skip_count - 1]);
    return vd_net_upsample(&u->net, b->name, x, to.h, to.w);
}

static vd_value run_block(unet *u, const vd_block *b, vd_value x) {
    switch (b->kind) {
    case VD_BLOCK_RESNET:
        return resnet(u, b, x);
    case VD_BLOCK_ATTENTION:
        return transformer(u, b, x);
    case VD_BLOCK_DOWN:
        return vd_net_downsample(&u->net, b->name, x, 1);
    case VD_BLOCK_UP:
        break;
    }
    return upsample(u, b, x);
}

/* v = UNet(x) into `v`. */
static void forward(unet *u, const vd_model *m, vd_value x, vd_value v) {
    const vd_unet_config *c = &m->config.unet;
    x = vd_net_conv(&u->net, (vd_name){"conv_in."}, x, c->channels[0]);
    u->skips[u->skip_count++] = x;
    for (int i = 0; i < m->blocks.count; i++) {
        x = run_block(u, &m->blocks.items[i], x);
        if (m->blocks.items[i].pushes)
            u->skips[u->skip_count++] = x;
    }
    vd_net_head(&u->net, (vd_name){""}, x, c->out_channels, out_eps, v);
}

vd_unet_input vd_step_externals(const vd_model *m, vd_video_shape shape, vd_program *p) {
    vd_shape video = {shape.frames, shape.latent_h, shape.latent_w, m->config.unet.out_channels};
    vd_shape image = video, in = video;
    image.n = 1;
    in.n *= shape.guided ? 2 : 1;
    in.c = m->config.unet.in_channels;
    vd_unet_input o;
    o.latents = vd_program_external(p, "latents", VD_F32, video);
    o.image = vd_program_external(p, "image", VD_F32, image);
    o.sigmas = vd_program_external(p, "sigmas", VD_F32, vd_vector_shape(shape.steps + 1));
    o.step = vd_program_external(p, "step", VD_I32, vd_vector_shape(1));
    o.dst = vd_program_external(p, "unet_in", p->dtype, in);
    return o;
}

vd_code vd_build_step(vd_model *m, vd_dtype dtype, vd_video_shape shape, bool keep_out, vd_program **out,
                      vd_error *err) {
    int64_t f = shape.frames;
    unet u = {.frames = shape.frames, .halves = shape.guided ? 2 : 1};
    VD_TRY(vd_net_begin(&u.net, "step", dtype, m->weights[VD_UNET], err));
    vd_program *p = u.net.p;
    vd_value table =
        vd_program_external(p, "step_bias", VD_F32, (vd_shape){1, 1, shape.steps, m->blocks.step_bias});
    u.context = vd_program_external(p, "context", VD_F32, vd_vector_shape(u.halves * m->blocks.context));
    u.positions = vd_program_external(p, "positions", VD_F32, vd_vector_shape(f * m->blocks.positions));
    vd_value guidance = vd_program_external(p, "guidance", VD_F32, vd_vector_shape(f));
    vd_unet_input in = vd_step_externals(m, shape, p);
    vd_shape video = vd_program_shape(p, in.dst);
    video.c = m->config.unet.out_channels;
    vd_value v =
        keep_out ? vd_program_external(p, "unet_out", VD_F32, video) : vd_program_temporary(p, VD_F32, video);

    u.step_bias = vd_program_gather_row(p, (vd_gather_row){table, in.step, VD_NONE});
    forward(&u, m, in.dst, v);
    vd_program_euler_step(p, (vd_euler_step){.v = v,
                                             .guidance = guidance,
                                             .sigmas = in.sigmas,
                                             .step = in.step,
                                             .latents = in.latents,
                                             .image = in.image,
                                             .next = in.dst});
    return vd_net_finish(&u.net, out, err);
}
