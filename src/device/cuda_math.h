/* Inside of the products (cuda_products.h): a problem of any kind, the plans for it, and where they come
 * from. */
#ifndef VD_DEVICE_CUDA_MATH_H
#define VD_DEVICE_CUDA_MATH_H

#include "base/file.h"
#include "device/cuda_dnn_graph.h"
#include "device/cuda_products.h"

#include <cublasLt.h>

typedef enum vd_cuda_kind {
    VD_CUDA_CONV,
    VD_CUDA_GEMM,
    VD_CUDA_GATE,
    VD_CUDA_SDPA,
    VD_CUDA_KINDS
} vd_cuda_kind;

typedef struct vd_cuda_problem {
    vd_cuda_kind kind;
    union {
        vd_cuda_conv_spec conv;
        vd_cuda_gemm_spec gemm;
        vd_cuda_gate_spec gate;
        vd_cuda_sdpa_spec sdpa;
    };
} vd_cuda_problem;

/* Of what goes in. */
static inline vd_dtype vd_cuda_problem_dtype(const vd_cuda_problem *problem) {
    switch (problem->kind) {
    case VD_CUDA_CONV:
        return problem->conv.dtype;
    case VD_CUDA_GEMM:
        return problem->gemm.dtype;
    case VD_CUDA_GATE:
        return problem->gate.dtype;
    default:
        return problem->sdpa.dtype;
    }
}

/* Everything that distinguishes problems, in words: the key of plans in memory and on disk. */
enum { VD_CUDA_KEY_CAP = 256 };
void vd_cuda_problem_key(const vd_cuda_problem *problem, char key[VD_CUDA_KEY_CAP]);

/* Of a part of a tensor that begins `offset` bytes after it. */
static inline int64_t vd_cuda_alignment(int64_t offset) {
    return (offset | VD_CUDA_ALIGNMENT) & -(offset | VD_CUDA_ALIGNMENT);
}

/* What a plan reads and writes; x is qkv for attention. Unused ones are NULL. */
typedef struct vd_cuda_operands {
    const void *x, *weights, *bias, *z;
    void *y;
} vd_cuda_operands;

struct vd_cuda_math {
    const vd_log *log;
    void (*chosen)(void *user, const char *problem, const char *plan); /* NULL: nobody is told */
    void *user;
    bool device; /* there is one: plans can run */
    bool tf32;   /* allowed */
    size_t workspace_cap;
    char *cache_folder;   /* NULL: none */
    char card[100];       /* the device's name, as its profile has it */
    int64_t architecture; /* 860 */
    char stack[256];      /* libraries and device that a stored choice is good for */
    cudnnHandle_t dnn;    /* NULL without a device */
    cublasLtHandle_t lt;  /* NULL without a device */
    vd_dnn_builder own;
    vd_dnn_desc profile; /* of the device; in `own` */
    vd_cuda_plan *plans; /* open ones */
};

struct vd_cuda_plan {
    vd_cuda_math *math;
    vd_cuda_problem problem;
    size_t workspace;
    bool precompiled, tuned; /* tuned: the tuner's choice */
    char name[128];
    /* Exactly one of these: */
    vd_dnn_desc dnn;           /* cuDNN's plan */
    struct vd_cuda_lt *lt;     /* a product by cuBLASLt */
    vd_cuda_plan *up;          /* a product, owned; the gate follows as a kernel of its own */
    char key[VD_CUDA_KEY_CAP]; /* in the list of open plans only */
    int owners;
    vd_cuda_plan *next;
};

/* Plans for one problem, the best guess first. */
enum { VD_CUDA_CANDIDATES = 96 };
typedef struct vd_cuda_plans {
    vd_cuda_plan *items[VD_CUDA_CANDIDATES];
    int count, limit; /* no more than `limit` are wanted */
} vd_cuda_plans;

/* Every plan that the libraries have, up to plans->limit, appended; none is no error. The caller closes them,
 * also after an error. */
vd_code vd_cuda_candidates(vd_cuda_math *m, const vd_cuda_problem *problem, vd_cuda_plans *plans,
                           vd_error *err);
vd_code vd_cuda_plan_run(const vd_cuda_plan *p, cudaStream_t stream, const vd_cuda_operands *o,
                         void *workspace, vd_error *err);

void vd_cuda_plans_close(vd_cuda_plans *plans);

/* A plan that is in no list yet, still without what it runs. NULL and the error when memory is out. */
vd_cuda_plan *vd_cuda_plan_new(vd_cuda_math *m, const vd_cuda_problem *problem, vd_error *err);

/* ---- cuda_dnn.c: problems as cuDNN's graphs ---- */

/* Whether there is a graph for it. */
bool vd_dnn_spells(const vd_cuda_problem *problem);
vd_dnn_desc vd_dnn_spell(vd_dnn_builder *b, const vd_cuda_problem *problem);
vd_code vd_dnn_run(const vd_cuda_plan *p, cudaStream_t stream, const vd_cuda_operands *o, void *workspace,
                   vd_error *err);

/* ---- cuda_dnn_plans.c: cuDNN's plans for them ---- */

vd_code vd_dnn_candidates(vd_cuda_math *m, const vd_cuda_problem *problem, vd_cuda_plans *plans,
                          vd_error *err);
/* A plan as text that vd_dnn_restore turns into the same plan on the same kind of device; the caller frees
 * it. */
vd_code vd_dnn_store(const vd_cuda_plan *p, char **text, vd_error *err);
vd_code vd_dnn_restore(vd_cuda_plan *p, const char *text, size_t length, vd_error *err);

/* ---- cuda_blas.c ---- */

vd_code vd_lt_candidates(vd_cuda_math *m, const vd_cuda_problem *problem, vd_cuda_plans *plans,
                         vd_error *err);
vd_code vd_lt_run(const vd_cuda_plan *p, cudaStream_t stream, const vd_cuda_operands *o, void *workspace,
                  vd_error *err);
void vd_lt_close(struct vd_cuda_lt *lt); /* NULL is fine */
vd_code vd_lt_store(const vd_cuda_plan *p, char **text, vd_error *err);
vd_code vd_lt_restore(vd_cuda_plan *p, const char *text, size_t length, vd_error *err);

/* ---- cuda_gate.c: a gated product as a product and a kernel ---- */

/* One for each plan of the product. */
vd_code vd_gate_candidates(vd_cuda_math *m, const vd_cuda_problem *problem, vd_cuda_plans *plans,
                           vd_error *err);
/* The product that a gate follows. */
vd_cuda_problem vd_gate_product(const vd_cuda_gate_spec *s);
/* `p`, new, becomes `up` and the gate; `up` is its own from then on. */
void vd_gate_take(vd_cuda_plan *p, vd_cuda_plan *up);
vd_code vd_gate_run(const vd_cuda_plan *p, cudaStream_t stream, const vd_cuda_operands *o, void *workspace,
                    vd_error *err);

/* ---- cuda_choices.c: what the tuner found best, one file per problem in the cache folder ---- */

/* "FOLDER/plan-HASH.json"; there must be a cache folder. */
vd_code vd_cuda_choice_path(const vd_cuda_math *m, const vd_cuda_problem *problem, char path[VD_PATH_CAP],
                            vd_error *err);
/* NULL: nothing stored, or not for these libraries and this device; why is logged. */
vd_cuda_plan *vd_cuda_choice_load(vd_cuda_math *m, const vd_cuda_problem *problem);
vd_code vd_cuda_choice_save(const vd_cuda_plan *p, vd_error *err);

#endif
