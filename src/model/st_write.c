#include "base/file.h"
#include "model/st_header.h"

#include <stdlib.h>
#include <string.h>

/* Bytes of the tensor's data; 0 for an empty one. */
static uint64_t data_bytes(const vd_st_out *tensor, const vd_st_format *format) {
    uint64_t bytes = format->bits / 8;
    for (int i = 0; i < tensor->rank; i++)
        bytes *= (uint64_t)tensor->dims[i];
    return bytes;
}

static json_t *describe(const vd_st_out *tensor, const vd_st_format *format, uint64_t begin) {
    json_t *shape = json_array();
    for (int i = 0; i < tensor->rank; i++)
        json_array_append_new(shape, json_integer(tensor->dims[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", format->name, "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)(begin + data_bytes(tensor, format)));
}

/* The header's JSON, padded so that the data begin on a multiple of 8, as other writers do. NULL: out of
 * memory or a name given twice. */
static char *header_text(const vd_st_out *tensors, int count, size_t *length) {
    uint64_t offset = 0;
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    for (int i = 0; i < count; i++) {
        const vd_st_format *format = vd_st_format_of(tensors[i].dtype);
        json_object_set_new(header, tensors[i].name, describe(&tensors[i], format, offset));
        offset += data_bytes(&tensors[i], format);
    }
    char *compact = json_object_size(header) == (size_t)count + 1 ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    if (!compact)
        return NULL;
    size_t used = strlen(compact);
    *length = (used + 7) / 8 * 8;
    char *text = realloc(compact, *length + 1);
    if (!text) {
        free(compact);
        return NULL;
    }
    memset(text + used, ' ', *length - used);
    return text;
}

static vd_code write_all(vd_outfile *file, const char *header, size_t length, const vd_st_out *tensors,
                         int count, vd_error *err) {
    unsigned char prefix[VD_ST_PREFIX];
    for (int i = 0; i < VD_ST_PREFIX; i++)
        prefix[i] = (unsigned char)((uint64_t)length >> 8 * i);
    VD_TRY(vd_outfile_write(file, prefix, sizeof prefix, err));
    VD_TRY(vd_outfile_write(file, header, length, err));
    for (int i = 0; i < count; i++)
        VD_TRY(vd_outfile_write(file, tensors[i].data,
                                data_bytes(&tensors[i], vd_st_format_of(tensors[i].dtype)), err));
    return vd_outfile_commit(file, err);
}

vd_code vd_safetensors_write(const char *path, const vd_st_out *tensors, int count, bool overwrite,
                             vd_error *err) {
    vd_outfile file = {.fd = -1};
    size_t length;
    for (int i = 0; i < count; i++)
        if (!vd_st_format_of(tensors[i].dtype))
            return vd_fail(err, VD_ERR_INTERNAL, "'%s': tensor '%.100s' has no dtype", path, tensors[i].name);
    char *header = header_text(tensors, count, &length);
    if (!header)
        return vd_fail(err, VD_ERR_INTERNAL, "'%s': cannot make the header of %d tensors", path, count);
    vd_code status = vd_outfile_open(&file, path, overwrite, err);
    if (status == VD_OK)
        status = write_all(&file, header, length, tensors, count, err);
    vd_outfile_abandon(&file);
    free(header);
    return status;
}
