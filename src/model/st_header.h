/* The header of a safetensors file: eight bytes of length, then JSON. Shared by the reader and the writer. */
#ifndef VD_MODEL_ST_HEADER_H
#define VD_MODEL_ST_HEADER_H

#include "model/safetensors.h"

#include <jansson.h>

enum { VD_ST_PREFIX = 8, VD_ST_MAX_HEADER = 100000000 }; /* bytes; the limit is the format's own */

typedef struct vd_st_header {
    vd_st_tensor *tensors; /* sorted by name; offsets count from the start of the file */
    int count;
    json_t *json; /* owns the names */
} vd_st_header;

/* A dtype as the format spells it. */
typedef struct vd_st_format {
    char name[8];
    uint8_t bits;
    vd_st_dtype dtype;
} vd_st_format;

const vd_st_format *vd_st_format_named(const char *name); /* NULL: the format has no such dtype */
const vd_st_format *vd_st_format_of(vd_st_dtype dtype);   /* NULL for VD_ST_OTHER */

/* The length of the JSON text from the first `count` bytes of a file (a few dozen suffice: more only help to
 * name what the file is instead). Proven to fit `file_bytes` and the format's limit. */
vd_code vd_st_header_length(const unsigned char *start, size_t count, uint64_t file_bytes, const char *file,
                            size_t *length, vd_error *err);

/* Parses and proves the JSON text: names unique, sizes equal to shape times dtype, ranges covering the rest
 * of the file without hole or overlap. `file` is used in messages. */
vd_code vd_st_header_parse(const char *json, size_t length, uint64_t file_bytes, const char *file,
                           vd_st_header *out, vd_error *err);
void vd_st_header_free(vd_st_header *header); /* a zeroed one is fine */

#endif
