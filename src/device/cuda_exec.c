/* Programs on CUDA. A compiled program is one for all devices; each has its part of it, made when it is first
 * needed there: plans, and constants in its memory. A part is captured into one graph per exec. */
#include "device/cuda_device.h"

#include "base/layout.h"

#include <stdlib.h>

/* Used by threads that hold the device's lock. */
typedef struct part {
    struct part *next; /* of the same program */
    vd_cuda_device *device;
    const vd_program *program;
    vd_cuda_step **steps;         /* [op_count]; NULL where nothing was planned */
    vd_cuda_constant **constants; /* [value_count]; NULL where the value is no constant */
    size_t scratch;               /* bytes that any operation needs */
    bool loaded;
} part;

/* All but `base.program` is guarded by the backend's lock. */
struct vd_cuda_compiled {
    vd_compiled base;
    part *parts;
};

/* ---- parts: planning ---- */

static void free_part(part *t) {
    for (int i = 0; t->steps && i < t->program->op_count; i++) {
        const vd_cuda_op *entry = vd_cuda_ops[t->program->ops[i].kind];
        if (t->steps[i] && entry->close)
            entry->close(t->steps[i]);
        free(t->steps[i]);
    }
    free(t->steps);
    free(t->constants);
    free(t);
}

static part *new_part(vd_cuda_device *d, const vd_program *p) {
    part *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->device = d;
    t->program = p;
    t->steps = calloc((size_t)p->op_count + 1, sizeof *t->steps);
    t->constants = calloc((size_t)p->value_count + 1, sizeof *t->constants);
    if (t->steps && t->constants)
        return t;
    free_part(t);
    return NULL;
}

static vd_code fail_op(const part *t, int i, vd_error *err) {
    return vd_fail_in(err, "%s, program %s, operation %d (%s)", t->device->base.name, t->program->name, i,
                      vd_op_name(t->program->ops[i].kind));
}

static vd_code plan_op(part *t, int i, vd_error *err) {
    const vd_op *op = &t->program->ops[i];
    const vd_cuda_op *entry = vd_cuda_ops[op->kind];
    if (!entry->plan)
        return VD_OK;
    size_t scratch = 0;
    vd_cuda_planner planner = {.math = t->device->math, .weights = t->device->weights, .program = t->program};
    if (!(t->steps[i] = calloc(1, entry->step_bytes)))
        return vd_fail_memory(err, vd_op_name(op->kind), entry->step_bytes);
    if (entry->plan(&planner, op, t->steps[i], &scratch, err) != VD_OK)
        return fail_op(t, i, err);
    scratch = vd_align_up(scratch);
    t->scratch = scratch > t->scratch ? scratch : t->scratch;
    return VD_OK;
}

static vd_code plan_part(part *t, vd_error *err) {
    const vd_program *p = t->program;
    vd_cuda_weights_next_batch(t->device->weights);
    for (int i = 0; i < p->op_count; i++)
        VD_TRY(plan_op(t, i, err));
    for (vd_value v = 0; v < p->value_count; v++) {
        const vd_value_info *info = &p->values[v];
        vd_cuda_packing dense = VD_CUDA_PACKING(.constant = info->constant, .dtype = info->dtype);
        if (info->storage == VD_STORAGE_CONSTANT)
            VD_TRY(vd_cuda_constant_plan(t->device->weights, &dense, &t->constants[v], err));
    }
    return VD_OK;
}

static part *find_part(const vd_cuda_compiled *c, const vd_cuda_device *d) {
    pthread_mutex_lock(&d->backend->lock);
    part *t = c->parts;
    while (t && t->device != d)
        t = t->next;
    pthread_mutex_unlock(&d->backend->lock);
    return t;
}

static void add_part(vd_cuda_compiled *c, part *t) {
    pthread_mutex_lock(&t->device->backend->lock);
    t->next = c->parts;
    c->parts = t;
    pthread_mutex_unlock(&t->device->backend->lock);
}

/* The device's part, planned. */
static vd_code ensure_part(vd_cuda_compiled *c, vd_cuda_device *d, part **out, vd_error *err) {
    if ((*out = find_part(c, d)))
        return VD_OK;
    part *t = new_part(d, c->base.program);
    if (!t)
        return vd_fail_memory(err, c->base.program->name, sizeof *t);
    vd_code code = plan_part(t, err);
    if (code != VD_OK) {
        free_part(t);
        return code;
    }
    add_part(c, t);
    *out = t;
    return VD_OK;
}

/* ---- parts: loading ---- */

/* Devices that load the same program at the same time begin at different places: each packs its share for
 * all, and finds the rest packed. */
