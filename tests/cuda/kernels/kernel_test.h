/* Tensors for tests of the kernels, and their comparison with sums in double. The same test runs through
 * the host shim and on a GPU: memory.h says where a tensor lies. */
#ifndef VD_TESTS_CUDA_KERNEL_TEST_H
#define VD_TESTS_CUDA_KERNEL_TEST_H

#include "must.h"

#include "base/half.h"
#include "kernels/kernels.h"
#include "memory.h"

#include <math.h>
#include <string.h>

#ifdef __SANITIZE_ADDRESS__
enum { GUARD = 0 }; /* sees reads too */
#else
enum { GUARD = 256 }; /* bytes before and after each tensor that nobody may write */
#endif
enum { GUARD_BYTE = 0xa5, MOST_TENSORS = 16 };

typedef struct tensor {
    vd_dtype dtype;
    int64_t count;
    unsigned char *memory; /* guard, elements, guard */
    void *data;
} tensor;

/* What one case works with. */
typedef struct pool {
    tensor list[MOST_TENSORS];
    int used;
    uint64_t random;
} pool;

static const vd_dtype float_types[] = {VD_F32, VD_F16, VD_BF16};
enum { FLOAT_TYPES = 3 };

static inline size_t bytes_of(vd_dtype t) {
    return t == VD_U64 ? 8 : t == VD_F32 || t == VD_I32 ? 4 : t == VD_U8 ? 1 : 2;
}

static inline double at(tensor t, int64_t i) {
    if (t.dtype == VD_F32)
        return ((const float *)t.data)[i];
    uint16_t half = ((const uint16_t *)t.data)[i];
    return t.dtype == VD_F16 ? vd_f16_to_f32(half) : vd_bf16_to_f32(half);
}

static inline void put(tensor t, int64_t i, float x) {
    if (t.dtype == VD_F32)
        ((float *)t.data)[i] = x;
    else
        ((uint16_t *)t.data)[i] = t.dtype == VD_F16 ? vd_f32_to_f16(x) : vd_f32_to_bf16(x);
}

/* Filled with ones: NaN, until somebody writes it. */
static inline tensor blank(pool *p, vd_dtype dtype, int64_t count) {
    size_t bytes = (size_t)count * bytes_of(dtype);
    assert_true(p->used < MOST_TENSORS);
    tensor t = {dtype, count, test_memory_take(bytes + 2 * GUARD), NULL};
    assert_non_null(t.memory);
    memset(t.memory, GUARD_BYTE, bytes + 2 * GUARD);
    t.data = t.memory + GUARD;
    memset(t.data, 0xff, bytes);
    p->list[p->used++] = t;
    return t;
}

/* In -1 .. 1. */
static inline float draw(pool *p) {
    p->random = p->random * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(p->random >> 33) / (double)(1u << 30) - 1.0);
}

static inline tensor drawn(pool *p, vd_dtype dtype, int64_t count, float mean, float spread) {
    tensor t = blank(p, dtype, count);
    for (int64_t i = 0; i < count; i++)
        put(t, i, mean + spread * draw(p));
    return t;
}

static inline tensor copied(pool *p, tensor from) {
    tensor t = blank(p, from.dtype, from.count);
    memcpy(t.data, from.data, (size_t)from.count * bytes_of(from.dtype));
    return t;
}

/* What a launcher returned; then waits for what it launched. */
#define launched(call)                                                                                       \
    do {                                                                                                     \
        assert_int_equal(call, cudaSuccess);                                                                 \
        test_memory_wait();                                                                                  \
    } while (0)

/* Error of a result relative to max(|want|, 1): the one rounding to its type, and `fp32` for what happened
 * before. */
static inline double allowed(vd_dtype dtype, double fp32) {
    return fp32 + (dtype == VD_F16 ? 1.01 / 2048 : dtype == VD_BF16 ? 1.01 / 256 : 0);
}

static inline void near(tensor t, int64_t i, double want, double fp32) {
    double got = at(t, i), limit = allowed(t.dtype, fp32) * fmax(fabs(want), 1.0);
    if (!(fabs(got - want) <= limit))
        fail_msg("element %lld is %.9g, not %.9g (%g off, %g allowed)", (long long)i, got, want,
                 fabs(got - want), limit);
}

/* Ends a case: nobody wrote outside a tensor. */
static inline void finish(pool *p) {
    for (int i = 0; i < p->used; i++) {
        tensor t = p->list[i];
        size_t bytes = (size_t)t.count * bytes_of(t.dtype);
        for (int k = 0; k < GUARD; k++)
            if (t.memory[k] != GUARD_BYTE || t.memory[GUARD + bytes + (size_t)k] != GUARD_BYTE)
                fail_msg("tensor %d of %lld elements: %zu bytes outside were written", i, (long long)t.count,
                         k);
        test_memory_give(t.memory);
    }
    p->used = 0;
}

/* int main: the tests, or 77 where nothing can run them. */
#define KERNEL_TESTS(...)                                                                                    \
    int main(void) {                                                                                         \
        const struct CMUnitTest tests[] = {__VA_ARGS__};                                                     \
        return test_memory_ready() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;                         \
    }

#endif
