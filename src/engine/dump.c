#include "engine/dump.h"

#include "base/half.h"
#include "engine/transpose.h"
#include "model/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSOR_CAP = 32 }; /* beside one tensor per step */

int vd_dump_io_slot(const vd_run *run, int step) {
    if (step == 0)
        return 0;
    return step == run->shape.video.steps - 1 ? 1 : -1;
}

static size_t external_bytes(const vd_program *p, const char *name) {
    const vd_value_info *v = &p->values[vd_program_find(p, name)];
    return (size_t)vd_shape_count(v->shape) * vd_dtype_bytes(v->dtype);
}

static bool open_pixels(const vd_run *run, vd_dump *d) {
    if (run->shape.latents_only)
        return true;
    d->clip_pixels = malloc(external_bytes(run->programs[VD_ROLE_CLIP], "clip_pixels"));
    d->vae_input = malloc(external_bytes(run->programs[VD_ROLE_VAE_ENCODER], "vae_pixels"));
    return d->clip_pixels && d->vae_input;
}

static bool open_steps(const vd_run *run, vd_dump *d) {
    const vd_program *step = run->programs[VD_ROLE_STEP];
    bool well = (d->latents = calloc((size_t)run->shape.video.steps, sizeof *d->latents)) != NULL;
    for (int k = 0; well && k < run->shape.video.steps; k++)
        well = (d->latents[k] = malloc(run->state.bytes[VD_FIELD_LATENTS])) != NULL;
    for (int i = 0; well && i < 2; i++) {
        d->unet_in[i] = malloc(external_bytes(step, "unet_in"));
        d->unet_out[i] = malloc(external_bytes(step, "unet_out"));
        well = d->unet_in[i] && d->unet_out[i];
    }
    return well;
}

vd_code vd_dump_open(const vd_run *run, vd_dump **out, vd_error *err) {
    vd_dump *d = calloc(1, sizeof *d);
    if (!d)
        return vd_fail_memory(err, "a dump", sizeof *d);
    d->noise = malloc(run->state.bytes[VD_FIELD_LATENTS]);
    d->state = malloc(run->state.total);
    d->embeds = malloc(run->state.bytes[VD_FIELD_EMBEDS]);
    d->image = malloc(run->state.bytes[VD_FIELD_IMAGE]);
    if (!d->noise || !d->state || !d->embeds || !d->image || !open_pixels(run, d) || !open_steps(run, d)) {
        vd_dump_close(run, d);
        return vd_fail_memory(err, "a dump", run->state.total * (size_t)run->shape.video.steps);
    }
    *out = d;
    return VD_OK;
}

void vd_dump_close(const vd_run *run, vd_dump *d) {
    if (!d)
        return;
    for (int k = 0; d->latents && k < run->shape.video.steps; k++)
        free(d->latents[k]);
    for (int i = 0; i < 2; i++) {
        free(d->unet_in[i]);
        free(d->unet_out[i]);
    }
    free(d->latents);
    free(d->clip_pixels);
    free(d->vae_input);
    free(d->noise);
    free(d->state);
    free(d->embeds);
    free(d->image);
    free(d);
}

/* The list of tensors under construction; owns the arrays that it had to rearrange. */
typedef struct tensor_list {
    vd_st_out *tensors;
    void **owned;
    char (*names)[24];
    int count, owned_count;
    bool failed;
} tensor_list;

static vd_st_out *add(tensor_list *l, const char *name, vd_st_dtype dtype, const void *data, int rank,
                      const int64_t *dims) {
    vd_st_out *t = &l->tensors[l->count];
    snprintf(l->names[l->count], sizeof l->names[0], "%s", name);
    *t = (vd_st_out){.name = l->names[l->count++], .dtype = dtype, .rank = rank, .data = data};
    memcpy(t->dims, dims, (size_t)rank * sizeof *dims);
    return t;
}

static void add_vector(tensor_list *l, const char *name, const float *data, int64_t rows, int64_t count) {
    int64_t dims[] = {rows, count};
    add(l, name, VD_ST_F32, data, rows ? 2 : 1, rows ? dims : dims + 1);
}

/* [n, pixels, c] of the device as [lead, n/lead, c, h, w] of the reference. */
static void add_video(tensor_list *l, const char *name, const float *data, int64_t lead, int64_t n, int64_t c,
                      int64_t h, int64_t w) {
    float *first = malloc((size_t)(n * c * h * w) * sizeof *first);
    if (!first) {
        l->failed = true;
        return;
    }
    l->owned[l->owned_count++] = first;
    vd_to_channels_first(data, n, c, h * w, first);
    int64_t dims[] = {lead, n / lead, c, h, w};
    add(l, name, VD_ST_F32, first, 5, dims);
}

