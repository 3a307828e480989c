/* Admission of a sample: what the host computes before the first task (svd-spec.md 1.2, steps 1, 5, 6, 10
 * to 13). */
#ifndef VD_ENGINE_ADMIT_H
#define VD_ENGINE_ADMIT_H

#include "engine/run.h"

/* Host memory that is copied to the device as it is; reused once the task that read it has ended. */
typedef struct vd_staging {
    unsigned char *state; /* [state.total] */
    float *clip_pixels;   /* [S,S,3]; NULL when latents only */
    float *vae_pixels;    /* [H,W,3]; likewise */
} vd_staging;

vd_code vd_staging_open(const vd_run *run, vd_staging *s, vd_error *err);
void vd_staging_close(vd_staging *s); /* zeroed is fine */
size_t vd_staging_bytes(const vd_run *run);

/* Both branches of the last image seen, so that ten samples of one image decode and resize it once. */
typedef struct vd_image_cache {
    const vdpp_job *job;
    float *clip_pixels; /* [3,S,S] */
    float *vae_pixels;  /* [3,H,W] before noise */
} vd_image_cache;

void vd_image_cache_close(vd_image_cache *cache);

/* Fills the staging block for `trip` (and its dump, when it has one). Errors are the sample's. */
vd_code vd_admit(const vd_run *run, vd_trip *trip, vd_image_cache *cache, vd_staging *s, vd_error *err);

#endif
