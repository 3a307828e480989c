/* The reference's antialiased resize for CLIP (svd-spec.md 4.1): a Gaussian blur at full resolution, then a
 * bicubic that reads only a few blurred pixels. Both are linear and separable, so each axis becomes one set
 * of weights and no blurred image exists: a large photo costs one pass over the rows that matter. */
#include "diffusion/resize.h"

#include <math.h>
#include <stdlib.h>

/* Blur taps in fp32 as the reference rounds them. `length` is odd. */
static void gaussian(float *tap, int length, double sigma) {
    float s = (float)sigma, sum = 0;
    for (int i = 0; i < length; i++) {
        float d = (float)(i - length / 2);
        tap[i] = expf(-(d * d) / (2 * (s * s)));
        sum += tap[i];
    }
    for (int i = 0; i < length; i++)
        tap[i] /= sum;
}

/* Cubic convolution with A = -0.75 at distances 1 + t, t, 1 - t, 2 - t. The far polynomial cancels, so its
 * roundings show: they are fused where the reference's build fuses them. */
static void cubic(float t, float weight[4]) {
    const float a = -0.75f;
    for (int i = 0; i < 4; i++) {
        float near = i < 2 ? t : 1 - t, far = near + 1;
        if (i == 1 || i == 2)
            weight[i] = fmaf(fmaf(a + 2, near, -(a + 3)) * near, near, 1);
        else
            weight[i] = fmaf(fmaf(fmaf(a, far, -5 * a), far, 8 * a), far, -4 * a);
    }
}

static int clamp(int i, int low, int high) {
    return i < low ? low : i > high ? high : i;
}

/* The edge itself is not repeated: -1 means 1. A single pixel has nothing to reflect and is repeated. */
static int reflect(int i, int size) {
    int mirrored = i < 0 ? -i : i >= size ? 2 * (size - 1) - i : i;
    return clamp(mirrored, 0, size - 1);
}

/* Weights of output `i`: the bicubic's four canvas positions, each spread by the blur. Canvas outside the
 * image is black, which adds nothing. */
static void mix_taps(vd_taps *taps, int i, int in, vd_placing place, const float *blur, int blur_length) {
    float scale = (float)(place.canvas - 1) / (float)(taps->size - 1), at = (float)i * scale, weight[4];
    int base = clamp((int)floorf(at), 0, place.canvas - 1), reach = blur_length / 2;
    int first = clamp(base - 1 - reach - place.offset, 0, in);
    float *out = taps->real + (size_t)i * taps->width;
    cubic(fminf(at - (float)base, 1), weight);
    for (int t = 0; t < 4; t++) {
        int centre = clamp(base - 1 + t, 0, place.canvas - 1);
        for (int j = 0; j < blur_length; j++) {
            int source = reflect(centre + j - reach, place.canvas) - place.offset;
            if (source >= 0 && source < in)
                out[source - first] += weight[t] * blur[j];
        }
    }
    taps->first[i] = first;
    taps->count[i] = clamp(in - first, 0, taps->width);
}

static vd_code make_taps(vd_taps *taps, int in, vd_placing place, int side, vd_error *err) {
    double sigma = fmax(((double)place.canvas / side - 1) / 2, 0.001);
    int length = (int)fmax(4 * sigma, 3) | 1;
    float *blur = malloc((size_t)length * sizeof(float));
    if (!blur)
        return vd_fail_memory(err, "the blur of an image resize", (size_t)length * sizeof(float));
    gaussian(blur, length, sigma);
    vd_code status = vd_taps_alloc(taps, side, length + 3, err);
    for (int i = 0; status == VD_OK && i < side; i++)
        mix_taps(taps, i, in, place, blur, length);
    free(blur);
    return status;
}

/* One output row before its horizontal half: sum [3 * width], in units of 255. */
static void blend_rows(const vd_taps *taps, int y, vd_view in, float *sum) {
    size_t n = 3 * (size_t)in.width;
    for (size_t i = 0; i < n; i++)
        sum[i] = 0;
    for (int t = 0; t < taps->count[y]; t++) {
        const uint8_t *row = in.rgb + (taps->first[y] + (size_t)t) * in.stride;
        float weight = taps->real[(size_t)y * taps->width + t];
        for (size_t i = 0; i < n; i++)
            sum[i] += weight * row[i];
    }
}

static void blend_columns(const vd_taps *taps, const float *sum, float *out, size_t plane) {
    for (int x = 0; x < taps->size; x++) {
        const float *weight = taps->real + (size_t)x * taps->width, *p = sum + 3 * (size_t)taps->first[x];
        float r = 0, g = 0, b = 0;
        for (int t = 0; t < taps->count[x]; t++, p += 3) {
            r += weight[t] * p[0];
            g += weight[t] * p[1];
            b += weight[t] * p[2];
        }
        out[x] = r / 255;
        out[x + plane] = g / 255;
        out[x + 2 * plane] = b / 255;
    }
}

vd_code vd_resize_antialiased(vd_view in, vd_placing x, vd_placing y, int side, float *out, vd_error *err) {
    vd_taps across = {0}, down = {0};
    size_t bytes = 3 * (size_t)in.width * sizeof(float);
    vd_code status = VD_OK;
    float *sum = malloc(bytes);
    if (!sum)
        return vd_fail_memory(err, "a row of an image resize", bytes);
    VD_TRY_GOTO(status, done, make_taps(&across, in.width, x, side, err));
    VD_TRY_GOTO(status, done, make_taps(&down, in.height, y, side, err));
    for (int row = 0; row < side; row++) {
        blend_rows(&down, row, in, sum);
        blend_columns(&across, sum, out + (size_t)row * side, (size_t)side * side);
    }
done:
    vd_taps_free(&across);
    vd_taps_free(&down);
    free(sum);
    return status;
}
