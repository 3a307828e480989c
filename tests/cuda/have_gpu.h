/* Tests that need a GPU end with 77 where there is none, and say so. */
#ifndef VD_TESTS_CUDA_HAVE_GPU_H
#define VD_TESTS_CUDA_HAVE_GPU_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdio.h>

static inline bool have_gpu(void) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0)
        return true;
    puts("skipped: there is no GPU");
    return false;
}

#endif
