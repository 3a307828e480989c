/* The structs of a run, by lifetime: what all samples of one shape share (vd_run), one sample on its way
 * (vd_trip), one device's thread (stage.h), one edge between two devices (link.h).
 *
 * DESIGN of a run
 *   main       plans, allocates everything, starts the stages and the publisher, watches progress, joins.
 *   stage      one host thread per device. Runs its tasks in the plan's order by enqueuing work; it never
 *              waits for the device but to keep at most STAGE_DEPTH tasks enqueued ahead, so that host
 *              memory stays bounded.
 *   publisher  one thread: checks finished samples, decodes those again whose values overflowed (decode.h),
 *              and writes their files. Never blocks a stage: stages only wait when VD_UNPUBLISHED_LIMIT
 *              finished samples of theirs are not written yet.
 *   errors     a failing sample carries its fault word through the whole schedule; its work is skipped,
 *              its tickets and slots move as always. What breaks a device (memory, a closed stream) is the
 *              run's: `broken` is raised, all rings are closed, every thread returns.
 *   stop       raises the fault of samples that have not been admitted; nothing else changes. */
#ifndef VD_ENGINE_RUN_H
#define VD_ENGINE_RUN_H

#include "base/log.h"
#include "base/ring.h"
#include "base/text.h"
#include "device/device.h"
#include "diffusion/preprocess.h"
#include "engine/state.h"
#include "model/networks.h"
#include "schedule/simulate.h"
#include "vdpp.h"

enum { VD_UNPUBLISHED_LIMIT = 2, VD_MAX_FORMATS = 8 };

/* What must be equal for samples to share programs and buffers. */
typedef struct vd_run_shape {
    int width, height; /* pixels */
    vd_video_shape video;
    int decode_chunk; /* frames */
    bool latents_only;
} vd_run_shape;

typedef enum vd_role {
    VD_ROLE_CLIP,
    VD_ROLE_VAE_ENCODER,
    VD_ROLE_CONDITION,
    VD_ROLE_STEP,
    VD_ROLE_DECODER,      /* decode_chunk frames */
    VD_ROLE_DECODER_REST, /* next to it: the last, shorter chunk; absent when the chunks divide */
    VD_ROLE_COUNT
} vd_role;

/* Both ends of one hand-off, compared before the sample is published. */
typedef struct vd_hop {
    uint64_t sent, received;
    int handoff; /* index in the plan */
} vd_hop;

typedef struct vd_dump vd_dump; /* dump.h */

/* One sample on its way through the devices. Written by one thread at a time; the schedule's order passes
 * it on. */
typedef struct vd_trip {
    int index;           /* in the run */
    const vdpp_job *job; /* resolved */
    uint64_t seed;
    const char *output; /* path without extension */
    vd_fault fault;
    _Atomic double admitted, first_step; /* vd_now(); 0: not yet */
    vd_hop *hops;                        /* [hop_count] in the order travelled */
    int hop_count;
    float *latents;  /* [F,h,w,C] on the host from the last task on; owned until published */
    uint8_t *frames; /* [F,H,W,3], likewise; NULL when latents only */
    int32_t nonfinite;
    vd_dump *dump; /* NULL: no dump */
    vdpp_sample_result *result;
} vd_trip;

/* When a task ran on its device, on the device's clock of the host. */
typedef struct vd_task_clock {
    struct vd_stage *stage;
    int task;
    double start, end; /* vd_now(); written by the stream, read after joining */
} vd_task_clock;

typedef struct vd_stage vd_stage;
typedef struct vd_link vd_link;

typedef struct vd_run {
    const vd_log *log;
    const vd_model *model;
    vd_run_shape shape;
    const char *model_name; /* as the user gave it */
    const char *dtype_name;
    int latent_channels;
    int first_sample; /* index of trips[0] among all samples of the call */

    vd_program *programs[VD_ROLE_COUNT];  /* NULL where the run has no such part */
    vd_program *fp32_decoders[2];         /* for a chunk and for the rest (decode.h); NULL in an fp32 run */
    vd_program *checksum;                 /* of one state block */
    vd_compiled *compiled[VD_ROLE_COUNT]; /* on the first device's backend */
    vd_compiled *compiled_checksum;
    vd_state_layout state;

    vd_device *const *devices; /* [plan->devices], the engine's */
    const int *nodes;          /* [plan->devices], likewise: where the stages' threads stay */
    vd_plan *plan;
    vd_costs costs;        /* estimated from the programs, in step-times */
    vd_task_clock *clocks; /* [task_count] */
    vd_trip *trips;        /* [samples] */
    vd_stage **stages;     /* [devices] */
    vd_link **links;       /* [devices * devices], from * devices + to; NULL where nothing goes */

    const char *dump_folder;
    const char *const *formats;
    int format_count;
    bool overwrite;

    double began;
    _Atomic int *stop;      /* the engine's flag */
    vd_fault broken;        /* first failure that is not a sample's */
    _Atomic uint32_t pulse; /* counts everything that finishes; main and publisher park on it */
    _Atomic int steps_done, published, failed, last_published; /* failed: counted in published too */
} vd_run;

/* What the engine gives to each run. */
typedef struct vd_run_request {
    const vd_log *log;
    vd_model *model;
    const char *model_name;
    vd_dtype dtype;
    vd_device *const *devices;
    const int *nodes; /* NUMA node of each; -1: any */
    int device_count;
    vd_plan_request plan; /* devices, samples, steps, decode and costs are filled in here */
    vd_run_shape shape;
    const vdpp_sample *samples; /* all of this shape, jobs resolved */
    int sample_count, first_sample;
    const char *const *formats; /* names that exist */
    int format_count;
    const char *dump_folder;
    bool overwrite;
    _Atomic int *stop;
    double began; /* vd_now() of the whole call */
} vd_run_request;

/* Builds and compiles the programs, makes the plan, sizes everything. Nothing is allocated on a device
 * yet. */
vd_code vd_run_open(const vd_run_request *request, vd_run **out, vd_error *err);
void vd_run_close(vd_run *run); /* NULL is fine */

/* Called about ten times a second and whenever a sample ended. */
typedef struct vd_run_watch {
    void (*look)(void *user, const vd_run *run);
    void *user;
    double stall_timeout_s; /* <= 0: never */
} vd_run_watch;

/* Makes all samples; `results` [sample_count] are filled by the publisher. Failures of samples are in
 * their results; the code is that of the run itself (a broken device, a stall). */
vd_code vd_run_go(vd_run *run, vdpp_sample_result *results, const vd_run_watch *watch, vd_error *err);

size_t vd_run_host_bytes(const vd_run *run); /* buffers of the host that a run keeps */

/* Ends the run: raises `broken`, with what to do where work can be tried again, and closes every ring. From
 * any thread. */
void vd_run_break(vd_run *run, const vd_error *error);

/* Something finished: whoever is parked on the pulse looks again. */
void vd_run_pulse(vd_run *run);

#endif
