#include "engine/link.h"

#include <stdlib.h>
#include <string.h>

static vd_code open_slots(vd_link *l, size_t state_bytes, vd_error *err) {
    for (int i = 0; i < VD_LINK_SLOTS; i++) {
        void *memory;
        VD_TRY(l->to->table->allocate(l->to, state_bytes, &memory, err));
        l->slots[i] = memory;
        VD_TRY(l->from->table->event_open(l->from, &l->copied[i], err));
        VD_TRY(l->to->table->event_open(l->to, &l->freed[i], err));
        if (!vd_ring_try_push(&l->free_slots, &i))
            return vd_fail(err, VD_ERR_INTERNAL, "link %s to %s: no room for slot %d", l->from->name,
                           l->to->name, i);
    }
    return VD_OK;
}

vd_code vd_link_open(vd_device *from, vd_device *to, size_t state_bytes, vd_link **out, vd_error *err) {
    vd_link *l = aligned_alloc(_Alignof(vd_link), sizeof *l);
    if (!l)
        return vd_fail_memory(err, "a link", sizeof *l);
    memset(l, 0, sizeof *l);
    l->from = from;
    l->to = to;
    vd_code code = vd_ring_init(&l->tickets, VD_LINK_SLOTS, sizeof(vd_ticket), 0, err);
    if (code == VD_OK)
        code = vd_ring_init(&l->free_slots, VD_LINK_SLOTS, sizeof(int), 0, err);
    if (code == VD_OK)
        code = open_slots(l, state_bytes, err);
    if (code != VD_OK) {
        vd_link_close(l);
        return code;
    }
    *out = l;
    return VD_OK;
}

void vd_link_shut(vd_link *l) {
    vd_ring_close(&l->tickets);
    vd_ring_close(&l->free_slots);
}

void vd_link_close(vd_link *l) {
    if (!l)
        return;
    for (int i = 0; i < VD_LINK_SLOTS; i++) {
        if (l->slots[i])
            l->to->table->release(l->to, l->slots[i]);
        if (l->copied[i])
            l->from->table->event_close(l->copied[i]);
        if (l->freed[i])
            l->to->table->event_close(l->freed[i]);
    }
    vd_ring_destroy(&l->tickets);
    vd_ring_destroy(&l->free_slots);
    free(l);
}
