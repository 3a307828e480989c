/* cuDNN's plans for a problem. The heuristics name engines for its graph, and those that build within our
 * rules are the plans, kernels that the library brings along first. Whoever wants more gets the engines
 * that no heuristic names. */
#include "device/cuda_math.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_NOTES = 32, MAX_ENGINES = 256 };

/* ---- engines ---- */

typedef struct engine {
    vd_dnn_desc config;
    int64_t index;
    bool compiles; /* its kernel at run time */
    bool allowed;  /* same bits every time, sums in fp32, no TF32 unless wanted */
} engine;

/* For the plans of one problem. */
typedef struct search {
    vd_dnn_builder builder;
    vd_cuda_math *math;
    const vd_cuda_problem *problem;
    vd_dnn_desc graph;
    bool exact_fp32;
    bool seen[MAX_ENGINES]; /* by index: an engine that a heuristic named */
    vd_cuda_plans *plans;
} search;

static bool has_enough(const search *s) {
    return s->plans->count >= s->plans->limit;
}

/* Notes as a set of bits. */
static uint32_t get_notes(vd_dnn_builder *b, vd_dnn_desc d, cudnnBackendAttributeName_t attribute,
                          cudnnBackendAttributeType_t type) {
    int32_t notes[MAX_NOTES]; /* both kinds of notes are enumerations */
    uint32_t set = 0;
    int64_t count = vd_dnn_get(b, d, attribute, type, MAX_NOTES, notes);
    for (int64_t i = 0; i < count && i < MAX_NOTES; i++)
        set |= 1u << (notes[i] & 31);
    return set;
}

static bool is_allowed(uint32_t notes, bool exact_fp32) {
    uint32_t refused = 1u << CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC | 1u << CUDNN_NUMERICAL_NOTE_WINOGRAD |
                       1u << CUDNN_NUMERICAL_NOTE_FFT |
                       1u << CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION;
    if (exact_fp32)
        refused |= 1u << CUDNN_NUMERICAL_NOTE_TENSOR_CORE | 1u << CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS;
    return !(notes & refused);
}

