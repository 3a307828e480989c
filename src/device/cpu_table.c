/* The closed table of the CPU backend. */
#include "device/cpu.h"

#define VD_OP_ENTRY(upper, lower) [VD_OP_##upper] = &vd_cpu_##lower,

const vd_cpu_op *const vd_cpu_ops[VD_OP_COUNT] = {VD_OPS(VD_OP_ENTRY)};
