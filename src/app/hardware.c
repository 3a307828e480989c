#include "app/hardware.h"

#include <string.h>

vd_code vd_hardware_open(const vd_options *options, vd_hardware *out, vd_error *err) {
    const vd_cuda_request request = {.module = options->cuda_module};
    const char *kind = options->device ? options->device : "auto";
    *out = (vd_hardware){0};
    if (strcmp(kind, "cpu") == 0)
        return vd_cpu_backend_open(NULL, &out->backend, err);
    vd_code code = vd_cuda_backend_open(&request, &out->backend, err);
    out->gpus = code == VD_OK;
    if (out->gpus || strcmp(kind, "cuda") == 0)
        return code;
    memcpy(out->why_not, err->message, sizeof out->why_not);
    return vd_cpu_backend_open(NULL, &out->backend, err);
}

void vd_hardware_close(vd_hardware *h) {
    if (h->backend)
        h->backend->table->close(h->backend);
}
