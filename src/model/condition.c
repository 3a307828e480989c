/* What the UNet needs before the first of consecutive steps of a sample: everything that depends on the step
 * alone, on the frame alone, or on the embedded image alone (7.2, 7.11), and that step's pixels. */
#include "model/model.h"

#include <stdlib.h>

typedef struct condition {
    vd_net net;
    const vd_unet_blocks *blocks;
    int frames, halves; /* F, G */
    int64_t width;      /* E: of the time embedding */
} condition;

/* silu(time embedding + added embedding) of every step [1,1,n,E]: all that the projections ever see. */
static vd_value embed_steps(condition *s, const vd_unet_config *c, int steps) {
    vd_net *n = &s->net;
    vd_dtype t = n->p->dtype;
    int64_t each = c->addition_time_embed_dim, all = c->projection_input_dim;
    vd_value ids = vd_program_temporary(n->p, t, (vd_shape){1, 1, 3, each});
    vd_program_sinusoid(
        n->p, (vd_sinusoid){vd_program_external(n->p, "time_ids", VD_F32, vd_vector_shape(3)), ids});
    vd_value added = vd_program_view(n->p, ids, vd_vector_shape(all), 0);
    added = vd_net_linear(n, (vd_name){"add_embedding.linear_1."}, added, s->width, VD_ACT_SILU);
    vd_part biases[] = {VD_PART(.name = {"add_embedding.linear_2.bias"}, .dims = {s->width}),
                        VD_PART(.name = {"time_embedding.linear_2.bias"}, .dims = {s->width})};
    vd_value sum = vd_program_linear(
        n->p, VD_LINEAR(.src = added, .dst = vd_program_temporary(n->p, VD_F32, vd_vector_shape(s->width)),
                        .weight = vd_weights_matrix(n->w, (vd_name){"add_embedding.linear_2.weight"},
                                                    s->width, s->width),
                        .bias = vd_weights_constant(n->w, (int64_t[4]){s->width, 1, 1, 1}, biases, 2)));

    vd_value time = vd_program_temporary(n->p, t, (vd_shape){1, 1, steps, c->channels[0]});
    vd_program_sinusoid(
        n->p, (vd_sinusoid){vd_program_external(n->p, "timesteps", VD_F32, vd_vector_shape(steps)), time});
    time = vd_net_linear(n, (vd_name){"time_embedding.linear_1."}, time, s->width, VD_ACT_SILU);
    return vd_program_linear(
        n->p, VD_LINEAR(.src = time, .bias_value = sum, .act = VD_ACT_SILU,
                        .weight = vd_weights_matrix(n->w, (vd_name){"time_embedding.linear_2.weight"},
                                                    s->width, s->width)));
}

/* Spatial or temporal half of a resnet: its projection, and the two biases that make one. */
static void add_projection(const condition *s, vd_name at, int64_t channels, int64_t row, vd_part *weight,
                           vd_part *biases) {
    *weight =
        VD_PART(.name = vd_name_in(at, "time_emb_proj.weight"), .dims = {channels, s->width}, .at = row);
    biases[0] = VD_PART(.name = vd_name_in(at, "time_emb_proj.bias"), .dims = {channels}, .at = row);
    biases[1] = VD_PART(.name = vd_name_in(at, "conv1.bias"), .dims = {channels}, .at = row);
}

/* One product for the time projections of all resnets. */
static vd_code project_steps(condition *s, vd_value embedded, vd_error *err) {
    static const char *const halves[] = {"spatial_res_block.", "temporal_res_block."};
    vd_net *n = &s->net;
    int64_t out = s->blocks->step_bias;
    int most = 2 * s->blocks->count, count = 0;
    vd_part *weights = malloc(3 * (size_t)most * sizeof *weights);
    if (!weights)
        return vd_fail_memory(err, "a list of weights", 3ull * (unsigned)most * sizeof *weights);
    vd_part *biases = weights + most; /* two for each weight */
    for (const vd_block *b = s->blocks->items; b < s->blocks->items + s->blocks->count; b++)
        for (int half = 0; half < 2 && b->kind == VD_BLOCK_RESNET; half++, count++)
            add_projection(s, vd_name_in(b->name, "%s", halves[half]), b->channels,
                           b->step_bias + half * b->channels, &weights[count], &biases[2 * count]);
    vd_shape table = vd_program_shape(n->p, embedded);
    table.c = out;
    vd_program_linear(
        n->p,
        VD_LINEAR(.src = embedded, .dst = vd_program_external(n->p, "step_bias", VD_F32, table),
                  .weight = vd_weights_constant(n->w, (int64_t[4]){out, s->width, 1, 1}, weights, count),
                  .bias = vd_weights_constant(n->w, (int64_t[4]){out, 1, 1, 1}, biases, 2 * count)));
    free(weights);
    return VD_OK;
}