static float *widen(const void *data, vd_dtype dtype, int64_t count) {
    float *out = malloc((size_t)count * sizeof *out);
    for (int64_t i = 0; out && i < count; i++) {
        uint16_t half = dtype == VD_F32 ? 0 : ((const uint16_t *)data)[i];
        out[i] = dtype == VD_F32   ? ((const float *)data)[i]
                 : dtype == VD_F16 ? vd_f16_to_f32(half)
                                   : vd_bf16_to_f32(half);
    }
    return out;
}

static void add_images(tensor_list *l, const vd_run *run, const vd_dump *d) {
    const vd_video_shape *v = &run->shape.video;
    const vd_clip_config *clip = &vd_model_config(run->model)->clip;
    if (!run->shape.latents_only) {
        int64_t clip_dims[] = {1, 3, clip->image_size, clip->image_size},
                vae_dims[] = {1, 3, run->shape.height, run->shape.width};
        add(l, "clip_pixels", VD_ST_F32, d->clip_pixels, 4, clip_dims);
        add(l, "vae_input", VD_ST_F32, d->vae_input, 4, vae_dims);
    }
    add_vector(l, "image_embeds", d->embeds, 1, (int64_t)(run->state.bytes[VD_FIELD_EMBEDS] / sizeof(float)));
    add_video(l, "image_latents", d->image, 1, 1, run->latent_channels, v->latent_h, v->latent_w);
    vd_st_out *image = &l->tensors[l->count - 1]; /* [1,4,h,w]: no frame axis */
    image->rank = 4;
    memmove(&image->dims[1], &image->dims[2], 3 * sizeof image->dims[0]);
}

static void add_schedule(tensor_list *l, const vd_run *run, const vd_dump *d, float *ids) {
    const vd_video_shape *v = &run->shape.video;
    int64_t noise_dims[] = {1, v->frames, run->latent_channels, v->latent_h, v->latent_w};
    add(l, "noise", VD_ST_F32, d->noise, 5, noise_dims);
    add_vector(l, "sigmas", vd_state_at(&run->state, d->state, VD_FIELD_SIGMAS), 0, v->steps + 1);
    add_vector(l, "timesteps", vd_state_at(&run->state, d->state, VD_FIELD_TIMESTEPS), 0, v->steps);
    for (int g = 0; g < 2; g++)
        memcpy(ids + 3 * g, vd_state_at(&run->state, d->state, VD_FIELD_TIME_IDS), 3 * sizeof *ids);
    add_vector(l, "time_ids", ids, v->guided ? 2 : 1, 3);
}

static void add_steps(tensor_list *l, const vd_run *run, const vd_trip *trip) {
    const vd_video_shape *v = &run->shape.video;
    const vd_dump *d = trip->dump;
    vd_dtype type = run->programs[VD_ROLE_STEP]->dtype;
    int64_t c = run->latent_channels, h = v->latent_h, w = v->latent_w, g = v->guided ? 2 : 1,
            n = g * v->frames;
    char name[24];
    for (int k = 0; k < v->steps; k++) {
        snprintf(name, sizeof name, "latents.%d", k);
        add_video(l, name, d->latents[k], 1, v->frames, c, h, w);
        int slot = vd_dump_io_slot(run, k);
        if (slot < 0)
            continue;
        float *in = widen(d->unet_in[slot], type, n * 2 * c * h * w);
        l->failed |= !in;
        snprintf(name, sizeof name, "unet_in.%d", k);
        if (in)
            add_video(l, name, in, g, n, 2 * c, h, w);
        free(in);
        snprintf(name, sizeof name, "unet_out.%d", k);
        add_video(l, name, d->unet_out[slot], g, n, c, h, w);
    }
    add_video(l, "latents", trip->latents, 1, v->frames, c, h, w);
    if (trip->frames) {
        int64_t dims[] = {v->frames, run->shape.height, run->shape.width, 3};
        add(l, "frames", VD_ST_U8, trip->frames, 4, dims);
    }
}

vd_code vd_dump_write(const vd_run *run, const vd_trip *trip, vd_error *err) {
    size_t cap = (size_t)run->shape.video.steps + TENSOR_CAP;
    tensor_list l = {calloc(cap, sizeof *l.tensors),
                     calloc(cap, sizeof *l.owned),
                     calloc(cap, sizeof *l.names),
                     0,
                     0,
                     false};
    float ids[6];
    char path[4096];
    vd_code code = VD_OK;
    if (l.tensors && l.owned && l.names) {
        add_images(&l, run, trip->dump);
        add_schedule(&l, run, trip->dump, ids);
        add_steps(&l, run, trip);
    }
    snprintf(path, sizeof path, "%s/sample-%03d.safetensors", run->dump_folder, trip->index);
    if (!l.tensors || !l.owned || !l.names || l.failed)
        code = vd_fail_memory(err, path, cap * run->state.bytes[VD_FIELD_LATENTS]);
    else
        code = vd_safetensors_write(path, l.tensors, l.count, run->overwrite, err);
    for (int i = 0; i < l.owned_count; i++)
        free(l.owned[i]);
    free(l.tensors);
    free(l.owned);
    free(l.names);
    return code;
}
