/* The engine behind vdpp.h: an open model, its devices, and what options said. */
#ifndef VD_ENGINE_ENGINE_H
#define VD_ENGINE_ENGINE_H

#include "engine/devices.h"
#include "engine/run.h"

struct vdpp_engine {
    vdpp_options options; /* strings belong to the caller */
    vd_log log;
    vd_model *model;
    vd_dtype dtype;
    vd_devices devices;
    int kernels_told;     /* of the backend's list */
    vd_plan_request plan; /* mode, goal, split */
    char format_text[128];
    const char *formats[VD_MAX_FORMATS];
    int format_count;
    vdpp_job suggested; /* the model folder's vdpp.json: settings that suit the model */
    _Atomic int stop;
};

/* job.c */
vd_code vd_job_suggestions(const char *folder, vdpp_job *out, vd_error *err);
vd_code vd_job_resolve(const vdpp_engine *engine, vdpp_job *job, vd_error *err);
vd_run_shape vd_job_shape(const vdpp_engine *engine, const vdpp_job *job);

/* memory.c: what a run will hold, but for decoding again (decode.h), checked against what there is. */
typedef struct vd_memory_plan {
    vd_backend_memory backend;
    bool apart;                  /* devices have memory of their own, beside the machine's */
    size_t stages;               /* arenas and buffers of all devices */
    size_t host;                 /* buffers of the host */
    size_t process;              /* what the process holds already */
    size_t total;                /* of the machine's memory and, where they are apart, the devices' */
    size_t available;            /* of the machine's, beside the process; 0: unknown */
    size_t free[VD_MAX_DEVICES]; /* apart: on each device now; 0: unknown */
    const int *ordinals;         /* of the devices: equal ones share their memory */
} vd_memory_plan;
vd_code vd_memory_plan_of(const vdpp_engine *engine, const vd_run *run, vd_memory_plan *out, vd_error *err);
/* VD_ERR_UNAVAILABLE, with what would fit. */
vd_code vd_memory_check(const vd_memory_plan *plan, const vd_run *run, vd_error *err);
void vd_memory_print(const vd_memory_plan *plan, const vd_run *run, vd_text *text);

/* report.c: the figures of a call, over all its runs. */
typedef struct vd_account vd_account;
vd_code vd_account_open(const vdpp_engine *engine, int samples, vd_account **out, vd_error *err);
void vd_account_close(vd_account *a);
vdpp_report *vd_account_report(vd_account *a);
/* Adds a finished run; its task clocks are copied. */
vd_code vd_account_add(vd_account *a, const vd_run *run, const vd_memory_plan *memory, vd_error *err);
/* Computes every figure and gives the report away. */
vd_code vd_account_finish(vd_account *a, double began, double loaded, double ended, vdpp_report **out,
                          vd_error *err);

#endif
