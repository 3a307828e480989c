#include "model/st_header.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Every dtype of safetensors 0.7; four of them hold less than a byte. */
static const vd_st_format formats[] = {
    {"F32", 32, VD_ST_F32},      {"F16", 16, VD_ST_F16},      {"BF16", 16, VD_ST_BF16},
    {"I64", 64, VD_ST_I64},      {"U8", 8, VD_ST_U8},         {"BOOL", 8, VD_ST_OTHER},
    {"I8", 8, VD_ST_OTHER},      {"I16", 16, VD_ST_OTHER},    {"U16", 16, VD_ST_OTHER},
    {"I32", 32, VD_ST_OTHER},    {"U32", 32, VD_ST_OTHER},    {"U64", 64, VD_ST_OTHER},
    {"F64", 64, VD_ST_OTHER},    {"C64", 64, VD_ST_OTHER},    {"F8_E5M2", 8, VD_ST_OTHER},
    {"F8_E4M3", 8, VD_ST_OTHER}, {"F8_E8M0", 8, VD_ST_OTHER}, {"F4", 4, VD_ST_OTHER},
    {"F6_E2M3", 6, VD_ST_OTHER}, {"F6_E3M2", 6, VD_ST_OTHER},
};
enum { FORMATS = sizeof formats / sizeof *formats };

const vd_st_format *vd_st_format_named(const char *name) {
    for (int i = 0; i < FORMATS; i++)
        if (strcmp(formats[i].name, name) == 0)
            return &formats[i];
    return NULL;
}

const vd_st_format *vd_st_format_of(vd_st_dtype dtype) {
    for (int i = 0; i < FORMATS && dtype != VD_ST_OTHER; i++)
        if (formats[i].dtype == dtype)
            return &formats[i];
    return NULL;
}

