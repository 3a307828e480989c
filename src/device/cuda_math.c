/* The libraries' state of a device, and its open plans: one per problem, however often it is asked for. */
#include "device/cuda_math.h"

#include "base/json.h"
#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the device ---- */

static void profile_of_device(vd_cuda_math *m, int ordinal) {
    const int32_t id = ordinal;
    vd_dnn_set(&m->own, m->profile, CUDNN_ATTR_DEVICEPROP_DEVICE_ID, CUDNN_TYPE_INT32, 1, &id);
}

static void profile_of_text(vd_cuda_math *m, const char *json) {
    vd_dnn_set(&m->own, m->profile, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
               (int64_t)strlen(json), json);
}

static vd_code open_profile(vd_cuda_math *m, const vd_cuda_math_request *request, vd_error *err) {
    m->profile = vd_dnn_make(&m->own, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    if (request->profile)
        profile_of_text(m, request->profile);
    else
        profile_of_device(m, request->ordinal);
    vd_dnn_finish(&m->own, m->profile, "device profile");
    return vd_dnn_code(&m->own, err);
}

/* Versions and device, as the profile names it. */
static vd_code describe_stack(vd_cuda_math *m, vd_error *err) {
    static const char what[] = "device profile";
    const char *card = "";
    int64_t processors = 0;
    json_t *profile;
    int64_t length =
        vd_dnn_get(&m->own, m->profile, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 0, NULL);
    VD_TRY(vd_dnn_code(&m->own, err));
    char *text = malloc((size_t)length + 1);
    if (!text)
        return vd_fail_memory(err, "a device profile", (unsigned long long)length);
    length = vd_dnn_get(&m->own, m->profile, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                        length, text);
    text[length] = '\0';
    vd_code status = vd_json_parse(text, strlen(text), what, &profile, err);
    free(text);
    VD_TRY(status);
    status = vd_json_string(profile, what, "deviceName", true, &card, err);
    if (status == VD_OK)
        status = vd_json_int(profile, what, "multiProcessorCount", true, 1, INT32_MAX, &processors, err);
    if (status == VD_OK)
        status = vd_json_int(profile, what, "deviceVer", true, 1, INT32_MAX, &m->architecture, err);
    snprintf(m->card, sizeof m->card, "%s", card);
    snprintf(m->stack, sizeof m->stack, "cuDNN %zu, cuBLASLt %zu, %s, %lld processors%s", cudnnGetVersion(),
             cublasLtGetVersion(), m->card, (long long)processors, m->tf32 ? ", TF32" : "");
    json_decref(profile);
    return status;
}

static vd_code open_handles(vd_cuda_math *m, vd_error *err) {
    VD_TRY(vd_dnn_check(cudnnCreate(&m->dnn), "cudnnCreate", err));
    cublasStatus_t status = cublasLtCreate(&m->lt);
    if (status != CUBLAS_STATUS_SUCCESS)
        return vd_fail(err, VD_ERR_UNAVAILABLE, "cublasLtCreate failed with status %d", (int)status);
    return VD_OK;
}

vd_code vd_cuda_math_open(const vd_cuda_math_request *request, vd_cuda_math **out, vd_error *err) {
    vd_cuda_math *m = calloc(1, sizeof *m);
    vd_code status = VD_OK;
    *out = NULL;
    if (!m)
        return vd_fail_memory(err, "the libraries' state", sizeof *m);
    m->log = request->log;
    m->chosen = request->chosen;
    m->user = request->user;
    m->device = request->ordinal >= 0;
    m->tf32 = request->tf32;
    m->workspace_cap = request->workspace_cap;
    if (request->cache_folder && !(m->cache_folder = strdup(request->cache_folder)))
        status = vd_fail_memory(err, "the name of the cache folder", strlen(request->cache_folder));
    if (status == VD_OK && m->device)
        status = open_handles(m, err);
    if (status == VD_OK)
        status = open_profile(m, request, err);
    if (status == VD_OK)
        status = describe_stack(m, err);
    if (status == VD_OK)
        *out = m;
    else
        vd_cuda_math_close(m);
    return status;
}

void vd_cuda_math_close(vd_cuda_math *m) {
    if (!m)
        return;
    vd_dnn_close(&m->own);
    if (m->lt)
        cublasLtDestroy(m->lt);
    if (m->dnn)
        cudnnDestroy(m->dnn);
    free(m->cache_folder);
    free(m);
}

/* ---- problems ---- */

static void conv_key(const vd_cuda_conv_spec *s, char key[VD_CUDA_KEY_CAP]) {
    snprintf(key, VD_CUDA_KEY_CAP,
             "conv %s %lldx%lldx%lldx%lld -> %lldx%lldx%lld, %lldx%lld/%lld, pad %lld %lld %lld %lld%s%s, "
             "alpha %.9g",
             vd_dtype_name(s->dtype), (long long)s->n, (long long)s->h, (long long)s->w, (long long)s->c,
             (long long)s->oh, (long long)s->ow, (long long)s->k, (long long)s->kh, (long long)s->kw,
             (long long)s->stride, (long long)s->pad_top, (long long)s->pad_left, (long long)s->pad_bottom,
             (long long)s->pad_right, s->bias ? ", bias" : "", s->add ? ", add" : "", (double)s->alpha);
}

static void gemm_key(const vd_cuda_gemm_spec *s, char key[VD_CUDA_KEY_CAP]) {
    snprintf(key, VD_CUDA_KEY_CAP, "gemm %s %lldx%lldx%lld -> %s, %lld runs%s%s, alpha %.9g",
             vd_dtype_name(s->dtype), (long long)s->m, (long long)s->k, (long long)s->n,
             vd_dtype_name(s->out), (long long)s->runs, s->bias ? ", bias" : "", s->add ? ", add" : "",
             (double)s->alpha);
}

static void gate_key(const vd_cuda_gate_spec *s, char key[VD_CUDA_KEY_CAP]) {
    snprintf(key, VD_CUDA_KEY_CAP, "gate %s %lldx%lldx%lld", vd_dtype_name(s->dtype), (long long)s->m,
             (long long)s->k, (long long)s->n);
}

static void sdpa_key(const vd_cuda_sdpa_spec *s, char key[VD_CUDA_KEY_CAP]) {
    snprintf(key, VD_CUDA_KEY_CAP, "sdpa %s %lldx%lldx%lldx%lld, scale %.9g", vd_dtype_name(s->dtype),
             (long long)s->batch, (long long)s->heads, (long long)s->tokens, (long long)s->width,
             (double)s->scale);
}

void vd_cuda_problem_key(const vd_cuda_problem *problem, char key[VD_CUDA_KEY_CAP]) {
    switch (problem->kind) {
    case VD_CUDA_CONV:
        return conv_key(&problem->conv, key);
    case VD_CUDA_GEMM:
        return gemm_key(&problem->gemm, key);
    case VD_CUDA_GATE:
        return gate_key(&problem->gate, key);
    default:
        return sdpa_key(&problem->sdpa, key);
    }
}

/* A product is cuBLASLt's where there is a device to choose its kernel on; cuDNN has the same as a 1x1
 * convolution. */
static vd_code gemm_candidates(vd_cuda_math *m, const vd_cuda_problem *problem, vd_cuda_plans *plans,
                               vd_error *err) {
    if (m->device)
        VD_TRY(vd_lt_candidates(m, problem, plans, err));
    VD_TRY(vd_dnn_candidates(m, problem, plans, err));
    return m->device ? VD_OK : vd_lt_candidates(m, problem, plans, err);
}

/* cuDNN has gate and products in one kernel, but on the datacenter chips since Hopper one that leaves half
 * of their speed lie: what it saves in memory traffic does not make up for it (cuda.md 4). */
static vd_code gate_candidates(vd_cuda_math *m, const vd_cuda_problem *problem, vd_cuda_plans *plans,
                               vd_error *err) {
    int64_t major = m->architecture / 100;
    bool split = major == 9 || major == 10;
    if (split)
        VD_TRY(vd_gate_candidates(m, problem, plans, err));
    VD_TRY(vd_dnn_candidates(m, problem, plans, err));
    return split ? VD_OK : vd_gate_candidates(m, problem, plans, err);
}

vd_code vd_cuda_candidates(vd_cuda_math *m, const vd_cuda_problem *problem, vd_cuda_plans *plans,
                           vd_error *err) {
    if (problem->kind == VD_CUDA_GEMM)
        return gemm_candidates(m, problem, plans, err);
    if (problem->kind == VD_CUDA_GATE)
        return gate_candidates(m, problem, plans, err);
    return vd_dnn_candidates(m, problem, plans, err);
}

/* ---- plans ---- */

vd_cuda_plan *vd_cuda_plan_new(vd_cuda_math *m, const vd_cuda_problem *problem, vd_error *err) {
    vd_cuda_plan *p = calloc(1, sizeof *p);
    if (!p) {
        vd_fail_memory(err, "a plan", sizeof *p);
        return NULL;
    }
    p->math = m;
    p->problem = *problem;
    return p;
}

void vd_cuda_plan_close(vd_cuda_plan *p) {
    if (!p || --p->owners > 0)
        return;
    vd_cuda_plan **link = &p->math->plans;
    while (*link && *link != p)
        link = &(*link)->next;
    if (*link)
        *link = p->next;
    if (p->dnn)
        cudnnBackendDestroyDescriptor(p->dnn);
    vd_lt_close(p->lt);
    vd_cuda_plan_close(p->up);
    free(p);
}

void vd_cuda_plans_close(vd_cuda_plans *plans) {
    while (plans->count)
        vd_cuda_plan_close(plans->items[--plans->count]);
    plans->items[0] = NULL;
}

static vd_cuda_plan *find_open(vd_cuda_math *m, const char *key) {
    vd_cuda_plan *p = m->plans;
    while (p && strcmp(p->key, key) != 0)
        p = p->next;
    return p;
}

/* The tuner's choice, or the libraries' own first one. */
static vd_code choose(vd_cuda_math *m, const vd_cuda_problem *problem, vd_cuda_plan **out, vd_error *err) {
    vd_cuda_plans plans = {.limit = 1};
    if ((*out = vd_cuda_choice_load(m, problem))) {
        (*out)->tuned = true;
        return VD_OK;
    }
    vd_code status = vd_cuda_candidates(m, problem, &plans, err);
    if (status != VD_OK)
        vd_cuda_plans_close(&plans);
    *out = plans.items[0];
    return status;
}

static vd_code open_plan(vd_cuda_math *m, const vd_cuda_problem *problem, vd_cuda_plan **out, vd_error *err) {
    char key[VD_CUDA_KEY_CAP];
    vd_cuda_problem_key(problem, key);
    vd_cuda_plan *p = find_open(m, key);
    if (!p) {
        VD_TRY(choose(m, problem, &p, err));
        if (m->chosen)
            m->chosen(m->user, key, p ? p->name : "no library has it");
        if (p) {
            memcpy(p->key, key, sizeof key);
            p->next = m->plans;
            m->plans = p;
        }
    }
    if (p)
        p->owners++;
    *out = p;
    return VD_OK;
}

vd_code vd_cuda_conv_open(vd_cuda_math *m, const vd_cuda_conv_spec *spec, vd_cuda_plan **out, vd_error *err) {
    return open_plan(m, &(vd_cuda_problem){.kind = VD_CUDA_CONV, .conv = *spec}, out, err);
}

vd_code vd_cuda_gemm_open(vd_cuda_math *m, const vd_cuda_gemm_spec *spec, vd_cuda_plan **out, vd_error *err) {
    return open_plan(m, &(vd_cuda_problem){.kind = VD_CUDA_GEMM, .gemm = *spec}, out, err);
}

vd_code vd_cuda_gate_open(vd_cuda_math *m, const vd_cuda_gate_spec *spec, vd_cuda_plan **out, vd_error *err) {
    return open_plan(m, &(vd_cuda_problem){.kind = VD_CUDA_GATE, .gate = *spec}, out, err);
}

vd_code vd_cuda_sdpa_open(vd_cuda_math *m, const vd_cuda_sdpa_spec *spec, vd_cuda_plan **out, vd_error *err) {
    return open_plan(m, &(vd_cuda_problem){.kind = VD_CUDA_SDPA, .sdpa = *spec}, out, err);
}

size_t vd_cuda_plan_workspace(const vd_cuda_plan *p) {
    return p->workspace;
}

bool vd_cuda_plan_precompiled(const vd_cuda_plan *p) {
    return p->precompiled;
}

const char *vd_cuda_plan_name(const vd_cuda_plan *p) {
    return p->name;
}

static vd_code run_by_library(const vd_cuda_plan *p, cudaStream_t stream, const vd_cuda_operands *o,
                              void *workspace, vd_error *err) {
    if (p->up)
        return vd_gate_run(p, stream, o, workspace, err);
    return p->dnn ? vd_dnn_run(p, stream, o, workspace, err) : vd_lt_run(p, stream, o, workspace, err);
}

vd_code vd_cuda_plan_run(const vd_cuda_plan *p, cudaStream_t stream, const vd_cuda_operands *o,
                         void *workspace, vd_error *err) {
    char key[VD_CUDA_KEY_CAP];
    if (!p->math->device)
        return vd_fail(err, VD_ERR_INTERNAL, "a plan made without a device cannot run");
    if (run_by_library(p, stream, o, workspace, err) == VD_OK)
        return VD_OK;
    vd_cuda_problem_key(&p->problem, key);
    return vd_fail_in(err, "%s by %s", key, p->name);
}

vd_code vd_cuda_conv_run(const vd_cuda_plan *p, cudaStream_t stream, const void *x, const void *weights,
                         const void *bias, const void *z, void *y, void *workspace, vd_error *err) {
    return vd_cuda_plan_run(p, stream, &(vd_cuda_operands){x, weights, bias, z, y}, workspace, err);
}

vd_code vd_cuda_gemm_run(const vd_cuda_plan *p, cudaStream_t stream, const void *x, const void *weights,
                         const void *bias, const void *z, void *y, void *workspace, vd_error *err) {
    return vd_cuda_plan_run(p, stream, &(vd_cuda_operands){x, weights, bias, z, y}, workspace, err);
}

vd_code vd_cuda_gate_run(const vd_cuda_plan *p, cudaStream_t stream, const void *x, const void *weights,
                         const void *bias, void *y, void *workspace, vd_error *err) {
    return vd_cuda_plan_run(p, stream, &(vd_cuda_operands){.x = x, .weights = weights, .bias = bias, .y = y},
                            workspace, err);
}

vd_code vd_cuda_sdpa_run(const vd_cuda_plan *p, cudaStream_t stream, const void *qkv, void *y,
                         void *workspace, vd_error *err) {
    return vd_cuda_plan_run(p, stream, &(vd_cuda_operands){.x = qkv, .y = y}, workspace, err);
}
