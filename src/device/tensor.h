/* Element types and shapes. Every tensor is dense, NHWC, row-major; a token matrix is [n, h, w, c] read as
 * n*h*w rows of c. A flattened batch-and-frames axis is batch-major: n = b*F + f. */
#ifndef VD_DEVICE_TENSOR_H
#define VD_DEVICE_TENSOR_H

#include <stddef.h>
#include <stdint.h>

typedef enum vd_dtype { VD_F32, VD_F16, VD_BF16, VD_I32, VD_U8, VD_U64 } vd_dtype;

typedef struct vd_shape {
    int64_t n, h, w, c;
} vd_shape;

size_t vd_dtype_bytes(vd_dtype dtype);
const char *vd_dtype_name(vd_dtype dtype); /* "fp32", "fp16", "bf16", ... */

static inline int64_t vd_shape_rows(vd_shape s) {
    return s.n * s.h * s.w;
}
static inline int64_t vd_shape_count(vd_shape s) {
    return s.n * s.h * s.w * s.c;
}
static inline vd_shape vd_vector_shape(int64_t c) {
    return (vd_shape){1, 1, 1, c};
}

#endif
