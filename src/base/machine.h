/* What this machine is and has, as the kernel tells it. */
#ifndef VD_BASE_MACHINE_H
#define VD_BASE_MACHINE_H

#include <stddef.h>

/* The processor's name; "unknown CPU" where the kernel does not say. Returns `out`. */
char *vd_machine_model(char *out, size_t cap);

/* Bytes; 0: unknown. */
size_t vd_machine_memory(void);    /* the machine's or the control group's, whichever is less */
size_t vd_machine_available(void); /* of it, what may still be taken */
size_t vd_process_resident(void);

#endif
