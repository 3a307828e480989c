/* Both image branches of the reference (svd-spec.md section 4), from 8-bit RGB. Every size is at least 1;
 * where the reference refuses an image (a side of one pixel), that pixel is repeated. */
#ifndef VD_DIFFUSION_PREPROCESS_H
#define VD_DIFFUSION_PREPROCESS_H

#include "base/error.h"

#include <stdint.h>

typedef enum vd_fit {
    VD_FIT_CROP,    /* the largest centred region of the target's aspect ratio fills the target (default) */
    VD_FIT_STRETCH, /* the whole image fills the target whatever its aspect ratio, as the reference does */
    VD_FIT_PAD,     /* the whole image in its own aspect ratio, centred, with black borders */
} vd_fit;

/* Pillow 13's Lanczos resize, bit for bit (4.3): in [in_h,in_w,3] to out [out_h,out_w,3]. */
vd_code vd_resize_lanczos(const uint8_t *in, int in_w, int in_h, uint8_t *out, int out_w, int out_h,
                          vd_error *err);

/* VAE branch (4.2): the image fitted to width x height by Lanczos, in [-1,1]. out [3,height,width]. */
vd_code vd_preprocess_vae(const uint8_t *rgb, int w0, int h0, vd_fit fit, int width, int height, float *out,
                          vd_error *err);

enum { VD_CLIP_SIDE = 224 }; /* a constant of the reference, not the tower's image_size */

/* CLIP branch (4.1): the image after the same fit but at its own resolution, so that the tower is shown what
 * the VAE sees (the cut region, or the image with its borders), antialiased to 224x224 and normalised.
 * Overshoot is kept. out [3,224,224]; mean and std [3] from the feature extractor's configuration. */
vd_code vd_preprocess_clip(const uint8_t *rgb, int w0, int h0, vd_fit fit, int width, int height,
                           const float *mean, const float *std, float *out, vd_error *err);

#endif
