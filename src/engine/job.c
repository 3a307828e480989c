/* Settings of a job: defaults from the model, limits, and what two jobs must share to run together. */
#include "base/file.h"
#include "base/json.h"
#include "engine/engine.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    SUGGESTION_LIMIT = 64 << 10, /* bytes of a vdpp.json */
    MAX_SIDE = 8192,             /* pixels */
    MAX_FRAMES = 1024,
    MAX_STEPS = 1000,
};

static vd_code read_suggestions(const json_t *o, const char *path, vdpp_job *out, vd_error *err) {
    struct {
        const char *key;
        int *to;
        int64_t min, max;
    } ints[] = {{"width", &out->width, 8, MAX_SIDE},     {"height", &out->height, 8, MAX_SIDE},
                {"frames", &out->frames, 1, MAX_FRAMES}, {"steps", &out->steps, 1, MAX_STEPS},
                {"motion", &out->motion, 0, 1023},       {"decode_chunk", &out->decode_chunk, 1, MAX_FRAMES}};
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        int64_t value = *ints[i].to;
        VD_TRY(vd_json_int(o, path, ints[i].key, false, ints[i].min, ints[i].max, &value, err));
        *ints[i].to = (int)value;
    }
    VD_TRY(vd_json_double(o, path, "fps", false, 1, 240, &out->fps, err));
    VD_TRY(vd_json_double(o, path, "out_fps", false, 1, 240, &out->out_fps, err));
    VD_TRY(vd_json_double(o, path, "noise_aug", false, 0, 10, &out->noise_aug, err));
    VD_TRY(vd_json_double(o, path, "guidance_min", false, 0, 100, &out->guidance_min, err));
    return vd_json_double(o, path, "guidance_max", false, 0, 100, &out->guidance_max, err);
}

vd_code vd_job_suggestions(const char *folder, vdpp_job *out, vd_error *err) {
    char path[VD_PATH_CAP];
    vdpp_job_init(out);
    if (snprintf(path, sizeof path, "%s/vdpp.json", folder) >= (int)sizeof path || access(path, F_OK) != 0)
        return VD_OK; /* optional: only models made for vdpp have it */
    json_t *root;
    VD_TRY(vd_json_load(path, SUGGESTION_LIMIT, &root, err));
    vd_code code = read_suggestions(root, path, out, err);
    json_decref(root);
    return code;
}

static void default_int(int *value, int suggested, int otherwise) {
    if (*value == 0)
        *value = suggested ? suggested : otherwise;
}

static void default_double(double *value, double suggested, double otherwise) {
    if (*value == 0)
        *value = suggested != 0 ? suggested : otherwise;
}

static void fill_defaults(const vdpp_engine *engine, vdpp_job *job) {
    const vdpp_job *s = &engine->suggested;
    const vd_config *config = vd_model_config(engine->model);
    default_int(&job->width, s->width, 1024);
    default_int(&job->height, s->height, 576);
    default_int(&job->frames, s->frames, config->unet.num_frames);
    default_int(&job->steps, s->steps, 25);
    default_int(&job->motion, s->motion, 127);
    job->motion = job->motion < 0 ? 0 : job->motion;
    default_double(&job->fps, s->fps, 7);
    default_double(&job->out_fps, s->out_fps, job->fps);
    default_double(&job->noise_aug, s->noise_aug, 0.02);
    job->noise_aug = job->noise_aug < 0 ? 0 : job->noise_aug;
    default_double(&job->guidance_min, s->guidance_min, 1);
    job->guidance_min = job->guidance_min < 0 ? 0 : job->guidance_min;
    default_double(&job->guidance_max, s->guidance_max, 3);
    default_int(&job->decode_chunk, s->decode_chunk, job->frames);
    job->decode_chunk = job->decode_chunk > job->frames ? job->frames : job->decode_chunk;
    job->fit = job->fit ? job->fit : "crop";
}

static vd_code check_int(const char *name, int value, int min, int max, vd_error *err) {
    if (value >= min && value <= max)
        return VD_OK;
    return vd_fail(err, VD_ERR_USAGE, "--%s %d: must be %d to %d", name, value, min, max);
}

static vd_code check_double(const char *name, double value, double min, double max, vd_error *err) {
    if (isfinite(value) && value >= min && value <= max)
        return VD_OK;
    return vd_fail(err, VD_ERR_USAGE, "--%s %g: must be %g to %g", name, value, min, max);
}

