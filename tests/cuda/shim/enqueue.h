/* What the kernels' launchers call where the host shim stands in for the CUDA compiler: `work` runs a
 * whole grid. Whoever links the shimmed kernels defines it: run at once, in the order of a stream, or
 * record it into a graph. */
#ifndef VD_TESTS_CUDA_SHIM_ENQUEUE_H
#define VD_TESTS_CUDA_SHIM_ENQUEUE_H

#include <cuda_runtime_api.h>
#include <functional>

void shim_enqueue(cudaStream_t stream, std::function<void()> work);

#endif
