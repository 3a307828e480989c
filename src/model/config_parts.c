/* VAE, image encoder and scheduler (svd-spec.md 2.3 to 2.5). */
#include "model/config_read.h"

#include <string.h>

static const char vae_defaults[] =
    "{\"in_channels\": 3, \"out_channels\": 3, \"latent_channels\": 4, \"block_out_channels\": [64],"
    " \"down_block_types\": [\"DownEncoderBlock2D\"], \"layers_per_block\": 1, \"scaling_factor\": 0.18215,"
    " \"force_upcast\": true}";

static const char clip_defaults[] =
    "{\"hidden_size\": 768, \"intermediate_size\": 3072, \"num_hidden_layers\": 12,"
    " \"num_attention_heads\": 12, \"num_channels\": 3, \"image_size\": 224, \"patch_size\": 32, "
    "\"projection_dim\": 512,"
    " \"hidden_act\": \"quick_gelu\", \"layer_norm_eps\": 1e-5}";

/* The class defaults of what SVD sets itself are those of another sampler: there a missing key is refused. */
static const char scheduler_defaults[] =
    "{\"timestep_spacing\": \"linspace\", \"final_sigmas_type\": \"zero\", \"use_exponential_sigmas\": false,"
    " \"use_beta_sigmas\": false, \"rescale_betas_zero_snr\": false}";

static const vd_config_int vae_ints[] = {
    {"in_channels", 1, VD_MAX_CHANNELS, offsetof(vd_vae_config, in_channels)},
    {"out_channels", 1, VD_MAX_CHANNELS, offsetof(vd_vae_config, out_channels)},
    {"latent_channels", 1, VD_MAX_CHANNELS, offsetof(vd_vae_config, latent_channels)},
    {"layers_per_block", 1, VD_MAX_LAYERS - 1, offsetof(vd_vae_config, layers)},
};

static const vd_config_int clip_ints[] = {
    {"hidden_size", 1, VD_MAX_CHANNELS, offsetof(vd_clip_config, hidden)},
    {"intermediate_size", 1, 16 * VD_MAX_CHANNELS, offsetof(vd_clip_config, intermediate)},
    {"num_hidden_layers", 1, 256, offsetof(vd_clip_config, layers)},
    {"num_attention_heads", 1, VD_MAX_CHANNELS, offsetof(vd_clip_config, heads)},
    {"num_channels", 1, VD_MAX_CHANNELS, offsetof(vd_clip_config, channels)},
    {"image_size", 1, 1024, offsetof(vd_clip_config, image_size)},
    {"patch_size", 1, 1024, offsetof(vd_clip_config, patch_size)},
    {"projection_dim", 1, VD_MAX_CHANNELS, offsetof(vd_clip_config, projection)},
};

static vd_code read_vae(const json_t *object, const char *name, vd_vae_config *v, vd_error *err) {
    bool unused[VD_MAX_LEVELS];
    VD_TRY(vd_config_ints(object, name, vae_ints, sizeof vae_ints / sizeof *vae_ints, v, err));
    VD_TRY(vd_config_channels(object, name, &v->levels, v->channels, err));
    VD_TRY(vd_config_block_types(object, name, "down_block_types", v->levels, "DownEncoderBlock2D", NULL,
                                 unused, err));
    VD_TRY(vd_json_double(object, name, "scaling_factor", true, 1e-6, 1e6, &v->scaling_factor, err));
    return vd_json_bool(object, name, "force_upcast", true, &v->force_upcast, err);
}

vd_code vd_config_parse_vae(const char *json, size_t length, const char *name, vd_vae_config *out,
                            vd_error *err) {
    json_t *object;
    VD_TRY(vd_config_open(json, length, name, vae_defaults, &object, err));
    *out = (vd_vae_config){0};
    vd_code status = read_vae(object, name, out, err);
    json_decref(object);
    return status;
}

int vd_vae_factor(const vd_vae_config *vae) {
    return 1 << (vae->levels - 1);
}

static vd_code read_activation(const json_t *object, const char *name, vd_act *out, vd_error *err) {
    const json_t *value = json_object_get(object, "hidden_act");
    const char *text = json_is_string(value) ? json_string_value(value) : "";
    *out = strcmp(text, "gelu") == 0 ? VD_ACT_GELU : VD_ACT_QUICK_GELU;
    if (*out == VD_ACT_GELU || strcmp(text, "quick_gelu") == 0)
        return VD_OK;
    return vd_config_refuse(value, name, "hidden_act", "\"gelu\" or \"quick_gelu\"", err);
}

