#include "base/ring.h"

#include "base/thread.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* Parking. The waiter raises its flag and then looks at the other side's index; the other side moves the
 * index and then looks at the flag. All four are seq_cst, so at least one of the two sees the other: either
 * the waiter does not sleep, or it is woken. The waker lowers the flag before it wakes, so a waiter on its
 * way to sleep is turned back by the futex. */

enum { SPIN_ROUNDS = 12, PAUSES_PER_ROUND = 24 }; /* 20 us or less */

static void spin(void) {
    for (int i = 0; i < PAUSES_PER_ROUND; i++) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    }
    sched_yield(); /* on one core the other side cannot move otherwise */
}

static void wake(_Atomic uint32_t *parked) {
    if (atomic_load(parked)) {
        atomic_store(parked, 0);
        vd_wake_all(parked);
    }
}

/* Sleeps until `index` has left `stuck_at` or the ring is closed; may return early. */
static void park(vd_ring *ring, _Atomic uint32_t *parked, _Atomic uint32_t *index, uint32_t stuck_at) {
    atomic_store(parked, 1);
    if (atomic_load(index) == stuck_at && !atomic_load(&ring->closed))
        vd_park(parked, 1, -1);
    atomic_store(parked, 0);
}

static unsigned char *slot(const vd_ring *ring, uint32_t index) {
    return ring->items + (index & (ring->capacity - 1)) * ring->item_bytes;
}

vd_code vd_ring_init(vd_ring *ring, uint32_t capacity, size_t item_bytes, uint32_t first_index,
                     vd_error *err) {
    *ring =
        (vd_ring){.head = first_index, .tail = first_index, .capacity = capacity, .item_bytes = item_bytes};
    if (capacity == 0 || (capacity & (capacity - 1)) != 0 || item_bytes == 0)
        return vd_fail(err, VD_ERR_INTERNAL,
                       "ring of %u items of %zu bytes: the number must be a power of two", capacity,
                       item_bytes);
    ring->items = calloc(capacity, item_bytes);
    if (!ring->items)
        return vd_fail_memory(err, "a ring", (unsigned long long)capacity * item_bytes);
    return VD_OK;
}

void vd_ring_destroy(vd_ring *ring) {
    free(ring->items);
    ring->items = NULL;
}

bool vd_ring_try_push(vd_ring *ring, const void *item) {
    uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed); /* ours */
    uint32_t head = atomic_load_explicit(&ring->head, memory_order_acquire); /* the slot has been read */
    if (tail - head == ring->capacity || atomic_load_explicit(&ring->closed, memory_order_acquire))
        return false;
    memcpy(slot(ring, tail), item, ring->item_bytes);
    atomic_store(&ring->tail, tail + 1);
    wake(&ring->consumer_parked);
    return true;
}

bool vd_ring_try_pop(vd_ring *ring, void *item) {
    uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed); /* ours */
    uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire); /* the slot has been written */
    if (head == tail)
        return false;
    memcpy(item, slot(ring, head), ring->item_bytes);
    atomic_store(&ring->head, head + 1);
    wake(&ring->producer_parked);
    return true;
}

bool vd_ring_push(vd_ring *ring, const void *item) {
    for (int round = 0; !vd_ring_try_push(ring, item); round++) {
        if (atomic_load_explicit(&ring->closed, memory_order_acquire))
            return false;
        uint32_t full_at = atomic_load_explicit(&ring->tail, memory_order_relaxed) - ring->capacity;
        if (round < SPIN_ROUNDS)
            spin();
        else
            park(ring, &ring->producer_parked, &ring->head, full_at);
    }
    return true;
}

bool vd_ring_pop(vd_ring *ring, void *item) {
    for (int round = 0; !vd_ring_try_pop(ring, item); round++) {
        if (atomic_load_explicit(&ring->closed, memory_order_acquire))
            return vd_ring_try_pop(ring, item); /* what was pushed before the closing */
        uint32_t empty_at = atomic_load_explicit(&ring->head, memory_order_relaxed);
        if (round < SPIN_ROUNDS)
            spin();
        else
            park(ring, &ring->consumer_parked, &ring->tail, empty_at);
    }
    return true;
}

void vd_ring_close(vd_ring *ring) {
    atomic_store(&ring->closed, 1);
    wake(&ring->producer_parked);
    wake(&ring->consumer_parked);
}
