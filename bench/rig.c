#include "rig.h"

#include "base/file.h"
#include "base/half.h"
#include "base/hash.h"
#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double PATIENCE_S = 30;
enum { PERIOD = 1000003 }; /* elements after which drawn numbers repeat: prime, so no row is like another */

_Noreturn void rig_die(const vd_error *why) {
    fprintf(stderr, "%s\n", why->message);
    exit(why->code);
}

static void *room(const char *what, size_t bytes) {
    void *memory = calloc(1, bytes + 1);
    vd_error why;
    if (!memory) {
        vd_fail_memory(&why, what, bytes);
        rig_die(&why);
    }
    return memory;
}

/* ---- devices ---- */

static vd_code open_backend(bool cuda, vd_backend **out, vd_error *err) {
    char cache[VD_PATH_CAP];
    const char *home = getenv("XDG_CACHE_HOME");
    snprintf(cache, sizeof cache, "%s/vdpp", home ? home : "");
    vd_cuda_request request = {.module = getenv("VDPP_CUDA_MODULE"), .cache_folder = home ? cache : NULL};
    return cuda ? vd_cuda_backend_open(&request, out, err) : vd_cpu_backend_open(NULL, out, err);
}

void rig_open(rig *r, bool cuda, int count) {
    const int ordinals[RIG_DEVICES] = {0, cuda ? 0 : 1};
    *r = (rig){.count = count};
    MUST(open_backend(cuda, &r->backend, err));
    MUST(r->backend->table->open(r->backend, ordinals, count, r->devices, err));
    for (int i = 0; i < count; i++)
        MUST(r->devices[i]->table->stream_open(r->devices[i], "bench", &r->streams[i], err));
}

void rig_close(rig *r) {
    for (int i = 0; i < r->count; i++) {
        r->devices[i]->table->stream_close(r->streams[i]);
        r->devices[i]->table->close(r->devices[i]);
    }
    r->backend->table->close(r->backend);
}

/* Draining tells what went wrong, but looks only now and then. */
void rig_await(rig *r, vd_event *e) {
    for (int i = 0; !vd_event_wait_host(e, PATIENCE_S) && i < r->count; i++)
        MUST(r->devices[i]->table->stream_drain(r->streams[i], err));
}
/* ---- networks ---- */

vd_dtype rig_dtype(const char *name) {
    for (vd_dtype dtype = VD_F32; dtype <= VD_BF16; dtype++)
        if (strcmp(name, vd_dtype_name(dtype)) == 0)
            return dtype;
    fprintf(stderr, "type '%s': must be fp32, fp16 or bf16\n", name);
    exit(VD_ERR_USAGE);
}

/* Of the VAE's picture. */
static int pixels_of(const vd_model *m, int latent) {
    return latent << (vd_model_config(m)->vae.levels - 1);
}

static vd_code build(vd_model *m, const char *name, vd_dtype dtype, vd_video_shape s, bool keep_out,
                     vd_program **out, vd_error *err) {
    s.guided = strcmp(name, "step1") != 0;
    if (strcmp(name, "step") == 0 || strcmp(name, "step1") == 0)
        return vd_build_step(m, dtype, s, keep_out, out, err);
    if (strcmp(name, "condition") == 0)
        return vd_build_condition(m, dtype, s, out, err);
    if (strcmp(name, "decode") == 0)
        return vd_build_decoder(m, dtype, s.frames, s.latent_h, s.latent_w, out, err);
    if (strcmp(name, "encode") == 0)
        return vd_build_vae_encoder(m, dtype, pixels_of(m, s.latent_h), pixels_of(m, s.latent_w), out, err);
    if (strcmp(name, "clip") == 0)
        return vd_build_clip(m, dtype, out, err);
    return vd_fail(err, VD_ERR_USAGE, "network '%s': must be step, step1, condition, decode, encode or clip",
                   name);
}

vd_program *rig_network(vd_model *m, const char *name, vd_dtype dtype, vd_video_shape shape, bool keep_out) {
    vd_program *p = NULL;
    MUST(build(m, name, dtype, shape, keep_out, &p, err));
    return p;
}

/* ---- inputs ---- */

static void store(void *memory, size_t i, vd_dtype dtype, float value) {
    if (dtype == VD_F32)
        ((float *)memory)[i] = value;
    else
        ((uint16_t *)memory)[i] = dtype == VD_F16 ? vd_f32_to_f16(value) : vd_f32_to_bf16(value);
}

