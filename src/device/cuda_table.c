/* The closed table of the CUDA backend. */
#include "device/cuda.h"

#define VD_OP_ENTRY(upper, lower) [VD_OP_##upper] = &vd_cuda_##lower,

const vd_cuda_op *const vd_cuda_ops[VD_OP_COUNT] = {VD_OPS(VD_OP_ENTRY)};
