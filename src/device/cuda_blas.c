/* Matrix products through cuBLASLt. It counts columns first: our row-major y [m, n] is its n x m, so
 * y = x W^T becomes op(W) x with W [n, k] as a transposed k x n, and its bias, one number per row, is one
 * per channel of ours. */
#include "device/cuda_math.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { WORKSPACE_CAP = 32 << 20, MAX_RESULTS = 16 };

struct vd_cuda_lt {
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t weights, x, y; /* z is laid out as y */
    cublasLtMatmulAlgo_t algo;
};

static vd_code check(cublasStatus_t status, const char *call, vd_error *err) {
    if (status == CUBLAS_STATUS_SUCCESS)
        return VD_OK;
    vd_code code = status == CUBLAS_STATUS_ALLOC_FAILED ? VD_ERR_UNAVAILABLE : VD_ERR_INTERNAL;
    return vd_fail(err, code, "cuBLASLt's %s failed: %s", call, cublasLtGetStatusName(status));
}

static cudaDataType_t type_of(vd_dtype dtype) {
    if (dtype == VD_F16)
        return CUDA_R_16F;
    return dtype == VD_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* ---- descriptions ---- */

#define SET(object, call, attribute, value)                                                                  \
    VD_TRY(check(call(object, attribute, &(value), sizeof(value)), #attribute, err))

static vd_code set_layout(cublasLtMatrixLayout_t *out, vd_dtype dtype, int64_t rows, int64_t columns,
                          const vd_cuda_gemm_spec *s, int64_t step, vd_error *err) {
    const int32_t runs = (int32_t)s->runs;
    VD_TRY(check(cublasLtMatrixLayoutCreate(out, type_of(dtype), (uint64_t)rows, (uint64_t)columns, rows),
                 "cublasLtMatrixLayoutCreate", err));
    SET(*out, cublasLtMatrixLayoutSetAttribute, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, runs);
    SET(*out, cublasLtMatrixLayoutSetAttribute, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, step);
    return VD_OK;
}

static vd_code set_bias_pointer(cublasLtMatmulDesc_t product, const void *bias, vd_error *err) {
    SET(product, cublasLtMatmulDescSetAttribute, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    return VD_OK;
}

static vd_code set_bias(cublasLtMatmulDesc_t product, const vd_cuda_gemm_spec *s, vd_error *err) {
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const int32_t type = type_of(s->out);
    const int64_t step = s->runs > 1 ? s->n : 0;
    SET(product, cublasLtMatmulDescSetAttribute, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    SET(product, cublasLtMatmulDescSetAttribute, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type);
    SET(product, cublasLtMatmulDescSetAttribute, CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, step);
    return VD_OK;
}

static vd_code describe(struct vd_cuda_lt *lt, const vd_cuda_math *m, const vd_cuda_gemm_spec *s,
                        vd_error *err) {
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasComputeType_t compute =
        s->dtype == VD_F32 && m->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    int64_t rows = s->m / s->runs;
    VD_TRY(
        check(cublasLtMatmulDescCreate(&lt->product, compute, CUDA_R_32F), "cublasLtMatmulDescCreate", err));
    SET(lt->product, cublasLtMatmulDescSetAttribute, CUBLASLT_MATMUL_DESC_TRANSA, transposed);
    VD_TRY(set_layout(&lt->weights, s->dtype, s->k, s->n, s, 0, err));
    VD_TRY(set_layout(&lt->x, s->dtype, s->k, rows, s, rows * s->k, err));
    VD_TRY(set_layout(&lt->y, s->out, s->n, rows, s, rows * s->n, err));
    return s->bias ? set_bias(lt->product, s, err) : VD_OK;
}

void vd_lt_close(struct vd_cuda_lt *lt) {
    if (!lt)
        return;
    if (lt->product)
        cublasLtMatmulDescDestroy(lt->product);
    if (lt->weights)
        cublasLtMatrixLayoutDestroy(lt->weights);
    if (lt->x)
        cublasLtMatrixLayoutDestroy(lt->x);
    if (lt->y)
        cublasLtMatrixLayoutDestroy(lt->y);
    free(lt);
}

static vd_code open_lt(const vd_cuda_math *m, const vd_cuda_gemm_spec *s, struct vd_cuda_lt **out,
                       vd_error *err) {
    struct vd_cuda_lt *lt = calloc(1, sizeof *lt);
    *out = lt;
    return lt ? describe(lt, m, s, err) : vd_fail_memory(err, "a product's description", sizeof *lt);
}

/* ---- the choice of a kernel ---- */

/* Of every run's first row of `width` elements. */
static uint32_t run_alignment(const vd_cuda_gemm_spec *s, int64_t rows, int64_t width, vd_dtype dtype) {
    return (uint32_t)vd_cuda_alignment(s->runs > 1 ? rows * width * (int64_t)vd_dtype_bytes(dtype) : 0);
}

/* Sums in fp32 all the way: partial ones may not be rounded to the type of the result. */
static vd_code set_preference(cublasLtMatmulPreference_t p, const vd_cuda_math *m, const vd_cuda_gemm_spec *s,
                              vd_error *err) {
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const int64_t rows = s->m / s->runs;
    const uint32_t weights = VD_CUDA_ALIGNMENT, x = run_alignment(s, rows, s->k, s->dtype),
                   y = run_alignment(s, rows, s->n, s->out);
    const uint64_t workspace = m->workspace_cap < WORKSPACE_CAP ? m->workspace_cap : WORKSPACE_CAP;
    SET(p, cublasLtMatmulPreferenceSetAttribute, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace);
    SET(p, cublasLtMatmulPreferenceSetAttribute, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes);
    SET(p, cublasLtMatmulPreferenceSetAttribute, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, weights);
    SET(p, cublasLtMatmulPreferenceSetAttribute, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, x);
    SET(p, cublasLtMatmulPreferenceSetAttribute, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, y);
    SET(p, cublasLtMatmulPreferenceSetAttribute, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, y);
    return VD_OK;
}

/* The library looks at the bias' address for its alignment, before there is one. */
static vd_code set_bias_alignment(const struct vd_cuda_lt *lt, const vd_cuda_gemm_spec *s, vd_error *err) {
    const void *bias = (const void *)(uintptr_t)run_alignment(s, 1, s->n, s->out);
    return s->bias ? set_bias_pointer(lt->product, bias, err) : VD_OK;
}

static vd_code ask_heuristics(const vd_cuda_math *m, const vd_cuda_gemm_spec *s, const struct vd_cuda_lt *lt,
                              int limit, cublasLtMatmulHeuristicResult_t *results, int *count,
                              vd_error *err) {
    cublasLtMatmulPreference_t preference;
    *count = 0;
    VD_TRY(set_bias_alignment(lt, s, err));
    VD_TRY(check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate", err));
    vd_code status = set_preference(preference, m, s, err);
    if (status == VD_OK) {
        cublasStatus_t found = cublasLtMatmulAlgoGetHeuristic(m->lt, lt->product, lt->weights, lt->x, lt->y,
                                                              lt->y, preference, limit, results, count);
        if (found != CUBLAS_STATUS_NOT_SUPPORTED && found != CUBLAS_STATUS_INVALID_VALUE) /* of a size */
            status = check(found, "cublasLtMatmulAlgoGetHeuristic", err);
    }
    cublasLtMatmulPreferenceDestroy(preference);
    return status;
}

static int32_t get_config(const cublasLtMatmulAlgo_t *algo, cublasLtMatmulAlgoConfigAttributes_t attribute) {
    int32_t value = -1;
    size_t written;
    cublasStatus_t status =
        cublasLtMatmulAlgoConfigGetAttribute(algo, attribute, &value, sizeof value, &written);
    return status == CUBLAS_STATUS_SUCCESS ? value : -1;
}

static vd_code take_algo(vd_cuda_plan *p, const cublasLtMatmulHeuristicResult_t *result) {
    const cublasLtMatmulAlgo_t *algo = &result->algo;
    p->lt->algo = *algo;
    p->workspace = result->workspaceSize;
    p->precompiled = true;
    snprintf(p->name, sizeof p->name, "cuBLASLt algorithm %d, tile %d, stages %d, split %d",
             get_config(algo, CUBLASLT_ALGO_CONFIG_ID), get_config(algo, CUBLASLT_ALGO_CONFIG_TILE_ID),
             get_config(algo, CUBLASLT_ALGO_CONFIG_STAGES_ID),
             get_config(algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM));
    return VD_OK;
}

static vd_code append(vd_cuda_math *m, const vd_cuda_problem *problem, vd_cuda_plans *plans,
                      vd_cuda_plan **out, vd_error *err) {
    *out = vd_cuda_plan_new(m, problem, err);
    if (!*out)
        return err->code;
    plans->items[plans->count++] = *out;
    return VD_OK;
}

/* Every product has a kernel, but which one shows only on the device: until then a plan that is described,
 * not decided, for the memory that it may want. */
static vd_code append_undecided(vd_cuda_math *m, const vd_cuda_problem *problem, vd_cuda_plans *plans,
                                vd_error *err) {
    vd_cuda_plan *p;
    VD_TRY(append(m, problem, plans, &p, err));
    VD_TRY(open_lt(m, &problem->gemm, &p->lt, err));
    p->workspace = m->workspace_cap < WORKSPACE_CAP ? m->workspace_cap : WORKSPACE_CAP;
    p->precompiled = true;
    snprintf(p->name, sizeof p->name, "cuBLASLt, chosen on the device");
    return VD_OK;
}

static vd_code append_decided(vd_cuda_math *m, const vd_cuda_problem *problem,
                              const cublasLtMatmulHeuristicResult_t *result, vd_cuda_plans *plans,
                              vd_error *err) {
    vd_cuda_plan *p;
    VD_TRY(append(m, problem, plans, &p, err));
    VD_TRY(open_lt(m, &problem->gemm, &p->lt, err));
    return take_algo(p, result);
}

static vd_code append_heuristics(vd_cuda_math *m, const vd_cuda_problem *problem, vd_cuda_plans *plans,
                                 vd_error *err) {
    cublasLtMatmulHeuristicResult_t results[MAX_RESULTS];
    struct vd_cuda_lt *lt;
    int count = 0, limit = plans->limit - plans->count;
    vd_code status = open_lt(m, &problem->gemm, &lt, err);
    if (status == VD_OK)
        status = ask_heuristics(m, &problem->gemm, lt, limit < MAX_RESULTS ? limit : MAX_RESULTS, results,
                                &count, err);
    vd_lt_close(lt);
    for (int i = 0; i < count && status == VD_OK; i++)
        if (results[i].state == CUBLAS_STATUS_SUCCESS)
            status = append_decided(m, problem, &results[i], plans, err);
    return status;
}

vd_code vd_lt_candidates(vd_cuda_math *m, const vd_cuda_problem *problem, vd_cuda_plans *plans,
                         vd_error *err) {
    if (plans->count >= plans->limit)
        return VD_OK;
    return m->device ? append_heuristics(m, problem, plans, err) : append_undecided(m, problem, plans, err);
}

/* ---- running ---- */

vd_code vd_lt_run(const vd_cuda_plan *p, cudaStream_t stream, const vd_cuda_operands *o, void *workspace,
                  vd_error *err) {
    const vd_cuda_gemm_spec *s = &p->problem.gemm;
    const struct vd_cuda_lt *lt = p->lt;
    const float alpha = s->alpha, beta = s->add ? 1 : 0;
    VD_TRY(s->bias ? set_bias_pointer(lt->product, o->bias, err) : VD_OK);
    return check(cublasLtMatmul(p->math->lt, lt->product, &alpha, o->weights, lt->weights, o->x, lt->x, &beta,
                                s->add ? o->z : o->y, lt->y, o->y, lt->y, &lt->algo, workspace, p->workspace,
                                stream),
                 "cublasLtMatmul", err);
}

/* ---- algorithms as text: the words of the library's struct, good for its version ---- */

enum { ALGO_WORDS = sizeof(cublasLtMatmulAlgo_t) / sizeof(uint64_t), WORD_TEXT = 17 };

vd_code vd_lt_store(const vd_cuda_plan *p, char **text, vd_error *err) {
    char *out = malloc(ALGO_WORDS * WORD_TEXT + 1);
    *text = out;
    if (!out)
        return vd_fail_memory(err, "an algorithm's text", ALGO_WORDS * WORD_TEXT + 1);
    for (int i = 0; i < ALGO_WORDS; i++)
        snprintf(out + i * WORD_TEXT, WORD_TEXT + 1, "%016" PRIx64 " ", p->lt->algo.data[i]);
    return VD_OK;
}

static bool parse_algo(const char *text, size_t length, cublasLtMatmulAlgo_t *out) {
    bool good = length == ALGO_WORDS * WORD_TEXT;
    for (int i = 0; i < ALGO_WORDS && good; i++)
        good = sscanf(text + i * WORD_TEXT, "%16" SCNx64, &out->data[i]) == 1;
    return good;
}

vd_code vd_lt_restore(vd_cuda_plan *p, const char *text, size_t length, vd_error *err) {
    cublasLtMatmulHeuristicResult_t result = {.state = CUBLAS_STATUS_NOT_SUPPORTED};
    cublasLtMatmulAlgo_t algo;
    if (!parse_algo(text, length, &algo))
        return vd_fail(err, VD_ERR_DATA, "not an algorithm of cuBLASLt");
    VD_TRY(open_lt(p->math, &p->problem.gemm, &p->lt, err));
    VD_TRY(set_bias_alignment(p->lt, &p->problem.gemm, err));
    VD_TRY(check(cublasLtMatmulAlgoCheck(p->math->lt, p->lt->product, p->lt->weights, p->lt->x, p->lt->y,
                                         p->lt->y, &algo, &result),
                 "cublasLtMatmulAlgoCheck", err));
    result.algo = algo;
    return take_algo(p, &result);
}
