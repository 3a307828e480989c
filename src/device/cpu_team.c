#include "device/cpu_team.h"

#include "base/thread.h"

void vd_cpu_team_init(vd_cpu_team *t) {
    *t = (vd_cpu_team){0};
    pthread_mutex_init(&t->lock, NULL);
}

void vd_cpu_team_destroy(vd_cpu_team *t) {
    pthread_mutex_destroy(&t->lock);
}

static vd_code outcome(vd_cpu_team *t, vd_error *err) {
    pthread_mutex_lock(&t->lock);
    vd_error first = t->error;
    pthread_mutex_unlock(&t->lock);
    if (first.code != VD_OK)
        *err = first;
    return first.code;
}

static void run_item(vd_cpu_team *t, int i, vd_code (*item)(void *context, int i, vd_error *err),
                     void *context) {
    vd_error error = {0};
    if (outcome(t, &error) != VD_OK || item(context, i, &error) == VD_OK)
        return;
    pthread_mutex_lock(&t->lock);
    if (t->error.code == VD_OK)
        t->error = error;
    pthread_mutex_unlock(&t->lock);
}

vd_code vd_cpu_team_work(vd_cpu_team *t, int items, vd_code (*item)(void *context, int i, vd_error *err),
                         void *context, vd_error *err) {
    int i;
    while ((i = atomic_load(&t->next)) < items) {
        if (!atomic_compare_exchange_weak(&t->next, &i, i + 1))
            continue;
        run_item(t, i, item, context);
        if (atomic_fetch_add_explicit(&t->done, 1, memory_order_acq_rel) + 1 == (uint32_t)items)
            vd_wake_all(&t->done);
    }
    for (;;) {
        uint32_t done = atomic_load_explicit(&t->done, memory_order_acquire);
        if (done >= (uint32_t)items)
            return outcome(t, err);
        vd_park(&t->done, done, -1);
    }
}
