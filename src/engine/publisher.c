#include "engine/publisher.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "engine/dump.h"
#include "engine/stage.h"
#include "engine/transpose.h"
#include "media/writer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void vd_trip_release(const vd_run *run, vd_trip *trip) {
    vd_dump_close(run, trip->dump);
    free(trip->latents);
    free(trip->frames);
    free(trip->hops);
    trip->dump = NULL;
    trip->latents = NULL;
    trip->frames = NULL;
    trip->hops = NULL;
}

/* A sample that failed has no sums for the hand-offs after its failure. */
static vd_code check_hops(const vd_run *run, const vd_trip *trip, vd_error *err) {
    for (int i = 0; i < trip->hop_count; i++) {
        const vd_hop *hop = &trip->hops[i];
        const vd_handoff *hand = &run->plan->handoffs[hop->handoff];
        bool travelled = !vd_fault_failed(&trip->fault) || (hop->sent && hop->received);
        if (travelled && hop->sent != hop->received)
            return vd_fail(
                err, VD_ERR_INTERNAL,
                "the hand-off from %s to %s after step %d arrived damaged (checksum %016llx, sent %016llx); "
                "the sample was not written",
                run->stages[hand->from]->device->name, run->stages[hand->to]->device->name, hand->after_step,
                (unsigned long long)hop->received, (unsigned long long)hop->sent);
    }
    return VD_OK;
}

/* Latents first: nothing can be decoded from those that are not finite. */
static vd_code check_latents(const vd_run *run, const vd_trip *trip, vd_error *err) {
    size_t count = run->state.bytes[VD_FIELD_LATENTS] / sizeof(float);
    for (size_t i = 0; i < count; i++)
        if (!isfinite(trip->latents[i]))
            return vd_fail(err, VD_ERR_INTERNAL, "the latents are not finite in %s; try --dtype fp32",
                           run->dtype_name);
    return VD_OK;
}

static vd_code check_frames(vd_run *run, vd_stage *stage, vd_trip *trip, vd_error *err) {
    if (!trip->nonfinite)
        return VD_OK;
    if (run->fp32_decoders[0])
        return vd_decode_again(run, stage, trip, err);
    return vd_fail(err, VD_ERR_INTERNAL, "%d decoded values are not finite in %s", trip->nonfinite,
                   run->dtype_name);
}

/* Settings, seed and hash: what reproduces the sample. A new reference; NULL when out of memory. */
static json_t *describe_sample(const vd_run *run, const vd_trip *trip, uint64_t hash) {
    const vdpp_job *job = trip->job;
    char name[20];
    snprintf(name, sizeof name, "%016llx", (unsigned long long)hash);
    return json_pack("{s:s s:o s:o s:o s:i s:i s:i s:i s:f s:i s:f s:[f,f] s:i s:s s:s s:s}", "vdpp",
                     VDPP_VERSION, "model", vd_json_text(run->model_name), "image", vd_json_text(job->image),
                     "seed", vd_json_u64(trip->seed), "width", job->width, "height", job->height, "frames",
                     job->frames, "steps", job->steps, "fps", job->fps, "motion", job->motion, "noise_aug",
                     job->noise_aug, "guidance", job->guidance_min, job->guidance_max, "decode_chunk",
                     run->shape.decode_chunk, "fit", job->fit, "dtype", run->dtype_name, "latents_hash",
                     name);
}

static vd_code note_file(vd_trip *trip, const char *path, vd_error *err) {
    vdpp_sample_result *r = trip->result;
    char **more = realloc(r->files, ((size_t)r->file_count + 1) * sizeof *more);
    if (more)
        r->files = more;
    if (!more || !(r->files[r->file_count] = strdup(path)))
        return vd_fail_memory(err, "the list of files", sizeof *more);
    r->file_count++;
    return VD_OK;
}

static vd_code write_formats(const vd_run *run, vd_trip *trip, const vd_clip *clip, vd_error *err) {
    char path[VD_PATH_CAP];
    for (int i = 0; i < run->format_count; i++) {
        const vd_format *format = vd_format_find(run->formats[i]);
        if (!format || (format->needs_frames && !clip->rgb))
            continue;
        if (snprintf(path, sizeof path, "%s%s", trip->output, format->extension) >= (int)sizeof path)
            return vd_fail(err, VD_ERR_CANNOT_CREATE, "output '%s': the name is too long", trip->output);
        VD_TRY(format->write(clip, path, run->overwrite, err));
        if (strcmp(format->name, "null") != 0)
            VD_TRY(note_file(trip, path, err));
    }
    return VD_OK;
}

