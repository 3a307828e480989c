/* Named, pinned threads, parking on a futex, and the monotonic clock. */
#ifndef VD_BASE_THREAD_H
#define VD_BASE_THREAD_H

#include "base/error.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

enum { VD_ANY_CPU = -1 };

typedef struct vd_thread {
    pthread_t handle;
    int running; /* 1 between a successful start and join */
} vd_thread;

/* Starts a thread named `name` (cut to 15 characters), with all signals blocked so that only the main
 * thread handles them, pinned to logical CPU `cpu` or free with VD_ANY_CPU. Pinning that the system
 * refuses is not an error. `thread` must stay valid until joined. */
vd_code vd_thread_start(vd_thread *thread, const char *name, int cpu, void *(*body)(void *), void *argument,
                        vd_error *err);
void vd_thread_join(vd_thread *thread); /* no-op when not running */

/* Keeps the calling thread on the CPUs of a NUMA node, of those it may run on; changes nothing when the node
 * is unknown (-1) or has none of them. */
void vd_thread_stay_near(int node);

/* Sleeps while *word == expected, until woken or `timeout_ns` passed (negative: none). May return early. */
void vd_park(_Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns);
void vd_wake_all(_Atomic uint32_t *word);

/* Seconds on CLOCK_MONOTONIC. */
double vd_now(void);

/* How many logical CPUs this process may run on. */
int vd_cpu_count(void);
/* Which they are, in an order that fills cores before hyper-threads (hwloc; takes milliseconds); writes at
 * most `cap` numbers and returns how many there are. */
int vd_usable_cpus(int *cpus, int cap);

#endif
