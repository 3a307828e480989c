/* Strict reader of safetensors files: the header is parsed and proven before anything is allocated from it;
 * tensor bytes are read with pread, never mapped (faults.md 3.1). */
#ifndef VD_MODEL_SAFETENSORS_H
#define VD_MODEL_SAFETENSORS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum vd_st_dtype { VD_ST_F32, VD_ST_F16, VD_ST_BF16, VD_ST_I64, VD_ST_U8, VD_ST_OTHER } vd_st_dtype;

enum { VD_ST_MAX_RANK = 8 };

typedef struct vd_st_tensor {
    const char *name;  /* owned by the file */
    vd_st_dtype dtype; /* VD_ST_OTHER: a dtype that the format knows and vdpp does not read */
    int rank;
    int64_t dims[VD_ST_MAX_RANK];
    uint64_t offset; /* bytes from the start of the file */
    uint64_t bytes;
} vd_st_tensor;

/* An open file and its header; immutable after opening, so any thread may read. */
typedef struct vd_safetensors vd_safetensors;

vd_code vd_safetensors_open(const char *path, vd_safetensors **out, vd_error *err);
void vd_safetensors_close(vd_safetensors *file); /* NULL is fine */
const char *vd_safetensors_path(const vd_safetensors *file);

int vd_safetensors_count(const vd_safetensors *file);
const vd_st_tensor *vd_safetensors_at(const vd_safetensors *file, int index);          /* sorted by name */
const vd_st_tensor *vd_safetensors_find(const vd_safetensors *file, const char *name); /* NULL: absent */

/* Reads elements [first, first + count) as fp32, converting F16 and BF16. Other dtypes are VD_ERR_DATA, and
 * so is a file that was cut or rewritten since it was opened. NaN and infinities pass: whoever computes looks
 * for them. */
vd_code vd_safetensors_read_f32(const vd_safetensors *file, const vd_st_tensor *tensor, int64_t first,
                                int64_t count, float *out, vd_error *err);

/* The header alone: `bytes` are the first of a file that is `file_bytes` long (the fuzzer's way in). */
vd_code vd_safetensors_check_header(const char *bytes, size_t count, uint64_t file_bytes, const char *name,
                                    vd_error *err);

/* Writing: the caller lists tensors, all in memory; stored in that order, in a file that appears atomically.
 */
typedef struct vd_st_out {
    const char *name;  /* each once */
    vd_st_dtype dtype; /* F32, F16, BF16, I64, U8 */
    int rank;
    int64_t dims[VD_ST_MAX_RANK];
    const void *data;
} vd_st_out;
vd_code vd_safetensors_write(const char *path, const vd_st_out *tensors, int count, bool overwrite,
                             vd_error *err);

#endif
