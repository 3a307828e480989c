/* Runs one operation of a backend directly: no streams, no planned arena. Every tensor stands between guard
 * bytes that are checked (and poisoned under ASan), and so does the scratch, which has exactly the planned
 * size. The backend is the CPU's, or CUDA's where VD_TEST_CUDA is defined.
 *
 *     op_env env; op_env_open(&env);
 *     op_constant *w = op_constant_new(&env, 5, 37, 1, 1, 2, 0.1, 0.0);
 *     op_case t; op_begin(&t, VD_F32);
 *     vd_value src = op_tensor(&t, VD_F32, (vd_shape){2, 4, 4, 37});
 *     vd_value dst = op_tensor(&t, VD_F32, (vd_shape){2, 4, 4, 5});
 *     op_random(&t, src, 1, 1.0, 0.0);
 *     t.op = (vd_op){.kind = VD_OP_LINEAR, .linear = VD_LINEAR(.src = src, .dst = dst, .weight = &w->base)};
 *     op_run(&env, &t);
 *     ... op_get(&t, dst, i) ...
 *     op_end(&t); op_env_close(&env);
 */
#ifndef VD_TESTS_RUN_OP_H
#define VD_TESTS_RUN_OP_H

#include "base/half.h"
#include "device/program.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

enum { OP_MAX_VALUES = 8, OP_MAX_CONSTANTS = 4096, OP_GUARD = 256, OP_GUARD_BYTE = 0xA5 };

/* A random constant: offset + scale * op_uniform(seed, i). The first member is what operations take. */
typedef struct op_constant {
    vd_constant base;
    uint64_t seed;
    double scale, offset;
} op_constant;

/* Owns the constants: the backend knows them by their address, so they live as long as it does. */
typedef struct op_backend op_backend;
typedef struct op_env {
    op_backend *backend;
    op_constant *constants[OP_MAX_CONSTANTS];
    int constant_count;
} op_env;

/* `memory` is where the tensor is; it belongs to the case unless op_alias made it another's. */
typedef struct op_case {
    vd_program program;
    vd_value_info info[OP_MAX_VALUES];
    void *memory[OP_MAX_VALUES];
    bool alias[OP_MAX_VALUES];
    vd_op op;
} op_case;

#define op_must(call)                                                                                        \
    do {                                                                                                     \
        vd_error op_error_ = {0};                                                                            \
        vd_error *err = &op_error_;                                                                          \
        if ((call) != VD_OK)                                                                                 \
            fail_msg("%s: %s", #call, err->message);                                                         \
    } while (0)

/* `bytes` bytes at a 256-byte boundary, guards before and after; all of it is the guard byte at first. */
static inline void *op_guarded_new(size_t bytes) {
    void *block = NULL;
    assert_int_equal(posix_memalign(&block, 256, bytes + 2 * OP_GUARD), 0);
    memset(block, OP_GUARD_BYTE, bytes + 2 * OP_GUARD);
    char *memory = (char *)block + OP_GUARD;
    ASAN_POISON_MEMORY_REGION(block, OP_GUARD);
    ASAN_POISON_MEMORY_REGION(memory + bytes, OP_GUARD);
    return memory;
}

static inline void op_guarded_free(void *memory, size_t bytes) {
    unsigned char *block = (unsigned char *)memory - OP_GUARD;
    ASAN_UNPOISON_MEMORY_REGION(block, bytes + 2 * OP_GUARD);
    for (size_t i = 0; i < OP_GUARD; i++)
        if (block[i] != OP_GUARD_BYTE || block[OP_GUARD + bytes + i] != OP_GUARD_BYTE)
            fail_msg("guard byte %zu of a tensor or scratch of %zu bytes was overwritten", i, bytes);
    free(block);
}

static inline void op_begin(op_case *t, vd_dtype dtype) {
    memset(t, 0, sizeof *t);
    t->program = (vd_program){.name = "test", .dtype = dtype, .op_count = 1};
}

static inline size_t op_bytes(const op_case *t, vd_value v) {
    return (size_t)vd_shape_count(t->info[v].shape) * vd_dtype_bytes(t->info[v].dtype);
}

/* A new value; its memory holds guard bytes until it is filled. */
static inline vd_value op_tensor(op_case *t, vd_dtype dtype, vd_shape shape) {
    vd_value v = t->program.value_count++;
    assert_in_range(v, 0, OP_MAX_VALUES - 1);
    t->info[v] =
        (vd_value_info){.storage = VD_STORAGE_EXTERNAL, .dtype = dtype, .shape = shape, .parent = VD_NONE};
    t->memory[v] = op_guarded_new(op_bytes(t, v));
    return v;
}

/* A new value in the memory of `of`, for operations in place. */
static inline vd_value op_alias(op_case *t, vd_value of, vd_shape shape) {
    vd_value v = t->program.value_count++;
    assert_in_range(v, 0, OP_MAX_VALUES - 1);
    t->info[v] = t->info[of];
    t->info[v].shape = shape;
    t->memory[v] = t->memory[of];
    t->alias[v] = true;
    return v;
}

static inline double op_rounded(vd_dtype dtype, double x) {
    return dtype == VD_F16    ? vd_f16_to_f32(vd_f32_to_f16((float)x))
           : dtype == VD_BF16 ? vd_bf16_to_f32(vd_f32_to_bf16((float)x))
                              : (float)x;
}

static inline double op_get(const op_case *t, vd_value v, int64_t i) {
    const void *m = t->memory[v];
    switch (t->info[v].dtype) {
    case VD_F16:
        return vd_f16_to_f32(((const uint16_t *)m)[i]);
    case VD_BF16:
        return vd_bf16_to_f32(((const uint16_t *)m)[i]);
    case VD_I32:
        return ((const int32_t *)m)[i];
    case VD_U8:
        return ((const uint8_t *)m)[i];
    case VD_U64:
        return (double)((const uint64_t *)m)[i];
    case VD_F32:
        break;
    }
    return ((const float *)m)[i];
}

/* Floating types only. */
static inline void op_set(op_case *t, vd_value v, int64_t i, double x) {
    if (t->info[v].dtype == VD_F32)
        ((float *)t->memory[v])[i] = (float)x;
    else if (t->info[v].dtype == VD_F16)
        ((uint16_t *)t->memory[v])[i] = vd_f32_to_f16((float)x);
    else
        ((uint16_t *)t->memory[v])[i] = vd_f32_to_bf16((float)x);
}

/* Number `i` of stream `seed`, uniform in [-1, 1), by the finaliser of splitmix64. */
static inline double op_uniform(uint64_t seed, uint64_t i) {
    uint64_t z = (seed << 40) + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)(int64_t)((z ^ z >> 31) >> 11) * 0x1p-52 - 1;
}