/* What lies in a weight file's place when it is not safetensors; NULL when nothing known. */
static const char *foreign_kind(const unsigned char *start, size_t count) {
    static const struct {
        const char *magic, *kind;
    } kinds[] = {
        {"\x80", "a pickle (PyTorch), which may run code when loaded"},
        {"PK", "a zip archive (PyTorch checkpoint), whose pickle may run code when loaded"},
        {"GGUF", "a GGUF file"},
        {"version https://git-lfs", "a Git LFS pointer: the real file was not downloaded (git lfs pull)"},
        {"<html", "an HTML page: the download failed"},
        {"<!doctype", "an HTML page: the download failed"},
        {"\x89HDF", "an HDF5 file"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t n = strlen(kinds[i].magic);
        if (count >= n && strncasecmp((const char *)start, kinds[i].magic, n) == 0)
            return kinds[i].kind;
    }
    return NULL;
}

vd_code vd_st_header_length(const unsigned char *start, size_t count, uint64_t file_bytes, const char *file,
                            size_t *length, vd_error *err) {
    uint64_t n = 0;
    for (size_t i = 0; i < VD_ST_PREFIX && i < count; i++)
        n |= (uint64_t)start[i] << 8 * i;
    bool plausible = count > VD_ST_PREFIX && n >= 2 && n <= VD_ST_MAX_HEADER && start[VD_ST_PREFIX] == '{';
    const char *kind = plausible ? NULL : foreign_kind(start, count);
    if (kind)
        return vd_fail(err, VD_ERR_DATA, "'%s': not safetensors but %s", file, kind);
    if (count < VD_ST_PREFIX)
        return vd_fail(err, VD_ERR_DATA, "'%s': too short for safetensors (%zu bytes)", file, count);
    if (n > VD_ST_MAX_HEADER)
        return vd_fail(err, VD_ERR_DATA, "'%s': not safetensors: header of %llu bytes, the format allows %d",
                       file, (unsigned long long)n, VD_ST_MAX_HEADER);
    if (n > file_bytes - VD_ST_PREFIX)
        return vd_fail(err, VD_ERR_DATA,
                       "'%s': header of %llu bytes does not fit the file of %llu: truncated?", file,
                       (unsigned long long)n, (unsigned long long)file_bytes);
    *length = n;
    return VD_OK;
}

/* The position of the closing quote of the string that opens at `at`, or `length`. */
static size_t string_end(const char *json, size_t length, size_t at) {
    for (at++; at < length && json[at] != '"'; at++)
        if (json[at] == '\\')
            at++;
    return at < length ? at : length;
}

/* One pass before the JSON parser allocates anything: begins with '{', at most three levels (header, tensor,
 * list) and short lists, nothing after the end but the format's padding. Whether it is JSON is for the parser
 * to say. */
static vd_code check_outline(const char *json, size_t length, const char *file, vd_error *err) {
    int depth = 0, commas = 0;
    if (length == 0 || json[0] != '{')
        return vd_fail(err, VD_ERR_DATA, "'%s': header does not start with '{'", file);
    for (size_t i = 0; i < length; i++) {
        char c = json[i];
        if (c == '"') {
            i = string_end(json, length, i);
        } else if (c == '{' || c == '[') {
            commas = 0;
            if (++depth > 3)
                return vd_fail(err, VD_ERR_DATA, "'%s': header nested too deeply at byte %zu", file, i);
        } else if (c == ',' && depth == 3 && ++commas == VD_ST_MAX_RANK) {
            return vd_fail(err, VD_ERR_DATA, "'%s': header has a list of more than %d members at byte %zu",
                           file, VD_ST_MAX_RANK, i);
        } else if ((c == '}' || c == ']') && --depth == 0) {
            while (++i < length)
                if (json[i] != ' ')
                    return vd_fail(err, VD_ERR_DATA,
                                   "'%s': header has other bytes than padding after its end", file);
        }
    }
    return VD_OK;
}

static vd_code parse_shape(const json_t *shape, uint64_t bits, vd_st_tensor *out, vd_error *err) {
    size_t index;
    json_t *dim;
    if (!json_is_array(shape) || json_array_size(shape) > VD_ST_MAX_RANK)
        return vd_fail(err, VD_ERR_DATA, "shape is not a list of at most %d integers", VD_ST_MAX_RANK);
    out->rank = (int)json_array_size(shape);
    json_array_foreach(shape, index, dim) {
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return vd_fail(err, VD_ERR_DATA, "shape has a member that is not an integer >= 0");
        out->dims[index] = json_integer_value(dim);
        if (__builtin_mul_overflow(bits, (uint64_t)out->dims[index], &bits))
            return vd_fail(err, VD_ERR_DATA, "shape has more elements than can be counted");
    }
    if (bits % 8)
        return vd_fail(err, VD_ERR_DATA, "shape does not fill whole bytes");
    out->bytes = bits / 8;
    return VD_OK;
}

/* `data` is where tensor bytes begin in the file. */
static vd_code parse_offsets(const json_t *offsets, uint64_t data, uint64_t file_bytes, vd_st_tensor *out,
                             vd_error *err) {
    uint64_t range[2];
    if (!json_is_array(offsets) || json_array_size(offsets) != 2)
        return vd_fail(err, VD_ERR_DATA, "data_offsets is not a pair of integers");
    for (size_t i = 0; i < 2; i++) {
        const json_t *value = json_array_get(offsets, i);
        if (!json_is_integer(value) || json_integer_value(value) < 0)
            return vd_fail(err, VD_ERR_DATA, "data_offsets has a member that is not an integer >= 0");
        range[i] = (uint64_t)json_integer_value(value);
    }
    if (range[0] > range[1])
        return vd_fail(err, VD_ERR_DATA, "data_offsets begin after they end");
    if (range[1] > file_bytes - data)
        return vd_fail(err, VD_ERR_DATA,
                       "data_offsets end at %llu but the file has only %llu bytes of data: truncated?",
                       (unsigned long long)range[1], (unsigned long long)(file_bytes - data));
    if (range[1] - range[0] != out->bytes)
        return vd_fail(err, VD_ERR_DATA, "shape and dtype need %llu bytes, data_offsets give %llu",
                       (unsigned long long)out->bytes, (unsigned long long)(range[1] - range[0]));
    out->offset = data + range[0];
    return VD_OK;
}

static vd_code parse_tensor(const json_t *entry, uint64_t data, uint64_t file_bytes, vd_st_tensor *out,
                            vd_error *err) {
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    const json_t *shape = json_object_get(entry, "shape"), *offsets = json_object_get(entry, "data_offsets");
    if (!dtype || !shape || !offsets || json_object_size(entry) != 3)
        return vd_fail(err, VD_ERR_DATA, "is not described by exactly dtype, shape and data_offsets");
    const vd_st_format *format = vd_st_format_named(dtype);
    if (!format)
        return vd_fail(err, VD_ERR_DATA, "dtype '%.20s' is unknown", dtype);
    out->dtype = format->dtype;
    VD_TRY(parse_shape(shape, format->bits, out, err));
    return parse_offsets(offsets, data, file_bytes, out, err);
}

static vd_code check_metadata(const json_t *metadata, const char *file, vd_error *err) {
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return vd_fail(err, VD_ERR_DATA, "'%s': __metadata__ is not an object", file);
    json_object_foreach((json_t *)metadata, key, value) {
        if (!json_is_string(value))
            return vd_fail(err, VD_ERR_DATA, "'%s': __metadata__ '%.100s' is not a string", file, key);
    }
    return VD_OK;
}

static int by_place(const void *a, const void *b) {
    const vd_st_tensor *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const vd_st_tensor *)a)->name, ((const vd_st_tensor *)b)->name);
}