static vd_code write_settings(const vd_run *run, vd_trip *trip, const json_t *settings, vd_error *err) {
    char path[VD_PATH_CAP];
    if (trip->result->file_count == 0)
        return VD_OK;
    if (snprintf(path, sizeof path, "%s.json", trip->output) >= (int)sizeof path)
        return vd_fail(err, VD_ERR_CANNOT_CREATE, "output '%s': the name is too long", trip->output);
    return vd_json_save(settings, path, run->overwrite, err);
}

static vd_code write_sample(const vd_run *run, vd_trip *trip, const float *latents, vd_error *err) {
    const vd_video_shape *v = &run->shape.video;
    json_t *settings = describe_sample(run, trip, trip->result->latents_hash);
    char *comment = settings ? json_dumps(settings, JSON_COMPACT) : NULL;
    vd_clip clip = {.frames = trip->frames ? v->frames : 0,
                    .width = run->shape.width,
                    .height = run->shape.height,
                    .fps = trip->job->out_fps,
                    .rgb = trip->frames,
                    .latent_frames = v->frames,
                    .latent_channels = run->latent_channels,
                    .latent_height = v->latent_h,
                    .latent_width = v->latent_w,
                    .latents = latents,
                    .comment = comment};
    vd_code code =
        comment ? write_formats(run, trip, &clip, err) : vd_fail_memory(err, "a sample's settings", 0);
    if (code == VD_OK)
        code = write_settings(run, trip, settings, err);
    if (code == VD_OK && trip->dump)
        code = vd_dump_write(run, trip, err);
    free(comment);
    json_decref(settings);
    return code;
}

static vd_code publish(vd_run *run, vd_stage *stage, vd_trip *trip, vd_error *err) {
    VD_TRY(check_hops(run, trip, err)); /* first, for a damaged state can make a later operation fail */
    if (vd_fault_failed(&trip->fault)) {
        *err = trip->fault.error;
        return err->code;
    }
    VD_TRY(check_latents(run, trip, err));
    VD_TRY(check_frames(run, stage, trip, err));
    const vd_video_shape *v = &run->shape.video;
    float *latents = malloc(run->state.bytes[VD_FIELD_LATENTS]);
    if (!latents)
        return vd_fail_memory(err, "final latents", run->state.bytes[VD_FIELD_LATENTS]);
    vd_to_channels_first(trip->latents, v->frames, run->latent_channels, (int64_t)v->latent_h * v->latent_w,
                         latents);
    trip->result->latents_hash = vd_hash64(latents, run->state.bytes[VD_FIELD_LATENTS]);
    vd_code code = write_sample(run, trip, latents, err);
    free(latents);
    return code;
}

static void publish_trip(vd_run *run, vd_stage *stage, vd_trip *trip) {
    vd_error error = {0};
    vdpp_sample_result *r = trip->result;
    r->code = publish(run, stage, trip, &error);
    if (r->code != VD_OK) {
        snprintf(r->error, sizeof r->error, "%s", error.message);
        if (r->code != VD_ERR_TRY_AGAIN)
            vd_log_line(run->log, VD_LOG_ERROR, "sample %d: %s", run->first_sample + trip->index,
                        error.message);
    }
    r->finished_s = vd_now() - run->began;
    vd_trip_release(run, trip);
    atomic_fetch_add(&run->failed, r->code != VD_OK);
    atomic_fetch_add_explicit(&stage->published, 1, memory_order_release);
    vd_wake_all(&stage->published);
    atomic_store(&run->last_published, trip->index);
    atomic_fetch_add_explicit(&run->published, 1, memory_order_release);
    vd_run_pulse(run);
}

/* One sample of any stage; false when there is none. */
static bool publish_one(vd_run *run) {
    for (int d = 0; d < run->plan->devices; d++) {
        vd_trip *trip;
        if (vd_ring_try_pop(&run->stages[d]->done, &trip)) {
            publish_trip(run, run->stages[d], trip);
            return true;
        }
    }
    return false;
}

static void *publisher_main(void *argument) {
    vd_run *run = argument;
    while (atomic_load(&run->published) < run->plan->samples) {
        uint32_t seen = atomic_load_explicit(&run->pulse, memory_order_acquire);
        if (publish_one(run))
            continue;
        if (vd_fault_failed(&run->broken))
            return NULL;
        vd_park(&run->pulse, seen, -1);
    }
    return NULL;
}

vd_code vd_publisher_start(vd_publisher *p, vd_run *run, vd_error *err) {
    p->run = run;
    return vd_thread_start(&p->thread, "vd-writer", VD_ANY_CPU, publisher_main, run, err);
}

void vd_publisher_join(vd_publisher *p) {
    vd_thread_join(&p->thread);
}
