#include "app/batch.h"
#include "app/naming.h"
#include "base/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char default_template[] = "{stem}-s{seed}", default_folder[] = "out";

static vd_code add_format(vd_batch *batch, const vd_format *format, vd_error *err) {
    if (batch->format_count == VD_FORMAT_LIMIT)
        return vd_fail(err, VD_ERR_USAGE, "more than %d formats", VD_FORMAT_LIMIT);
    size_t length = strlen(batch->format_list);
    snprintf(batch->format_list + length, sizeof batch->format_list - length, "%s%s", length > 0 ? "," : "",
             format->name);
    batch->formats[batch->format_count++] = format;
    return VD_OK;
}

static bool has_format(const vd_batch *batch, const vd_format *format) {
    for (int i = 0; i < batch->format_count; i++)
        if (batch->formats[i] == format)
            return true;
    return false;
}

/* `list` was checked when it was read. */
static vd_code take_list(vd_batch *batch, const char *list, vd_error *err) {
    for (const char *at = list; at;) {
        char name[32];
        const char *comma = strchr(at, ',');
        snprintf(name, sizeof name, "%.*s", (int)(comma ? comma - at : 31), at);
        VD_TRY(add_format(batch, vd_format_find(name), err));
        at = comma ? comma + 1 : NULL;
    }
    return VD_OK;
}

/* All samples of a run are written in the same formats: those of --format, else what the templates end in. */
static vd_code choose_formats(vd_batch *batch, const vd_options *o, vd_error *err) {
    bool latents_only = o->latent_shape.count > 0;
    if (o->formats)
        VD_TRY(take_list(batch, o->formats, err));
    for (int i = 0; i < batch->job_count; i++) {
        const vd_format *format = NULL;
        size_t length;
        if (batch->jobs[i].output)
            VD_TRY(vd_name_format(batch->jobs[i].output, &length, &format, err));
        if (format && batch->format_count == 0)
            VD_TRY(add_format(batch, format, err));
        if (format && !has_format(batch, format))
            return vd_fail(err, VD_ERR_USAGE,
                           "output '%.200s' is no %s; a run writes all its samples in the same formats",
                           batch->jobs[i].output, batch->format_list);
    }
    if (batch->format_count == 0) {
        const vd_format *video = vd_format_find("mp4");
        VD_TRY(add_format(batch,
                          latents_only ? vd_format_find("latents")
                          : video      ? video
                                       : vd_format_find("png"),
                          err));
    }
    for (int i = 0; latents_only && i < batch->format_count; i++)
        if (batch->formats[i]->needs_frames)
            return vd_fail(err, VD_ERR_USAGE, "--latent-shape makes no frames for %s; use --format latents",
                           batch->formats[i]->name);
    return VD_OK;
}

vd_code vd_batch_name_samples(vd_batch *batch, const vd_options *o, int devices, vd_error *err) {
    VD_TRY(choose_formats(batch, o, err));
    for (int i = 0; i < batch->sample_count; i++) {
        vdpp_sample *sample = &batch->samples[i];
        const vd_request *request = (const vd_request *)sample->job; /* its first member */
        const char *template = request->output ? request->output : default_template;
        const char *folder = o->output_dir || request->output ? o->output_dir : default_folder;
        const vd_name_fields fields = {request->job.image, sample->seed, i, devices};
        const vd_format *format;
        char path[VD_PATH_CAP];
        size_t length;
        VD_TRY(vd_name_format(template, &length, &format, err));
        VD_TRY(vd_name_expand(folder, template, length, &fields, path, err));
        VD_TRY(vd_batch_keep(batch, path, strlen(path), &sample->output, err));
    }
    return VD_OK;
}

static int compare_outputs(const void *a, const void *b) {
    const vdpp_sample *const *left = a, *const *right = b;
    int order = strcmp((*left)->output, (*right)->output);
    return order != 0 ? order : (*left > *right) - (*left < *right);
}

static bool same_folder(const char *a, const char *b) {
    const char *a_end = strrchr(a, '/'), *b_end = strrchr(b, '/');
    size_t a_length = a_end ? (size_t)(a_end - a) : 0, b_length = b_end ? (size_t)(b_end - b) : 0;
    return a_length == b_length && memcmp(a, b, a_length) == 0;
}

