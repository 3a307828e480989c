/* Ctrl-C and SIGTERM: the first stops the run when what is in flight is finished, the second leaves at once.
 */
#ifndef VD_APP_INTERRUPT_H
#define VD_APP_INTERRUPT_H

#include "base/error.h"
#include "vdpp.h"

#include <stdbool.h>

vd_code vd_interrupt_install(vd_error *err);

/* The engine to stop, from now on or, NULL, no longer. Stops it at once when the signal came before. */
void vd_interrupt_watch(vdpp_engine *engine);

/* How many signals came. While an engine is watched, whoever sees two has a second to remove its temporaries
 * and leave; else the second signal ends the process itself. */
int vd_interrupt_count(void);

#endif
