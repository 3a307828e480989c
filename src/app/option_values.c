#include "app/option_values.h"

#include "base/text.h"
#include "media/writer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *field(const vd_option *o, void *target) {
    return (char *)target + o->offset;
}

vd_code vd_read_switch(const vd_option *o, const char *const *values, void *target, vd_error *err) {
    (void)err;
    *(bool *)field(o, target) = values[0][0] == '1';
    return VD_OK;
}

/* A whole number in [min, max], or which one is nearest. */
static vd_code parse_int(const char *text, double min, double max, int *out, vd_error *err) {
    int64_t value;
    if (!vd_parse_i64(text, &value)) {
        double any;
        if (!vd_parse_double(text, &any))
            return vd_fail(err, VD_ERR_USAGE, "not a whole number; give one from %.0f to %.0f", min, max);
        double nearest = fmin(fmax(round(any), min), max);
        return vd_fail(err, VD_ERR_USAGE, "not a whole number from %.0f to %.0f; nearest: %.0f", min, max,
                       nearest);
    }
    if ((double)value < min || (double)value > max)
        return vd_fail(err, VD_ERR_USAGE, "must be from %.0f to %.0f; nearest: %.0f", min, max,
                       (double)value < min ? min : max);
    *out = (int)value;
    return VD_OK;
}

static vd_code parse_double(const char *text, double min, double max, double *out, vd_error *err) {
    double value;
    if (!vd_parse_double(text, &value))
        return vd_fail(err, VD_ERR_USAGE, "not a number; give one from %g to %g", min, max);
    if (value < min || value > max)
        return vd_fail(err, VD_ERR_USAGE, "must be from %g to %g; nearest: %g", min, max,
                       value < min ? min : max);
    *out = value;
    return VD_OK;
}

vd_code vd_read_int(const vd_option *o, const char *const *values, void *target, vd_error *err) {
    return parse_int(values[0], o->min, o->max, field(o, target), err);
}

vd_code vd_read_side(const vd_option *o, const char *const *values, void *target, vd_error *err) {
    int pixels = 0;
    VD_TRY(parse_int(values[0], o->min, o->max, &pixels, err));
    if (pixels % 8 != 0)
        return vd_fail(err, VD_ERR_USAGE, "must be a multiple of 8; nearest: %d or %d", pixels / 8 * 8,
                       pixels / 8 * 8 + 8);
    *(int *)field(o, target) = pixels;
    return VD_OK;
}

vd_code vd_read_double(const vd_option *o, const char *const *values, void *target, vd_error *err) {
    return parse_double(values[0], o->min, o->max, field(o, target), err);
}

vd_code vd_read_int_or_zero(const vd_option *o, const char *const *values, void *target, vd_error *err) {
    int *number = field(o, target);
    VD_TRY(parse_int(values[0], o->min, o->max, number, err));
    if (*number == 0)
        *number = -1;
    return VD_OK;
}

vd_code vd_read_double_or_zero(const vd_option *o, const char *const *values, void *target, vd_error *err) {
    double *number = field(o, target);
    VD_TRY(parse_double(values[0], o->min, o->max, number, err));
    if (*number == 0)
        *number = -1;
    return VD_OK;
}

vd_code vd_read_text(const vd_option *o, const char *const *values, void *target, vd_error *err) {
    if (values[0][0] == '\0')
        return vd_fail(err, VD_ERR_USAGE, "empty; give %s", o->value);
    *(const char **)field(o, target) = values[0];
    return VD_OK;
}

/* Whether `word` is one of those in `list`, joined by `separator`. */
static bool is_listed(const char *list, char separator, const char *word, size_t length) {
    for (const char *at = list;; at++) {
        size_t n = (size_t)(strchrnul(at, separator) - at);
        if (n == length && memcmp(at, word, n) == 0)
            return true;
        at += n;
        if (*at == '\0')
            return false;
    }
}

vd_code vd_read_choice(const vd_option *o, const char *const *values, void *target, vd_error *err) {
    if (values[0][0] == '\0' || !is_listed(o->choices, '|', values[0], strlen(values[0])))
        return vd_fail(err, VD_ERR_USAGE, "unknown; give one of %s", o->choices);
    *(const char **)field(o, target) = values[0];
    return VD_OK;
}

/* Takes the next of the words that `separator` parts; false when there is none left. A word too long for
 * anything known is cut and ends in "...", which no reader accepts. */
static bool next_word(const char **at, char separator, char *word, size_t cap) {
    if (!*at)
        return false;
    const char *rest = strchrnul(*at, separator);
    size_t length = (size_t)(rest - *at);
    if (length < cap)
        snprintf(word, cap, "%.*s", (int)length, *at);
    else
        snprintf(word, cap, "%.*s...", (int)cap - 4, *at);
    *at = *rest ? rest + 1 : NULL;
    return true;
}

vd_code vd_read_ints(const vd_option *o, const char *const *values, void *target, vd_error *err) {
    vd_int_list list = {.count = 0};
    char word[32];
    for (const char *at = values[0]; next_word(&at, ',', word, sizeof word);) {
        if (list.count == VD_DEVICE_LIMIT)
            return vd_fail(err, VD_ERR_USAGE, "more than %d numbers", VD_DEVICE_LIMIT);
        VD_TRY(parse_int(word, o->min, o->max, &list.values[list.count++], err));
    }
    *(vd_int_list *)field(o, target) = list;
    return VD_OK;
}

