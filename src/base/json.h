/* Strict JSON over Jansson: duplicate keys refused, nothing after the value, typed members with messages that
 * name the document, the key and the value found. */
#ifndef VD_BASE_JSON_H
#define VD_BASE_JSON_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* `name` is used in messages. `*out` is a new reference. */
vd_code vd_json_parse(const char *text, size_t length, const char *name, json_t **out, vd_error *err);
vd_code vd_json_load(const char *path, size_t limit, json_t **out, vd_error *err);

/* Members of `object`. When the key is absent (or null) and `required` is false, `*out` keeps its value. A
 * wrong type or a value outside [min, max] is VD_ERR_DATA. */
vd_code vd_json_int(const json_t *object, const char *name, const char *key, bool required, int64_t min,
                    int64_t max, int64_t *out, vd_error *err);
vd_code vd_json_double(const json_t *object, const char *name, const char *key, bool required, double min,
                       double max, double *out, vd_error *err);
vd_code vd_json_bool(const json_t *object, const char *name, const char *key, bool required, bool *out,
                     vd_error *err);
/* `*out` points into the object. */
vd_code vd_json_string(const json_t *object, const char *name, const char *key, bool required,
                       const char **out, vd_error *err);

/* New values for documents that we write. A number beyond 2^63 - 1 becomes a string of its digits, since JSON
 * integers end there; text that is not UTF-8 is escaped; NULL gives null. NULL when out of memory. */
json_t *vd_json_u64(uint64_t value);
json_t *vd_json_text(const char *text);

/* Writes `value` as indented JSON, atomically. */
vd_code vd_json_save(const json_t *value, const char *path, bool overwrite, vd_error *err);

#endif