static engine get_engine(const search *s, vd_dnn_builder *b, vd_dnn_desc config) {
    engine e = {.config = config};
    vd_dnn_desc d = vd_dnn_make(b, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    vd_dnn_get(b, config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &d);
    vd_dnn_get(b, d, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &e.index);
    uint32_t behaviour = get_notes(b, d, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE);
    uint32_t numbers = get_notes(b, d, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE);
    e.compiles = behaviour >> CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION & 1;
    e.allowed = b->status == CUDNN_STATUS_SUCCESS && is_allowed(numbers, s->exact_fp32);
    return e;
}

typedef struct engines {
    engine *items;
    int count;
} engines;

/* The configurations that the heuristics offer, best first. Fewer may come than were announced. */
static vd_code ask_heuristics(search *s, cudnnBackendHeurMode_t mode, engines *out, vd_error *err) {
    vd_dnn_builder *b = &s->builder;
    *out = (engines){0};
    vd_dnn_desc heuristics = vd_dnn_make(b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    vd_dnn_set_desc(b, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, s->graph);
    vd_dnn_set(b, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    vd_dnn_set_desc(b, heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, s->math->profile);
    vd_dnn_finish(b, heuristics, "heuristics");
    int64_t count =
        vd_dnn_get(b, heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, NULL);
    vd_dnn_desc *configs = calloc((size_t)count + 1, sizeof(vd_dnn_desc));
    out->items = calloc((size_t)count + 1, sizeof *out->items);
    if (!configs || !out->items) {
        free(configs);
        return vd_fail_memory(err, "engine configurations", (unsigned long long)count * sizeof *out->items);
    }
    for (int64_t i = 0; i < count; i++)
        configs[i] = vd_dnn_make(b, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (count)
        count = vd_dnn_get(b, heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count,
                           configs);
    for (int64_t i = 0; i < count; i++)
        out->items[i] = get_engine(s, b, configs[i]);
    out->count = (int)count;
    free(configs);
    return VD_OK;
}

/* The engine of an index as it comes, its knobs at their defaults; not allowed where the graph has none
 * such. */
static engine take_engine(search *s, int64_t index) {
    vd_dnn_builder *b = &s->builder;
    vd_dnn_desc d = vd_dnn_make(b, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, s->graph);
    vd_dnn_set(b, d, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &index);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_ENGINE_DEVICEPROP, s->math->profile);
    vd_dnn_finish(b, d, "engine");
    vd_dnn_desc config = vd_dnn_make(b, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    vd_dnn_set_desc(b, config, CUDNN_ATTR_ENGINECFG_ENGINE, d);
    vd_dnn_finish(b, config, "engine as it comes");
    engine e = get_engine(s, b, config);
    vd_dnn_forgive(b);
    return e;
}

/* ---- plans ---- */

static void name_plan(vd_dnn_builder *b, const engine *e, char *name, size_t cap) {
    enum { MAX_KNOBS = 16 };
    vd_dnn_desc knobs[MAX_KNOBS];
    size_t used = (size_t)snprintf(name, cap, "cuDNN engine %lld", (long long)e->index);
    for (int i = 0; i < MAX_KNOBS; i++)
        knobs[i] = vd_dnn_make(b, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
    int64_t count = vd_dnn_get(b, e->config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                               MAX_KNOBS, knobs);
    for (int64_t i = 0; i < count && i < MAX_KNOBS && used < cap; i++) {
        cudnnBackendKnobType_t type = CUDNN_KNOB_TYPE_COUNTS;
        int64_t value = 0;
        vd_dnn_get(b, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type);
        vd_dnn_get(b, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &value);
        used += (size_t)snprintf(name + used, cap - used, "%s%d=%lld", i ? " " : ", knobs ", (int)type,
                                 (long long)value);
    }
}

static size_t get_workspace(vd_dnn_builder *b, vd_dnn_desc plan) {
    int64_t bytes = 0;
    vd_dnn_get(b, plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &bytes);
    return (size_t)bytes;
}

/* Appends the plan of an engine if it builds and is not too greedy. */
static vd_code try_engine(search *s, const engine *e, vd_error *err) {
    vd_dnn_builder *b = &s->builder;
    vd_cuda_math *m = s->math;
    char name[sizeof s->plans->items[0]->name];
    name_plan(b, e, name, sizeof name);
    vd_dnn_desc d = vd_dnn_make(b, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, e->config);
    vd_dnn_set_desc(b, d, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, m->profile);
    vd_dnn_finish(b, d, name);
    size_t workspace = get_workspace(b, d);
    if (vd_dnn_code(b, err) != VD_OK || workspace > m->workspace_cap) {
        if (b->status != CUDNN_STATUS_SUCCESS)
            vd_log_line(m->log, VD_LOG_DEBUG, "passed over: %s", err->message);
        vd_dnn_forgive(b);
        return VD_OK;
    }
    vd_cuda_plan *p = vd_cuda_plan_new(m, s->problem, err);
    if (!p)
        return err->code;
    p->dnn = vd_dnn_take_last(b);
    p->workspace = workspace;
    p->precompiled = !e->compiles;
    memcpy(p->name, name, sizeof name);
    s->plans->items[s->plans->count++] = p;
    return VD_OK;
}

/* Kernels that the library brings along stand before those that it would compile. */
static vd_code try_engines(search *s, const engines *all, vd_error *err) {
    for (int compiles = 0; compiles < 2; compiles++)
        for (int i = 0; i < all->count && !has_enough(s); i++)
            if (all->items[i].allowed && all->items[i].compiles == (compiles == 1))
                VD_TRY(try_engine(s, &all->items[i], err));
    for (int i = 0; i < all->count; i++)
        if (all->items[i].index < MAX_ENGINES)
            s->seen[all->items[i].index] = true;
    return VD_OK;
}

static vd_code try_mode(search *s, cudnnBackendHeurMode_t mode, vd_error *err) {
    engines all;
    if (has_enough(s))
        return VD_OK;
    vd_code status = ask_heuristics(s, mode, &all, err);
    if (status == VD_OK && vd_dnn_unsupported(&s->builder))
        vd_dnn_forgive(&s->builder);
    if (status == VD_OK)
        status = vd_dnn_code(&s->builder, err);
    if (status == VD_OK)
        status = try_engines(s, &all, err);
    free(all.items);
    return status;
}

/* Of the other engines only those that bring their kernels along: compiling takes each of them seconds. */
static vd_code try_others(search *s, vd_error *err) {
    int64_t count = 0;
    vd_dnn_get(&s->builder, s->graph, CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT, CUDNN_TYPE_INT64, 1,
               &count);
    VD_TRY(vd_dnn_code(&s->builder, err));
    for (int64_t i = 0; i < count && i < MAX_ENGINES && !has_enough(s); i++) {
        if (s->seen[i])
            continue;
        engine e = take_engine(s, i);
        if (e.allowed && !e.compiles)
            VD_TRY(try_engine(s, &e, err));
    }
    return VD_OK;
}

static vd_code try_all(search *s, vd_error *err) {
    VD_TRY(vd_dnn_code(&s->builder, err));
    VD_TRY(try_mode(s, CUDNN_HEUR_MODE_A, err));
    VD_TRY(try_mode(s, CUDNN_HEUR_MODE_FALLBACK, err));
    return try_others(s, err);
}

vd_code vd_dnn_candidates(vd_cuda_math *m, const vd_cuda_problem *problem, vd_cuda_plans *plans,
                          vd_error *err) {
    search s = {.math = m,
                .problem = problem,
                .exact_fp32 = vd_cuda_problem_dtype(problem) == VD_F32 && !m->tf32,
                .plans = plans};
    if (has_enough(&s) || !vd_dnn_spells(problem))
        return VD_OK;
    s.graph = vd_dnn_spell(&s.builder, problem);
    vd_code status = vd_dnn_unsupported(&s.builder) ? VD_OK : try_all(&s, err);
    vd_dnn_close(&s.builder);
    return status;
}

/* ---- plans as text ---- */

vd_code vd_dnn_store(const vd_cuda_plan *p, char **text, vd_error *err) {
    vd_dnn_builder b = {0};
    *text = NULL;
    int64_t length =
        vd_dnn_get(&b, p->dnn, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 0, NULL);
    VD_TRY(vd_dnn_code(&b, err));
    char *out = malloc((size_t)length + 1);
    if (!out)
        return vd_fail_memory(err, "a plan's text", (unsigned long long)length);
    length =
        vd_dnn_get(&b, p->dnn, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, length, out);
    out[length] = '\0';
    *text = out;
    return vd_dnn_code(&b, err);
}

vd_code vd_dnn_restore(vd_cuda_plan *p, const char *text, size_t length, vd_error *err) {
    vd_dnn_builder b = {0};
    vd_dnn_desc d = vd_dnn_make(&b, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    vd_dnn_set_desc(&b, d, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, p->math->profile);
    vd_dnn_set(&b, d, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)length, text);
    vd_dnn_finish(&b, d, "stored plan");
    p->workspace = get_workspace(&b, d);
    vd_code status = vd_dnn_code(&b, err);
    if (status == VD_OK)
        p->dnn = vd_dnn_take_last(&b);
    vd_dnn_close(&b);
    return status;
}
