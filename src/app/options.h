/* What the user asked for. One table of options (option_table.c) drives the command line, the VDPP_
 * variables, the keys of job files and --help. */
#ifndef VD_APP_OPTIONS_H
#define VD_APP_OPTIONS_H

#include "base/error.h"
#include "schedule/plan.h"
#include "vdpp.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { VD_DEVICE_LIMIT = 64, VD_SAMPLE_LIMIT = 100000, VD_OPTION_LIMIT = 64 };

/* What one line of a job file may set; the command line gives its defaults. */
typedef struct vd_request {
    vdpp_job job;
    const char *output; /* template, naming.h */
    int samples;
    uint64_t seed;
    bool random_seed;
} vd_request;

typedef struct vd_int_list {
    int values[VD_DEVICE_LIMIT];
    int count;
} vd_int_list;

typedef struct vd_latent_shape { /* count is 0 when not given */
    int count, channels, frames, height, width;
} vd_latent_shape;

/* Strings belong to argv, the environment or the job file. NULL or 0: not given. */
typedef struct vd_options {
    vd_request request;  /* first: rows of the table that job files share are offsets into it */
    const char **images; /* owned */
    int image_count;
    const char *jobs, *model, *dtype;
    vd_latent_shape latent_shape;
    vd_int_list gpus; /* one number is a count, more are device numbers */
    vd_int_list split;
    const char *device, *devices, *mode, *goal, *p2p;
    const char *output_dir, *formats, *dump, *report, *progress;
    bool overwrite, dry_run, quiet, verbose, help, version;
    double stall_timeout_s;
    const char *inject, *cuda_module;
    vd_costs costs;
    const char *text_format; /* of what commands print */
} vd_options;

/* Where an option means something. VD_TEXT_TOO: a number that job files may write as a string as well. */
enum {
    VD_IN_RUN = 1,
    VD_IN_PLAN = 2,
    VD_IN_JOB = 4,
    VD_IN_DEVICES = 8,
    VD_IN_DOCTOR = 16,
    VD_NO_VARIABLE = 32,
    VD_HIDDEN = 64,
    VD_TEXT_TOO = 128
};

typedef struct vd_option vd_option;
struct vd_option {
    const char *group; /* heading in --help */
    char letter;       /* 0: none */
    const char *name;
    const char *alias; /* the predecessor's name; NULL */
    const char *value; /* how help writes the value; NULL for a switch */
    int value_count;   /* 0 for a switch */
    unsigned where;
    /* Reads `values` into `target`, a vd_options, or a vd_request for VD_IN_JOB. The message says what is
     * wrong with the value; who calls puts the option before it. */
    vd_code (*read)(const vd_option *o, const char *const *values, void *target, vd_error *err);
    size_t offset;       /* of the field in the target */
    double min, max;     /* of numbers, both included */
    const char *choices; /* "a|b|c" */
    const char *help;
};

extern const vd_option vd_option_table[];
extern const int vd_option_count;

/* By long name or alias among those with a bit of `where`; NULL when unknown. */
const vd_option *vd_option_find(const char *name, size_t length, unsigned where);
/* The known name most like a mistyped one; NULL when none is near. */
const char *vd_option_nearest(const char *name, size_t length, unsigned where);

void vd_options_init(vd_options *options);
void vd_options_free(vd_options *options);

/* Reads arguments (without the program's and the command's name), then VDPP_NAME through `variable` (as
 * getenv; NULL: none) for what the arguments do not say. */
vd_code vd_options_parse(vd_options *options, unsigned where, int count, char *const *arguments,
                         char *(*variable)(const char *name), vd_error *err);

void vd_options_print_help(FILE *file);

#endif
