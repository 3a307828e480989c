#include "device/tensor.h"

static const struct {
    const char *name;
    size_t bytes;
} types[] = {
    [VD_F32] = {"fp32", 4},  [VD_F16] = {"fp16", 2}, [VD_BF16] = {"bf16", 2},
    [VD_I32] = {"int32", 4}, [VD_U8] = {"uint8", 1}, [VD_U64] = {"uint64", 8},
};

size_t vd_dtype_bytes(vd_dtype dtype) {
    return types[dtype].bytes;
}

const char *vd_dtype_name(vd_dtype dtype) {
    return types[dtype].name;
}
