/* What the readers of the configuration files share: the class defaults of the reference filled in, and
 * members checked with messages that name file, key, value found and value expected. */
#ifndef VD_MODEL_CONFIG_READ_H
#define VD_MODEL_CONFIG_READ_H

#include "base/json.h"
#include "model/config.h"

enum { VD_MAX_CHANNELS = 65536 };

/* Parses an object and adds what it lacks from `defaults` (JSON), so that every key below is required. */
vd_code vd_config_open(const char *json, size_t length, const char *name, const char *defaults, json_t **out,
                       vd_error *err);

typedef struct vd_config_int {
    const char *key;
    int min, max;
    size_t offset; /* of an int in the struct read into */
} vd_config_int;
vd_code vd_config_ints(const json_t *object, const char *name, const vd_config_int *fields, int count,
                       void *out, vd_error *err);

/* A list of one integer per level; where `levels` is 0 any length is taken and stored. With `or_one`, a
 * single integer stands for all levels. */
typedef struct vd_config_levels {
    const char *key;
    int min, max;
    bool or_one;
} vd_config_levels;
vd_code vd_config_per_level(const json_t *object, const char *name, vd_config_levels field, int *levels,
                            int out[VD_MAX_LEVELS], vd_error *err);

/* block_out_channels: as above, of any length, each a multiple of the 32 norm groups. */
vd_code vd_config_channels(const json_t *object, const char *name, int *levels, int out[VD_MAX_LEVELS],
                           vd_error *err);

/* One integer, called 'KEY'[INDEX] in messages. */
vd_code vd_config_member(const json_t *value, const char *name, vd_config_levels field, int index, int *out,
                         vd_error *err);

/* A list of block types, one per level: `attention` (NULL: no such type) or else `plain`. */
vd_code vd_config_block_types(const json_t *object, const char *name, const char *key, int levels,
                              const char *plain, const char *attention, bool has_attention[VD_MAX_LEVELS],
                              vd_error *err);

/* `value`, found at `key` or NULL, must be the string `expected`. */
vd_code vd_config_expect(const json_t *value, const char *name, const char *key, const char *expected,
                         vd_error *err);

/* "'NAME': 'KEY' is VALUE; EXPECTED". `value` may be NULL. */
vd_code vd_config_refuse(const json_t *value, const char *name, const char *key, const char *expected,
                         vd_error *err);

#endif
