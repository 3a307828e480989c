#include "model/inventory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Collects tensors below a path such as "down_blocks.0.resnets.1.". */
typedef struct builder {
    vd_inventory *out;
    char path[96];
} builder;

#define DIMS(...)                                                                                            \
    (int)(sizeof(int64_t[]){__VA_ARGS__} / sizeof(int64_t)), (const int64_t[]) {                             \
        __VA_ARGS__                                                                                          \
    }

/* Goes down one step; the result, given to `leave`, goes back up. */
__attribute__((format(printf, 2, 3))) static size_t enter(builder *b, const char *format, ...) {
    size_t length = strlen(b->path);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(b->path + length, sizeof b->path - length, format, arguments);
    va_end(arguments);
    return length;
}

static void leave(builder *b, size_t length) {
    b->path[length] = '\0';
}

static void add(builder *b, const char *name, int rank, const int64_t *dims) {
    vd_inventory *o = b->out;
    if (o->count == o->capacity) {
        int capacity = o->capacity ? 2 * o->capacity : 256;
        vd_named_shape *larger = realloc(o->items, (size_t)capacity * sizeof *larger);
        if (!larger) {
            o->failed = true;
            return;
        }
        o->items = larger;
        o->capacity = capacity;
    }
    vd_named_shape *item = &o->items[o->count++];
    snprintf(item->name, sizeof item->name, "%s%s", b->path, name);
    item->rank = rank;
    memcpy(item->dims, dims, (size_t)rank * sizeof *dims);
}

/* weight [dims], bias [dims[0]] */
static void layer(builder *b, const char *name, int rank, const int64_t *dims) {
    size_t up = enter(b, "%s.", name);
    add(b, "weight", rank, dims);
    add(b, "bias", 1, dims);
    leave(b, up);
}

static void conv(builder *b, const char *name, int64_t in, int64_t out) {
    layer(b, name, DIMS(out, in, 3, 3));
}

static void mixer(builder *b) {
    add(b, "time_mixer.mix_factor", DIMS(1));
}

/* norm1, conv1, time_emb_proj (if emb > 0), norm2, conv2, conv_shortcut (if the width changes) */
static void resnet(builder *b, int64_t in, int64_t out, int64_t emb) {
    layer(b, "norm1", DIMS(in));
    conv(b, "conv1", in, out);
    if (emb)
        layer(b, "time_emb_proj", DIMS(out, emb));
    layer(b, "norm2", DIMS(out));
    conv(b, "conv2", out, out);
    if (in != out)
        layer(b, "conv_shortcut", DIMS(out, in, 1, 1));
}

/* R(in, out) of 3.2 and, without emb, d(in, out) of 3.3 */
static void video_resnet(builder *b, int64_t in, int64_t out, int64_t emb) {
    size_t up = enter(b, "spatial_res_block.");
    resnet(b, in, out, emb);
    leave(b, up);
    enter(b, "temporal_res_block.");
    layer(b, "norm1", DIMS(out));
    layer(b, "conv1", DIMS(out, out, 3, 1, 1));
    if (emb)
        layer(b, "time_emb_proj", DIMS(out, emb));
    layer(b, "norm2", DIMS(out));
    layer(b, "conv2", DIMS(out, out, 3, 1, 1));
    leave(b, up);
    mixer(b);
}

static void attention(builder *b, const char *name, int64_t width, int64_t context) {
    size_t up = enter(b, "%s.", name);
    add(b, "to_q.weight", DIMS(width, width));
    add(b, "to_k.weight", DIMS(width, context));
    add(b, "to_v.weight", DIMS(width, context));
    layer(b, "to_out.0", DIMS(width, width));
    leave(b, up);
}

static void feed_forward(builder *b, const char *name, int64_t width) {
    size_t up = enter(b, "%s.net.", name);
    layer(b, "0.proj", DIMS(8 * width, width));
    layer(b, "2", DIMS(width, 4 * width));
    leave(b, up);
}

static void transformer_block(builder *b, int64_t width, int64_t context) {
    layer(b, "norm1", DIMS(width));
    layer(b, "norm2", DIMS(width));
    layer(b, "norm3", DIMS(width));
    attention(b, "attn1", width, width);
    attention(b, "attn2", width, context);
    feed_forward(b, "ff", width);
}

