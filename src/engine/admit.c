#include "engine/admit.h"

#include "base/rng.h"
#include "diffusion/noise.h"
#include "diffusion/scheduler.h"
#include "engine/dump.h"
#include "engine/transpose.h"
#include "media/image.h"

#include <stdlib.h>
#include <string.h>

static size_t pixel_count(const vd_run *run) {
    return 3 * (size_t)run->shape.width * (size_t)run->shape.height;
}

static size_t clip_count(void) {
    return 3 * (size_t)VD_CLIP_SIDE * VD_CLIP_SIDE;
}

static size_t latent_count(const vd_run *run) {
    return run->state.bytes[VD_FIELD_LATENTS] / sizeof(float);
}

size_t vd_staging_bytes(const vd_run *run) {
    return run->state.total +
           (run->shape.latents_only ? 0 : (clip_count() + pixel_count(run)) * sizeof(float));
}

vd_code vd_staging_open(const vd_run *run, vd_staging *s, vd_error *err) {
    *s = (vd_staging){.state = calloc(1, run->state.total)};
    if (!run->shape.latents_only) {
        s->clip_pixels = malloc(clip_count() * sizeof(float));
        s->vae_pixels = malloc(pixel_count(run) * sizeof(float));
    }
    if (s->state && (run->shape.latents_only || (s->clip_pixels && s->vae_pixels)))
        return VD_OK;
    vd_staging_close(s);
    return vd_fail_memory(err, "staging of a sample", vd_staging_bytes(run));
}

void vd_staging_close(vd_staging *s) {
    free(s->state);
    free(s->clip_pixels);
    free(s->vae_pixels);
    *s = (vd_staging){0};
}

void vd_image_cache_close(vd_image_cache *cache) {
    free(cache->clip_pixels);
    free(cache->vae_pixels);
    *cache = (vd_image_cache){0};
}

static vd_fit fit_of(const vdpp_job *job) {
    if (strcmp(job->fit, "stretch") == 0)
        return VD_FIT_STRETCH;
    return strcmp(job->fit, "pad") == 0 ? VD_FIT_PAD : VD_FIT_CROP;
}

static vd_code preprocess(const vd_run *run, const vdpp_job *job, const vd_image *image,
                          vd_image_cache *cache, vd_error *err) {
    const vd_clip_config *clip = &vd_model_config(run->model)->clip;
    int width = run->shape.width, height = run->shape.height;
    VD_TRY(vd_preprocess_clip(image->rgb, image->width, image->height, fit_of(job), width, height,
                              clip->image_mean, clip->image_std, cache->clip_pixels, err));
    return vd_preprocess_vae(image->rgb, image->width, image->height, fit_of(job), width, height,
                             cache->vae_pixels, err);
}

static vd_code cache_image(const vd_run *run, const vdpp_job *job, vd_image_cache *cache, vd_error *err) {
    if (cache->job == job)
        return VD_OK;
    cache->job = NULL;
    if (!cache->clip_pixels)
        cache->clip_pixels = malloc(clip_count() * sizeof(float));
    if (!cache->vae_pixels)
        cache->vae_pixels = malloc(pixel_count(run) * sizeof(float));
    if (!cache->clip_pixels || !cache->vae_pixels)
        return vd_fail_memory(err, "an image's pixels", (clip_count() + pixel_count(run)) * sizeof(float));
    vd_image image = {0};
    VD_TRY(vd_image_load(job->image, &image, err));
    vd_code code = preprocess(run, job, &image, cache, err);
    vd_image_free(&image);
    if (code == VD_OK)
        cache->job = job;
    return code;
}

/* Time ids, sigma and timestep tables, guidance, step 0. */
static vd_code fill_tables(const vd_run *run, const vdpp_job *job, unsigned char *state, vd_error *err) {
    const vd_scheduler_config *scheduler = &vd_model_config(run->model)->scheduler;
    const vd_video_shape *video = &run->shape.video;
    float *ids = vd_state_at(&run->state, state, VD_FIELD_TIME_IDS);
    ids[0] = (float)(job->fps - 1);
    ids[1] = (float)job->motion;
    ids[2] = (float)job->noise_aug;
    vd_guidance_ramp((float)job->guidance_min, (float)job->guidance_max, video->frames,
                     vd_state_at(&run->state, state, VD_FIELD_GUIDANCE));
    *(int32_t *)vd_state_at(&run->state, state, VD_FIELD_STEP) = 0;
    return vd_schedule_tables(scheduler->sigma_min, scheduler->sigma_max, video->steps,
                              vd_state_at(&run->state, state, VD_FIELD_SIGMAS),
                              vd_state_at(&run->state, state, VD_FIELD_TIMESTEPS), err);
}

