#include "model/unet_blocks.h"

static const vd_name root = {""};

/* The epsilons that the reference really uses: its factory does not hand all of them on (7.9). */
static const float eps_default = 1e-6f, eps_down_and_mid = 1e-5f;

static vd_block *add(vd_unet_blocks *b, vd_block_kind kind, vd_name name, int64_t channels) {
    vd_block *block = &b->items[b->count++];
    *block = (vd_block){.kind = kind, .name = name, .channels = channels};
    return block;
}

static vd_block *add_resnet(vd_unet_blocks *b, vd_name at, int j, int64_t channels, float eps) {
    vd_block *block = add(b, VD_BLOCK_RESNET, vd_name_in(at, "resnets.%d.", j), channels);
    block->eps = eps;
    block->step_bias = b->step_bias;
    b->step_bias += 2 * channels;
    return block;
}

/* Attention j of a block at `level`. */
static vd_block *add_attention(vd_unet_blocks *b, const vd_unet_config *c, vd_name at, int j, int level) {
    vd_block *block = add(b, VD_BLOCK_ATTENTION, vd_name_in(at, "attentions.%d.", j), c->channels[level]);
    block->heads = c->heads[level];
    block->layers = c->transformer_layers[level][j];
    block->context = b->context;
    block->positions = b->positions;
    b->context += 2 * block->layers * block->channels;
    b->positions += block->channels;
    return block;
}

static void walk_down(const vd_unet_config *c, int level, vd_unet_blocks *b) {
    vd_name at = vd_name_in(root, "down_blocks.%d.", level);
    bool attends = c->down_attention[level];
    for (int j = 0; j < c->layers[level]; j++) {
        vd_block *last = add_resnet(b, at, j, c->channels[level], attends ? eps_default : eps_down_and_mid);
        if (attends)
            last = add_attention(b, c, at, j, level);
        last->pushes = true;
    }
    if (level + 1 < c->levels)
        add(b, VD_BLOCK_DOWN, vd_name_in(at, "downsamplers.0.conv."), c->channels[level])->pushes = true;
}

static void walk_up(const vd_unet_config *c, int i, vd_unet_blocks *b) {
    vd_name at = vd_name_in(root, "up_blocks.%d.", i);
    int level = c->levels - 1 - i;
    for (int j = 0; j <= c->layers[level]; j++) {
        add_resnet(b, at, j, c->channels[level], eps_default)->pops = true;
        if (c->up_attention[i])
            add_attention(b, c, at, j, level);
    }
    if (level > 0)
        add(b, VD_BLOCK_UP, vd_name_in(at, "upsamplers.0.conv."), c->channels[level]);
}

void vd_unet_walk(const vd_unet_config *c, vd_unet_blocks *b) {
    *b = (vd_unet_blocks){.count = 0};
    for (int level = 0; level < c->levels; level++)
        walk_down(c, level, b);
    int last = c->levels - 1;
    vd_name mid = vd_name_in(root, "mid_block.");
    add_resnet(b, mid, 0, c->channels[last], eps_down_and_mid);
    add_attention(b, c, mid, 0, last);
    add_resnet(b, mid, 1, c->channels[last], eps_down_and_mid);
    for (int i = 0; i < c->levels; i++)
        walk_up(c, i, b);
}
