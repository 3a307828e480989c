/* Sharing a list of independent items among whichever threads ask for it at the same time: all stages load
 * the same programs, and with one address space the work need be done only once. */
#ifndef VD_DEVICE_CPU_TEAM_H
#define VD_DEVICE_CPU_TEAM_H

#include "base/error.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

typedef struct vd_cpu_team {
    _Atomic int next;      /* first item that nobody has taken */
    _Atomic uint32_t done; /* items finished; parked on by threads that found nothing left to take */
    pthread_mutex_t lock;  /* guards error */
    vd_error error;        /* the first failure */
} vd_cpu_team;

void vd_cpu_team_init(vd_cpu_team *t);
void vd_cpu_team_destroy(vd_cpu_team *t);

/* Takes items until none is left, then waits until all are finished by whoever took them. Every caller
 * gets the same result; later callers return at once. After a failure the remaining items are skipped. */
vd_code vd_cpu_team_work(vd_cpu_team *t, int items, vd_code (*item)(void *context, int i, vd_error *err),
                         void *context, vd_error *err);

#endif
