/* A wrapper of any device: every call passes through to the inner device but the one that the fault says.
 * Streams and events are the inner device's own, with the wrapper put in as their device so that calls on
 * them come back here. */
#include "device/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct range {
    unsigned char *first;
    size_t bytes;
} range;

typedef struct faulty_device {
    vd_device base;
    vd_device *inner;
    vd_fault_kind kind;
    _Atomic int left; /* calls of the chosen kind until the fault happens */
    atomic_bool lost; /* nothing can be enqueued any more */
    range copied;     /* what a damaged copy wrote; a device damages one copy only */
} faulty_device;

static const vd_device_table faulty_table;

static faulty_device *wrapper(vd_device *d) {
    return (faulty_device *)d;
}

static const vd_device_table *inner_table(vd_device *d) {
    return wrapper(d)->inner->table;
}

/* True once: at the k-th call of the chosen kind. */
static bool strikes(vd_device *d, vd_fault_kind kind) {
    return wrapper(d)->kind == kind && atomic_fetch_sub(&wrapper(d)->left, 1) == 1;
}

/* What every call that enqueues begins with. */
static vd_code check_lost(const vd_stream *s, vd_error *err) {
    if (!atomic_load(&wrapper(s->device)->lost))
        return VD_OK;
    return vd_fail(err, VD_ERR_TRY_AGAIN, "device %s was lost (injected)", s->device->name);
}

static void mirror_memory(vd_device *d) {
    atomic_store(&d->allocated, atomic_load(&wrapper(d)->inner->allocated));
    atomic_store(&d->peak, atomic_load(&wrapper(d)->inner->peak));
}

static void faulty_close(vd_device *d) {
    inner_table(d)->close(wrapper(d)->inner);
    free(d);
}

static void faulty_abandon(vd_device *d) {
    inner_table(d)->abandon(wrapper(d)->inner);
}

static vd_code faulty_check(vd_device *d, vd_error *err) {
    return inner_table(d)->check ? inner_table(d)->check(wrapper(d)->inner, err) : VD_OK;
}

static vd_code faulty_allocate(vd_device *d, size_t bytes, void **memory, vd_error *err) {
    if (strikes(d, VD_INJECT_NO_MEMORY))
        return vd_fail(err, VD_ERR_UNAVAILABLE, "device %s: no memory for %zu bytes (injected)", d->name,
                       bytes);
    vd_code code = inner_table(d)->allocate(wrapper(d)->inner, bytes, memory, err);
    mirror_memory(d);
    return code;
}

static void faulty_release(vd_device *d, void *memory) {
    inner_table(d)->release(wrapper(d)->inner, memory);
    mirror_memory(d);
}

static vd_code faulty_stream_open(vd_device *d, const char *name, vd_stream **out, vd_error *err) {
    VD_TRY(inner_table(d)->stream_open(wrapper(d)->inner, name, out, err));
    (*out)->device = d;
    return VD_OK;
}

static void faulty_stream_close(vd_stream *s) {
    if (s)
        inner_table(s->device)->stream_close(s);
}

static vd_code faulty_stream_drain(vd_stream *s, vd_error *err) {
    return inner_table(s->device)->stream_drain(s, err);
}

static vd_code faulty_event_open(vd_device *d, vd_event **out, vd_error *err) {
    VD_TRY(inner_table(d)->event_open(wrapper(d)->inner, out, err));
    (*out)->device = d;
    return VD_OK;
}

static void faulty_event_close(vd_event *e) {
    if (e)
        inner_table(e->device)->event_close(e);
}

static vd_code faulty_record(vd_stream *s, vd_event *e, vd_error *err) {
    VD_TRY(check_lost(s, err));
    if (strikes(s->device, VD_INJECT_NEVER_FIRES)) {
        atomic_fetch_add_explicit(&e->recorded, 1, memory_order_release);
        return VD_OK;
    }
    return inner_table(s->device)->record(s, e, err);
}

static vd_code faulty_wait(vd_stream *s, vd_event *e, vd_error *err) {
    VD_TRY(check_lost(s, err));
    if (strikes(s->device, VD_INJECT_WAIT_DROPPED))
        return VD_OK;
    return inner_table(s->device)->wait(s, e, err);
}

static vd_code faulty_copy(vd_stream *s, vd_copy_kind kind, void *to, const void *from, size_t bytes,
                           vd_fault *fault, vd_error *err) {
    VD_TRY(check_lost(s, err));
    return inner_table(s->device)->copy(s, kind, to, from, bytes, fault, err);
}

