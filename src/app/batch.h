/* Everything that one run is to make: jobs from the command line or a job file, and their samples with seeds
 * and names. */
#ifndef VD_APP_BATCH_H
#define VD_APP_BATCH_H

#include "app/options.h"
#include "media/writer.h"

#include <jansson.h>

enum { VD_FORMAT_LIMIT = 8, VD_JOB_FILE_LIMIT = 64 << 20 };

typedef struct vd_batch {
    vd_request *jobs;
    int job_count;
    vdpp_sample *samples; /* job by job; their outputs are owned here */
    int sample_count;
    const vd_format *formats[VD_FORMAT_LIMIT];
    int format_count;
    char format_list[64]; /* the same for vdpp_options */
    char **strings;       /* owned */
    int string_count;
    json_t *lines; /* of the job file; jobs point into it */
} vd_batch;

typedef struct vd_batch_context {
    const char *sample_image; /* when no image is named; NULL: there is none */
    int devices;              /* for {gpus} */
} vd_batch_context;

/* Zeroed before; free with vd_batch_free also after a failure. Draws the seeds that -1 asks for. */
vd_code vd_batch_build(const vd_options *options, const vd_batch_context *context, vd_batch *out,
                       vd_error *err);
void vd_batch_free(vd_batch *batch);

/* Adds the jobs of a JSON Lines text. Every error is VD_ERR_DATA and begins "NAME:LINE". */
vd_code vd_batch_parse_jobs(vd_batch *batch, const vd_request *defaults, const char *text, size_t length,
                            const char *name, vd_error *err);
/* Adds a job for each image that -i names: a file, a folder of PNG and JPEG files, or @LIST. */
vd_code vd_batch_add_images(vd_batch *batch, const vd_request *defaults, const char *argument, vd_error *err);

vd_code vd_batch_add_job(vd_batch *batch, const vd_request *job, vd_error *err);
/* A copy that lives as long as the batch. */
vd_code vd_batch_keep(vd_batch *batch, const char *text, size_t length, const char **out, vd_error *err);

/* Makes the samples of all jobs, `per_request` for each that a job asks for. */
vd_code vd_batch_make_samples(vd_batch *batch, int per_request, vd_error *err);
/* Chooses formats and names all samples. */
vd_code vd_batch_name_samples(vd_batch *batch, const vd_options *options, int devices, vd_error *err);
/* What can be known to fail before any work: two samples of one name, files that exist, folders that cannot
 * be made. */
vd_code vd_batch_check_outputs(const vd_batch *batch, bool overwrite, vd_error *err);
/* The same for the tensors of --dump. */
vd_code vd_batch_check_dump(const vd_batch *batch, const char *folder, bool overwrite, vd_error *err);

/* After the second interrupt: unfinished files of this run's samples. */
void vd_batch_remove_temporaries(const vd_batch *batch);

#endif