static vd_code load_constants(part *t, vd_error *err) {
    const vd_cuda_device *d = t->device;
    const vd_program *p = t->program;
    int first = (int)((int64_t)p->op_count * d->place / d->places);
    for (int k = 0; k < p->op_count; k++) {
        int i = (first + k) % p->op_count;
        const vd_cuda_op *entry = vd_cuda_ops[p->ops[i].kind];
        if (entry->load && entry->load(t->steps[i], err) != VD_OK)
            return fail_op(t, i, err);
    }
    for (vd_value v = 0; v < p->value_count; v++)
        if (t->constants[v])
            VD_TRY(vd_cuda_constant_load(t->constants[v], err));
    return vd_cuda_weights_settle(d->weights, err);
}

static vd_code load_part(part *t, vd_error *err) {
    vd_cuda_device *d = t->device;
    size_t before = vd_cuda_weights_taken(d->weights);
    vd_code code = load_constants(t, err);
    vd_device_took(&d->base, vd_cuda_weights_taken(d->weights) - before);
    t->loaded = code == VD_OK;
    return code;
}

/* Arenas have been sized for the device that the program was compiled for; its equals need no more. */
static vd_code plan_and_load(vd_cuda_compiled *c, vd_cuda_device *d, part **out, vd_error *err) {
    VD_TRY(ensure_part(c, d, out, err));
    if ((*out)->scratch > c->base.workspace_bytes)
        return vd_fail(
            err, VD_ERR_UNAVAILABLE,
            "device %s needs %zu bytes of scratch for program %s and the first device %zu; use GPUs of one "
            "kind",
            d->base.name, (*out)->scratch, c->base.program->name, c->base.workspace_bytes);
    return (*out)->loaded ? VD_OK : load_part(*out, err);
}

/* The device's part, planned and loaded. */
static vd_code ready_part(vd_cuda_compiled *c, vd_cuda_device *d, part **out, vd_error *err) {
    pthread_rwlock_rdlock(d->capture);
    vd_code code = plan_and_load(c, d, out, err);
    pthread_rwlock_unlock(d->capture);
    return code;
}

vd_code vd_cuda_load(vd_device *base, vd_compiled *compiled, vd_error *err) {
    vd_cuda_device *d = vd_cuda_of(base);
    part *t;
    VD_TRY(vd_cuda_enter(d, err));
    pthread_mutex_lock(&d->lock);
    vd_code code = ready_part((vd_cuda_compiled *)compiled, d, &t, err);
    pthread_mutex_unlock(&d->lock);
    return code;
}

/* ---- compiled programs ---- */

/* The backend's entry for `p`, made when it is new; counts the caller as a user. */
static vd_cuda_compiled *find_compiled(vd_cuda_backend *b, const vd_program *p) {
    pthread_mutex_lock(&b->lock);
    vd_cuda_compiled *c = (vd_cuda_compiled *)vd_compiled_join(b->programs, p);
    if (!c && (c = calloc(1, sizeof *c))) {
        c->base.program = p;
        vd_compiled_add(&b->programs, &c->base);
    }
    pthread_mutex_unlock(&b->lock);
    return c;
}

static void free_compiled(vd_cuda_compiled *c) {
    for (part *t = c->parts, *next; t; t = next) {
        vd_cuda_device *d = t->device;
        next = t->next;
        pthread_mutex_lock(&d->lock);
        pthread_rwlock_rdlock(d->capture);
        free_part(t);
        pthread_rwlock_unlock(d->capture);
        pthread_mutex_unlock(&d->lock);
    }
    free(c);
}

void vd_cuda_compiled_close(vd_device *base, vd_compiled *compiled) {
    if (!compiled)
        return;
    vd_cuda_backend *b = vd_cuda_of(base)->backend;
    vd_cuda_compiled *c = (vd_cuda_compiled *)compiled;
    pthread_mutex_lock(&b->lock);
    bool last = vd_compiled_leave(&b->programs, compiled);
    pthread_mutex_unlock(&b->lock);
    if (last)
        free_compiled(c);
}

static vd_code plan_for(vd_cuda_compiled *c, vd_cuda_device *d, vd_error *err) {
    part *t;
    pthread_mutex_lock(&d->lock);
    pthread_rwlock_rdlock(d->capture);
    vd_code code = ensure_part(c, d, &t, err);
    size_t scratch = code == VD_OK ? t->scratch : 0;
    pthread_rwlock_unlock(d->capture);
    pthread_mutex_unlock(&d->lock);
    pthread_mutex_lock(&d->backend->lock);
    if (scratch > c->base.workspace_bytes)
        c->base.workspace_bytes = scratch;
    pthread_mutex_unlock(&d->backend->lock);
    return code;
}

vd_code vd_cuda_compile(vd_device *base, const vd_program *p, vd_compiled **out, vd_error *err) {
    vd_cuda_device *d = vd_cuda_of(base);
    VD_TRY(vd_cuda_enter(d, err));
    vd_cuda_compiled *c = find_compiled(d->backend, p);
    if (!c)
        return vd_fail_memory(err, p->name, sizeof *c);
    vd_code code = plan_for(c, d, err);
    if (code == VD_OK)
        *out = &c->base;
    else
        vd_cuda_compiled_close(base, &c->base);
    return code;
}