/* A(width) of 3.2 */
static void video_transformer(builder *b, int64_t width, int64_t context, int layers) {
    layer(b, "norm", DIMS(width));
    layer(b, "proj_in", DIMS(width, width));
    for (int l = 0; l < layers; l++) {
        size_t up = enter(b, "transformer_blocks.%d.", l);
        transformer_block(b, width, context);
        leave(b, up);
        enter(b, "temporal_transformer_blocks.%d.", l);
        layer(b, "norm_in", DIMS(width));
        feed_forward(b, "ff_in", width);
        transformer_block(b, width, context);
        leave(b, up);
    }
    layer(b, "time_pos_embed.linear_1", DIMS(4 * width, width));
    layer(b, "time_pos_embed.linear_2", DIMS(width, 4 * width));
    mixer(b);
    layer(b, "proj_out", DIMS(width, width));
}

static void unet_resnet(builder *b, const vd_unet_config *u, int index, int64_t in, int64_t out) {
    size_t up = enter(b, "resnets.%d.", index);
    video_resnet(b, in, out, 4 * u->channels[0]);
    leave(b, up);
}

static void unet_attention(builder *b, const vd_unet_config *u, int index, int level) {
    size_t up = enter(b, "attentions.%d.", index);
    video_transformer(b, u->channels[level], u->cross_attention_dim, u->transformer_layers[level][index]);
    leave(b, up);
}

static void unet_down(builder *b, const vd_unet_config *u, int level) {
    size_t up = enter(b, "down_blocks.%d.", level);
    int64_t out = u->channels[level];
    for (int j = 0; j < u->layers[level]; j++) {
        unet_resnet(b, u, j, j ? out : u->channels[level ? level - 1 : 0], out);
        if (u->down_attention[level])
            unet_attention(b, u, j, level);
    }
    if (level < u->levels - 1)
        conv(b, "downsamplers.0.conv", out, out);
    leave(b, up);
}

static void unet_up(builder *b, const vd_unet_config *u, int block) {
    size_t up = enter(b, "up_blocks.%d.", block);
    int level = u->levels - 1 - block, last = u->layers[level];
    int64_t out = u->channels[level], before = u->channels[block ? level + 1 : level];
    for (int j = 0; j <= last; j++) {
        int64_t skip = j == last ? u->channels[level ? level - 1 : 0] : out;
        unet_resnet(b, u, j, (j ? out : before) + skip, out);
        if (u->up_attention[block])
            unet_attention(b, u, j, level);
    }
    if (level > 0)
        conv(b, "upsamplers.0.conv", out, out);
    leave(b, up);
}

static void unet(builder *b, const vd_unet_config *u) {
    int64_t first = u->channels[0], emb = 4 * first, low = u->channels[u->levels - 1];
    conv(b, "conv_in", u->in_channels, first);
    layer(b, "time_embedding.linear_1", DIMS(emb, first));
    layer(b, "time_embedding.linear_2", DIMS(emb, emb));
    layer(b, "add_embedding.linear_1", DIMS(emb, u->projection_input_dim));
    layer(b, "add_embedding.linear_2", DIMS(emb, emb));
    for (int i = 0; i < u->levels; i++) {
        unet_down(b, u, i);
        unet_up(b, u, i);
    }
    size_t up = enter(b, "mid_block.");
    unet_resnet(b, u, 0, low, low);
    unet_attention(b, u, 0, u->levels - 1);
    unet_resnet(b, u, 1, low, low);
    leave(b, up);
    layer(b, "conv_norm_out", DIMS(first));
    conv(b, "conv_out", first, u->out_channels);
}

/* m of 3.3 */
static void vae_attention(builder *b, int64_t width) {
    static const char *const projections[] = {"to_q", "to_k", "to_v", "to_out.0"};
    size_t up = enter(b, "attentions.0.");
    layer(b, "group_norm", DIMS(width));
    for (int i = 0; i < 4; i++)
        layer(b, projections[i], DIMS(width, width));
    leave(b, up);
}

/* `count` blocks that lead from `in` to `out` channels: e() of 3.3, or d() where `video`. */
static void vae_resnets(builder *b, int count, int64_t in, int64_t out, bool video) {
    for (int j = 0; j < count; j++) {
        size_t up = enter(b, "resnets.%d.", j);
        (video ? video_resnet : resnet)(b, j ? out : in, out, 0);
        leave(b, up);
    }
}

static void vae_ends(builder *b, int64_t in, int64_t first, int64_t last, int64_t out) {
    conv(b, "conv_in", in, first);
    layer(b, "conv_norm_out", DIMS(last));
    conv(b, "conv_out", last, out);
}

