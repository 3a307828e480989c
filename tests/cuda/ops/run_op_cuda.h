/* The CUDA backend for run_op.h: every tensor goes to the device between guard bytes of its own, and back.
 * Runs on a GPU, or on the host in place of one. */
#ifndef VD_TESTS_RUN_OP_CUDA_H
#define VD_TESTS_RUN_OP_CUDA_H

#include "cuda/have_gpu.h"
#include "device/cuda.h"
#include "device/run_op.h"

enum { OP_CHECKS_INDICES = false, OP_WORKSPACE = 64 << 20 };

struct op_backend {
    vd_cuda_math *math;
    vd_cuda_pool *pool;
    vd_cuda_weights *weights;
    cudaStream_t stream;
    size_t piece_bytes;
};

#define op_cuda(call) assert_int_equal(call, cudaSuccess)

static inline void op_backend_open(op_env *env) {
    op_backend *b = calloc(1, sizeof *b);
    vd_cuda_math_request request = {.workspace_cap = OP_WORKSPACE};
    assert_non_null(b);
    env->backend = b;
    if (!have_gpu())
        exit(77);
    op_cuda(cudaSetDevice(0));
    op_cuda(cudaStreamCreateWithFlags(&b->stream, cudaStreamNonBlocking));
    op_must(vd_cuda_math_open(&request, &b->math, err));
    op_must(vd_cuda_pool_open(&b->pool, err));
    op_must(vd_cuda_weights_open(b->pool, "cuda:0", &b->weights, err));
}

static inline void op_backend_close(op_env *env) {
    op_backend *b = env->backend;
    vd_cuda_weights_close(b->weights);
    vd_cuda_pool_close(b->pool);
    vd_cuda_math_close(b->math);
    op_cuda(cudaStreamDestroy(b->stream));
    free(b);
}

static inline bool op_has_bf16_products(void) {
    return false; /* they are what it always does */
}

static inline void op_use_bf16_products(op_env *env) {
    (void)env;
}

static inline const char *op_use_variant(op_env *env, int i) {
    (void)env;
    return i == 0 ? "cuda" : NULL;
}

/* Convolutions image by image; then, where NVIDIA's libraries are only played, without theirs. */
static inline const char *op_use_way(op_env *env, int i) {
    op_backend *b = env->backend;
    vd_cuda_math_request request = {.profile = "no convolutions", .workspace_cap = OP_WORKSPACE};
    vd_cuda_math *math;
    vd_error err;
    b->piece_bytes = i == 0 ? 1 : 0;
    if (i == 0)
        return "image by image";
    if (i > 1 || vd_cuda_math_open(&request, &math, &err) != VD_OK)
        return NULL;
    vd_cuda_math_close(b->math);
    b->math = math;
    return "by patches";
}

/* Parts of an operation are rounded to T on their way through memory. */
static inline double op_bound(vd_dtype dtype) {
    return dtype == VD_F32 ? 3e-6 : dtype == VD_F16 ? 2e-3 : 1.6e-2;
}

/* `bytes` of device memory between guards, a copy of `from` unless that is NULL. */
static inline void *op_upload(const void *from, size_t bytes) {
    unsigned char *block;
    op_cuda(cudaMalloc((void **)&block, bytes + 2 * OP_GUARD));
    op_cuda(cudaMemset(block, OP_GUARD_BYTE, bytes + 2 * OP_GUARD));
    if (from)
        op_cuda(cudaMemcpy(block + OP_GUARD, from, bytes, cudaMemcpyHostToDevice));
    return block + OP_GUARD;
}

/* Back to `to` unless that is NULL; checks the guards and frees. */
static inline void op_download(void *memory, size_t bytes, void *to) {
    unsigned char *block = (unsigned char *)memory - OP_GUARD, guards[2][OP_GUARD];
    op_cuda(cudaMemcpy(guards[0], block, OP_GUARD, cudaMemcpyDeviceToHost));
    op_cuda(cudaMemcpy(guards[1], block + OP_GUARD + bytes, OP_GUARD, cudaMemcpyDeviceToHost));
    for (int i = 0; i < OP_GUARD; i++)
        if (guards[0][i] != OP_GUARD_BYTE || guards[1][i] != OP_GUARD_BYTE)
            fail_msg("guard byte %d of a tensor or scratch of %zu bytes was overwritten", i, bytes);
    if (to)
        op_cuda(cudaMemcpy(to, memory, bytes, cudaMemcpyDeviceToHost));
    op_cuda(cudaFree(block));
}

/* Where the tensors of a case are on the device; those that share memory do so there. */
static inline void op_place(const op_case *t, void *at[OP_MAX_VALUES]) {
    for (int v = 0; v < t->program.value_count; v++) {
        if (!t->alias[v])
            at[v] = op_upload(t->memory[v], op_bytes(t, v));
        for (int of = 0; of < v && t->alias[v]; of++)
            if (!t->alias[of] && t->memory[of] == t->memory[v])
                at[v] = at[of];
    }
}

static inline vd_code op_try(op_env *env, op_case *t, vd_error *why) {
    const vd_cuda_op *entry = vd_cuda_ops[t->op.kind];
    op_backend *b = env->backend;
    vd_cuda_planner planner = {b->math, b->weights, &t->program, b->piece_bytes};
    vd_cuda_step *step = calloc(1, entry->step_bytes + 1);
    size_t scratch = 0;
    void *at[OP_MAX_VALUES];
    assert_non_null(step);
    t->program.values = t->info;
    t->program.ops = &t->op;
    if (entry->plan)
        op_must(entry->plan(&planner, &t->op, step, &scratch, err));
    if (entry->load)
        op_must(entry->load(step, err));
    op_must(vd_cuda_weights_settle(b->weights, err));
    op_place(t, at);
    void *memory = op_upload(NULL, scratch);
    op_cuda(cudaDeviceSynchronize()); /* what fills memory without a stream may be late */
    vd_cuda_call call = {at, memory, b->stream, &t->program, "cuda:0"};
    vd_code code = entry->run(&t->op, step, &call, why);
    op_cuda(cudaStreamSynchronize(b->stream));
    op_download(memory, scratch, NULL);
    for (int v = 0; v < t->program.value_count; v++)
        if (!t->alias[v])
            op_download(at[v], op_bytes(t, v), t->memory[v]);
    if (entry->close)
        entry->close(step);
    free(step);
    return code;
}

#endif
