/* Samples whose decoders overflow: models with a tensor scaled up, jobs whose guidance makes their latents
 * larger than others', and what lies in their dumps. */
#ifndef VD_TESTS_OVERFLOW_H
#define VD_TESTS_OVERFLOW_H

#include "engine/studio.h"
#include "golden/run_program.h"

#include "model/networks.h"
#include "model/safetensors.h"

/* Factor of the decoder's first weights with which only the larger latents overflow. */
static const float OVERFLOW_FP16 = 300;

static inline void *tensor_bytes(const char *path, const char *name, vd_st_tensor *out, size_t *bytes) {
    vd_safetensors *file;
    must(vd_safetensors_open(path, &file, err));
    const vd_st_tensor *t = vd_safetensors_find(file, name);
    if (!t)
        fail_msg("%s has no %s", path, name);
    *out = *t;
    *bytes = t->dtype == VD_ST_U8 ? 1 : sizeof(float);
    for (int i = 0; i < t->rank; i++)
        *bytes *= (size_t)t->dims[i];
    vd_safetensors_close(file);
    void *data = malloc(*bytes);
    FILE *f = fopen(path, "rb");
    assert_true(data && f && fseek(f, (long)out->offset, SEEK_SET) == 0);
    assert_int_equal(fread(data, 1, *bytes, f), *bytes);
    fclose(f);
    return data;
}

/* Of a model in fp32. */
static inline void scale_tensor(const studio *s, const char *file, const char *name, float factor) {
    const char *path = folder_path(&s->model, file);
    vd_st_tensor t;
    size_t bytes;
    float *values = tensor_bytes(path, name, &t, &bytes);
    for (size_t i = 0; i < bytes / sizeof *values; i++)
        values[i] *= factor;
    FILE *f = fopen(path, "r+b");
    assert_true(f && fseek(f, (long)t.offset, SEEK_SET) == 0);
    assert_int_equal(fwrite(values, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
    free(values);
}

static inline void scale_decoder(const studio *s, float factor) {
    scale_tensor(s, "vae/diffusion_pytorch_model.safetensors", "decoder.conv_in.weight", factor);
}

/* What the log said of samples decoded again. */
typedef struct warnings {
    int count;
    char last[256];
} warnings;

static inline void hear_warning(void *user, int level, const char *line) {
    warnings *w = user;
    if (!strstr(line, "decoded again"))
        return;
    assert_int_equal(level, VDPP_LOG_WARNING);
    w->count++;
    snprintf(w->last, sizeof w->last, "%s", line);
}

/* Makes c.samples samples with options `o`; those of the bits `hot` have latents some thirty times as large.
 * The engine is there for whoever stops it. */
static inline take make_hot(const studio *s, const vdpp_options *o, const scene *c, unsigned hot,
                            vdpp_engine **engine) {
    take t = {0};
    vdpp_job jobs[2];
    vdpp_sample samples[STUDIO_SAMPLES];
    char outputs[STUDIO_SAMPLES][256];
    jobs[0] = jobs[1] = studio_job(c, 0);
    jobs[1].guidance_min = jobs[1].guidance_max = 100;
    for (int i = 0; i < c->samples; i++)
        samples[i] =
            (vdpp_sample){&jobs[hot >> i & 1], STUDIO_SEED + (uint64_t)i, studio_output(s, c, i, outputs[i])};
    t.code = vdpp_open(o, engine, &t.error);
    if (t.code)
        return t;
    t.code = vdpp_run(*engine, samples, c->samples, &t.report, &t.error);
    vdpp_close(*engine);
    return t;
}

/* A dump's frames, u8 [F,H,W,3]. */
static inline uint8_t *dumped_frames(const char *dump, int sample, size_t *bytes) {
    char path[300];
    vd_st_tensor t;
    snprintf(path, sizeof path, "%s/sample-%03d.safetensors", dump, sample);
    return tensor_bytes(path, "frames", &t, bytes);
}

/* A dump's latents, as [F,h,w,C]. */
static inline float *dumped_latents(const char *dump, int sample, vd_st_tensor *t) {
    char path[300];
    size_t bytes;
    snprintf(path, sizeof path, "%s/sample-%03d.safetensors", dump, sample);
    float *planes = tensor_bytes(path, "latents", t, &bytes), *pixels = malloc(bytes);
    assert_non_null(pixels);
    int64_t frames = t->dims[1], channels = t->dims[2], area = t->dims[3] * t->dims[4];
    for (int64_t f = 0; f < frames; f++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t i = 0; i < area; i++)
                pixels[(f * area + i) * channels + c] = planes[(f * channels + c) * area + i];
    free(planes);
    return pixels;
}

static inline void decode_on_cpu(const studio *s, vd_dtype dtype, float *latents, int frames,
                                 const vd_st_tensor *t, uint8_t *out) {
    machine m;
    vd_model *model;
    vd_program *p;
    machine_open(&m);
    must(vd_model_open(s->model.path, NULL, &model, err));
    must(vd_build_decoder(model, dtype, frames, (int)t->dims[3], (int)t->dims[4], &p, err));
    run_program(&m, p, (external[]){{"decoder_latents", latents}, {"decoder_frames", out}, {0}});
    vd_program_free(p);
    machine_close(&m);
    vd_model_close(model);
}

/* What a decoder on a virtual CPU makes of a dump's latents, u8 [F,H,W,3]. */
static inline uint8_t *decoded_frames(const studio *s, const char *dump, int sample, vd_dtype dtype,
                                      int chunk) {
    vd_st_tensor t;
    size_t bytes;
    float *latents = dumped_latents(dump, sample, &t);
    free(dumped_frames(dump, sample, &bytes));
    uint8_t *out = malloc(bytes);
    assert_non_null(out);
    int frames = (int)t.dims[1];
    size_t latent_count = (size_t)(t.dims[2] * t.dims[3] * t.dims[4]), frame_bytes = bytes / (size_t)frames;
    for (int first = 0; first < frames; first += chunk)
        decode_on_cpu(s, dtype, latents + (size_t)first * latent_count,
                      frames - first < chunk ? frames - first : chunk, &t, out + (size_t)first * frame_bytes);
    free(latents);
    return out;
}

#endif
