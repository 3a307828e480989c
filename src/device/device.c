/* What all backends share: fault words, lists of compiled programs, and the host's side of events. */
#include "device/device.h"

#include "base/thread.h"

enum { FAULT_NONE, FAULT_WRITING, FAULT_RAISED };

void vd_fault_clear(vd_fault *fault) {
    fault->error = (vd_error){0};
    atomic_store_explicit(&fault->state, FAULT_NONE, memory_order_release);
}

void vd_fault_raise(vd_fault *fault, const vd_error *error) {
    int none = FAULT_NONE;
    if (!fault || !atomic_compare_exchange_strong(&fault->state, &none, FAULT_WRITING))
        return;
    fault->error = *error;
    atomic_store_explicit(&fault->state, FAULT_RAISED, memory_order_release);
}

bool vd_fault_failed(const vd_fault *fault) {
    return fault && atomic_load_explicit(&fault->state, memory_order_acquire) == FAULT_RAISED;
}

vd_compiled *vd_compiled_join(vd_compiled *list, const vd_program *p) {
    while (list && list->program != p)
        list = list->next;
    if (list)
        list->users++;
    return list;
}

void vd_compiled_add(vd_compiled **list, vd_compiled *c) {
    c->users = 1;
    c->next = *list;
    *list = c;
}

bool vd_compiled_leave(vd_compiled **list, vd_compiled *c) {
    if (--c->users > 0)
        return false;
    while (*list != c)
        list = &(*list)->next;
    *list = c->next;
    return true;
}

void vd_device_took(vd_device *d, size_t bytes) {
    size_t now = atomic_fetch_add(&d->allocated, bytes) + bytes, peak = atomic_load(&d->peak);
    while (now > peak && !atomic_compare_exchange_weak(&d->peak, &peak, now)) {
    }
}

vd_code vd_bind_values(const vd_program *p, void *arena, const vd_binding *bindings, int count, void **at,
                       vd_error *err) {
    for (int i = 0; i < count; i++)
        at[bindings[i].value] = bindings[i].memory;
    for (vd_value v = 0; v < p->value_count; v++) {
        if (p->values[v].storage == VD_STORAGE_ARENA)
            at[v] = (unsigned char *)arena + p->values[v].offset;
        if (p->values[v].storage == VD_STORAGE_EXTERNAL && !at[v])
            return vd_fail(err, VD_ERR_INTERNAL, "program %s: '%s' is not bound", p->name, p->values[v].name);
    }
    for (vd_value v = 0; v < p->value_count; v++)
        if (p->values[v].storage == VD_STORAGE_VIEW)
            at[v] = (unsigned char *)at[p->values[v].parent] + p->values[v].offset;
    return VD_OK;
}

bool vd_event_done(const vd_event *e) {
    uint32_t recorded = atomic_load_explicit(&e->recorded, memory_order_acquire);
    return (int32_t)(atomic_load_explicit(&e->completed, memory_order_acquire) - recorded) >= 0;
}

bool vd_event_wait_host(vd_event *e, double timeout_s) {
    double deadline = vd_now() + timeout_s;
    uint32_t target = atomic_load_explicit(&e->recorded, memory_order_acquire);
    for (;;) {
        uint32_t seen = atomic_load_explicit(&e->completed, memory_order_acquire);
        if ((int32_t)(seen - target) >= 0)
            return true;
        double left = deadline - vd_now();
        if (timeout_s >= 0 && left <= 0)
            return false;
        vd_park(&e->completed, seen, timeout_s < 0 ? -1 : (int64_t)(left * 1e9) + 1);
    }
}

double vd_event_seconds(const vd_event *e) {
    return atomic_load_explicit(&e->seconds, memory_order_acquire);
}
