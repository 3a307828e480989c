#include "device/cuda_dnn_graph.h"

#include <stdlib.h>

/* The category of statuses for no device, no driver, libraries of different versions; cuDNN has no name for
 * it. */
enum { NO_DEVICE = 1000 };

vd_code vd_dnn_check(cudnnStatus_t status, const char *call, vd_error *err) {
    if (status == CUDNN_STATUS_SUCCESS)
        return VD_OK;
    char reason[512] = "";
    cudnnGetLastErrorString(reason, sizeof reason);
    bool unavailable = CUDNN_STATUS_CATEGORY(status) == NO_DEVICE ||
                       status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
                       status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
    return vd_fail(err, unavailable ? VD_ERR_UNAVAILABLE : VD_ERR_INTERNAL, "cuDNN's %s failed: %s (%d) %s",
                   call, cudnnGetErrorString(status), (int)status, reason);
}

/* ---- the builder ---- */

static void keep(vd_dnn_builder *b, cudnnStatus_t status, const char *call) {
    if (b->status == CUDNN_STATUS_SUCCESS && vd_dnn_check(status, call, &b->error) != VD_OK)
        b->status = status;
}

void vd_dnn_close(vd_dnn_builder *b) {
    for (int i = b->count - 1; i >= 0; i--)
        cudnnBackendDestroyDescriptor(b->made[i]);
    free(b->made);
    *b = (vd_dnn_builder){0};
}

vd_code vd_dnn_code(const vd_dnn_builder *b, vd_error *err) {
    if (b->status == CUDNN_STATUS_SUCCESS)
        return VD_OK;
    *err = b->error;
    return err->code;
}

bool vd_dnn_unsupported(const vd_dnn_builder *b) {
    return CUDNN_STATUS_CATEGORY(b->status) == CUDNN_STATUS_NOT_SUPPORTED;
}

void vd_dnn_forgive(vd_dnn_builder *b) {
    b->status = CUDNN_STATUS_SUCCESS;
}

static bool make_room(vd_dnn_builder *b) {
    if (b->count < b->capacity)
        return true;
    int capacity = b->capacity ? 2 * b->capacity : 32;
    vd_dnn_desc *made = realloc(b->made, (size_t)capacity * sizeof(vd_dnn_desc));
    if (!made)
        return false;
    b->made = made;
    b->capacity = capacity;
    return true;
}

vd_dnn_desc vd_dnn_make(vd_dnn_builder *b, cudnnBackendDescriptorType_t type) {
    vd_dnn_desc d = NULL;
    if (b->status != CUDNN_STATUS_SUCCESS)
        return NULL;
    cudnnStatus_t status = make_room(b) ? cudnnBackendCreateDescriptor(type, &d)
                                        : CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;
    keep(b, status, "cudnnBackendCreateDescriptor");
    if (status != CUDNN_STATUS_SUCCESS)
        return NULL;
    return b->made[b->count++] = d;
}

vd_dnn_desc vd_dnn_take_last(vd_dnn_builder *b) {
    return b->status == CUDNN_STATUS_SUCCESS ? b->made[--b->count] : NULL;
}

void vd_dnn_set(vd_dnn_builder *b, vd_dnn_desc d, cudnnBackendAttributeName_t attribute,
                cudnnBackendAttributeType_t type, int64_t count, const void *values) {
    if (b->status == CUDNN_STATUS_SUCCESS)
        keep(b, cudnnBackendSetAttribute(d, attribute, type, count, values), "cudnnBackendSetAttribute");
}

