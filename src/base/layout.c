#include "base/layout.h"

#include <stdint.h>
#include <stdlib.h>

size_t vd_align_up(size_t bytes) {
    return (bytes + VD_ALIGNMENT - 1) / VD_ALIGNMENT * VD_ALIGNMENT;
}

/* Largest first; equal sizes in the caller's order, which makes the result independent of qsort. */
static int compare_sizes(const void *left, const void *right) {
    const vd_span *a = *(vd_span *const *)left, *b = *(vd_span *const *)right;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? 1 : -1;
    return (a > b) - (a < b);
}

/* Refuses sizes whose sum could wrap, so that no sum below can. */
static vd_code check_spans(const vd_span *spans, int count, vd_error *err) {
    size_t sum = 0;
    for (int i = 0; i < count; i++) {
        if (spans[i].first > spans[i].last)
            return vd_fail(err, VD_ERR_INTERNAL, "memory plan: buffer %d lives from %d to %d", i,
                           spans[i].first, spans[i].last);
        if (spans[i].bytes > SIZE_MAX / 2 || __builtin_add_overflow(sum, vd_align_up(spans[i].bytes), &sum))
            return vd_fail(err, VD_ERR_UNAVAILABLE, "memory plan: %d buffers exceed the address space",
                           count);
    }
    return VD_OK;
}

/* The lowest place for `span` between the `count` spans of `placed` (by rising offset) alive together with
 * it. */
static size_t lowest_place(const vd_span *span, vd_span *const *placed, int count) {
    size_t place = 0;
    for (int i = 0; i < count; i++) {
        const vd_span *other = placed[i];
        if (other->last < span->first || other->first > span->last)
            continue;
        if (place + span->bytes <= other->offset)
            break;
        size_t end = vd_align_up(other->offset + other->bytes);
        place = place > end ? place : end;
    }
    return place;
}

vd_code vd_layout_pack(vd_span *spans, int count, size_t *total, vd_error *err) {
    *total = 0;
    VD_TRY(check_spans(spans, count, err));
    if (count <= 0)
        return VD_OK;
    vd_span **order = malloc(2 * (size_t)count * sizeof *order);
    if (!order)
        return vd_fail_memory(err, "the memory plan", 2ull * (size_t)count * sizeof *order);
    vd_span **placed = order + count;
    for (int i = 0; i < count; i++)
        order[i] = &spans[i];
    qsort(order, (size_t)count, sizeof *order, compare_sizes);

    for (int i = 0; i < count; i++) {
        vd_span *span = order[i];
        span->offset = span->bytes > 0 ? lowest_place(span, placed, i) : 0;
        size_t end = vd_align_up(span->offset + span->bytes);
        *total = *total > end ? *total : end;
        int at = i;
        for (; at > 0 && placed[at - 1]->offset > span->offset; at--)
            placed[at] = placed[at - 1];
        placed[at] = span;
    }
    free(order);
    return VD_OK;
}