static void draw_normals(const vd_value_info *v, void *memory) {
    size_t bytes = rig_bytes(v), count = (size_t)vd_shape_count(v->shape);
    size_t fresh = count < PERIOD ? count : PERIOD, period = PERIOD * vd_dtype_bytes(v->dtype);
    float *normals = room(v->name, fresh * sizeof *normals);
    vd_rng rng;
    vd_rng_seed(&rng, vd_hash64(v->name, strlen(v->name)));
    vd_rng_normal_f32(&rng, normals, fresh);
    for (size_t i = 0; i < fresh; i++)
        store(memory, i, v->dtype, normals[i]);
    for (size_t done = period; done < bytes; done += period)
        memcpy((char *)memory + done, memory, bytes - done < period ? bytes - done : period);
    free(normals);
}

/* `memory` is zeroed. */
static void draw(const vd_value_info *v, void *memory) {
    if (v->dtype <= VD_BF16)
        draw_normals(v, memory);
    for (int64_t i = 0; strcmp(v->name, "sigmas") == 0 && i < vd_shape_count(v->shape); i++)
        ((float *)memory)[i] = 10 * powf(0.98f, (float)i);
}

/* ---- programs ---- */

/* Device memory with the values of an external. */
static void *filled(rig *r, const vd_value_info *v) {
    const vd_device_table *table = r->devices[0]->table;
    size_t bytes = rig_bytes(v);
    void *memory, *host = room(v->name, bytes);
    draw(v, host);
    MUST(table->allocate(r->devices[0], bytes, &memory, err));
    MUST(table->copy(r->streams[0], VD_TO_DEVICE, memory, host, bytes, NULL, err));
    MUST(table->stream_drain(r->streams[0], err));
    free(host);
    return memory;
}

void loaded_open(loaded *l, rig *r, const vd_program *p) {
    vd_device *d = r->devices[0];
    *l = (loaded){.rig = r, .program = p};
    MUST(d->table->compile(d, p, &l->compiled, err));
    MUST(d->table->load(d, l->compiled, err));
    MUST(d->table->allocate(d, vd_compiled_arena(l->compiled), &l->arena, err));
    MUST(d->table->event_open(d, &l->begun, err));
    MUST(d->table->event_open(d, &l->ended, err));
    l->bindings = room(p->name, (size_t)p->value_count * sizeof *l->bindings);
    for (vd_value v = 0; v < p->value_count; v++)
        if (p->values[v].storage == VD_STORAGE_EXTERNAL)
            l->bindings[l->binding_count++] = (vd_binding){v, filled(r, &p->values[v])};
    MUST(d->table->exec_open(d, l->compiled, l->arena, l->bindings, l->binding_count, &l->exec, err));
}

double loaded_run(loaded *l) {
    const vd_device_table *table = l->rig->devices[0]->table;
    vd_stream *stream = l->rig->streams[0];
    vd_fault fault;
    vd_fault_clear(&fault);
    MUST(table->record(stream, l->begun, err));
    MUST(table->launch(stream, l->exec, &fault, err));
    MUST(table->record(stream, l->ended, err));
    rig_await(l->rig, l->ended);
    if (vd_fault_failed(&fault))
        rig_die(&fault.error);
    return vd_event_seconds(l->ended) - vd_event_seconds(l->begun);
}

void *loaded_read(const loaded *l, vd_value external) {
    size_t bytes = rig_bytes(&l->program->values[external]);
    void *host = room(l->program->name, bytes);
    for (int i = 0; i < l->binding_count; i++)
        if (l->bindings[i].value == external)
            MUST(l->rig->devices[0]->table->copy(l->rig->streams[0], VD_TO_HOST, host, l->bindings[i].memory,
                                                 bytes, NULL, err));
    MUST(l->rig->devices[0]->table->stream_drain(l->rig->streams[0], err));
    return host;
}

void loaded_close(loaded *l) {
    vd_device *d = l->rig->devices[0];
    d->table->exec_close(d, l->exec);
    d->table->event_close(l->begun);
    d->table->event_close(l->ended);
    for (int i = 0; i < l->binding_count; i++)
        d->table->release(d, l->bindings[i].memory);
    d->table->release(d, l->arena);
    d->table->compiled_close(d, l->compiled);
    free(l->bindings);
}
