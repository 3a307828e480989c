/* Virtual CPU devices: memory, compiled programs, and the device table. */
#include "base/layout.h"
#include "base/thread.h"
#include "device/cpu_backend.h"
#include "device/cpu_stream.h"
#include "device/cpu_team.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    BLOCK_HEADER = VD_ALIGNMENT, /* keeps the block behind it aligned */
    HUGE_PAGE =
        2 << 20, /* blocks at least this big ask for huge pages: fresh 4 KiB pages cost ten times as much */
};

typedef struct cpu_compiled {
    vd_compiled base;
    vd_cpu_library *library;
    vd_cpu_plan **plans;         /* [op_count] */
    size_t *scratch;             /* [op_count] bytes */
    vd_cpu_constant **constants; /* [value_count]; NULL where the value is no constant */
    vd_cpu_team planning, loading;
} cpu_compiled;

typedef struct cpu_device {
    vd_device base;
    vd_cpu_backend *backend;
    int cpu; /* of its compute stream, the first one opened */
    _Atomic int streams;
    _Atomic uint32_t abandoned;
} cpu_device;

/* ---- memory ---- */

typedef struct block_header {
    size_t bytes; /* of the whole block */
    bool mapped;
} block_header;

static void *map_block(size_t total) {
    void *block = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED)
        return NULL;
    madvise(block, total, MADV_HUGEPAGE); /* a wish: without huge pages it is only slower */
    return block;
}

static vd_code cpu_allocate(vd_device *d, size_t bytes, void **memory, vd_error *err) {
    size_t total = vd_align_up(bytes) + BLOCK_HEADER;
    bool mapped = total >= HUGE_PAGE;
    unsigned char *block = mapped ? map_block(total) : aligned_alloc(VD_ALIGNMENT, total);
    if (!block) {
        vd_fail_memory(err, d->name, bytes);
        err->code = VD_ERR_UNAVAILABLE;
        return err->code;
    }
    if (!mapped)
        memset(block, 0, total);
    *(block_header *)block = (block_header){total, mapped};
    *memory = block + BLOCK_HEADER;
    vd_device_took(d, total - BLOCK_HEADER);
    return VD_OK;
}

static void cpu_release(vd_device *d, void *memory) {
    if (!memory)
        return;
    unsigned char *block = (unsigned char *)memory - BLOCK_HEADER;
    block_header h = *(block_header *)block;
    atomic_fetch_sub(&d->allocated, h.bytes - BLOCK_HEADER);
    if (h.mapped)
        munmap(block, h.bytes);
    else
        free(block);
}

/* ---- streams and events ---- */

static vd_code cpu_stream_open(vd_device *base, const char *name, vd_stream **out, vd_error *err) {
    cpu_device *d = (cpu_device *)base;
    int cpu = d->streams++ == 0 ? d->cpu : VD_ANY_CPU;
    return vd_cpu_stream_open(base, d->backend->library, name, cpu, &d->abandoned, out, err);
}

static vd_code cpu_event_open(vd_device *d, vd_event **out, vd_error *err) {
    vd_cpu_event *e = calloc(1, sizeof *e);
    if (!e)
        return vd_fail_memory(err, "an event", sizeof *e);
    e->base.device = d;
    *out = &e->base;
    return VD_OK;
}

static void cpu_event_close(vd_event *e) {
    free(e);
}

/* ---- programs ---- */

static void free_compiled(cpu_compiled *c) {
    for (int i = 0; c->plans && i < c->base.program->op_count; i++)
        free(c->plans[i]);
    vd_cpu_team_destroy(&c->planning);
    vd_cpu_team_destroy(&c->loading);
    free(c->plans);
    free(c->scratch);
    free(c->constants);
    free(c);
}

static cpu_compiled *new_compiled(vd_cpu_library *library, const vd_program *p) {
    cpu_compiled *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->base.program = p;
    c->library = library;
    c->plans = calloc((size_t)p->op_count + 1, sizeof *c->plans);
    c->scratch = calloc((size_t)p->op_count + 1, sizeof *c->scratch);
    c->constants = calloc((size_t)p->value_count + 1, sizeof *c->constants);
    vd_cpu_team_init(&c->planning);
    vd_cpu_team_init(&c->loading);
    if (c->plans && c->scratch && c->constants)
        return c;
    free_compiled(c);
    return NULL;
}

/* The backend's entry for `p`, made when it is new; counts the caller as a user. */
static cpu_compiled *find_compiled(vd_cpu_backend *b, const vd_program *p) {
    pthread_mutex_lock(&b->lock);
    cpu_compiled *c = (cpu_compiled *)vd_compiled_join(b->programs, p);
    if (!c && (c = new_compiled(b->library, p)))
        vd_compiled_add(&b->programs, &c->base);
    pthread_mutex_unlock(&b->lock);
    return c;
}

/* Items 0 .. op_count-1 are operations, the ones after them values. */
static vd_code plan_item(void *context, int i, vd_error *err) {
    cpu_compiled *c = context;
    const vd_program *p = c->base.program;
    if (i < p->op_count)
        return vd_cpu_plan_new(vd_cpu_ops[p->ops[i].kind], c->library, p, &p->ops[i], &c->plans[i],
                               &c->scratch[i], err);
    const vd_value_info *v = &p->values[i - p->op_count];
    if (v->storage != VD_STORAGE_CONSTANT)
        return VD_OK;
    return vd_cpu_constant_plan(c->library, v->constant, v->dtype, &c->constants[i - p->op_count], err);
}

