/* The CLIP vision tower with its projection (section 5). */
#include "model/model.h"

static const char *const projections[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"};

/* [class token ; patches] plus position embeddings, all in one value: the constant part is copied, then the
 * patch convolution adds itself to rows 1.. */
static vd_value embed(vd_net *n, const vd_clip_config *c, vd_value pixels) {
    int64_t side = c->image_size / c->patch_size, count = side * side + 1, width = c->hidden;
    vd_name at = {"vision_model.embeddings."};
    vd_part parts[] = {
        VD_PART(.name = vd_name_in(at, "position_embedding.weight"), .dims = {count, width}),
        VD_PART(.name = vd_name_in(at, "class_embedding"), .dims = {width}),
    };
    const vd_constant *sum = vd_weights_constant(n->w, (int64_t[4]){count, width, 1, 1}, parts, 2);
    vd_shape shape = {1, 1, count, width};
    vd_value tokens = vd_program_temporary(n->p, n->p->dtype, shape);
    vd_program_copy(n->p, (vd_copy){vd_program_constant(n->p, sum, n->p->dtype, shape), tokens});
    vd_value patches = vd_program_view(n->p, tokens, (vd_shape){1, side, side, width}, width);
    vd_part kernel = VD_PART(.name = vd_name_in(at, "patch_embedding.weight"),
                             .dims = {width, c->channels, c->patch_size, c->patch_size});
    vd_program_conv(n->p, VD_CONV(.src = pixels, .stride = c->patch_size, .residual = patches, .dst = patches,
                                  .weight = vd_weights_constant(n->w, kernel.dims, &kernel, 1)));
    return tokens;
}

static vd_value layer(vd_net *n, const vd_clip_config *c, vd_name at, vd_value x) {
    float eps = (float)c->layer_norm_eps;
    int64_t width = c->hidden, hidden = c->intermediate;
    vd_value mixed =
        vd_net_self_attention(n, at,
                              &(vd_self_attention){
                                  .x = x,
                                  .norm = vd_net_layer_norm(n, vd_name_in(at, "layer_norm1."), width, eps),
                                  .names = projections,
                                  .biased = true,
                                  .heads = c->heads,
                              });
    vd_layer out = vd_net_dense(n, vd_name_in(at, "self_attn.out_proj."), width, width);
    x = vd_program_linear(n->p,
                          VD_LINEAR(.src = mixed, .weight = out.weight, .bias = out.bias, .residual = x));
    vd_layer up = vd_net_dense(n, vd_name_in(at, "mlp.fc1."), hidden, width);
    vd_layer down = vd_net_dense(n, vd_name_in(at, "mlp.fc2."), width, hidden);
    return vd_program_feed_forward(
        n->p,
        VD_FEED_FORWARD(.src = x, .norm = vd_net_layer_norm(n, vd_name_in(at, "layer_norm2."), width, eps),
                        .act = c->act, .up_weight = up.weight, .up_bias = up.bias, .down_weight = down.weight,
                        .down_bias = down.bias));
}

vd_code vd_build_clip(vd_model *m, vd_dtype dtype, vd_program **out, vd_error *err) {
    const vd_clip_config *c = &m->config.clip;
    float eps = (float)c->layer_norm_eps;
    int64_t width = c->hidden;
    vd_name at = {"vision_model."};
    vd_net n;
    VD_TRY(vd_net_begin(&n, "clip", dtype, m->weights[VD_CLIP], err));
    vd_shape image = {1, c->image_size, c->image_size, c->channels};
    vd_value x = embed(&n, c, vd_net_input(&n, "clip_pixels", image, 1));
    vd_norm before = vd_net_layer_norm(&n, vd_name_in(at, "pre_layrnorm."), width, eps);
    x = vd_program_layer_norm(n.p, (vd_layer_norm){.src = x, .dst = VD_NONE, .norm = before});
    for (int i = 0; i < c->layers; i++)
        x = layer(&n, c, vd_name_in(at, "encoder.layers.%d.", i), x);
    vd_program_linear(
        n.p, VD_LINEAR(.src = vd_program_view(n.p, x, vd_vector_shape(width), 0), /* the class token */
                       .norm = vd_net_layer_norm(&n, vd_name_in(at, "post_layernorm."), width, eps),
                       .weight = vd_weights_matrix(n.w, (vd_name){"visual_projection.weight"}, c->projection,
                                                   width),
                       .dst = vd_program_external(n.p, "embeds", VD_F32, vd_vector_shape(c->projection))));
    return vd_net_finish(&n, out, err);
}
