/* Arrays that grow by one item at a time. */
#ifndef VD_APP_GROW_H
#define VD_APP_GROW_H

#include <stdlib.h>

/* Room for one more than `count` items, doubling at powers of two; NULL when out of memory (`items` then
 * stands). */
static inline void *vd_grow(void *items, int count, size_t item_bytes) {
    if (count & (count - 1))
        return items;
    return realloc(items, (count > 0 ? 2 * (size_t)count : 1) * item_bytes);
}

#endif
