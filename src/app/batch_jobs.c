#include "app/batch.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

static vd_code fail_key(const char *key, unsigned where, vd_error *err) {
    const char *nearest = vd_option_nearest(key, strlen(key), where);
    return nearest
               ? vd_fail(err, VD_ERR_DATA, "unknown key '%.60s'; did you mean '%s'?", key, nearest)
               : vd_fail(err, VD_ERR_DATA, "unknown key '%.60s'; keys are the long names of options", key);
}

/* Numbers take the way of the command line's text, so one reader judges both. */
static vd_code read_value(const vd_option *o, const char *key, const json_t *value, vd_request *job,
                          vd_error *err) {
    char number[40];
    const char *text = NULL;
    bool takes_number = o->max > 0, takes_text = o->max <= 0 || o->where & VD_TEXT_TOO;
    if (json_is_string(value) && takes_text)
        text = json_string_value(value);
    else if (json_is_number(value) && takes_number)
        text = number;
    if (!text)
        return vd_fail(err, VD_ERR_DATA, "'%s': expected %s", key, takes_text ? "a string" : "a number");
    if (json_is_integer(value))
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(number, sizeof number, "%.17g", json_real_value(value));
    if (o->read(o, &text, job, err) == VD_OK)
        return VD_OK;
    err->code = VD_ERR_DATA;
    return vd_fail_in(err, "'%s' is '%.60s'", key, text);
}

static vd_code read_job(json_t *object, vd_request *job, vd_error *err) {
    const char *key;
    json_t *value;
    if (!json_is_object(object))
        return vd_fail(err, VD_ERR_DATA, "not an object; write one {...} per line");
    json_object_foreach(object, key, value) {
        const vd_option *o = vd_option_find(key, strlen(key), VD_IN_JOB);
        if (!o)
            return fail_key(key, VD_IN_JOB, err);
        VD_TRY(read_value(o, key, value, job, err));
    }
    return VD_OK;
}

static vd_code parse_line(vd_batch *batch, const vd_request *defaults, const char *text, size_t length,
                          const char *name, vd_error *err) {
    json_t *object;
    vd_request job = *defaults;
    VD_TRY(vd_json_parse(text, length, name, &object, err));
    if (json_array_append_new(batch->lines, object) != 0)
        return vd_fail_memory(err, "the job file", length);
    if (read_job(object, &job, err) != VD_OK)
        return vd_fail_in(err, "%s", name);
    return vd_batch_add_job(batch, &job, err);
}

vd_code vd_batch_parse_jobs(vd_batch *batch, const vd_request *defaults, const char *text, size_t length,
                            const char *name, vd_error *err) {
    const char *end = text + length;
    int line = 0;
    if (!batch->lines && !(batch->lines = json_array()))
        return vd_fail_memory(err, "the job file", length);
    while (text < end) {
        const char *newline = memchr(text, '\n', (size_t)(end - text)), *stop = newline ? newline : end;
        const char *first = text;
        char where[160];
        while (first < stop && memchr(" \t\r", *first, 3))
            first++;
        snprintf(where, sizeof where, "%.128s:%d", name, ++line);
        if (first < stop)
            VD_TRY(parse_line(batch, defaults, first, (size_t)(stop - first), where, err));
        text = newline ? newline + 1 : end;
    }
    return batch->job_count > 0 ? VD_OK : vd_fail(err, VD_ERR_DATA, "'%.128s' has no jobs", name);
}