/* ---- capturing ---- */

static vd_code enqueue_ops(const part *t, const vd_cuda_call *call, vd_error *err) {
    const vd_program *p = t->program;
    for (int i = 0; i < p->op_count; i++)
        if (vd_cuda_ops[p->ops[i].kind]->run(&p->ops[i], t->steps[i], call, err) != VD_OK)
            return fail_op(t, i, err);
    return VD_OK;
}

/* A capture that was begun is ended whatever happens, so that the stream can be closed. */
static vd_code capture(const part *t, const vd_cuda_call *call, cudaGraph_t *out, vd_error *err) {
    vd_error ending;
    VD_TRY(VD_CUDA(t->device, cudaStreamBeginCapture(call->stream, cudaStreamCaptureModeRelaxed)));
    vd_code code = enqueue_ops(t, call, err);
    vd_code ended =
        vd_cuda_check(cudaStreamEndCapture(call->stream, out), call->device, "cudaStreamEndCapture", &ending);
    if (code == VD_OK && ended != VD_OK)
        *err = ending;
    return code == VD_OK ? ended : code;
}

static vd_code capture_alone(const part *t, const vd_cuda_call *call, cudaGraph_t *out, vd_error *err) {
    pthread_rwlock_wrlock(t->device->capture);
    vd_code code = capture(t, call, out, err);
    pthread_rwlock_unlock(t->device->capture);
    return code;
}

static vd_code instantiate(vd_cuda_device *d, cudaGraph_t graph, cudaStream_t stream, vd_exec *x,
                           vd_error *err) {
    VD_TRY(VD_CUDA(d, cudaGraphInstantiate(&x->graph, graph, 0)));
    VD_TRY(VD_CUDA(d, cudaGraphUpload(x->graph, stream)));
    return VD_CUDA(d, cudaStreamSynchronize(stream));
}

static vd_code make_graph(const part *t, void *const *at, void *scratch, vd_exec *x, vd_error *err) {
    vd_cuda_device *d = t->device;
    cudaGraph_t graph = NULL;
    vd_cuda_call call = {
        .at = at, .scratch = scratch, .program = t->program, .stream = d->recorder, .device = d->base.name};
    vd_code code = capture_alone(t, &call, &graph, err);
    pthread_rwlock_rdlock(d->capture);
    if (code == VD_OK)
        code = instantiate(d, graph, d->setup, x, err);
    if (graph)
        (void)cudaGraphDestroy(graph);
    pthread_rwlock_unlock(d->capture);
    return code;
}

static vd_code bind_and_capture(const part *t, void *arena, const vd_binding *bindings, int count, vd_exec *x,
                                vd_error *err) {
    const vd_program *p = t->program;
    void **at = calloc((size_t)p->value_count + 1, sizeof *at);
    if (!at)
        return vd_fail_memory(err, p->name, (unsigned long long)p->value_count * sizeof *at);
    for (vd_value v = 0; v < p->value_count; v++)
        if (t->constants[v])
            at[v] = vd_cuda_constant_data(t->constants[v]);
    vd_code code = vd_bind_values(p, arena, bindings, count, at, err);
    if (code == VD_OK)
        code = make_graph(t, at, (unsigned char *)arena + p->arena_bytes, x, err);
    free(at);
    return code;
}

vd_code vd_cuda_exec_open(vd_device *base, vd_compiled *compiled, void *arena, const vd_binding *bindings,
                          int count, vd_exec **out, vd_error *err) {
    vd_cuda_device *d = vd_cuda_of(base);
    part *t;
    VD_TRY(vd_cuda_enter(d, err));
    vd_exec *x = calloc(1, sizeof *x);
    if (!x)
        return vd_fail_memory(err, compiled->program->name, sizeof *x);
    pthread_mutex_lock(&d->lock);
    vd_code code = ready_part((vd_cuda_compiled *)compiled, d, &t, err);
    if (code == VD_OK)
        code = bind_and_capture(t, arena, bindings, count, x, err);
    pthread_mutex_unlock(&d->lock);
    if (code == VD_OK)
        *out = x;
    else
        vd_cuda_exec_close(base, x);
    return code;
}

void vd_cuda_exec_close(vd_device *d, vd_exec *x) {
    if (!x || atomic_load_explicit(&vd_cuda_of(d)->lost, memory_order_acquire))
        return;
    pthread_rwlock_rdlock(vd_cuda_of(d)->capture);
    if (x->graph)
        (void)cudaGraphExecDestroy(x->graph);
    pthread_rwlock_unlock(vd_cuda_of(d)->capture);
    free(x);
}
