#include "app/batch.h"

#include "app/grow.h"
#include "base/file.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

vd_code vd_batch_add_job(vd_batch *batch, const vd_request *job, vd_error *err) {
    vd_request *jobs = vd_grow(batch->jobs, batch->job_count, sizeof *jobs);
    if (!jobs)
        return vd_fail_memory(err, "the list of jobs", 2 * (size_t)batch->job_count * sizeof *jobs);
    batch->jobs = jobs;
    jobs[batch->job_count++] = *job;
    return VD_OK;
}

vd_code vd_batch_keep(vd_batch *batch, const char *text, size_t length, const char **out, vd_error *err) {
    char *copy = strndup(text, length);
    char **strings = copy ? vd_grow(batch->strings, batch->string_count, sizeof *strings) : NULL;
    if (!strings) {
        free(copy);
        return vd_fail_memory(err, "a list of names", length);
    }
    batch->strings = strings;
    strings[batch->string_count++] = copy;
    *out = copy;
    return VD_OK;
}

static vd_code read_standard_input(vd_text *text, vd_error *err) {
    char block[4096];
    for (size_t got; (got = fread(block, 1, sizeof block, stdin)) > 0;) {
        vd_text_add_bytes(text, block, got);
        if (text->failed)
            return vd_fail_memory(err, "the job file", text->length);
        if (text->length > VD_JOB_FILE_LIMIT)
            return vd_fail(err, VD_ERR_DATA, "standard input: more than %d bytes of jobs", VD_JOB_FILE_LIMIT);
    }
    return ferror(stdin) ? vd_fail(err, VD_ERR_IO, "cannot read jobs from standard input: %m") : VD_OK;
}

static vd_code read_job_file(vd_batch *batch, const vd_request *defaults, const char *path, vd_error *err) {
    if (strcmp(path, "-") == 0) {
        vd_text text = {0};
        vd_code code = read_standard_input(&text, err);
        if (code == VD_OK)
            code = vd_batch_parse_jobs(batch, defaults, text.text ? text.text : "", text.length,
                                       "standard input", err);
        vd_text_free(&text);
        return code;
    }
    char *bytes;
    size_t count;
    VD_TRY(vd_file_read(path, "job file", VD_JOB_FILE_LIMIT, &bytes, &count, err));
    vd_code code = vd_batch_parse_jobs(batch, defaults, bytes, count, path, err);
    free(bytes);
    return code;
}

static vd_code collect_jobs(const vd_options *o, const char *sample_image, vd_batch *batch, vd_error *err) {
    vd_request defaults = o->request;
    if (o->latent_shape.count > 0 && (o->image_count > 0 || o->jobs))
        return vd_fail(err, VD_ERR_USAGE, "--latent-shape draws everything from the seed; leave out %s",
                       o->jobs ? "--jobs" : "--image");
    if (o->latent_shape.count > 0)
        return vd_batch_add_job(batch, &defaults, err);
    defaults.job.image = o->image_count > 0 ? o->images[0] : sample_image;
    if (o->jobs && o->image_count > 1)
        return vd_fail(err, VD_ERR_USAGE,
                       "--jobs with %d images: give one -i at most, for jobs without their own",
                       o->image_count);
    if (o->jobs)
        VD_TRY(read_job_file(batch, &defaults, o->jobs, err));
    for (int i = 0; !o->jobs && i < o->image_count; i++)
        VD_TRY(vd_batch_add_images(batch, &defaults, o->images[i], err));
    if (!o->jobs && o->image_count == 0)
        VD_TRY(vd_batch_add_job(batch, &defaults, err));
    for (int i = 0; i < batch->job_count; i++)
        if (!batch->jobs[i].job.image)
            return vd_fail(err, VD_ERR_NO_INPUT,
                           "no image is named and none is installed; give one with -i FILE");
    return VD_OK;
}

static vd_code draw_seeds(vd_batch *batch, vd_error *err) {
    for (int i = 0; i < batch->job_count; i++) {
        vd_request *job = &batch->jobs[i];
        uint32_t drawn; /* torch's generator takes no more than these bits */
        if (!job->random_seed)
            continue;
        if (getrandom(&drawn, sizeof drawn, 0) != sizeof drawn)
            return vd_fail(err, VD_ERR_INTERNAL, "no random bytes from the system: %m");
        job->seed = drawn;
    }
    return VD_OK;
}

vd_code vd_batch_make_samples(vd_batch *batch, int per_request, vd_error *err) {
    int64_t total = 0;
    for (int i = 0; i < batch->job_count; i++)
        total += (int64_t)batch->jobs[i].samples * per_request;
    if (total > VD_SAMPLE_LIMIT)
        return vd_fail(err, VD_ERR_USAGE, "%lld samples are more than the %d of one run; use several",
                       (long long)total, VD_SAMPLE_LIMIT);
    batch->samples = calloc((size_t)total, sizeof *batch->samples);
    if (!batch->samples)
        return vd_fail_memory(err, "the list of samples", (size_t)total * sizeof *batch->samples);
    for (int i = 0; i < batch->job_count; i++)
        for (int k = 0; k < batch->jobs[i].samples * per_request; k++)
            batch->samples[batch->sample_count++] =
                (vdpp_sample){.job = &batch->jobs[i].job, .seed = batch->jobs[i].seed + (uint64_t)k};
    return VD_OK;
}

vd_code vd_batch_build(const vd_options *options, const vd_batch_context *context, vd_batch *out,
                       vd_error *err) {
    VD_TRY(collect_jobs(options, context->sample_image, out, err));
    VD_TRY(draw_seeds(out, err));
    VD_TRY(
        vd_batch_make_samples(out, options->latent_shape.count > 0 ? options->latent_shape.count : 1, err));
    return vd_batch_name_samples(out, options, context->devices, err);
}

void vd_batch_free(vd_batch *batch) {
    for (int i = 0; i < batch->string_count; i++)
        free(batch->strings[i]);
    free(batch->strings);
    free(batch->samples);
    free(batch->jobs);
    json_decref(batch->lines);
    *batch = (vd_batch){0};
}