static void vae_encoder(builder *b, const vd_vae_config *v) {
    const int *c = v->channels, low = v->levels - 1;
    vae_ends(b, v->in_channels, c[0], c[low], 2 * v->latent_channels);
    for (int i = 0; i <= low; i++) {
        size_t up = enter(b, "down_blocks.%d.", i);
        vae_resnets(b, v->layers, c[i ? i - 1 : 0], c[i], false);
        if (i < low)
            conv(b, "downsamplers.0.conv", c[i], c[i]);
        leave(b, up);
    }
    size_t up = enter(b, "mid_block.");
    vae_resnets(b, 2, c[low], c[low], false);
    vae_attention(b, c[low]);
    leave(b, up);
}

static void vae_decoder(builder *b, const vd_vae_config *v) {
    const int *c = v->channels, low = v->levels - 1;
    vae_ends(b, v->latent_channels, c[low], c[0], v->out_channels);
    layer(b, "time_conv_out", DIMS(v->out_channels, v->out_channels, 3, 1, 1));
    for (int i = 0; i <= low; i++) {
        size_t up = enter(b, "up_blocks.%d.", low - i);
        vae_resnets(b, v->layers + 1, c[i < low ? i + 1 : low], c[i], true);
        if (i > 0)
            conv(b, "upsamplers.0.conv", c[i], c[i]);
        leave(b, up);
    }
    size_t up = enter(b, "mid_block.");
    vae_resnets(b, v->layers, c[low], c[low], true);
    vae_attention(b, c[low]);
    leave(b, up);
}

static void vae(builder *b, const vd_vae_config *v) {
    size_t up = enter(b, "encoder.");
    vae_encoder(b, v);
    leave(b, up);
    layer(b, "quant_conv", DIMS(2 * v->latent_channels, 2 * v->latent_channels, 1, 1));
    enter(b, "decoder.");
    vae_decoder(b, v);
    leave(b, up);
}

static void clip_layer(builder *b, const vd_clip_config *c) {
    static const char *const projections[] = {"q_proj", "k_proj", "v_proj", "out_proj"};
    size_t up = enter(b, "self_attn.");
    for (int i = 0; i < 4; i++)
        layer(b, projections[i], DIMS(c->hidden, c->hidden));
    leave(b, up);
    layer(b, "layer_norm1", DIMS(c->hidden));
    layer(b, "layer_norm2", DIMS(c->hidden));
    layer(b, "mlp.fc1", DIMS(c->intermediate, c->hidden));
    layer(b, "mlp.fc2", DIMS(c->hidden, c->intermediate));
}

static void clip(builder *b, const vd_clip_config *c) {
    int64_t side = c->image_size / c->patch_size;
    size_t top = enter(b, "vision_model.");
    add(b, "embeddings.class_embedding", DIMS(c->hidden));
    add(b, "embeddings.patch_embedding.weight", DIMS(c->hidden, c->channels, c->patch_size, c->patch_size));
    add(b, "embeddings.position_embedding.weight", DIMS(side * side + 1, c->hidden));
    layer(b, "pre_layrnorm", DIMS(c->hidden)); /* so spelled in the files */
    for (int i = 0; i < c->layers; i++) {
        size_t up = enter(b, "encoder.layers.%d.", i);
        clip_layer(b, c);
        leave(b, up);
    }
    layer(b, "post_layernorm", DIMS(c->hidden));
    leave(b, top);
    add(b, "visual_projection.weight", DIMS(c->projection, c->hidden));
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const vd_named_shape *)a)->name, ((const vd_named_shape *)b)->name);
}

static vd_code finish(vd_inventory *out, vd_error *err) {
    if (out->failed) {
        vd_inventory_free(out);
        return vd_fail_memory(err, "a list of tensors", 0);
    }
    qsort(out->items, (size_t)out->count, sizeof *out->items, by_name);
    return VD_OK;
}

vd_code vd_inventory_unet(const vd_unet_config *config, vd_inventory *out, vd_error *err) {
    *out = (vd_inventory){0};
    unet(&(builder){.out = out}, config);
    return finish(out, err);
}

vd_code vd_inventory_vae(const vd_vae_config *config, vd_inventory *out, vd_error *err) {
    *out = (vd_inventory){0};
    vae(&(builder){.out = out}, config);
    return finish(out, err);
}

vd_code vd_inventory_clip(const vd_clip_config *config, vd_inventory *out, vd_error *err) {
    *out = (vd_inventory){0};
    clip(&(builder){.out = out}, config);
    return finish(out, err);
}

void vd_inventory_free(vd_inventory *inventory) {
    free(inventory->items);
    *inventory = (vd_inventory){0};
}

int64_t vd_shape_elements(const vd_named_shape *shape) {
    int64_t elements = 1;
    for (int i = 0; i < shape->rank; i++)
        elements *= shape->dims[i];
    return elements;
}