/* Sorts the tensors by place and walks them: each begins where the one before it ends. Empty ones sort before
 * what shares their place, so they are legal at a boundary and nowhere else. */
static vd_code check_coverage(vd_st_header *header, uint64_t data, uint64_t file_bytes, const char *file,
                              vd_error *err) {
    uint64_t end = data;
    qsort(header->tensors, (size_t)header->count, sizeof *header->tensors, by_place);
    for (int i = 0; i < header->count; i++) {
        const vd_st_tensor *t = &header->tensors[i];
        if (t->offset != end)
            return vd_fail(err, VD_ERR_DATA,
                           "'%s': tensor '%.100s' begins at %llu of the data, expected %llu: %s", file,
                           t->name, (unsigned long long)(t->offset - data), (unsigned long long)(end - data),
                           t->offset < end ? "overlap" : "hole");
        end += t->bytes;
    }
    if (end != file_bytes)
        return vd_fail(err, VD_ERR_DATA, "'%s': %llu bytes after the last tensor", file,
                       (unsigned long long)(file_bytes - end));
    return VD_OK;
}

static vd_code parse_entries(vd_st_header *header, uint64_t data, uint64_t file_bytes, const char *file,
                             vd_error *err) {
    const char *key;
    json_t *entry;
    json_object_foreach(header->json, key, entry) {
        if (strcmp(key, "__metadata__") == 0) {
            VD_TRY(check_metadata(entry, file, err));
            continue;
        }
        vd_st_tensor *tensor = &header->tensors[header->count++];
        tensor->name = key;
        if (parse_tensor(entry, data, file_bytes, tensor, err) != VD_OK)
            return vd_fail_in(err, "'%s': tensor '%.100s'", file, key);
    }
    VD_TRY(check_coverage(header, data, file_bytes, file, err));
    qsort(header->tensors, (size_t)header->count, sizeof *header->tensors, by_name);
    return VD_OK;
}

vd_code vd_st_header_parse(const char *json, size_t length, uint64_t file_bytes, const char *file,
                           vd_st_header *out, vd_error *err) {
    vd_st_header header = {0};
    VD_TRY(check_outline(json, length, file, err));
    VD_TRY(vd_json_parse(json, length, file, &header.json, err));
    size_t entries = json_object_size(header.json);
    header.tensors = calloc(entries + 1, sizeof *header.tensors);
    vd_code status =
        header.tensors ? parse_entries(&header, VD_ST_PREFIX + length, file_bytes, file, err)
                       : vd_fail_memory(err, "a safetensors header", (entries + 1) * sizeof *header.tensors);
    if (status != VD_OK)
        vd_st_header_free(&header);
    else
        *out = header;
    return status;
}

void vd_st_header_free(vd_st_header *header) {
    free(header->tensors);
    json_decref(header->json);
    *header = (vd_st_header){0};
}
