/* tests/golden/diffusion.json and the inputs that tests/golden/make_diffusion.py gave to the reference. */
#ifndef VD_TESTS_GOLDEN_H
#define VD_TESTS_GOLDEN_H

#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>
#include <zlib.h>

static json_t *golden; /* the whole file */

static inline int golden_load(void **state) {
    (void)state;
    vd_error err = {0};
    if (vd_json_load("tests/golden/diffusion.json", 1 << 20, &golden, &err) != VD_OK)
        print_error("%s\n", err.message);
    return golden ? 0 : -1;
}

static inline int golden_free(void **state) {
    (void)state;
    json_decref(golden);
    return 0;
}

static inline int64_t whole(const json_t *row, const char *key) {
    const json_t *value = json_object_get(row, key);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

static inline double number(const json_t *row, const char *key) {
    const json_t *value = json_object_get(row, key);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

/* Member `index` of the array row[key]. */
static inline int item(const json_t *row, const char *key, size_t index) {
    const json_t *value = json_array_get(json_object_get(row, key), index);
    assert_true(json_is_integer(value));
    return (int)json_integer_value(value);
}

static inline uint32_t crc(const void *bytes, size_t count) {
    return (uint32_t)crc32_z(0, bytes, count);
}

/* The generator of the same name in make_diffusion.py. The caller frees. */
static inline uint8_t *pattern(size_t count) {
    uint8_t *out = malloc(count);
    assert_non_null(out);
    for (size_t i = 0; i < count; i++) {
        uint32_t v = (uint32_t)i * 2654435761u;
        v ^= v >> 15;
        out[i] = (uint8_t)(v * 2246822519u >> 24);
    }
    return out;
}

#endif
