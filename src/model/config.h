/* The configuration files of a diffusers folder (svd-spec.md section 2), read and checked together. */
#ifndef VD_MODEL_CONFIG_H
#define VD_MODEL_CONFIG_H

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "device/ops.h"

#include <stdbool.h>

enum { VD_MAX_LEVELS = 8, VD_MAX_LAYERS = 16 };

typedef struct vd_unet_config {
    int in_channels, out_channels;
    int levels;                         /* length of block_out_channels */
    int channels[VD_MAX_LEVELS];        /* block_out_channels; multiples of 32 */
    bool down_attention[VD_MAX_LEVELS]; /* CrossAttnDownBlockSpatioTemporal at level i */
    bool up_attention[VD_MAX_LEVELS];   /* CrossAttnUpBlockSpatioTemporal at up block i (0: lowest level) */
    int layers[VD_MAX_LEVELS];          /* layers_per_block */
    int heads[VD_MAX_LEVELS];           /* num_attention_heads */
    /* transformer_layers_per_block: layers of attention j of level i. A plain entry fills all members. Up
     * block i uses level (levels-1-i), one layer more than the down block; the mid block uses member 0 of the
     * last level. */
    int transformer_layers[VD_MAX_LEVELS][VD_MAX_LAYERS];
    int cross_attention_dim; /* D; one value, lists must agree */
    int addition_time_embed_dim;
    int projection_input_dim; /* 3 * addition_time_embed_dim, checked */
    int num_frames;           /* default F */
} vd_unet_config;

typedef struct vd_vae_config {
    int in_channels, out_channels, latent_channels;
    int levels;
    int channels[VD_MAX_LEVELS];
    int layers; /* layers_per_block */
    double scaling_factor;
    bool force_upcast;
} vd_vae_config;

typedef struct vd_clip_config {
    int hidden, intermediate, layers, heads, channels, image_size, patch_size, projection;
    vd_act act; /* VD_ACT_GELU or VD_ACT_QUICK_GELU */
    double layer_norm_eps;
    float image_mean[3], image_std[3]; /* feature_extractor/preprocessor_config.json */
} vd_clip_config;

typedef struct vd_scheduler_config {
    double sigma_min, sigma_max;
    bool leading_spacing;
} vd_scheduler_config;

typedef struct vd_config {
    vd_unet_config unet;
    vd_vae_config vae;
    vd_clip_config clip;
    vd_scheduler_config scheduler;
} vd_config;

/* The files of a diffusers folder, below it, in the order in which they are read. */
enum { VD_CONFIG_INDEX, VD_CONFIG_UNET, VD_CONFIG_VAE, VD_CONFIG_CLIP, VD_CONFIG_SCHEDULER, VD_CONFIG_IMAGE };
enum { VD_CONFIG_FILES = 6 };
extern const char *const vd_config_files[VD_CONFIG_FILES];

/* Reads these files below `folder`; anything the engine would compute differently from the reference is
 * refused with the file, the key and the value. */
vd_code vd_config_load(const char *folder, vd_config *out, vd_error *err);

/* One component from JSON text (tests, fuzzer); `name` in messages. */
vd_code vd_config_parse_unet(const char *json, size_t length, const char *name, vd_unet_config *out,
                             vd_error *err);
vd_code vd_config_parse_vae(const char *json, size_t length, const char *name, vd_vae_config *out,
                            vd_error *err);
vd_code vd_config_parse_clip(const char *json, size_t length, const char *name, vd_clip_config *out,
                             vd_error *err);
vd_code vd_config_parse_scheduler(const char *json, size_t length, const char *name, vd_scheduler_config *out,
                                  vd_error *err);

/* Pixels per latent along a side: 2^(levels-1). */
int vd_vae_factor(const vd_vae_config *vae);

#endif