static void flip_bit(void *argument) {
    const range *copied = argument;
    copied->first[copied->bytes / 2] ^= 0x10;
}

static void clear(void *argument) {
    const range *copied = argument;
    memset(copied->first, 0, copied->bytes);
}

/* Once a copy is done, `damage` happens to what arrived. */
static vd_code spoil(vd_stream *s, void (*damage)(void *argument), void *first, size_t bytes, vd_error *err) {
    range *copied = &wrapper(s->device)->copied;
    *copied = (range){first, bytes};
    return inner_table(s->device)->notify(s, damage, copied, err);
}

static vd_code faulty_copy_peer(vd_stream *s, vd_device *to_device, void *to, const void *from, size_t bytes,
                                vd_fault *fault, vd_error *err) {
    VD_TRY(check_lost(s, err));
    if (strikes(s->device, VD_INJECT_COPY_DROPPED))
        return VD_OK;
    if (to_device->table == &faulty_table)
        to_device = wrapper(to_device)->inner;
    VD_TRY(inner_table(s->device)->copy_peer(s, to_device, to, from, bytes, fault, err));
    if (strikes(s->device, VD_INJECT_COPY_FLIPPED))
        return spoil(s, flip_bit, to, bytes, err);
    if (strikes(s->device, VD_INJECT_COPY_ZEROED))
        return spoil(s, clear, to, bytes, err);
    return VD_OK;
}

static vd_code faulty_notify(vd_stream *s, void (*call)(void *argument), void *argument, vd_error *err) {
    VD_TRY(check_lost(s, err));
    return inner_table(s->device)->notify(s, call, argument, err);
}

static vd_code faulty_compile(vd_device *d, const vd_program *p, vd_compiled **out, vd_error *err) {
    return inner_table(d)->compile(wrapper(d)->inner, p, out, err);
}

static void faulty_compiled_close(vd_device *d, vd_compiled *c) {
    inner_table(d)->compiled_close(wrapper(d)->inner, c);
}

static vd_code faulty_load(vd_device *d, vd_compiled *c, vd_error *err) {
    vd_code code = inner_table(d)->load(wrapper(d)->inner, c, err);
    mirror_memory(d);
    return code;
}

static vd_code faulty_exec_open(vd_device *d, vd_compiled *c, void *arena, const vd_binding *bindings,
                                int count, vd_exec **out, vd_error *err) {
    return inner_table(d)->exec_open(wrapper(d)->inner, c, arena, bindings, count, out, err);
}

static void faulty_exec_close(vd_device *d, vd_exec *x) {
    inner_table(d)->exec_close(wrapper(d)->inner, x);
}

static vd_code faulty_launch(vd_stream *s, vd_exec *x, vd_fault *fault, vd_error *err) {
    if (strikes(s->device, VD_INJECT_LOST))
        atomic_store(&wrapper(s->device)->lost, true);
    VD_TRY(check_lost(s, err));
    if (strikes(s->device, VD_INJECT_LAUNCH_FAILS)) {
        vd_error error;
        vd_fail(&error, VD_ERR_INTERNAL, "device %s: a launch failed (injected)", s->device->name);
        vd_fault_raise(fault, &error);
        return VD_OK;
    }
    return inner_table(s->device)->launch(s, x, fault, err);
}

static const vd_device_table faulty_table = {
    .close = faulty_close,
    .abandon = faulty_abandon,
    .check = faulty_check,
    .allocate = faulty_allocate,
    .release = faulty_release,
    .stream_open = faulty_stream_open,
    .stream_close = faulty_stream_close,
    .stream_drain = faulty_stream_drain,
    .event_open = faulty_event_open,
    .event_close = faulty_event_close,
    .record = faulty_record,
    .wait = faulty_wait,
    .copy = faulty_copy,
    .copy_peer = faulty_copy_peer,
    .notify = faulty_notify,
    .compile = faulty_compile,
    .compiled_close = faulty_compiled_close,
    .load = faulty_load,
    .exec_open = faulty_exec_open,
    .exec_close = faulty_exec_close,
    .launch = faulty_launch,
};

vd_code vd_faulty_device_open(vd_device *inner, vd_fault_kind kind, int k, vd_device **out, vd_error *err) {
    faulty_device *d = calloc(1, sizeof *d);
    if (!d)
        return vd_fail_memory(err, "a faulty device", sizeof *d);
    d->base.table = &faulty_table;
    snprintf(d->base.name, sizeof d->base.name, "%s", inner->name);
    d->inner = inner;
    d->kind = kind;
    d->left = k;
    *out = &d->base;
    return VD_OK;
}
