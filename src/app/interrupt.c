#include "app/interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

/* Handlers of signals have no argument to carry state: this is all there is of it in the process. */
static atomic_int signals;
static _Atomic(vdpp_engine *) watched;

static void on_signal(int number) {
    vdpp_engine *engine = atomic_load(&watched);
    int count = atomic_fetch_add(&signals, 1) + 1;
    if (count == 1 && engine)
        vdpp_stop(engine);
    else if (count == 2 && engine && number != SIGALRM)
        alarm(1); /* the progress callback leaves earlier; a run that hangs does not get there */
    else if (count > 1)
        _exit(VD_ERR_INTERRUPTED);
}

vd_code vd_interrupt_install(vd_error *err) {
    static const int caught[] = {SIGINT, SIGTERM, SIGALRM};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++)
        if (sigaction(caught[i], &action, NULL) != 0)
            return vd_fail(err, VD_ERR_INTERNAL, "cannot handle signal %d: %m", caught[i]);
    return VD_OK;
}

void vd_interrupt_watch(vdpp_engine *engine) {
    atomic_store(&watched, engine);
    if (engine && vd_interrupt_count() > 0)
        vdpp_stop(engine);
}

int vd_interrupt_count(void) {
    return atomic_load(&signals);
}
