/* Separable resampling, shared by the two image branches; private to this layer. */
#ifndef VD_DIFFUSION_RESIZE_H
#define VD_DIFFUSION_RESIZE_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* Somebody's 8-bit RGB: row y starts at rgb + y * stride. */
typedef struct vd_view {
    const uint8_t *rgb;
    int width, height; /* pixels */
    size_t stride;     /* bytes */
} vd_view;

/* One axis of a resize: output i is the sum over t < count[i] of weight[i * width + t] * input[first[i] + t].
 */
typedef struct vd_taps {
    int size, width;    /* outputs; weights that are kept for each */
    int *first, *count; /* [size] */
    union {
        int32_t *fixed; /* [size, width], 22 fractional bits */
        float *real;
    };
} vd_taps;

/* All weights zero. One allocation, owned by `taps`. */
vd_code vd_taps_alloc(vd_taps *taps, int size, int width, vd_error *err);
void vd_taps_free(vd_taps *taps);

/* Where an image lies on a larger black canvas, along one axis. */
typedef struct vd_placing {
    int canvas, offset;
} vd_placing;

/* Pillow's Lanczos (4.3) into width x height pixels at `out`, rows packed. */
vd_code vd_resize_lanczos_view(vd_view in, uint8_t *out, int width, int height, vd_error *err);

/* Steps 1 to 3 of the CLIP branch (4.1) in one go: out [3,side,side] in units of [0,1], overshoot kept. */
vd_code vd_resize_antialiased(vd_view in, vd_placing x, vd_placing y, int side, float *out, vd_error *err);

#endif
