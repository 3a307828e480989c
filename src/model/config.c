#include "model/config.h"

#include "base/file.h"
#include "model/config_read.h"

#include <stdio.h>
#include <stdlib.h>

const char *const vd_config_files[VD_CONFIG_FILES] = {
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "image_encoder/config.json",
    "scheduler/scheduler_config.json",
    "feature_extractor/preprocessor_config.json",
};

/* model_index.json: the parts must be the classes that the engine implements (svd-spec.md 2.1). */
static vd_code check_components(const json_t *object, const char *name, vd_error *err) {
    static const char *const components[][2] = {
        {"unet", "UNetSpatioTemporalConditionModel"},       {"vae", "AutoencoderKLTemporalDecoder"},
        {"image_encoder", "CLIPVisionModelWithProjection"}, {"scheduler", "EulerDiscreteScheduler"},
        {"feature_extractor", "CLIPImageProcessor"},
    };
    VD_TRY(vd_config_expect(json_object_get(object, "_class_name"), name, "_class_name",
                            "StableVideoDiffusionPipeline", err));
    for (size_t i = 0; i < sizeof components / sizeof *components; i++) {
        const json_t *pair = json_object_get(object, components[i][0]); /* [library, class] */
        VD_TRY(vd_config_expect(json_array_get(pair, 1), name, components[i][0], components[i][1], err));
    }
    return VD_OK;
}

static vd_code parse_index(const char *json, size_t length, const char *name, vd_error *err) {
    json_t *object;
    VD_TRY(vd_config_open(json, length, name, "{}", &object, err));
    vd_code status = check_components(object, name, err);
    json_decref(object);
    return status;
}

/* One number per colour. */
static vd_code read_colours(const json_t *object, const char *name, const char *key, double min, float out[3],
                            vd_error *err) {
    const json_t *list = json_object_get(object, key);
    for (size_t i = 0; i < 3; i++) {
        const json_t *value = json_array_get(list, i);
        double number = json_number_value(value);
        if (json_array_size(list) != 3 || !json_is_number(value) || number < min || number > 1e3)
            return vd_config_refuse(list, name, key, min > 0 ? "three numbers above 0" : "three numbers",
                                    err);
        out[i] = (float)number;
    }
    return VD_OK;
}

/* Mean and deviation are all that the pipeline takes from the processor (svd-spec.md 2.6). */
static vd_code parse_preprocessor(const char *json, size_t length, const char *name, vd_clip_config *out,
                                  vd_error *err) {
    static const char defaults[] = "{\"image_mean\": [0.48145466, 0.4578275, 0.40821073],"
                                   " \"image_std\": [0.26862954, 0.26130258, 0.27577711]}";
    json_t *object;
    VD_TRY(vd_config_open(json, length, name, defaults, &object, err));
    vd_code status = read_colours(object, name, "image_mean", -1e3, out->image_mean, err);
    if (status == VD_OK)
        status = read_colours(object, name, "image_std", 1e-6, out->image_std, err);
    json_decref(object);
    return status;
}

static vd_code parse(int file, const char *json, size_t length, const char *path, vd_config *out,
                     vd_error *err) {
    switch (file) {
    case VD_CONFIG_INDEX:
        return parse_index(json, length, path, err);
    case VD_CONFIG_UNET:
        return vd_config_parse_unet(json, length, path, &out->unet, err);
    case VD_CONFIG_VAE:
        return vd_config_parse_vae(json, length, path, &out->vae, err);
    case VD_CONFIG_CLIP:
        return vd_config_parse_clip(json, length, path, &out->clip, err);
    case VD_CONFIG_SCHEDULER:
        return vd_config_parse_scheduler(json, length, path, &out->scheduler, err);
    default:
        return parse_preprocessor(json, length, path, &out->clip, err);
    }
}

static vd_code check_together(const vd_config *c, const char *folder, vd_error *err) {
    const struct {
        const char *what, *other;
        int found, expected;
    } rules[] = {
        {"'in_channels' of unet", "twice 'latent_channels' of vae", c->unet.in_channels,
         2 * c->vae.latent_channels},
        {"'cross_attention_dim' of unet", "'projection_dim' of image_encoder", c->unet.cross_attention_dim,
         c->clip.projection},
        {"'in_channels' of vae", "the colours of an image", c->vae.in_channels, 3},
        {"'out_channels' of vae", "the colours of an image", c->vae.out_channels, 3},
        {"'num_channels' of image_encoder", "the colours of an image", c->clip.channels, 3},
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i].found != rules[i].expected)
            return vd_fail(err, VD_ERR_DATA, "'%s': %s is %d; expected %d, %s", folder, rules[i].what,
                           rules[i].found, rules[i].expected, rules[i].other);
    return VD_OK;
}

vd_code vd_config_load(const char *folder, vd_config *out, vd_error *err) {
    char path[VD_PATH_CAP];
    *out = (vd_config){0};
    for (int i = 0; i < VD_CONFIG_FILES; i++) {
        char *json;
        size_t length;
        if (snprintf(path, sizeof path, "%s/%s", folder, vd_config_files[i]) >= (int)sizeof path)
            return vd_fail(err, VD_ERR_NO_INPUT, "'%.200s...': path too long", folder);
        VD_TRY(vd_file_read(path, "configuration", 1 << 20, &json, &length, err));
        vd_code status = parse(i, json, length, path, out, err);
        free(json);
        VD_TRY(status);
    }
    return check_together(out, folder, err);
}