/* e_f of one transformer, frame by frame (7.6 step 2). */
static void place_frames(condition *s, const vd_block *b, vd_value positions) {
    vd_net *n = &s->net;
    vd_name at = vd_name_in(b->name, "time_pos_embed.");
    int64_t c = b->channels;
    vd_shape shape = {1, 1, s->frames, c};
    vd_value e = vd_program_temporary(n->p, n->p->dtype, shape);
    vd_program_sinusoid(n->p, (vd_sinusoid){VD_NONE, e});
    e = vd_net_linear(n, vd_name_in(at, "linear_1."), e, 4 * c, VD_ACT_SILU);
    vd_layer last = vd_net_dense(n, vd_name_in(at, "linear_2."), c, 4 * c);
    vd_program_linear(n->p,
                      VD_LINEAR(.src = e, .weight = last.weight, .bias = last.bias,
                                .dst = vd_program_view(n->p, positions, shape, s->frames * b->positions)));
}

/* Cross-attention over one key is to_out(to_v(embedding)) for every token; in the unconditional half the
 * embedding is zero, so only biases are left. The bias of the self-attention before it is added (7.11). */
static void attend(condition *s, vd_name at, int64_t c, vd_value embeds, vd_value context, int64_t offset) {
    vd_net *n = &s->net;
    vd_part biases[] = {VD_PART(.name = vd_name_in(at, "attn1.to_out.0.bias"), .dims = {c}),
                        VD_PART(.name = vd_name_in(at, "attn2.to_out.0.bias"), .dims = {c})};
    const vd_constant *bias = vd_weights_constant(n->w, (int64_t[4]){c, 1, 1, 1}, biases, 2);
    vd_shape row = vd_vector_shape(c);
    offset *= s->halves;
    if (s->halves == 2) {
        vd_value first = vd_program_view(n->p, context, row, offset);
        vd_program_copy(n->p, (vd_copy){vd_program_constant(n->p, bias, VD_F32, row), first});
        offset += c;
    }
    int64_t d = vd_program_shape(n->p, embeds).c;
    vd_value v = vd_program_linear(
        n->p, VD_LINEAR(.src = embeds,
                        .weight = vd_weights_matrix(n->w, vd_name_in(at, "attn2.to_v.weight"), c, d)));
    vd_program_linear(
        n->p, VD_LINEAR(.src = v, .bias = bias, .dst = vd_program_view(n->p, context, row, offset),
                        .weight = vd_weights_matrix(n->w, vd_name_in(at, "attn2.to_out.0.weight"), c, c)));
}

static void attend_all(condition *s, const vd_block *b, vd_value embeds, vd_value context) {
    for (int l = 0; l < b->layers; l++) {
        int64_t offset = b->context + 2 * l * b->channels;
        attend(s, vd_name_in(b->name, "transformer_blocks.%d.", l), b->channels, embeds, context, offset);
        attend(s, vd_name_in(b->name, "temporal_transformer_blocks.%d.", l), b->channels, embeds, context,
               offset + b->channels);
    }
}

vd_code vd_build_condition(vd_model *m, vd_dtype dtype, vd_video_shape shape, vd_program **out,
                           vd_error *err) {
    const vd_unet_config *c = &m->config.unet;
    condition s = {.blocks = &m->blocks,
                   .frames = shape.frames,
                   .halves = shape.guided ? 2 : 1,
                   .width = 4 * c->channels[0]};
    VD_TRY(vd_net_begin(&s.net, "condition", dtype, m->weights[VD_UNET], err));
    vd_program *p = s.net.p;
    vd_value embeds = vd_net_input(&s.net, "embeds", vd_vector_shape(c->cross_attention_dim), 1);
    vd_value context =
        vd_program_external(p, "context", VD_F32, vd_vector_shape(s.halves * m->blocks.context));
    vd_value positions =
        vd_program_external(p, "positions", VD_F32, vd_vector_shape(s.frames * m->blocks.positions));
    if (project_steps(&s, embed_steps(&s, c, shape.steps), err) != VD_OK) {
        vd_program_free(p);
        return err->code;
    }
    for (const vd_block *b = m->blocks.items; b < m->blocks.items + m->blocks.count; b++) {
        if (b->kind != VD_BLOCK_ATTENTION)
            continue;
        place_frames(&s, b, positions);
        attend_all(&s, b, embeds, context);
    }
    vd_program_unet_input(p, vd_step_externals(m, shape, p));
    return vd_net_finish(&s.net, out, err);
}
