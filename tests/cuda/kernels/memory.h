/* Memory that both a test and the kernels can use. memory_host.cpp: kernels run on the host through the shim;
 * memory_gpu.c: on a GPU. */
#ifndef VD_TESTS_CUDA_MEMORY_H
#define VD_TESTS_CUDA_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

bool test_memory_ready(void);
void *test_memory_take(size_t bytes); /* 16-byte aligned; NULL: there is none */
void test_memory_give(void *memory);
void test_memory_wait(void); /* for all that was launched */

#ifdef __cplusplus
}
#endif

#endif