static vd_code load_item(void *context, int i, vd_error *err) {
    cpu_compiled *c = context;
    const vd_program *p = c->base.program;
    if (i < p->op_count) {
        const vd_cpu_op *op = vd_cpu_ops[p->ops[i].kind];
        return op->load ? op->load(c->library, c->plans[i], err) : VD_OK;
    }
    vd_cpu_constant *constant = c->constants[i - p->op_count];
    return constant ? vd_cpu_constant_load(constant, err) : VD_OK;
}

static void cpu_compiled_close(vd_device *d, vd_compiled *base) {
    if (!base)
        return;
    cpu_compiled *c = (cpu_compiled *)base;
    vd_cpu_backend *b = ((cpu_device *)d)->backend;
    pthread_mutex_lock(&b->lock);
    bool last = vd_compiled_leave(&b->programs, base);
    pthread_mutex_unlock(&b->lock);
    if (last)
        free_compiled(c);
}

static vd_code cpu_compile(vd_device *d, const vd_program *p, vd_compiled **out, vd_error *err) {
    cpu_compiled *c = find_compiled(((cpu_device *)d)->backend, p);
    if (!c)
        return vd_fail_memory(err, p->name, sizeof *c);
    vd_code code = vd_cpu_team_work(&c->planning, p->op_count + p->value_count, plan_item, c, err);
    if (code != VD_OK) {
        cpu_compiled_close(d, &c->base);
        return code;
    }
    size_t most = 0;
    for (int i = 0; i < p->op_count; i++)
        most = c->scratch[i] > most ? c->scratch[i] : most;
    pthread_mutex_lock(&((cpu_device *)d)->backend->lock);
    c->base.workspace_bytes = vd_align_up(most);
    pthread_mutex_unlock(&((cpu_device *)d)->backend->lock);
    *out = &c->base;
    return VD_OK;
}

static vd_code cpu_load(vd_device *d, vd_compiled *base, vd_error *err) {
    (void)d;
    cpu_compiled *c = (cpu_compiled *)base;
    return vd_cpu_team_work(&c->loading, base->program->op_count + base->program->value_count, load_item, c,
                            err);
}

static void cpu_exec_close(vd_device *d, vd_exec *x) {
    (void)d;
    if (!x)
        return;
    free(x->at);
    free(x);
}

static vd_code cpu_exec_open(vd_device *d, vd_compiled *base, void *arena, const vd_binding *bindings,
                             int count, vd_exec **out, vd_error *err) {
    cpu_compiled *c = (cpu_compiled *)base;
    const vd_program *p = base->program;
    vd_exec *x = calloc(1, sizeof *x);
    if (!x || !(x->at = calloc((size_t)p->value_count + 1, sizeof *x->at))) {
        free(x);
        return vd_fail_memory(err, p->name, (unsigned long long)p->value_count * sizeof *x->at);
    }
    x->program = p;
    x->plans = c->plans;
    x->scratch = (unsigned char *)arena + p->arena_bytes;
    for (vd_value v = 0; v < p->value_count; v++)
        if (c->constants[v])
            x->at[v] = (void *)vd_cpu_constant_data(c->constants[v]);
    vd_code code = vd_bind_values(p, arena, bindings, count, x->at, err);
    if (code == VD_OK)
        *out = x;
    else
        cpu_exec_close(d, x);
    return code;
}

/* ---- devices ---- */

static void cpu_close(vd_device *d) {
    free(d);
}

static void cpu_abandon(vd_device *d) {
    atomic_store_explicit(&((cpu_device *)d)->abandoned, 1, memory_order_release);
}

static const vd_device_table cpu_device_table = {
    .close = cpu_close,
    .abandon = cpu_abandon,
    .allocate = cpu_allocate,
    .release = cpu_release,
    .stream_open = cpu_stream_open,
    .stream_close = vd_cpu_stream_close,
    .stream_drain = vd_cpu_stream_drain,
    .event_open = cpu_event_open,
    .event_close = cpu_event_close,
    .record = vd_cpu_stream_record,
    .wait = vd_cpu_stream_wait,
    .copy = vd_cpu_stream_copy,
    .copy_peer = vd_cpu_stream_copy_peer,
    .notify = vd_cpu_stream_notify,
    .compile = cpu_compile,
    .compiled_close = cpu_compiled_close,
    .load = cpu_load,
    .exec_open = cpu_exec_open,
    .exec_close = cpu_exec_close,
    .launch = vd_cpu_stream_launch,
};

vd_code vd_cpu_device_open(vd_cpu_backend *b, int index, int cpu, vd_device **out, vd_error *err) {
    cpu_device *d = calloc(1, sizeof *d);
    if (!d)
        return vd_fail_memory(err, "a virtual device", sizeof *d);
    d->base.table = &cpu_device_table;
    snprintf(d->base.name, sizeof d->base.name, "cpu:%d", index);
    d->backend = b;
    d->cpu = cpu;
    *out = &d->base;
    return VD_OK;
}
