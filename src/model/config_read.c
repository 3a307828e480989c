#include "model/config_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

vd_code vd_config_open(const char *json, size_t length, const char *name, const char *defaults, json_t **out,
                       vd_error *err) {
    json_t *filler, *object;
    VD_TRY(vd_json_parse(defaults, strlen(defaults), "defaults", &filler, err));
    vd_code status = vd_json_parse(json, length, name, &object, err);
    if (status == VD_OK && !json_is_object(object))
        status = vd_fail(err, VD_ERR_DATA, "'%s': not a JSON object", name);
    if (status == VD_OK && json_object_update_missing(object, filler) != 0)
        status = vd_fail_memory(err, "a configuration", 0);
    json_decref(filler);
    if (status != VD_OK)
        json_decref(object);
    else
        *out = object;
    return status;
}

vd_code vd_config_refuse(const json_t *value, const char *name, const char *key, const char *expected,
                         vd_error *err) {
    char *dump = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    vd_fail(err, VD_ERR_DATA, "'%s': '%s' is %.80s; expected %s", name, key, dump ? dump : "missing",
            expected);
    free(dump);
    return err->code;
}

vd_code vd_config_ints(const json_t *object, const char *name, const vd_config_int *fields, int count,
                       void *out, vd_error *err) {
    for (int i = 0; i < count; i++) {
        int64_t value;
        VD_TRY(vd_json_int(object, name, fields[i].key, true, fields[i].min, fields[i].max, &value, err));
        *(int *)((char *)out + fields[i].offset) = (int)value;
    }
    return VD_OK;
}

vd_code vd_config_member(const json_t *value, const char *name, vd_config_levels field, int index, int *out,
                         vd_error *err) {
    char key[80], expected[80];
    json_int_t number = json_integer_value(value);
    if (json_is_integer(value) && number >= field.min && number <= field.max) {
        *out = (int)number;
        return VD_OK;
    }
    snprintf(key, sizeof key, "%s[%d]", field.key, index);
    snprintf(expected, sizeof expected, "an integer from %d to %d", field.min, field.max);
    return vd_config_refuse(value, name, key, expected, err);
}

/* `value` must be a list of *levels members; of any fitting number, which is stored, when *levels is 0. */
static vd_code check_length(const json_t *value, const char *name, const char *key, int *levels,
                            vd_error *err) {
    char expected[80];
    size_t count = json_array_size(value);
    if (json_is_array(value) && *levels == 0 && count >= 1 && count <= VD_MAX_LEVELS)
        *levels = (int)count;
    if (json_is_array(value) && *levels > 0 && count == (size_t)*levels)
        return VD_OK;
    if (*levels == 0)
        snprintf(expected, sizeof expected, "a list of 1 to %d members", VD_MAX_LEVELS);
    else
        snprintf(expected, sizeof expected, "a list of %d members, one per level", *levels);
    return vd_config_refuse(value, name, key, expected, err);
}

vd_code vd_config_per_level(const json_t *object, const char *name, vd_config_levels field, int *levels,
                            int out[VD_MAX_LEVELS], vd_error *err) {
    const json_t *value = json_object_get(object, field.key);
    bool one = field.or_one && json_is_number(value);
    if (!one)
        VD_TRY(check_length(value, name, field.key, levels, err));
    for (int i = 0; i < *levels; i++)
        VD_TRY(
            vd_config_member(one ? value : json_array_get(value, (size_t)i), name, field, i, &out[i], err));
    return VD_OK;
}

vd_code vd_config_channels(const json_t *object, const char *name, int *levels, int out[VD_MAX_LEVELS],
                           vd_error *err) {
    const vd_config_levels field = {"block_out_channels", 32, VD_MAX_CHANNELS, false};
    *levels = 0;
    VD_TRY(vd_config_per_level(object, name, field, levels, out, err));
    for (int i = 0; i < *levels; i++)
        if (out[i] % 32)
            return vd_config_refuse(json_object_get(object, field.key), name, field.key,
                                    "multiples of 32, the number of norm groups", err);
    return VD_OK;
}

vd_code vd_config_block_types(const json_t *object, const char *name, const char *key, int levels,
                              const char *plain, const char *attention, bool has_attention[VD_MAX_LEVELS],
                              vd_error *err) {
    const json_t *list = json_object_get(object, key);
    VD_TRY(check_length(list, name, key, &levels, err));
    for (int i = 0; i < levels; i++) {
        const char *type = json_string_value(json_array_get(list, (size_t)i));
        has_attention[i] = type && attention && strcmp(type, attention) == 0;
        if (has_attention[i] || (type && strcmp(type, plain) == 0))
            continue;
        char expected[160];
        snprintf(expected, sizeof expected, "%s%s%s at every level", plain, attention ? " or " : "",
                 attention ? attention : "");
        return vd_config_refuse(list, name, key, expected, err);
    }
    return VD_OK;
}

vd_code vd_config_expect(const json_t *value, const char *name, const char *key, const char *expected,
                         vd_error *err) {
    const char *text = json_string_value(value);
    if (text && strcmp(text, expected) == 0)
        return VD_OK;
    char quoted[80];
    snprintf(quoted, sizeof quoted, "\"%s\", the only one that vdpp computes", expected);
    return vd_config_refuse(value, name, key, quoted, err);
}