static inline void op_random(op_case *t, vd_value v, uint64_t seed, double scale, double offset) {
    for (int64_t i = 0, count = vd_shape_count(t->info[v].shape); i < count; i++)
        op_set(t, v, i, offset + scale * op_uniform(seed, (uint64_t)i));
}

/* The values as doubles; the caller frees. */
static inline double *op_doubles(const op_case *t, vd_value v) {
    int64_t count = vd_shape_count(t->info[v].shape);
    double *out = malloc((size_t)count * sizeof *out);
    assert_non_null(out);
    for (int64_t i = 0; i < count; i++)
        out[i] = op_get(t, v, i);
    return out;
}

/* |got - expected| / |expected| in the Euclidean norm over the whole of `v`; NaN counts as infinite. */
static inline double op_distance(const op_case *t, vd_value v, const double *expected) {
    double difference = 0, norm = 0;
    for (int64_t i = 0, count = vd_shape_count(t->info[v].shape); i < count; i++) {
        double d = op_get(t, v, i) - expected[i];
        if (!isfinite(d))
            return INFINITY;
        difference += d * d;
        norm += expected[i] * expected[i];
    }
    return sqrt(difference / (norm > 0 ? norm : 1));
}

static inline float op_constant_at(const op_constant *c, int64_t i) {
    return (float)(c->offset + c->scale * op_uniform(c->seed, (uint64_t)i));
}

static inline int64_t op_constant_count(const vd_constant *c) {
    return c->dims[0] * c->dims[1] * c->dims[2] * c->dims[3];
}

static inline vd_code op_constant_fill(const vd_constant *self, float *out, vd_error *err) {
    (void)err;
    for (int64_t i = 0, count = op_constant_count(self); i < count; i++)
        out[i] = op_constant_at((const op_constant *)self, i);
    return VD_OK;
}

/* A vector is [a, 1, 1, 1], a matrix [out, in, 1, 1]. */
static inline op_constant *op_constant_new(op_env *env, int64_t a, int64_t b, int64_t c, int64_t d,
                                           uint64_t seed, double scale, double offset) {
    op_constant *k = malloc(sizeof *k);
    assert_non_null(k);
    assert_in_range(env->constant_count, 0, OP_MAX_CONSTANTS - 1);
    *k = (op_constant){{"constant", {a, b, c, d}, op_constant_fill}, seed, scale, offset};
    env->constants[env->constant_count++] = k;
    return k;
}

