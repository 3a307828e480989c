/* The one door of the module vdpp_cuda: opened by cuda_module.c, inside it is cuda_backend.c. */
#ifndef VD_DEVICE_CUDA_MODULE_H
#define VD_DEVICE_CUDA_MODULE_H

#include "device/backend.h"

typedef vd_code (*vd_cuda_entry_fn)(const vd_cuda_request *request, vd_backend **out, vd_error *err);
#define VD_CUDA_ENTRY "vd_cuda_entry"

__attribute__((visibility("default"))) vd_code vd_cuda_entry(const vd_cuda_request *request, vd_backend **out,
                                                             vd_error *err);

#endif
