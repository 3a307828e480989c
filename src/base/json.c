#include "base/json.h"

#include "base/file.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

vd_code vd_json_parse(const char *text, size_t length, const char *name, json_t **out, vd_error *err) {
    json_error_t where;
    *out = json_loadb(text, length, JSON_REJECT_DUPLICATES, &where);
    if (*out)
        return VD_OK;
    return vd_fail(err, VD_ERR_DATA, "'%s' is not valid JSON: line %d, column %d: %s", name, where.line,
                   where.column, where.text);
}

vd_code vd_json_load(const char *path, size_t limit, json_t **out, vd_error *err) {
    char *text;
    size_t length;
    *out = NULL;
    VD_TRY(vd_file_read(path, "file", limit, &text, &length, err));
    vd_code code = vd_json_parse(text, length, path, out, err);
    free(text);
    return code;
}

/* "'NAME': 'KEY' is VALUE; EXPECTED" */
static vd_code fail_value(const json_t *value, const char *name, const char *key, const char *expected,
                          vd_error *err) {
    char *dump = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    vd_code code = vd_fail(err, VD_ERR_DATA, "'%s': '%s' is %.80s; expected %s", name, key,
                           dump ? dump : "unprintable", expected);
    free(dump);
    return code;
}

/* `*value` is NULL when an optional key is absent or null. */
static vd_code find(const json_t *object, const char *name, const char *key, bool required, json_t **value,
                    vd_error *err) {
    *value = json_object_get(object, key);
    if (json_is_null(*value))
        *value = NULL;
    if (!*value && required)
        return vd_fail(err, VD_ERR_DATA, "'%s': '%s' is missing", name, key);
    return VD_OK;
}

vd_code vd_json_int(const json_t *object, const char *name, const char *key, bool required, int64_t min,
                    int64_t max, int64_t *out, vd_error *err) {
    json_t *value;
    VD_TRY(find(object, name, key, required, &value, err));
    if (!value)
        return VD_OK;
    int64_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < min || number > max) {
        char expected[80];
        snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)min, (long long)max);
        return fail_value(value, name, key, expected, err);
    }
    *out = number;
    return VD_OK;
}

vd_code vd_json_double(const json_t *object, const char *name, const char *key, bool required, double min,
                       double max, double *out, vd_error *err) {
    json_t *value;
    VD_TRY(find(object, name, key, required, &value, err));
    if (!value)
        return VD_OK;
    double number = json_number_value(value);
    if (!json_is_number(value) || number < min || number > max) {
        char expected[80];
        snprintf(expected, sizeof expected, "a number from %g to %g", min, max);
        return fail_value(value, name, key, expected, err);
    }
    *out = number;
    return VD_OK;
}

vd_code vd_json_bool(const json_t *object, const char *name, const char *key, bool required, bool *out,
                     vd_error *err) {
    json_t *value;
    VD_TRY(find(object, name, key, required, &value, err));
    if (!value)
        return VD_OK;
    if (!json_is_boolean(value))
        return fail_value(value, name, key, "true or false", err);
    *out = json_is_true(value);
    return VD_OK;
}

vd_code vd_json_string(const json_t *object, const char *name, const char *key, bool required,
                       const char **out, vd_error *err) {
    json_t *value;
    VD_TRY(find(object, name, key, required, &value, err));
    if (!value)
        return VD_OK;
    if (!json_is_string(value))
        return fail_value(value, name, key, "a string", err);
    *out = json_string_value(value);
    return VD_OK;
}

json_t *vd_json_u64(uint64_t value) {
    char digits[24];
    if (value <= INT64_MAX)
        return json_integer((json_int_t)value);
    snprintf(digits, sizeof digits, "%" PRIu64, value);
    return json_string(digits);
}

json_t *vd_json_text(const char *text) {
    char escaped[VD_LINE_CAP];
    json_t *value = text ? json_string(text) : json_null();
    return value ? value : json_string(vd_escape(escaped, sizeof escaped, text, strlen(text)));
}

vd_code vd_json_save(const json_t *value, const char *path, bool overwrite, vd_error *err) {
    char *text = json_dumps(value, JSON_INDENT(2));
    if (!text)
        return vd_fail(err, VD_ERR_INTERNAL, "'%s' cannot be written as JSON", path);
    size_t length = strlen(text);
    text[length] = '\n'; /* in the place of the terminator, which a file does not need */
    vd_code code = vd_file_write(path, text, length + 1, overwrite, err);
    free(text);
    return code;
}
