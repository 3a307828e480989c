#include "app/report.h"

#include "app/version.h"
#include "base/json.h"
#include "base/text.h"

#include <inttypes.h>
#include <string.h>

/* Arguments as a shell would take them back. */
static json_t *command_line(const vd_report_context *c) {
    vd_text t = {0};
    for (int i = 0; i < c->argument_count; i++) {
        const char *argument = c->arguments[i];
        bool plain =
            *argument && strspn(argument, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                          "%+,-./:=@_") == strlen(argument);
        vd_text_add(&t, "%s%s", i > 0 ? " " : "", plain ? argument : "'");
        for (const char *at = argument; !plain && *at; at++)
            vd_text_add(&t, *at == '\'' ? "'\\''" : "%c", *at);
        vd_text_add(&t, "%s", plain ? "" : "'");
    }
    json_t *value = t.failed ? NULL : json_string(t.text);
    if (!value && !t.failed) { /* not UTF-8 */
        char escaped[VD_LINE_CAP];
        value = json_string(vd_escape(escaped, sizeof escaped, t.text, t.length));
    }
    vd_text_free(&t);
    return value;
}

static json_t *hash_value(const vdpp_sample_result *r) {
    char text[20];
    if (r->code != 0)
        return json_null();
    snprintf(text, sizeof text, "%016" PRIx64, r->latents_hash);
    return json_string(text);
}

static json_t *settings_of(const vd_report_context *c, const vdpp_job *job) {
    vdpp_job full = *job;
    vdpp_error
        ignored; /* a job that cannot be resolved stands as it was asked for; its samples carry the error */
    if (vdpp_job_resolve(c->engine, &full, &ignored) != 0)
        full = *job;
    return json_pack("{s:i s:i s:i s:i s:f s:f s:i s:f s:[f,f] s:i s:s* s:b s:s}", "width", full.width,
                     "height", full.height, "frames", full.frames, "steps", full.steps, "fps", full.fps,
                     "out_fps", full.out_fps, "motion", full.motion, "noise_aug", full.noise_aug, "guidance",
                     full.guidance_min, full.guidance_max, "decode_chunk", full.decode_chunk, "fit", full.fit,
                     "latents_only", full.latents_only, "dtype", c->report->dtype);
}

/* "settings" at the top are those of the first job; a sample of another job carries its own. */
static json_t *sample_value(const vd_report_context *c, int index) {
    const vdpp_sample_result *r = &c->report->samples[index];
    const vdpp_job *job = c->samples[index].job;
    json_t *files = json_array(), *devices = json_array();
    for (int i = 0; i < r->file_count; i++)
        json_array_append_new(files, vd_json_text(r->files[i]));
    for (int i = 0; i < r->device_count; i++)
        json_array_append_new(devices, json_integer(r->devices[i]));
    json_t *value =
        json_pack("{s:i s:o s:o s:o s:o s:o s:b s:f s:f s:f s:o}", "index", index, "seed",
                  vd_json_u64(c->samples[index].seed), "image", vd_json_text(job->image), "files", files,
                  "latents_hash", hash_value(r), "devices", devices, "decoded_again", r->decoded_again,
                  "admitted_s", r->admitted_s, "first_step_s", r->first_step_s, "finished_s", r->finished_s,
                  "error", r->code != 0 ? vd_json_text(r->error) : json_null());
    if (value && job != c->samples[0].job)
        json_object_set_new(value, "settings", settings_of(c, job));
    return value;
}

static json_t *timing_value(const vdpp_report *r) {
    return json_pack("{s:f s:f s:f s:f s:f s:f s:f s:f s:f s:f s:f s:f}", "load_s", r->load_s, "warmup_s",
                     r->warmup_s, "wall_s", r->wall_s, "first_sample_s", r->first_sample_s,
                     "steady_interval_s", r->steady_interval_s, "throughput_sps", r->throughput_sps,
                     "latency_p50_s", r->latency_p50_s, "latency_p95_s", r->latency_p95_s, "fill_s",
                     r->fill_s, "drain_s", r->drain_s, "bubble_share", r->bubble_share, "step_median_s",
                     r->step_median_s);
}

static json_t *device_values(const vdpp_report *r) {
    json_t *list = json_array();
    for (int i = 0; i < r->device_count; i++) {
        const vdpp_device_result *d = &r->devices[i];
        json_array_append_new(list, json_pack("{s:s s:f s:f s:I s:I}", "name", d->name, "busy_s", d->busy_s,
                                              "busy_share", d->busy_share, "planned_bytes",
                                              (json_int_t)d->planned_bytes, "peak_bytes",
                                              (json_int_t)d->peak_bytes));
    }
    return list;
}

static json_t *link_values(const vdpp_report *r) {
    json_t *list = json_array();
    for (int i = 0; i < r->link_count; i++) {
        const vdpp_link_result *l = &r->links[i];
        json_array_append_new(list, json_pack("{s:i s:i s:s s:b s:f s:f}", "from", l->from, "to", l->to,
                                              "route", l->route, "damaged", l->damaged, "bytes_per_s",
                                              l->bytes_per_s, "latency_s", l->latency_s));
    }
    return list;
}

vd_code vd_report_save(const vd_report_context *c, const char *path, bool overwrite, vd_error *err) {
    const vdpp_report *r = c->report;
    json_t *samples = json_array();
    for (int i = 0; i < r->sample_count; i++)
        json_array_append_new(samples, sample_value(c, i));
    json_t *report =
        json_pack("{s:s s:s s:s s:o s:o s:o s:o s:o s:o s:s s:o s:o}", "version", VDPP_VERSION, "commit",
                  vd_build_commit, "build", vd_build_description, "command", command_line(c), "machine",
                  vd_json_text(r->machine), "devices", device_values(r), "links", link_values(r), "model",
                  vd_json_text(r->model), "settings", settings_of(c, c->samples[0].job), "mode", r->mode,
                  "samples", samples, "timing", timing_value(r));
    if (!report)
        return vd_fail_memory(err, "the report", (unsigned long long)r->sample_count * 512);
    vd_code code = vd_json_save(report, path, overwrite, err);
    json_decref(report);
    return code;
}