/* Its values as a program of storage type `dtype` sees them; the caller frees. */
static inline double *op_constant_doubles(const op_constant *c, vd_dtype dtype) {
    int64_t count = op_constant_count(&c->base);
    double *out = malloc((size_t)count * sizeof *out);
    assert_non_null(out);
    for (int64_t i = 0; i < count; i++)
        out[i] = op_rounded(dtype, (double)op_constant_at(c, i));
    return out;
}

/* Group norm in place over x [n, rows, c] in double; then silu when asked. */
static inline void op_group_norm(double *x, int64_t n, int64_t rows, int64_t c, int64_t groups, double eps,
                                 const op_constant *gamma, const op_constant *beta, bool silu) {
    int64_t width = c / groups;
    for (int64_t g = 0; g < n * groups; g++) {
        double *first = x + g / groups * rows * c + g % groups * width, sum = 0, squares = 0;
        for (int64_t i = 0; i < rows * width; i++)
            sum += first[i / width * c + i % width];
        double mean = sum / (double)(rows * width);
        for (int64_t i = 0; i < rows * width; i++) {
            double d = first[i / width * c + i % width] - mean;
            squares += d * d;
        }
        double inverse = 1 / sqrt(squares / (double)(rows * width) + eps);
        for (int64_t i = 0; i < rows * width; i++) {
            double *e = &first[i / width * c + i % width];
            int64_t k = g % groups * width + i % width;
            *e = (*e - mean) * inverse * (double)op_constant_at(gamma, k) + (double)op_constant_at(beta, k);
            *e = silu ? *e / (1 + exp(-*e)) : *e;
        }
    }
}

/* Layer norm in place over x [rows, c] in double. */
static inline void op_layer_norm(double *x, int64_t rows, int64_t c, double eps, const op_constant *gamma,
                                 const op_constant *beta) {
    for (double *row = x; row < x + rows * c; row += c) {
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < c; i++)
            sum += row[i];
        double mean = sum / (double)c;
        for (int64_t i = 0; i < c; i++)
            squares += (row[i] - mean) * (row[i] - mean);
        double inverse = 1 / sqrt(squares / (double)c + eps);
        for (int64_t i = 0; i < c; i++)
            row[i] = (row[i] - mean) * inverse * (double)op_constant_at(gamma, i) +
                     (double)op_constant_at(beta, i);
    }
}

/* GEGLU is not a function of one number: callers multiply by VD_ACT_GELU of the gate. */
static inline double op_activation(vd_act act, double x) {
    switch (act) {
    case VD_ACT_SILU:
        return x / (1 + exp(-x));
    case VD_ACT_GELU:
        return 0.5 * x * erfc(-x * M_SQRT1_2);
    case VD_ACT_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    case VD_ACT_NONE:
    case VD_ACT_GEGLU:
        break;
    }
    return x;
}

/* ---- of the backend: run_op_cpu.h or run_op_cuda.h ---- */

static inline void op_backend_open(op_env *env);
static inline void op_backend_close(op_env *env);
/* Plans, loads and runs t->op; the memory stays for looking at. The backend says in OP_CHECKS_INDICES whether
 * it refuses steps and rows that do not exist. */
static inline vd_code op_try(op_env *env, op_case *t, vd_error *why);
/* Relative error that an operation with results of type `dtype` may have: its rounding and nothing more. */
static inline double op_bound(vd_dtype dtype);
/* Whether bf16 programs can be made to multiply bf16 numbers where they would rather not; and doing so. */
static inline bool op_has_bf16_products(void);
static inline void op_use_bf16_products(op_env *env);
/* Chooses the i-th set of kernels that can run here, for the plans to come, and names it; NULL: there are
 * no more. */
static inline const char *op_use_variant(op_env *env, int i);
/* Chooses the i-th of the other ways in which the backend can go about convolutions, likewise. */
static inline const char *op_use_way(op_env *env, int i);

static inline void op_run(op_env *env, op_case *t) {
    op_must(op_try(env, t, err));
}

static inline void op_env_open(op_env *env) {
    memset(env, 0, sizeof *env);
    op_backend_open(env);
}

static inline void op_env_close(op_env *env) {
    op_backend_close(env);
    for (int i = 0; i < env->constant_count; i++)
        free(env->constants[i]);
}

/* Checks the guards of all tensors. */
static inline void op_end(op_case *t) {
    for (int v = 0; v < t->program.value_count; v++)
        if (!t->alias[v])
            op_guarded_free(t->memory[v], op_bytes(t, v));
}

#ifdef VD_TEST_CUDA
#include "cuda/ops/run_op_cuda.h"
#else
#include "device/run_op_cpu.h"
#endif

#endif
