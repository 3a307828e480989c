/* A very small model in a temporary folder, and calls of the library with it: one sample takes milliseconds,
 * so tests can make many.
 *
 * studio s = studio_open(); take t = studio_run(&s, (scene){.devices = 3, .samples = 4, .mode = "wrap"});
 * ... t.code, t.error.message, t.report->samples[2].latents_hash ... take_free(&t); studio_close(&s); */
#ifndef VD_TESTS_STUDIO_H
#define VD_TESTS_STUDIO_H

#include "model/folder.h"
#include "must.h"

#include "model/dummy.h"
#include "vdpp.h"

#include <string.h>

enum { STUDIO_DEVICES = 8, STUDIO_SAMPLES = 64, STUDIO_SEED = 42, STUDIO_STEPS = 4 };

typedef struct studio {
    folder model, work; /* work: outputs and whatever a test needs */
} studio;

/* What to make; zero means the default named. */
typedef struct scene {
    int devices, samples;      /* 1 */
    const char *mode;          /* pipeline */
    const int *split;          /* [devices] */
    const char *formats;       /* null */
    const char *image;         /* NULL: latents only */
    const char *const *images; /* [samples], one each instead */
    const char *output; /* stem, in the work folder unless absolute; "out": files are out-0, out-1 ... */
    const char *dump, *inject;
    int width, height;        /* 16, 8 pixels */
    int frames, steps, chunk; /* 3, STUDIO_STEPS, all */
    const char *dtype;        /* fp32 */
    bool plain;               /* one frame without guidance: a quarter of the work */
    double stall_s;           /* 60 */
    vdpp_engine **stop;       /* where to put the engine, for whoever stops it */
    void (*progress)(void *user, const vdpp_progress *progress);
    void *user;
} scene;

/* What came of it. */
typedef struct take {
    int code;
    vdpp_error error;
    vdpp_report *report; /* NULL: nothing was run */
} take;

static inline void studio_config(const folder *f, const char *part, const char *name, const char *text) {
    char file[128];
    if (*part && mkdir(folder_path(f, part), 0700) != 0)
        fail_msg("cannot make %s", part);
    snprintf(file, sizeof file, "%s%s%s", part, *part ? "/" : "", name);
    folder_text(f, file, text);
}

/* Makes both folders and a model whose UNet has the configuration `unet`; all else is as small as it can
 * be. */
static inline void studio_model(studio *s, const char *unet, vd_st_dtype dtype) {
    s->model = folder_make();
    s->work = folder_make();
    studio_config(
        &s->model, "", "model_index.json",
        "{\"_class_name\": \"StableVideoDiffusionPipeline\", \"feature_extractor\": [\"transformers\","
        " \"CLIPImageProcessor\"], \"image_encoder\": [\"transformers\", \"CLIPVisionModelWithProjection\"],"
        " \"scheduler\": [\"diffusers\", \"EulerDiscreteScheduler\"], \"unet\": [\"diffusers\","
        " \"UNetSpatioTemporalConditionModel\"], \"vae\": [\"diffusers\", "
        "\"AutoencoderKLTemporalDecoder\"]}");
    studio_config(&s->model, "scheduler", "scheduler_config.json",
                  "{\"_class_name\": \"EulerDiscreteScheduler\", \"prediction_type\": \"v_prediction\","
                  " \"sigma_max\": 700.0, \"sigma_min\": 0.002, \"timestep_spacing\": \"leading\","
                  " \"timestep_type\": \"continuous\", \"use_karras_sigmas\": true}");
    studio_config(&s->model, "feature_extractor", "preprocessor_config.json",
                  "{\"image_mean\": [0.5, 0.5, 0.5], \"image_std\": [0.25, 0.25, 0.25]}");
    studio_config(
        &s->model, "image_encoder", "config.json",
        "{\"hidden_size\": 32, \"projection_dim\": 32, \"num_hidden_layers\": 1,"
        " \"num_attention_heads\": 2, \"image_size\": 224, \"intermediate_size\": 32, \"patch_size\": 56}");
    studio_config(
        &s->model, "vae", "config.json",
        "{\"_class_name\": \"AutoencoderKLTemporalDecoder\", \"block_out_channels\": [32, 32],"
        " \"down_block_types\": [\"DownEncoderBlock2D\", \"DownEncoderBlock2D\"], \"latent_channels\": 4,"
        " \"layers_per_block\": 1}");
    studio_config(&s->model, "unet", "config.json", unet);
    must(vd_dummy_write(s->model.path, s->model.path, 7, dtype, err));
}

