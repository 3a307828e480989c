/* The temporal VAE decoder: one chunk of frames as one clip (section 9). */
#include "model/model.h"

static const float frame_eps = 1e-5f; /* of the temporal halves (7.9) */

static vd_value resnet(vd_net *n, vd_name at, int j, vd_value x, int64_t out) {
    vd_resnet r = {.x = x,
                   .skip = VD_NONE,
                   .out = out,
                   .eps = vd_vae_eps,
                   .bias = VD_NONE,
                   .frame_eps = frame_eps,
                   .frame_bias = VD_NONE,
                   .switched = true};
    r.frames = (int)vd_program_shape(n->p, x).n;
    return vd_net_video_resnet(n, vd_name_in(at, "resnets.%d.", j), &r);
}

/* One attention at most, and with it the second resnet: further ones in the file never run (9.2). */
static vd_value mid_block(vd_net *n, const vd_vae_config *c, vd_value x) {
    int64_t deepest = c->channels[c->levels - 1];
    vd_name at = {"decoder.mid_block."};
    x = resnet(n, at, 0, x, deepest);
    if (c->layers == 1)
        return x;
    x = vd_vae_attention(n, vd_name_in(at, "attentions.0."), x);
    return resnet(n, at, 1, x, deepest);
}

static vd_value up_block(vd_net *n, const vd_vae_config *c, int i, vd_value x) {
    vd_name at = vd_name_in((vd_name){"decoder."}, "up_blocks.%d.", i);
    for (int j = 0; j <= c->layers; j++)
        x = resnet(n, at, j, x, c->channels[c->levels - 1 - i]);
    vd_shape s = vd_program_shape(n->p, x);
    return i + 1 < c->levels ? vd_net_upsample(n, vd_name_in(at, "upsamplers.0.conv."), x, 2 * s.h, 2 * s.w)
                             : x;
}

/* time_conv_out: three taps along the frames, kept in fp32 for the rounding to bytes. */
static vd_value time_conv(vd_net *n, vd_value x) {
    vd_shape s = vd_program_shape(n->p, x);
    vd_part weight = VD_PART(.name = {"decoder.time_conv_out.weight"}, .dims = {s.c, s.c, 3, 1, 1});
    vd_value clip = vd_program_view(n->p, x, (vd_shape){1, s.n, s.h * s.w, s.c}, 0);
    vd_value pixels = vd_program_temporary(n->p, VD_F32, s);
    vd_program_conv(n->p,
                    VD_CONV(.src = clip, .weight = vd_weights_constant(n->w, weight.dims, &weight, 1),
                            .bias = vd_weights_vector(n->w, (vd_name){"decoder.time_conv_out.bias"}, s.c),
                            .pad_top = 1, .pad_bottom = 1,
                            .dst = vd_program_view(n->p, pixels, (vd_shape){1, s.n, s.h * s.w, s.c}, 0)));
    return pixels;
}

vd_code vd_build_decoder(vd_model *m, vd_dtype dtype, int frames, int latent_h, int latent_w,
                         vd_program **out, vd_error *err) {
    const vd_vae_config *c = &m->config.vae;
    vd_name at = {"decoder."};
    vd_net n;
    VD_TRY(vd_net_begin(&n, "decoder", dtype, m->weights[VD_VAE], err));
    vd_shape latents = {frames, latent_h, latent_w, c->latent_channels};
    vd_value x = vd_net_input(&n, "decoder_latents", latents, (float)(1 / c->scaling_factor));
    x = vd_net_conv(&n, vd_name_in(at, "conv_in."), x, c->channels[c->levels - 1]);
    x = mid_block(&n, c, x);
    for (int i = 0; i < c->levels; i++)
        x = up_block(&n, c, i, x);
    x = time_conv(&n, vd_net_head(&n, at, x, c->out_channels, vd_vae_eps, VD_NONE));
    vd_program_nonfinite(
        n.p, (vd_nonfinite){x, vd_program_external(n.p, "nonfinite", VD_I32, vd_vector_shape(1))});
    vd_shape shape = vd_program_shape(n.p, x);
    vd_program_frames_u8(n.p, (vd_frames_u8){x, vd_program_external(n.p, "decoder_frames", VD_U8, shape)});
    return vd_net_finish(&n, out, err);
}