vd_code vd_read_seed(const vd_option *o, const char *const *values, void *target, vd_error *err) {
    (void)o;
    vd_request *request = target;
    bool random = strcmp(values[0], "-1") == 0;
    if (!random && !vd_parse_u64(values[0], &request->seed))
        return vd_fail(err, VD_ERR_USAGE, "must be a whole number from 0 to %llu, or -1 for a random one",
                       (unsigned long long)UINT64_MAX);
    request->random_seed = random;
    return VD_OK;
}

/* "MIN:MAX", or "MAX" alone with MIN 1. A maximum of 1 or less is no guidance, which vdpp_job writes as 1:1.
 */
vd_code vd_read_guidance(const vd_option *o, const char *const *values, void *target, vd_error *err) {
    vdpp_job *job = &((vd_request *)target)->job;
    const char *rest = values[0];
    char first[32];
    double min = 0, max = 0;
    next_word(&rest, ':', first, sizeof first);
    VD_TRY(parse_double(first, o->min, o->max, &max, err));
    min = rest ? max : 1;
    if (rest)
        VD_TRY(parse_double(rest, o->min, o->max, &max, err));
    if (max <= 1)
        min = max = 1;
    if (min <= 0)
        return vd_fail(err, VD_ERR_USAGE,
                       "the first frame's guidance must be more than 0; give for example 1:%g", max);
    job->guidance_min = min;
    job->guidance_max = max;
    return VD_OK;
}

static vd_code check_image(const char *path, vd_error *err) {
    if (path[0] == '\0')
        return vd_fail(err, VD_ERR_USAGE, "empty; give the path of a PNG or JPEG file");
    if (strcmp(path, "-") == 0 || strstr(path, "://"))
        return vd_fail(err, VD_ERR_USAGE, "images are read from files only; save it and give its path");
    return VD_OK;
}

vd_code vd_read_image(const vd_option *o, const char *const *values, void *target, vd_error *err) {
    VD_TRY(check_image(values[0], err));
    *(const char **)field(o, target) = values[0];
    return VD_OK;
}

vd_code vd_read_more_images(const vd_option *o, const char *const *values, void *target, vd_error *err) {
    (void)o;
    vd_options *options = target;
    VD_TRY(check_image(values[0], err));
    size_t bytes = ((size_t)options->image_count + 1) * sizeof *options->images;
    const char **images = realloc(options->images, bytes);
    if (!images)
        return vd_fail_memory(err, "the list of images", bytes);
    options->images = images;
    images[options->image_count++] = values[0];
    return VD_OK;
}

vd_code vd_read_formats(const vd_option *o, const char *const *values, void *target, vd_error *err) {
    char word[32];
    const char *at = values[0];
    while (next_word(&at, ',', word, sizeof word)) {
        if (!vd_format_find(word))
            return vd_fail(err, VD_ERR_USAGE, "'%s' is not a format of this build; it has %s", word,
                           vd_format_list());
        if (at && is_listed(at, ',', word, strlen(word)))
            return vd_fail(err, VD_ERR_USAGE, "'%s' is named twice", word);
    }
    *(const char **)field(o, target) = values[0];
    return VD_OK;
}

vd_code vd_read_latent_shape(const vd_option *o, const char *const *values, void *target, vd_error *err) {
    static const struct {
        const char *name;
        size_t offset;
        int max;
    } parts[] = {
        {"B", offsetof(vd_latent_shape, count), VD_SAMPLE_LIMIT},
        {"C", offsetof(vd_latent_shape, channels), 64},
        {"F", offsetof(vd_latent_shape, frames), 1024},
        {"H", offsetof(vd_latent_shape, height), 1024},
        {"W", offsetof(vd_latent_shape, width), 1024},
    };
    for (int i = 0; i < 5; i++)
        if (parse_int(values[i], 1, parts[i].max, (int *)((char *)field(o, target) + parts[i].offset), err) !=
            VD_OK)
            return vd_fail_in(err, "%s '%.40s'", parts[i].name, values[i]);
    return VD_OK;
}

vd_code vd_read_costs(const vd_option *o, const char *const *values, void *target, vd_error *err) {
    static const struct {
        const char *name;
        size_t offset;
    } parts[] = {
        {"encode=", offsetof(vd_costs, encode)},
        {"step=", offsetof(vd_costs, step)},
        {"decode=", offsetof(vd_costs, decode)},
        {"handoff=", offsetof(vd_costs, handoff)},
    };
    char word[64];
    for (const char *at = values[0]; next_word(&at, ',', word, sizeof word);) {
        size_t i = 0;
        while (i < 4 && strncmp(word, parts[i].name, strlen(parts[i].name)) != 0)
            i++;
        if (i == 4)
            return vd_fail(err, VD_ERR_USAGE, "'%s' is not a cost; write %s", word, o->value);
        double *cost = (double *)((char *)field(o, target) + parts[i].offset);
        if (parse_double(word + strlen(parts[i].name), 0, o->max, cost, err) != VD_OK)
            return vd_fail_in(err, "'%s'", word);
    }
    if (((vd_costs *)field(o, target))->step <= 0)
        return vd_fail(err, VD_ERR_USAGE, "a step must cost more than 0");
    return VD_OK;
}