static const char studio_unet[] =
    "{\"_class_name\": \"UNetSpatioTemporalConditionModel\", \"block_out_channels\": [32, 32],"
    " \"down_block_types\": [\"CrossAttnDownBlockSpatioTemporal\", \"DownBlockSpatioTemporal\"],"
    " \"up_block_types\": [\"UpBlockSpatioTemporal\", \"CrossAttnUpBlockSpatioTemporal\"],"
    " \"num_attention_heads\": 2, \"cross_attention_dim\": 32, \"layers_per_block\": 1,"
    " \"addition_time_embed_dim\": 32, \"projection_class_embeddings_input_dim\": 96,"
    " \"in_channels\": 8, \"out_channels\": 4, \"num_frames\": 3}";

static inline studio studio_open(void) {
    studio s;
    studio_model(&s, studio_unet, VD_ST_F32);
    return s;
}

static inline void studio_close(const studio *s) {
    folder_remove(&s->model);
    folder_remove(&s->work);
}

static inline vdpp_options studio_options(const studio *s, const scene *c) {
    static const char *const names[STUDIO_DEVICES] = {"cpu:0", "cpu:1", "cpu:2", "cpu:3",
                                                      "cpu:4", "cpu:5", "cpu:6", "cpu:7"};
    vdpp_options o;
    vdpp_options_init(&o);
    o.model = s->model.path;
    o.dtype = c->dtype;
    o.devices = names;
    o.device_count = c->devices ? c->devices : 1;
    o.mode = c->mode ? c->mode : "pipeline";
    o.split = c->split;
    o.split_count = c->split ? o.device_count : 0;
    o.formats = c->formats ? c->formats : "null";
    o.dump = c->dump;
    o.inject = c->inject;
    o.stall_timeout_s = c->stall_s ? c->stall_s : 60;
    o.progress = c->progress;
    o.user = c->user;
    return o;
}

static inline vdpp_job studio_job(const scene *c, int sample) {
    vdpp_job j;
    vdpp_job_init(&j);
    j.image = c->images ? c->images[sample] : c->image;
    j.latents_only = !j.image;
    j.width = c->width ? c->width : 16;
    j.height = c->height ? c->height : 8;
    j.frames = c->frames ? c->frames : 3;
    j.steps = c->steps ? c->steps : STUDIO_STEPS;
    if (c->plain) {
        j.frames = 1;
        j.guidance_min = j.guidance_max = 1;
    }
    j.decode_chunk = c->chunk;
    return j;
}

/* Where sample i of a scene goes, without extension. */
static inline const char *studio_output(const studio *s, const scene *c, int i, char path[256]) {
    const char *stem = c->output ? c->output : "out";
    snprintf(path, 256, "%s%s%s-%d", *stem == '/' ? "" : s->work.path, *stem == '/' ? "" : "/", stem, i);
    return path;
}

/* Makes the samples with an engine that is open; seeds count from STUDIO_SEED. */
static inline take studio_make(const studio *s, vdpp_engine *engine, scene c) {
    take t = {0};
    vdpp_job jobs[STUDIO_SAMPLES];
    vdpp_sample samples[STUDIO_SAMPLES];
    char outputs[STUDIO_SAMPLES][256];
    int count = c.samples ? c.samples : 1;
    assert_in_range(count, 1, STUDIO_SAMPLES);
    for (int i = 0; i < count; i++) {
        bool same = i > 0 && !c.images;
        if (!same)
            jobs[i] = studio_job(&c, i);
        samples[i] = (vdpp_sample){same ? samples[i - 1].job : &jobs[i], STUDIO_SEED + (uint64_t)i,
                                   studio_output(s, &c, i, outputs[i])};
    }
    t.code = vdpp_run(engine, samples, count, &t.report, &t.error);
    return t;
}

/* Opens an engine, makes the samples, closes it. */
static inline take studio_run(const studio *s, scene c) {
    take t = {0};
    vdpp_options options = studio_options(s, &c);
    vdpp_engine *engine = NULL;
    t.code = vdpp_open(&options, &engine, &t.error);
    if (t.code)
        return t;
    if (c.stop)
        *c.stop = engine;
    t = studio_make(s, engine, c);
    vdpp_close(engine);
    return t;
}

static inline void take_free(take *t) {
    vdpp_report_free(t->report);
    t->report = NULL;
}

/* The hashes of `samples` samples made on one device, or the test fails. */
static inline void studio_reference(const studio *s, scene c, uint64_t *hashes) {
    c.devices = 1;
    c.mode = "data";
    c.split = NULL;
    c.inject = NULL;
    take t = studio_run(s, c);
    if (t.code)
        fail_msg("reference: %s", t.error.message);
    for (int i = 0; i < t.report->sample_count; i++)
        hashes[i] = t.report->samples[i].latents_hash;
    take_free(&t);
}

#endif