static vd_code read_clip(const json_t *object, const char *name, vd_clip_config *c, vd_error *err) {
    VD_TRY(vd_config_ints(object, name, clip_ints, sizeof clip_ints / sizeof *clip_ints, c, err));
    VD_TRY(read_activation(object, name, &c->act, err));
    VD_TRY(vd_json_double(object, name, "layer_norm_eps", true, 1e-12, 1, &c->layer_norm_eps, err));
    if (c->hidden % c->heads)
        return vd_fail(err, VD_ERR_DATA,
                       "'%s': 'num_attention_heads' is %d; expected a divisor of 'hidden_size', %d", name,
                       c->heads, c->hidden);
    if (c->patch_size > c->image_size)
        return vd_fail(err, VD_ERR_DATA, "'%s': 'patch_size' is %d; expected at most 'image_size', %d", name,
                       c->patch_size, c->image_size);
    return VD_OK;
}

vd_code vd_config_parse_clip(const char *json, size_t length, const char *name, vd_clip_config *out,
                             vd_error *err) {
    json_t *object;
    VD_TRY(vd_config_open(json, length, name, clip_defaults, &object, err));
    *out = (vd_clip_config){0};
    vd_code status = read_clip(object, name, out, err);
    json_decref(object);
    return status;
}

static vd_code expect_string(const json_t *object, const char *name, const char *key, const char *expected,
                             vd_error *err) {
    return vd_config_expect(json_object_get(object, key), name, key, expected, err);
}

static vd_code expect_bool(const json_t *object, const char *name, const char *key, bool expected,
                           vd_error *err) {
    bool value;
    VD_TRY(vd_json_bool(object, name, key, true, &value, err));
    if (value == expected)
        return VD_OK;
    return vd_config_refuse(json_object_get(object, key), name, key, expected ? "true" : "false", err);
}

static vd_code read_spacing(const json_t *object, const char *name, vd_scheduler_config *s, vd_error *err) {
    const char *spacing;
    VD_TRY(vd_json_string(object, name, "timestep_spacing", true, &spacing, err));
    s->leading_spacing = strcmp(spacing, "leading") == 0;
    if (s->leading_spacing || strcmp(spacing, "linspace") == 0 || strcmp(spacing, "trailing") == 0)
        return VD_OK;
    return vd_config_refuse(json_object_get(object, "timestep_spacing"), name, "timestep_spacing",
                            "\"leading\", \"linspace\" or \"trailing\"", err);
}

static vd_code read_scheduler(const json_t *object, const char *name, vd_scheduler_config *s, vd_error *err) {
    VD_TRY(expect_string(object, name, "prediction_type", "v_prediction", err));
    VD_TRY(expect_string(object, name, "timestep_type", "continuous", err));
    VD_TRY(expect_string(object, name, "final_sigmas_type", "zero", err));
    VD_TRY(expect_bool(object, name, "use_karras_sigmas", true, err));
    VD_TRY(expect_bool(object, name, "use_exponential_sigmas", false, err));
    VD_TRY(expect_bool(object, name, "use_beta_sigmas", false, err));
    VD_TRY(expect_bool(object, name, "rescale_betas_zero_snr", false, err));
    VD_TRY(read_spacing(object, name, s, err));
    VD_TRY(vd_json_double(object, name, "sigma_min", true, 1e-6, 1e6, &s->sigma_min, err));
    VD_TRY(vd_json_double(object, name, "sigma_max", true, 1e-6, 1e6, &s->sigma_max, err));
    if (s->sigma_min >= s->sigma_max)
        return vd_fail(err, VD_ERR_DATA, "'%s': 'sigma_min' is %g; expected less than 'sigma_max', %g", name,
                       s->sigma_min, s->sigma_max);
    return VD_OK;
}

vd_code vd_config_parse_scheduler(const char *json, size_t length, const char *name, vd_scheduler_config *out,
                                  vd_error *err) {
    json_t *object;
    VD_TRY(vd_config_open(json, length, name, scheduler_defaults, &object, err));
    *out = (vd_scheduler_config){0};
    vd_code status = read_scheduler(object, name, out, err);
    json_decref(object);
    return status;
}