/* Without an image the conditioning is drawn too, before the latents. */
static void draw_conditioning(const vd_run *run, vd_rng *rng, unsigned char *state) {
    vd_field fields[] = {VD_FIELD_EMBEDS, VD_FIELD_IMAGE};
    for (int i = 0; i < 2; i++)
        vd_rng_normal_f32(rng, vd_state_at(&run->state, state, fields[i]),
                          run->state.bytes[fields[i]] / sizeof(float));
}

/* Unit noise to the first latents: scaled as the reference scales it, then channels last. */
static void place_latents(const vd_run *run, float *noise, unsigned char *state) {
    const vd_video_shape *v = &run->shape.video;
    float scale = vd_schedule_init_scale(vd_model_config(run->model)->scheduler.leading_spacing,
                                         vd_state_at(&run->state, state, VD_FIELD_SIGMAS), v->steps);
    size_t count = latent_count(run);
    for (size_t i = 0; i < count; i++)
        noise[i] *= scale;
    vd_to_channels_last(noise, v->frames, run->latent_channels, (int64_t)v->latent_h * v->latent_w,
                        vd_state_at(&run->state, state, VD_FIELD_LATENTS));
}

static void dump_copy(float *to, const float *from, size_t count) {
    memcpy(to, from, count * sizeof(float));
}

/* The two draws of a sample (1.3); `pixels` is scratch for the noisy image. */
static vd_code draw(const vd_run *run, vd_trip *trip, vd_image_cache *cache, float *pixels, float *noise,
                    vd_staging *s, vd_error *err) {
    if (run->shape.latents_only) {
        vd_rng rng;
        vd_rng_seed(&rng, trip->seed);
        draw_conditioning(run, &rng, s->state);
        vd_rng_normal_f32(&rng, noise, latent_count(run));
        return VD_OK;
    }
    VD_TRY(cache_image(run, trip->job, cache, err));
    memcpy(pixels, cache->vae_pixels, pixel_count(run) * sizeof(float));
    vd_noise_draw(trip->seed, (float)trip->job->noise_aug, pixels, pixel_count(run), noise,
                  latent_count(run));
    vd_to_channels_last(cache->clip_pixels, 1, 3, (int64_t)VD_CLIP_SIDE * VD_CLIP_SIDE, s->clip_pixels);
    vd_to_channels_last(pixels, 1, 3, (int64_t)run->shape.width * run->shape.height, s->vae_pixels);
    if (trip->dump) {
        dump_copy(trip->dump->clip_pixels, cache->clip_pixels, clip_count());
        dump_copy(trip->dump->vae_input, pixels, pixel_count(run));
    }
    return VD_OK;
}

static vd_code admit_with(const vd_run *run, vd_trip *trip, vd_image_cache *cache, float *pixels,
                          float *noise, vd_staging *s, vd_error *err) {
    if (!noise || (!pixels && !run->shape.latents_only))
        return vd_fail_memory(err, "a sample's noise", latent_count(run) * sizeof(float));
    VD_TRY(fill_tables(run, trip->job, s->state, err));
    VD_TRY(draw(run, trip, cache, pixels, noise, s, err));
    if (trip->dump)
        dump_copy(trip->dump->noise, noise, latent_count(run));
    place_latents(run, noise, s->state);
    if (trip->dump)
        memcpy(trip->dump->state, s->state, run->state.total);
    return VD_OK;
}

vd_code vd_admit(const vd_run *run, vd_trip *trip, vd_image_cache *cache, vd_staging *s, vd_error *err) {
    float *noise = malloc(latent_count(run) * sizeof(float));
    float *pixels = run->shape.latents_only ? NULL : malloc(pixel_count(run) * sizeof(float));
    vd_code code = admit_with(run, trip, cache, pixels, noise, s, err);
    free(noise);
    free(pixels);
    return code;
}