/* Makes the folder of `path` and asks whether files can be made in it. */
static vd_code check_folder(const char *path, vd_error *err) {
    char folder[VD_PATH_CAP] = ".";
    const char *slash = strrchr(path, '/');
    VD_TRY(vd_make_parents(path, err));
    if (slash)
        snprintf(folder, sizeof folder, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    if (access(folder, W_OK | X_OK) != 0)
        return vd_fail(err, VD_ERR_CANNOT_CREATE, "cannot create files in '%s': %m", folder);
    return VD_OK;
}

vd_code vd_batch_check_dump(const vd_batch *batch, const char *folder, bool overwrite, vd_error *err) {
    char path[VD_PATH_CAP];
    struct stat there;
    for (int i = 0; i < batch->sample_count; i++) {
        if (snprintf(path, sizeof path, "%s/sample-%03d.safetensors", folder, i) >= (int)sizeof path)
            return vd_fail(err, VD_ERR_CANNOT_CREATE, "--dump: '%.200s...' is too long", folder);
        if (i == 0 && check_folder(path, err) != VD_OK)
            return vd_fail_in(err, "--dump");
        if (!overwrite && lstat(path, &there) == 0)
            return vd_fail(err, VD_ERR_CANNOT_CREATE, "--dump: '%s' exists already; replace it with -y",
                           path);
    }
    return VD_OK;
}

/* One file that a sample will be written to. */
static vd_code check_file(const vdpp_sample *sample, const char *extension, bool overwrite, vd_error *err) {
    char path[VD_PATH_CAP];
    struct stat there, input;
    if (snprintf(path, sizeof path, "%s%s", sample->output, extension) >= (int)sizeof path)
        return vd_fail(err, VD_ERR_CANNOT_CREATE, "output '%.200s...': the name is too long", sample->output);
    if (lstat(path, &there) != 0)
        return errno == ENOENT ? VD_OK : vd_fail(err, VD_ERR_CANNOT_CREATE, "cannot create '%s': %m", path);
    if (sample->job->image && stat(sample->job->image, &input) == 0 && input.st_dev == there.st_dev &&
        input.st_ino == there.st_ino)
        return vd_fail(err, VD_ERR_USAGE, "output '%s' is the input image; give another name with -o", path);
    if (!overwrite)
        return vd_fail(err, VD_ERR_CANNOT_CREATE,
                       "'%s' exists already; replace it with -y, or name another with -o", path);
    if (*extension && S_ISDIR(there.st_mode))
        return vd_fail(err, VD_ERR_CANNOT_CREATE, "output '%s' is a folder; name another with -o", path);
    return VD_OK;
}

static vd_code check_sample(const vd_batch *batch, const vdpp_sample *sample, bool overwrite, vd_error *err) {
    for (int i = 0; i < batch->format_count; i++)
        if (strcmp(batch->formats[i]->name, "null") != 0)
            VD_TRY(check_file(sample, batch->formats[i]->extension, overwrite, err));
    return check_file(sample, ".json", overwrite, err);
}

vd_code vd_batch_check_outputs(const vd_batch *batch, bool overwrite, vd_error *err) {
    const vdpp_sample **order = calloc((size_t)batch->sample_count, sizeof *order);
    if (!order)
        return vd_fail_memory(err, "the list of outputs", (size_t)batch->sample_count * sizeof *order);
    for (int i = 0; i < batch->sample_count; i++)
        order[i] = &batch->samples[i];
    qsort(order, (size_t)batch->sample_count, sizeof *order, compare_outputs);
    vd_code code = VD_OK;
    for (int i = 1; code == VD_OK && i < batch->sample_count; i++)
        if (strcmp(order[i - 1]->output, order[i]->output) == 0)
            code = vd_fail(
                err, VD_ERR_USAGE,
                "samples %d and %d would both be written to '%s'; use {stem}, {seed} or {index} in -o",
                (int)(order[i - 1] - batch->samples), (int)(order[i] - batch->samples), order[i]->output);
    for (int i = 0; code == VD_OK && i < batch->sample_count; i++) {
        if (i == 0 || !same_folder(order[i - 1]->output, order[i]->output))
            code = check_folder(order[i]->output, err);
        if (code == VD_OK)
            code = check_sample(batch, order[i], overwrite, err);
    }
    free(order);
    return code;
}
