/* cuDNN's graphs of operations from C: descriptors made, filled and closed in few words. For cuda_dnn.c.
 *
 * A builder owns the descriptors it makes and keeps the first failure, after which its calls do nothing, so
 * that a graph is written down without a check per line:
 *
 *     vd_dnn_builder b = {0};
 *     vd_dnn_desc x = vd_dnn_make_tensor(&b, ...), ...;
 *     vd_dnn_desc graph = vd_dnn_graph(&b, operations, count);
 *     status = vd_dnn_code(&b, err);
 *     vd_dnn_close(&b); */
#ifndef VD_DEVICE_CUDA_DNN_GRAPH_H
#define VD_DEVICE_CUDA_DNN_GRAPH_H

#include "base/error.h"
#include "device/tensor.h"

#include <cudnn_graph.h>
#include <stdbool.h>

typedef cudnnBackendDescriptor_t vd_dnn_desc;

typedef struct vd_dnn_builder {
    vd_dnn_desc *made;
    int count, capacity;
    cudnnStatus_t status; /* of the first call that failed */
    vd_error error;       /* the same in words */
} vd_dnn_builder;

void vd_dnn_close(vd_dnn_builder *b); /* and everything it made */

/* VD_OK or the builder's error. */
vd_code vd_dnn_code(const vd_dnn_builder *b, vd_error *err);
/* Whether it failed because the library does not have what was asked for. */
bool vd_dnn_unsupported(const vd_dnn_builder *b);
/* Forgets a failure: the next descriptor is another attempt. */
void vd_dnn_forgive(vd_dnn_builder *b);

/* VD_OK, or an error that names the call, the status and cuDNN's own explanation. */
vd_code vd_dnn_check(cudnnStatus_t status, const char *call, vd_error *err);

/* NULL after a failure. */
vd_dnn_desc vd_dnn_make(vd_dnn_builder *b, cudnnBackendDescriptorType_t type);
/* The builder's latest descriptor becomes the caller's to destroy; NULL after a failure. */
vd_dnn_desc vd_dnn_take_last(vd_dnn_builder *b);
void vd_dnn_set(vd_dnn_builder *b, vd_dnn_desc d, cudnnBackendAttributeName_t attribute,
                cudnnBackendAttributeType_t type, int64_t count, const void *values);
void vd_dnn_set_desc(vd_dnn_builder *b, vd_dnn_desc d, cudnnBackendAttributeName_t attribute,
                     vd_dnn_desc value);
/* `what` is finished, in messages. */
void vd_dnn_finish(vd_dnn_builder *b, vd_dnn_desc d, const char *what);
/* Up to `capacity` values into `values`; returns how many there are. With `values` NULL only counts. */
int64_t vd_dnn_get(vd_dnn_builder *b, vd_dnn_desc d, cudnnBackendAttributeName_t attribute,
                   cudnnBackendAttributeType_t type, int64_t capacity, void *values);

/* ---- tensors and operations ---- */

typedef struct vd_dnn_tensor {
    int64_t id; /* what a pointer is bound by; unique in the graph */
    int rank;   /* 3 or 4 */
    int64_t dims[4], strides[4];
    cudnnDataType_t type;
    int64_t alignment; /* bytes */
    bool internal;     /* never in memory */
    bool by_value;     /* one number, given by the host when the plan runs */
} vd_dnn_tensor;
vd_dnn_desc vd_dnn_make_tensor(vd_dnn_builder *b, const vd_dnn_tensor *t);

cudnnDataType_t vd_dnn_type(vd_dtype dtype);

typedef struct vd_dnn_window {
    int64_t stride[2], pad_before[2], pad_after[2];
    float alpha;
} vd_dnn_window;
vd_dnn_desc vd_dnn_convolution(vd_dnn_builder *b, vd_dnn_desc x, vd_dnn_desc w, vd_dnn_desc y,
                               const vd_dnn_window *window);
/* y = a b, each batch by itself. */
vd_dnn_desc vd_dnn_product(vd_dnn_builder *b, vd_dnn_desc a, vd_dnn_desc other, vd_dnn_desc y);
/* y = alpha * x + other */
vd_dnn_desc vd_dnn_add(vd_dnn_builder *b, vd_dnn_desc x, vd_dnn_desc other, vd_dnn_desc y, float alpha);
vd_dnn_desc vd_dnn_multiply(vd_dnn_builder *b, vd_dnn_desc x, vd_dnn_desc other, vd_dnn_desc y);
vd_dnn_desc vd_dnn_gelu(vd_dnn_builder *b, vd_dnn_desc x, vd_dnn_desc y); /* erf form */
vd_dnn_desc vd_dnn_attention(vd_dnn_builder *b, vd_dnn_desc q, vd_dnn_desc k, vd_dnn_desc v, vd_dnn_desc o,
                             vd_dnn_desc scale);
vd_dnn_desc vd_dnn_graph(vd_dnn_builder *b, const vd_dnn_desc *operations, int count);

#endif
