/* Intermediate tensors of one sample for --dump (design.md section 8): host buffers that admission and the
 * streams fill, written as DIR/sample-000.safetensors when the sample is published. */
#ifndef VD_ENGINE_DUMP_H
#define VD_ENGINE_DUMP_H

#include "engine/run.h"

struct vd_dump {
    /* from the host, at admission; channel-first as in the reference; NULL when latents only */
    float *clip_pixels;   /* [3,S,S] */
    float *vae_input;     /* [3,H,W] after noise augmentation */
    float *noise;         /* [F,C,h,w] unit variance */
    unsigned char *state; /* the state block as admitted: sigmas, timesteps, time ids */
    /* from the device, as the device keeps them */
    float *embeds;      /* [D] */
    float *image;       /* [h,w,C] */
    float **latents;    /* [steps] of [F,h,w,C] */
    void *unet_in[2];   /* first and last step, [G*F,h,w,2C] of the step program's type */
    float *unet_out[2]; /* [G*F,h,w,C] */
};

/* Allocates all buffers for one sample of the run. */
vd_code vd_dump_open(const vd_run *run, vd_dump **out, vd_error *err);
void vd_dump_close(const vd_run *run, vd_dump *dump); /* NULL is fine */

/* Index into unet_in and unet_out for `step`: 0 the first, 1 the last, -1 neither. */
int vd_dump_io_slot(const vd_run *run, int step);

vd_code vd_dump_write(const vd_run *run, const vd_trip *trip, vd_error *err);

#endif
