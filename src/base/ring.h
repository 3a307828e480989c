/* Single-producer single-consumer ring of fixed-size items, in C11 atomics.
 *
 * DESIGN
 *   owner     one thread pushes, one thread pops; they may be the same. Items are copied in and out.
 *   order     first in, first out. push publishes with release, pop reads with acquire; nothing else is
 *             ordered. (The index stores are seq_cst for the sake of parking, see ring.c.)
 *   bounds    `capacity` (a power of two) items; push on a full ring and pop on an empty one return false or
 *             wait.
 *   waiting   spins 20 us or less, yielding, then parks on a futex word; the other side wakes it only when
 *             it is parked.
 *   shutdown  vd_ring_close makes every present and future wait return: push refuses, pop drains what is left
 *             and then refuses. Closing may be done from any thread; an item whose push ran at the same time
 *             may stay in the ring.
 *   indices   32-bit counters that run freely and wrap; each on its own cache line.
 */
#ifndef VD_BASE_RING_H
#define VD_BASE_RING_H

#include "base/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct vd_ring {
    _Alignas(64) _Atomic uint32_t head; /* next to pop, written by the consumer */
    _Atomic uint32_t consumer_parked;
    _Alignas(64) _Atomic uint32_t tail; /* next to push, written by the producer */
    _Atomic uint32_t producer_parked;
    _Alignas(64) _Atomic uint32_t closed;
    uint32_t capacity;
    size_t item_bytes;
    unsigned char *items; /* capacity * item_bytes */
} vd_ring;

/* `capacity` must be a power of two. `first_index` is where both counters start (0; tests: near 2^32). */
vd_code vd_ring_init(vd_ring *ring, uint32_t capacity, size_t item_bytes, uint32_t first_index,
                     vd_error *err);
void vd_ring_destroy(vd_ring *ring); /* zeroed rings are fine */

bool vd_ring_try_push(vd_ring *ring, const void *item); /* false: full or closed */
bool vd_ring_try_pop(vd_ring *ring, void *item);        /* false: empty */
bool vd_ring_push(vd_ring *ring, const void *item);     /* waits for room; false: closed */
bool vd_ring_pop(vd_ring *ring, void *item);            /* waits for an item; false: closed and empty */
void vd_ring_close(vd_ring *ring);

#endif
