/* The VAE encoder up to the mean of its distribution (section 6). */
#include "model/model.h"

static vd_value resnet(vd_net *n, vd_name at, vd_value x, int64_t out) {
    return vd_net_resnet(
        n, at, &(vd_resnet){.x = x, .skip = VD_NONE, .out = out, .eps = vd_vae_eps, .bias = VD_NONE});
}

static vd_value down_block(vd_net *n, const vd_vae_config *c, int level, vd_value x) {
    vd_name at = vd_name_in((vd_name){"encoder."}, "down_blocks.%d.", level);
    for (int j = 0; j < c->layers; j++)
        x = resnet(n, vd_name_in(at, "resnets.%d.", j), x, c->channels[level]);
    return level + 1 < c->levels ? vd_net_downsample(n, vd_name_in(at, "downsamplers.0.conv."), x, 0) : x;
}

/* The rows of quant_conv that make the mean; the others, the logarithm of the variance, are not computed. */
static void mean(vd_net *n, int latent_channels, vd_value moments) {
    int64_t out = latent_channels, all = 2 * out;
    vd_part weight = VD_PART(.name = {"quant_conv.weight"}, .dims = {all, all, 1, 1}, .rows = out);
    vd_part bias = VD_PART(.name = {"quant_conv.bias"}, .dims = {all}, .rows = out);
    vd_shape shape = vd_program_shape(n->p, moments);
    shape.c = out;
    vd_program_linear(n->p,
                      VD_LINEAR(.src = moments, .dst = vd_program_external(n->p, "image", VD_F32, shape),
                                .weight = vd_weights_constant(n->w, (int64_t[4]){out, all, 1, 1}, &weight, 1),
                                .bias = vd_weights_constant(n->w, (int64_t[4]){out, 1, 1, 1}, &bias, 1)));
}

vd_code vd_build_vae_encoder(vd_model *m, vd_dtype dtype, int height, int width, vd_program **out,
                             vd_error *err) {
    const vd_vae_config *c = &m->config.vae;
    int64_t deepest = c->channels[c->levels - 1];
    vd_name at = {"encoder."}, mid = vd_name_in(at, "mid_block.");
    vd_net n;
    VD_TRY(vd_net_begin(&n, "vae_encoder", dtype, m->weights[VD_VAE], err));
    vd_value x = vd_net_input(&n, "vae_pixels", (vd_shape){1, height, width, c->in_channels}, 1);
    x = vd_net_conv(&n, vd_name_in(at, "conv_in."), x, c->channels[0]);
    for (int level = 0; level < c->levels; level++)
        x = down_block(&n, c, level, x);
    x = resnet(&n, vd_name_in(mid, "resnets.0."), x, deepest);
    x = vd_vae_attention(&n, vd_name_in(mid, "attentions.0."), x);
    x = resnet(&n, vd_name_in(mid, "resnets.1."), x, deepest);
    x = vd_net_head(&n, at, x, 2 * c->latent_channels, vd_vae_eps, VD_NONE);
    mean(&n, c->latent_channels, x);
    return vd_net_finish(&n, out, err);
}
