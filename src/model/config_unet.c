#include "model/config_read.h"

#include <string.h>

/* Class defaults of the reference (svd-spec.md 2.2). */
static const char unet_defaults[] =
    "{\"in_channels\": 8, \"out_channels\": 4, \"block_out_channels\": [320, 640, 1280, 1280],"
    " \"down_block_types\": [\"CrossAttnDownBlockSpatioTemporal\", \"CrossAttnDownBlockSpatioTemporal\","
    "  \"CrossAttnDownBlockSpatioTemporal\", \"DownBlockSpatioTemporal\"],"
    " \"up_block_types\": [\"UpBlockSpatioTemporal\", \"CrossAttnUpBlockSpatioTemporal\","
    "  \"CrossAttnUpBlockSpatioTemporal\", \"CrossAttnUpBlockSpatioTemporal\"],"
    " \"layers_per_block\": 2, \"cross_attention_dim\": 1024, \"num_attention_heads\": [5, 10, 20, 20],"
    " \"transformer_layers_per_block\": 1, \"addition_time_embed_dim\": 256,"
    " \"projection_class_embeddings_input_dim\": 768, \"num_frames\": 25}";

static const vd_config_int plain_ints[] = {
    {"in_channels", 2, VD_MAX_CHANNELS, offsetof(vd_unet_config, in_channels)},
    {"out_channels", 1, VD_MAX_CHANNELS, offsetof(vd_unet_config, out_channels)},
    {"addition_time_embed_dim", 2, VD_MAX_CHANNELS, offsetof(vd_unet_config, addition_time_embed_dim)},
    {"projection_class_embeddings_input_dim", 1, 3 * VD_MAX_CHANNELS,
     offsetof(vd_unet_config, projection_input_dim)},
    {"num_frames", 1, 1024, offsetof(vd_unet_config, num_frames)},
};

/* Attention layers on the way up at `level`; the mid block belongs to the last level. */
static bool attends_up(const vd_unet_config *u, int level) {
    return u->up_attention[u->levels - 1 - level];
}

static bool attends(const vd_unet_config *u, int level) {
    return u->down_attention[level] || attends_up(u, level) || level == u->levels - 1;
}

static vd_code check_widths(const vd_unet_config *u, const char *name, vd_error *err) {
    if (u->in_channels != 2 * u->out_channels)
        return vd_fail(err, VD_ERR_DATA,
                       "'%s': 'in_channels' is %d; expected twice 'out_channels', which is %d", name,
                       u->in_channels, u->out_channels);
    if (u->projection_input_dim != 3 * u->addition_time_embed_dim)
        return vd_fail(err, VD_ERR_DATA,
                       "'%s': 'projection_class_embeddings_input_dim' is %d; expected 3 times "
                       "'addition_time_embed_dim', which is %d",
                       name, u->projection_input_dim, u->addition_time_embed_dim);
    return VD_OK;
}

static vd_code check_heads(const vd_unet_config *u, const char *name, vd_error *err) {
    for (int i = 0; i < u->levels; i++)
        if (attends(u, i) && u->channels[i] % u->heads[i])
            return vd_fail(
                err, VD_ERR_DATA,
                "'%s': 'num_attention_heads' is %d at level %d; expected a divisor of its %d channels", name,
                u->heads[i], i, u->channels[i]);
    return VD_OK;
}

/* One embedding feeds every attention, so the widths in use must agree. */
static vd_code read_cross_dim(const json_t *object, const char *name, vd_unet_config *u, vd_error *err) {
    int dims[VD_MAX_LEVELS];
    VD_TRY(vd_config_per_level(object, name,
                               (vd_config_levels){"cross_attention_dim", 1, VD_MAX_CHANNELS, true},
                               &u->levels, dims, err));
    u->cross_attention_dim = dims[u->levels - 1]; /* the mid block's */
    for (int i = 0; i < u->levels; i++)
        if (attends(u, i) && dims[i] != u->cross_attention_dim)
            return vd_config_refuse(json_object_get(object, "cross_attention_dim"), name,
                                    "cross_attention_dim",
                                    "the same width at every level with attention and at the last", err);
    return VD_OK;
}

/* One entry: a number for all attentions of the level, or a list with one number for each. */
static vd_code read_transformer_level(const json_t *entry, const char *name, vd_unet_config *u, int level,
                                      vd_error *err) {
    const vd_config_levels field = {"transformer_layers_per_block", 1, 64, false};
    int needed = attends_up(u, level)       ? u->layers[level] + 1
                 : u->down_attention[level] ? u->layers[level]
                                            : 1;
    size_t given = json_array_size(entry);
    if (json_is_array(entry) && (given < (size_t)needed || given > VD_MAX_LAYERS))
        return vd_fail(err, VD_ERR_DATA,
                       "'%s': '%s[%d]' has %zu members; expected %d to %d, one per attention", name,
                       field.key, level, given, needed, VD_MAX_LAYERS);
    for (int j = 0; j < VD_MAX_LAYERS; j++) {
        const json_t *member = json_is_array(entry) ? json_array_get(entry, (size_t)j) : entry;
        if (member)
            VD_TRY(vd_config_member(member, name, field, level, &u->transformer_layers[level][j], err));
    }
    return VD_OK;
}

static vd_code read_transformer_layers(const json_t *object, const char *name, vd_unet_config *u,
                                       vd_error *err) {
    const char *key = "transformer_layers_per_block";
    const json_t *value = json_object_get(object, key);
    if (json_is_array(value) && json_array_size(value) != (size_t)u->levels)
        return vd_config_refuse(value, name, key, "one entry per level", err);
    for (int i = 0; i < u->levels; i++)
        VD_TRY(read_transformer_level(json_is_array(value) ? json_array_get(value, (size_t)i) : value, name,
                                      u, i, err));
    return VD_OK;
}

static vd_code read_unet(const json_t *object, const char *name, vd_unet_config *u, vd_error *err) {
    VD_TRY(vd_config_ints(object, name, plain_ints, sizeof plain_ints / sizeof *plain_ints, u, err));
    VD_TRY(vd_config_channels(object, name, &u->levels, u->channels, err));
    VD_TRY(vd_config_block_types(object, name, "down_block_types", u->levels, "DownBlockSpatioTemporal",
                                 "CrossAttnDownBlockSpatioTemporal", u->down_attention, err));
    VD_TRY(vd_config_block_types(object, name, "up_block_types", u->levels, "UpBlockSpatioTemporal",
                                 "CrossAttnUpBlockSpatioTemporal", u->up_attention, err));
    VD_TRY(vd_config_per_level(object, name,
                               (vd_config_levels){"layers_per_block", 1, VD_MAX_LAYERS - 1, true}, &u->levels,
                               u->layers, err));
    VD_TRY(vd_config_per_level(object, name,
                               (vd_config_levels){"num_attention_heads", 1, VD_MAX_CHANNELS, true},
                               &u->levels, u->heads, err));
    VD_TRY(read_transformer_layers(object, name, u, err));
    VD_TRY(read_cross_dim(object, name, u, err));
    VD_TRY(check_heads(u, name, err));
    return check_widths(u, name, err);
}

vd_code vd_config_parse_unet(const char *json, size_t length, const char *name, vd_unet_config *out,
                             vd_error *err) {
    json_t *object;
    VD_TRY(vd_config_open(json, length, name, unet_defaults, &object, err));
    *out = (vd_unet_config){0};
    vd_code status = read_unet(object, name, out, err);
    json_decref(object);
    return status;
}
