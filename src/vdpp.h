/* vdpp: videos from images with Stable Video Diffusion on all devices of one machine, in one process.
 *
 *     vdpp_options options;
 *     vdpp_options_init(&options);
 *     options.model = "samples/model";
 *     options.devices = (const char *const[]){"cpu:0", "cpu:1"};
 *     options.device_count = 2;
 *     vdpp_engine *engine;
 *     vdpp_error error;
 *     if (vdpp_open(&options, &engine, &error) != 0) { puts(error.message); return error.code; }
 *     vdpp_job job;
 *     vdpp_job_init(&job);
 *     job.image = "fox.png";
 *     vdpp_sample sample = {.job = &job, .seed = 42, .output = "out/fox"};
 *     vdpp_report *report;
 *     int code = vdpp_run(engine, &sample, 1, &report, &error);
 *     vdpp_report_free(report);
 *     vdpp_close(engine);
 *
 * Functions return 0 or one of the exit codes of the command line (64 usage, 65 bad data, 66 missing
 * input, 69 no such device or too little memory, 70 internal, 73 cannot create, 74 I/O, 75 work left) and
 * fill the error. No globals; an engine is used by one thread at a time, except vdpp_stop. Strings passed
 * in must outlive the call (options: the engine; job and sample: the run). */
#ifndef VDPP_H
#define VDPP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VDPP_VERSION "0.1.0"

#if defined(__GNUC__)
#define VDPP_API __attribute__((visibility("default")))
#else
#define VDPP_API
#endif

typedef struct vdpp_engine vdpp_engine;

typedef struct vdpp_error {
    int code;
    char message[768];
} vdpp_error;

enum { VDPP_LOG_ERROR, VDPP_LOG_WARNING, VDPP_LOG_INFO, VDPP_LOG_DEBUG };

/* What one device is doing. */
typedef struct vdpp_device_progress {
    const char *name;
    int sample;     /* -1: nothing yet or nothing left */
    char task;      /* 'e' encode, 's' steps, 'd' decode, ' ' idle */
    int step, last; /* steps finished of this sample; where this device's share ends; 's' only */
} vdpp_device_progress;

typedef struct vdpp_progress {
    int samples, finished, failed;
    int64_t steps, steps_done; /* over all samples of the run */
    double elapsed_s;
    int device_count;
    const vdpp_device_progress *devices;
    int finished_sample; /* index of the sample that has just ended, -1 when only time passed */
} vdpp_progress;

typedef struct vdpp_options {
    size_t size;        /* of this struct; set by vdpp_options_init */
    const char *model;  /* folder or ORG/NAME in the local Hugging Face cache; required */
    const char *dtype;  /* "fp32", "fp16", "bf16"; NULL: fp16 on GPUs, fp32 on the CPU */
    const char *device; /* "auto" (default), "cuda" or "cpu": kind of the devices that are not named */
    const char *const *devices; /* "cuda:0", ... or "cpu:0", ... in the order of the schedule; or NULL and */
    const int *gpus;            /* their numbers; or NULL and only */
    int device_count; /* how many; -1 (default): all GPUs, or a virtual device for each CPU, at most 8 */
    const char *p2p;  /* copies from GPU to GPU: "auto" (default), "on", "off" */
    const char *cache_folder; /* of what tuning has found; NULL: none */
    const char *mode;         /* "pipeline" (default), "data", "wrap", "auto" */
    const char *goal;         /* for auto: "makespan" (default), "latency", "cadence" */
    const int *split;         /* steps per device for "pipeline"; NULL: by cost */
    int split_count;
    const char *formats; /* "mp4,gif,png,latents,null"; NULL: the build's first */
    const char *dump;    /* folder for intermediate tensors; NULL: none */
    int overwrite;
    double stall_timeout_s;  /* without progress for so long a run ends with 75; 600; <= 0: never */
    const char *inject;      /* tests: "DEVICE:KIND:K", see device.h; NULL */
    const char *cuda_module; /* tests: file that stands for the CUDA backend; NULL */
    void (*log)(void *user, int level, const char *line);        /* from any thread */
    void (*progress)(void *user, const vdpp_progress *progress); /* from the thread in vdpp_run */
    int log_level;
    void *user;
} vdpp_options;