/* Pixels per side must be multiples of 8 whatever the VAE's factor (svd-spec.md 0), and of the factor. */
static vd_code check_side(const char *name, int value, int factor, vd_error *err) {
    int unit = factor > 8 ? factor : 8;
    VD_TRY(check_int(name, value, unit, MAX_SIDE, err));
    if (value % unit == 0)
        return VD_OK;
    int low = value / unit * unit;
    return vd_fail(err, VD_ERR_USAGE, "--%s %d is not a multiple of %d; nearest: %d or %d", name, value, unit,
                   low, low + unit);
}

static vd_code check_guidance(const vdpp_job *job, vd_error *err) {
    VD_TRY(check_double("guidance", job->guidance_min, 0, 100, err));
    VD_TRY(check_double("guidance", job->guidance_max, 0, 100, err));
    if (job->guidance_min > 1 && job->guidance_max <= 1)
        return vd_fail(err, VD_ERR_USAGE,
                       "--guidance %g:%g: with a maximum of at most 1 there is no guidance; use 1:1",
                       job->guidance_min, job->guidance_max);
    if (job->frames == 1 && job->guidance_max > 1 && job->guidance_min != job->guidance_max)
        return vd_fail(err, VD_ERR_USAGE,
                       "--guidance %g:%g with one frame: a ramp needs two frames; use %g:%g",
                       job->guidance_min, job->guidance_max, job->guidance_max, job->guidance_max);
    return VD_OK;
}

static vd_code check_fit(const vdpp_job *job, vd_error *err) {
    static const char *const fits[] = {"crop", "stretch", "pad"};
    for (int i = 0; i < 3; i++)
        if (strcmp(job->fit, fits[i]) == 0)
            return VD_OK;
    return vd_fail(err, VD_ERR_USAGE, "--fit %s: must be crop, stretch or pad", job->fit);
}

static vd_code check_image(const vdpp_engine *engine, const vdpp_job *job, vd_error *err) {
    const vd_clip_config *clip = &vd_model_config(engine->model)->clip;
    if (job->latents_only)
        return VD_OK;
    if (!job->image || !*job->image)
        return vd_fail(err, VD_ERR_USAGE, "no image: give one with --image FILE");
    if (access(job->image, R_OK) != 0)
        return vd_fail(err, VD_ERR_NO_INPUT, "image '%s': %s", job->image, strerror(errno));
    if (clip->image_size != VD_CLIP_SIDE)
        return vd_fail(
            err, VD_ERR_DATA,
            "the model's image encoder takes %d x %d pixels; images are made %d x %d as in the reference",
            clip->image_size, clip->image_size, VD_CLIP_SIDE, VD_CLIP_SIDE);
    return VD_OK;
}

vd_code vd_job_resolve(const vdpp_engine *engine, vdpp_job *job, vd_error *err) {
    int factor = vd_vae_factor(&vd_model_config(engine->model)->vae);
    fill_defaults(engine, job);
    VD_TRY(check_side("width", job->width, job->latents_only ? 1 : factor, err));
    VD_TRY(check_side("height", job->height, job->latents_only ? 1 : factor, err));
    VD_TRY(check_int("frames", job->frames, 1, MAX_FRAMES, err));
    VD_TRY(check_int("steps", job->steps, 1, MAX_STEPS, err));
    VD_TRY(check_int("motion", job->motion, 0, 1023, err));
    VD_TRY(check_double("fps", job->fps, 1, 240, err));
    VD_TRY(check_double("out-fps", job->out_fps, 1, 240, err));
    VD_TRY(check_double("noise-aug", job->noise_aug, 0, 10, err));
    VD_TRY(check_int("decode-chunk", job->decode_chunk, 1, MAX_FRAMES, err));
    VD_TRY(check_guidance(job, err));
    VD_TRY(check_fit(job, err));
    return check_image(engine, job, err);
}

vd_run_shape vd_job_shape(const vdpp_engine *engine, const vdpp_job *job) {
    int factor = vd_vae_factor(&vd_model_config(engine->model)->vae);
    return (vd_run_shape){.width = job->width,
                          .height = job->height,
                          .video = {.frames = job->frames,
                                    .latent_h = job->height / factor,
                                    .latent_w = job->width / factor,
                                    .steps = job->steps,
                                    .guided = job->guidance_max > 1},
                          .decode_chunk = job->decode_chunk,
                          .latents_only = job->latents_only != 0};
}
