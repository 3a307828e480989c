/* The machine's devices, for commands that look at them. */
#ifndef VD_APP_HARDWARE_H
#define VD_APP_HARDWARE_H

#include "app/options.h"
#include "device/backend.h"

typedef struct vd_hardware {
    vd_backend *backend;
    bool gpus;
    char why_not[VD_ERROR_CAP]; /* there are none to use; empty when nobody looked */
} vd_hardware;

/* The CUDA backend where it opens, else the CPU's; as --device says. */
vd_code vd_hardware_open(const vd_options *options, vd_hardware *out, vd_error *err);
void vd_hardware_close(vd_hardware *h);

#endif