/* One input image and its settings. Zero or NULL means the default named. */
typedef struct vdpp_job {
    size_t size;                       /* of this struct; set by vdpp_job_init */
    const char *image;                 /* PNG or JPEG; NULL with latents_only */
    int width, height;                 /* pixels; the model's suggestion, else 1024 x 576 */
    int frames, steps;                 /* the model's, 25 */
    double fps;                        /* 7; the model is told fps - 1 */
    double out_fps;                    /* played frames per second; fps */
    int motion;                        /* motion bucket id, 127; -1: 0 */
    double noise_aug;                  /* 0.02; negative: 0 */
    double guidance_min, guidance_max; /* 1 and 3; negative: 0; no guidance when max <= 1 */
    int decode_chunk;                  /* frames decoded at once; all */
    const char *fit;                   /* "crop" (default), "stretch", "pad" */
    int latents_only;                  /* no image, no decoding: conditioning is drawn from the seed */
} vdpp_job;

typedef struct vdpp_sample {
    const vdpp_job *job;
    uint64_t seed;
    const char *output; /* path without extension */
} vdpp_sample;

typedef struct vdpp_sample_result {
    int code; /* 0: made */
    char error[768];
    uint64_t latents_hash;
    int file_count;
    char **files; /* as written */
    int device_count;
    int *devices;      /* indices, in the order the sample visited them */
    int decoded_again; /* values overflowed the run's type: the frames are of a second decoding, in fp32 */
    double admitted_s, first_step_s, finished_s; /* since the run began */
} vdpp_sample_result;

typedef struct vdpp_device_result {
    char name[16];
    double busy_s, busy_share; /* share of the wall clock from first to last task */
    uint64_t planned_bytes, peak_bytes;
} vdpp_device_result;

/* How states went from one device to another. */
typedef struct vdpp_link_result {
    int from, to;                  /* indices of devices */
    const char *route;             /* "local", "peer", "staged": through host memory */
    int damaged;                   /* peer copies were tried and arrived damaged */
    double bytes_per_s, latency_s; /* as tested at the start; 0: not measured */
} vdpp_link_result;

typedef struct vdpp_report {
    const char *mode; /* as run; never auto */
    char reason[256]; /* why auto chose it */
    char dtype[8], model[1024], machine[256];
    int sample_count, made, failed;
    vdpp_sample_result *samples;
    int device_count;
    vdpp_device_result *devices;
    int link_count;
    vdpp_link_result *links;
    uint64_t weight_bytes, host_planned_bytes,
        planned_bytes; /* shared weights; buffers of the host; everything */
    /* Seconds; each under its own name (design.md section 4). */
    double load_s, warmup_s, wall_s, first_sample_s, steady_interval_s, throughput_sps, latency_p50_s,
        latency_p95_s;
    double fill_s, drain_s, bubble_share, step_median_s;
    double simulated_wall_s; /* the same plan with the measured costs */
    char better_mode[16];    /* "" or the mode that would have been faster, with its simulated wall clock */
    double better_wall_s;
} vdpp_report;

VDPP_API void vdpp_options_init(vdpp_options *options);
VDPP_API void vdpp_job_init(vdpp_job *job);

/* The devices that `options` mean, without opening them. */
typedef struct vdpp_device_list {
    int count;
    char names[64][16];
    int fell_back; /* virtual CPU devices because "auto" found no GPU */
} vdpp_device_list;
VDPP_API int vdpp_choose_devices(const vdpp_options *options, vdpp_device_list *out, vdpp_error *error);

VDPP_API int vdpp_open(const vdpp_options *options, vdpp_engine **out, vdpp_error *error);
VDPP_API void vdpp_close(vdpp_engine *engine); /* NULL is fine */

/* Fills every default of `job` from the model and checks it; what vdpp_run does first with each job. */
VDPP_API int vdpp_job_resolve(const vdpp_engine *engine, vdpp_job *job, vdpp_error *error);

/* Makes all samples. `*report` is filled also when some failed (code 1) or the run was stopped (75); free
 * it with vdpp_report_free. NULL when nothing was run. */
VDPP_API int vdpp_run(vdpp_engine *engine, const vdpp_sample *samples, int count, vdpp_report **report,
                      vdpp_error *error);
VDPP_API void vdpp_report_free(vdpp_report *report);

/* The plan of memory and schedule of such a run as text, without running it (malloc'ed). */
VDPP_API int vdpp_describe(vdpp_engine *engine, const vdpp_sample *samples, int count, char **text,
                           vdpp_error *error);

/* Tries the ways to compute what such a run needs on the first device, logs each at VDPP_LOG_INFO, and
 * keeps the fastest in the cache folder, for runs on GPUs of that kind. Makes nothing. */
VDPP_API int vdpp_tune(vdpp_engine *engine, const vdpp_sample *samples, int count, vdpp_error *error);

/* From any thread or a signal handler: what is in flight is finished, nothing new begins, vdpp_run returns
 * 75. */
VDPP_API void vdpp_stop(vdpp_engine *engine);

#ifdef __cplusplus
}
#endif

#endif