void vd_dnn_set_desc(vd_dnn_builder *b, vd_dnn_desc d, cudnnBackendAttributeName_t attribute,
                     vd_dnn_desc value) {
    vd_dnn_set(b, d, attribute, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

void vd_dnn_finish(vd_dnn_builder *b, vd_dnn_desc d, const char *what) {
    if (b->status == CUDNN_STATUS_SUCCESS)
        keep(b, cudnnBackendFinalize(d), what);
}

int64_t vd_dnn_get(vd_dnn_builder *b, vd_dnn_desc d, cudnnBackendAttributeName_t attribute,
                   cudnnBackendAttributeType_t type, int64_t capacity, void *values) {
    int64_t count = 0;
    if (b->status == CUDNN_STATUS_SUCCESS)
        keep(b, cudnnBackendGetAttribute(d, attribute, type, capacity, &count, values),
             "cudnnBackendGetAttribute");
    return b->status == CUDNN_STATUS_SUCCESS ? count : 0;
}

static void set_i64(vd_dnn_builder *b, vd_dnn_desc d, cudnnBackendAttributeName_t attribute, int64_t value) {
    vd_dnn_set(b, d, attribute, CUDNN_TYPE_INT64, 1, &value);
}

static void set_float(vd_dnn_builder *b, vd_dnn_desc d, cudnnBackendAttributeName_t attribute, float value) {
    vd_dnn_set(b, d, attribute, CUDNN_TYPE_FLOAT, 1, &value);
}

static void set_type(vd_dnn_builder *b, vd_dnn_desc d, cudnnBackendAttributeName_t attribute,
                     cudnnDataType_t value) {
    vd_dnn_set(b, d, attribute, CUDNN_TYPE_DATA_TYPE, 1, &value);
}

/* ---- tensors and operations ---- */

cudnnDataType_t vd_dnn_type(vd_dtype dtype) {
    if (dtype == VD_F16)
        return CUDNN_DATA_HALF;
    return dtype == VD_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

vd_dnn_desc vd_dnn_make_tensor(vd_dnn_builder *b, const vd_dnn_tensor *t) {
    vd_dnn_desc d = vd_dnn_make(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set_type(b, d, CUDNN_ATTR_TENSOR_DATA_TYPE, t->type);
    vd_dnn_set(b, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, t->rank, t->dims);
    vd_dnn_set(b, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, t->rank, t->strides);
    set_i64(b, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, t->id);
    set_i64(b, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, t->alignment);
    vd_dnn_set(b, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &t->internal);
    vd_dnn_set(b, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &t->by_value);
    vd_dnn_finish(b, d, "tensor");
    return d;
}

static vd_dnn_desc make_window(vd_dnn_builder *b, const vd_dnn_window *window) {
    static const int64_t dilation[2] = {1, 1};
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    vd_dnn_desc d = vd_dnn_make(b, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    set_type(b, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    vd_dnn_set(b, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set_i64(b, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 2);
    vd_dnn_set(b, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilation);
    vd_dnn_set(b, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, window->stride);
    vd_dnn_set(b, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, window->pad_before);
    vd_dnn_set(b, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, window->pad_after);
    vd_dnn_finish(b, d, "window of a convolution");
    return d;
}

vd_dnn_desc vd_dnn_convolution(vd_dnn_builder *b, vd_dnn_desc x, vd_dnn_desc w, vd_dnn_desc y,
                               const vd_dnn_window *window) {
    vd_dnn_desc shape = make_window(b, window);
    vd_dnn_desc d = vd_dnn_make(b, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, shape);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y);
    set_float(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, window->alpha);
    set_float(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, 0);
    vd_dnn_finish(b, d, "convolution");
    return d;
}

vd_dnn_desc vd_dnn_product(vd_dnn_builder *b, vd_dnn_desc a, vd_dnn_desc other, vd_dnn_desc y) {
    vd_dnn_desc kind = vd_dnn_make(b, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    set_type(b, kind, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT);
    vd_dnn_finish(b, kind, "kind of product");
    vd_dnn_desc d = vd_dnn_make(b, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_OPERATION_MATMUL_DESC, kind);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_OPERATION_MATMUL_BDESC, other);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_OPERATION_MATMUL_CDESC, y);
    vd_dnn_finish(b, d, "product");
    return d;
}

/* An operation on each element, unfinished; `other` NULL: of one source. */
static vd_dnn_desc make_pointwise(vd_dnn_builder *b, cudnnPointwiseMode_t mode, vd_dnn_desc x,
                                  vd_dnn_desc other, vd_dnn_desc y) {
    vd_dnn_desc kind = vd_dnn_make(b, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    vd_dnn_set(b, kind, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set_type(b, kind, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT);
    vd_dnn_finish(b, kind, "kind of elementwise operation");
    vd_dnn_desc d = vd_dnn_make(b, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, kind);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (other)
        vd_dnn_set_desc(b, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, other);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    return d;
}

vd_dnn_desc vd_dnn_add(vd_dnn_builder *b, vd_dnn_desc x, vd_dnn_desc other, vd_dnn_desc y, float alpha) {
    vd_dnn_desc d = make_pointwise(b, CUDNN_POINTWISE_ADD, x, other, y);
    set_float(b, d, CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, alpha);
    set_float(b, d, CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, 1);
    vd_dnn_finish(b, d, "addition");
    return d;
}

vd_dnn_desc vd_dnn_multiply(vd_dnn_builder *b, vd_dnn_desc x, vd_dnn_desc other, vd_dnn_desc y) {
    vd_dnn_desc d = make_pointwise(b, CUDNN_POINTWISE_MUL, x, other, y);
    vd_dnn_finish(b, d, "multiplication");
    return d;
}

vd_dnn_desc vd_dnn_gelu(vd_dnn_builder *b, vd_dnn_desc x, vd_dnn_desc y) {
    vd_dnn_desc d = make_pointwise(b, CUDNN_POINTWISE_GELU_FWD, x, NULL, y);
    vd_dnn_finish(b, d, "GELU");
    return d;
}

vd_dnn_desc vd_dnn_attention(vd_dnn_builder *b, vd_dnn_desc q, vd_dnn_desc k, vd_dnn_desc v, vd_dnn_desc o,
                             vd_dnn_desc scale) {
    vd_dnn_desc d = vd_dnn_make(b, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, q);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, k);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, v);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, o);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, scale);
    vd_dnn_finish(b, d, "attention");
    return d;
}

vd_dnn_desc vd_dnn_graph(vd_dnn_builder *b, const vd_dnn_desc *operations, int count) {
    vd_dnn_desc d = vd_dnn_make(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    vd_dnn_set(b, d, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, operations);
    vd_dnn_finish(b, d, "graph");
    return d;
}
