/* The CPU backend for run_op.h. */
#ifndef VD_TESTS_RUN_OP_CPU_H
#define VD_TESTS_RUN_OP_CPU_H

#include "device/cpu_library.h"
#include "device/run_op.h"

enum { OP_CHECKS_INDICES = true };

struct op_backend {
    vd_cpu_library *library;
    vd_cpu_worker *worker;
};

static inline void op_backend_open(op_env *env) {
    env->backend = calloc(1, sizeof *env->backend);
    assert_non_null(env->backend);
    op_must(vd_cpu_library_open(&env->backend->library, err));
    op_must(vd_cpu_worker_open(env->backend->library, &env->backend->worker, err));
}

static inline void op_backend_close(op_env *env) {
    vd_cpu_worker_close(env->backend->worker);
    vd_cpu_library_close(env->backend->library);
    free(env->backend);
}

/* The library multiplies bf16 on this machine, fast or not (the same question that oneDNN asks, and its own
 * limit). */
static inline bool op_has_bf16_products(void) {
    return __builtin_cpu_supports("avx512bf16") && !getenv("DNNL_MAX_CPU_ISA");
}

static inline void op_use_bf16_products(op_env *env) {
    env->backend->library->fast_bf16 = true;
}

/* Instruction sets up to the best; a limit that the machine cannot reach gives its best once more. */
static inline const char *op_use_way(op_env *env, int i) {
    (void)env, (void)i;
    return NULL;
}

static inline const char *op_use_variant(op_env *env, int i) {
    static const char *const limits[] = {"sse2", "avx2", "avx512"};
    const vd_kernels *kernels = i < 3 ? vd_kernels_choose(limits[i]) : NULL;
    if (!kernels || strcmp(kernels->isa, limits[i]) != 0)
        return NULL;
    env->backend->library->kernels = kernels;
    return kernels->isa;
}

static inline double op_bound(vd_dtype dtype) {
    return dtype == VD_F32 ? 1e-6 : dtype == VD_F16 ? 1e-3 : 1e-2;
}

static inline vd_code op_try(op_env *env, op_case *t, vd_error *why) {
    const vd_cpu_op *entry = vd_cpu_ops[t->op.kind];
    vd_cpu_library *library = env->backend->library;
    vd_cpu_plan *plan = NULL;
    size_t scratch_bytes = 0;
    t->program.values = t->info;
    t->program.ops = &t->op;
    op_must(vd_cpu_plan_new(entry, library, &t->program, &t->op, &plan, &scratch_bytes, err));
    if (entry->load)
        op_must(entry->load(library, plan, err));
    void *scratch = op_guarded_new(scratch_bytes);
    vd_cpu_call call = {.at = t->memory, .scratch = scratch, .worker = env->backend->worker};
    vd_code code = entry->run(&t->program, &t->op, plan, &call, why);
    op_guarded_free(scratch, scratch_bytes);
    free(plan);
    return code;
}

#endif
