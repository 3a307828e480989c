#include "memory.h"

#include "cuda/have_gpu.h"

bool test_memory_ready(void) {
    return have_gpu();
}

/* Host memory that the GPU reaches at the same address: managed memory is not to be had everywhere. */
void *test_memory_take(size_t bytes) {
    void *memory = NULL;
    return cudaHostAlloc(&memory, bytes, cudaHostAllocMapped) == cudaSuccess ? memory : NULL;
}

void test_memory_give(void *memory) {
    if (cudaFreeHost(memory) != cudaSuccess)
        puts("a tensor could not be freed");
}

void test_memory_wait(void) {
    cudaError_t result = cudaDeviceSynchronize();
    if (result != cudaSuccess)
        printf("kernel: %s\n", cudaGetErrorString(result));
}
