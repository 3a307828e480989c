#include "model/safetensors.h"

#include "base/file.h"
#include "base/half.h"
#include "model/st_header.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

struct vd_safetensors {
    int fd;
    char *path;
    struct stat stat; /* as it was when the header was proven */
    vd_st_header header;
};

static vd_code open_regular(vd_safetensors *file, vd_error *err) {
    file->fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file->fd < 0 || fstat(file->fd, &file->stat) != 0)
        return vd_fail(err, VD_ERR_NO_INPUT, "weight file '%s': %s", file->path, strerror(errno));
    if (!S_ISREG(file->stat.st_mode))
        return vd_fail(err, VD_ERR_NO_INPUT, "weight file '%s': not a regular file", file->path);
    return VD_OK;
}

static vd_code read_header(vd_safetensors *file, vd_error *err) {
    uint64_t bytes = (uint64_t)file->stat.st_size;
    unsigned char start[64]; /* enough to name what else it may be */
    size_t count = bytes < sizeof start ? bytes : sizeof start, length;
    VD_TRY(vd_pread_all(file->fd, start, count, 0, file->path, err));
    VD_TRY(vd_st_header_length(start, count, bytes, file->path, &length, err));
    char *json = malloc(length + 1);
    if (!json)
        return vd_fail_memory(err, "a safetensors header", length);
    vd_code status = vd_pread_all(file->fd, json, length, VD_ST_PREFIX, file->path, err);
    if (status == VD_OK)
        status = vd_st_header_parse(json, length, bytes, file->path, &file->header, err);
    free(json);
    return status;
}

vd_code vd_safetensors_open(const char *path, vd_safetensors **out, vd_error *err) {
    vd_safetensors *file = calloc(1, sizeof *file);
    if (!file)
        return vd_fail_memory(err, "a weight file", sizeof *file);
    file->fd = -1;
    file->path = strdup(path);
    vd_code status =
        file->path ? open_regular(file, err) : vd_fail_memory(err, "a weight file", strlen(path));
    if (status == VD_OK)
        status = read_header(file, err);
    if (status != VD_OK)
        vd_safetensors_close(file);
    else
        *out = file;
    return status;
}

void vd_safetensors_close(vd_safetensors *file) {
    if (!file)
        return;
    if (file->fd >= 0)
        close(file->fd);
    vd_st_header_free(&file->header);
    free(file->path);
    free(file);
}

const char *vd_safetensors_path(const vd_safetensors *file) {
    return file->path;
}

int vd_safetensors_count(const vd_safetensors *file) {
    return file->header.count;
}

const vd_st_tensor *vd_safetensors_at(const vd_safetensors *file, int index) {
    return &file->header.tensors[index];
}

static int compare_name(const void *name, const void *tensor) {
    return strcmp(name, ((const vd_st_tensor *)tensor)->name);
}

const vd_st_tensor *vd_safetensors_find(const vd_safetensors *file, const char *name) {
    return bsearch(name, file->header.tensors, (size_t)file->header.count, sizeof(vd_st_tensor),
                   compare_name);
}

#ifdef __x86_64__
/* The instruction converts subnormals whatever the thread's flush mode is. Returns how many were converted.
 */
__attribute__((target("avx,f16c"))) static size_t widen_f16_eights(const uint16_t *in, float *out,
                                                                   size_t count) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(in + i))));
    return i;
}
#endif

static void widen_f16(const uint16_t *in, float *out, size_t count) {
    size_t done = 0;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2")) /* clang cannot ask for f16c, which every such CPU has */
        done = widen_f16_eights(in, out, count);
#endif
    for (; done < count; done++)
        out[done] = vd_f16_to_f32(in[done]);
}

static void widen_bf16(const uint16_t *in, float *out, size_t count) {
    for (size_t i = 0; i < count; i++)
        out[i] = vd_bf16_to_f32(in[i]);
}

static vd_code read_halves(const vd_safetensors *file, uint64_t offset, size_t count, vd_st_dtype dtype,
                           float *out, vd_error *err) {
    uint16_t block[16384]; /* small enough to stay in cache between the read and the conversion */
    for (size_t done = 0; done < count;) {
        size_t n = count - done < 16384 ? count - done : 16384;
        VD_TRY(
            vd_pread_all(file->fd, block, n * sizeof *block, offset + done * sizeof *block, file->path, err));
        (dtype == VD_ST_F16 ? widen_f16 : widen_bf16)(block, out + done, n);
        done += n;
    }
    return VD_OK;
}

/* A file rewritten in place while we read would give weights of two models at once. */
static vd_code check_unchanged(const vd_safetensors *file, vd_error *err) {
    struct stat now;
    if (fstat(file->fd, &now) != 0)
        return vd_fail(err, VD_ERR_IO, "weight file '%s': %s", file->path, strerror(errno));
    if (now.st_size != file->stat.st_size || now.st_mtim.tv_sec != file->stat.st_mtim.tv_sec ||
        now.st_mtim.tv_nsec != file->stat.st_mtim.tv_nsec)
        return vd_fail(err, VD_ERR_DATA, "weight file '%s': changed while it was being read", file->path);
    return VD_OK;
}

vd_code vd_safetensors_read_f32(const vd_safetensors *file, const vd_st_tensor *tensor, int64_t first,
                                int64_t count, float *out, vd_error *err) {
    if (tensor->dtype > VD_ST_BF16)
        return vd_fail(err, VD_ERR_DATA, "'%s': tensor '%.100s' is not F32, F16 or BF16", file->path,
                       tensor->name);
    uint64_t width = tensor->dtype == VD_ST_F32 ? 4 : 2, elements = tensor->bytes / width;
    if (first < 0 || count < 0 || (uint64_t)first > elements || (uint64_t)count > elements - (uint64_t)first)
        return vd_fail(err, VD_ERR_INTERNAL, "'%s': tensor '%.100s' read out of range", file->path,
                       tensor->name);
    uint64_t offset = tensor->offset + (uint64_t)first * width;
    if (tensor->dtype == VD_ST_F32)
        VD_TRY(vd_pread_all(file->fd, out, (size_t)count * sizeof *out, offset, file->path, err));
    else
        VD_TRY(read_halves(file, offset, (size_t)count, tensor->dtype, out, err));
    return check_unchanged(file, err);
}

vd_code vd_safetensors_check_header(const char *bytes, size_t count, uint64_t file_bytes, const char *name,
                                    vd_error *err) {
    vd_st_header header;
    size_t length;
    VD_TRY(vd_st_header_length((const unsigned char *)bytes, count, file_bytes, name, &length, err));
    if (length > count - VD_ST_PREFIX)
        return vd_fail(err, VD_ERR_DATA, "'%s': header is cut short", name);
    VD_TRY(vd_st_header_parse(bytes + VD_ST_PREFIX, length, file_bytes, name, &header, err));
    vd_st_header_free(&header);
    return VD_OK;
}
