#include "diffusion/preprocess.h"

#include "diffusion/resize.h"

#include <stdbool.h>
#include <stdlib.h>

/* round(side * numerator / denominator), at least 1 pixel. */
static int scaled(int side, int numerator, int denominator) {
    int64_t rounded = (2 * (int64_t)side * numerator + denominator) / (2 * (int64_t)denominator);
    return rounded < 1 ? 1 : (int)rounded;
}

static bool wider(int w0, int h0, int width, int height) {
    return (int64_t)w0 * height > (int64_t)h0 * width;
}

/* The largest centred region with the aspect ratio of width x height. */
static vd_view crop(vd_view in, int width, int height) {
    vd_view cut = in;
    if (wider(in.width, in.height, width, height))
        cut.width = scaled(in.height, width, height);
    else
        cut.height = scaled(in.width, height, width);
    int left = (in.width - cut.width) / 2, top = (in.height - cut.height) / 2;
    cut.rgb += (size_t)top * in.stride + 3 * (size_t)left;
    return cut;
}

static vd_view fitted(const uint8_t *rgb, int w0, int h0, vd_fit fit, int width, int height) {
    vd_view whole = {rgb, w0, h0, 3 * (size_t)w0};
    return fit == VD_FIT_CROP ? crop(whole, width, height) : whole;
}

static void to_planes(const uint8_t *rgb, int w, int h, float *out, size_t row, size_t plane) {
    float unit[256];
    for (int i = 0; i < 256; i++)
        unit[i] = 2 * ((float)i / 255) - 1;
    for (int y = 0; y < h; y++, out += row)
        for (int x = 0; x < w; x++, rgb += 3)
            for (int c = 0; c < 3; c++)
                out[c * plane + x] = unit[rgb[c]];
}

vd_code vd_preprocess_vae(const uint8_t *rgb, int w0, int h0, vd_fit fit, int width, int height, float *out,
                          vd_error *err) {
    vd_view image = fitted(rgb, w0, h0, fit, width, height);
    size_t plane = (size_t)width * height;
    int w = width, h = height; /* the part of the target that the image covers */
    if (fit == VD_FIT_PAD) {
        if (wider(w0, h0, width, height))
            h = scaled(width, h0, w0);
        else
            w = scaled(height, w0, h0);
        for (size_t i = 0; i < 3 * plane; i++)
            out[i] = -1;
    }
    size_t bytes = 3 * (size_t)w * h;
    uint8_t *resized = malloc(bytes);
    if (!resized)
        return vd_fail_memory(err, "a resized image", bytes);
    vd_code status = vd_resize_lanczos_view(image, resized, w, h, err);
    if (status == VD_OK)
        to_planes(resized, w, h, out + (size_t)((height - h) / 2) * width + (width - w) / 2, width, plane);
    free(resized);
    return status;
}

vd_code vd_preprocess_clip(const uint8_t *rgb, int w0, int h0, vd_fit fit, int width, int height,
                           const float *mean, const float *std, float *out, vd_error *err) {
    vd_view image = fitted(rgb, w0, h0, fit, width, height);
    vd_placing x = {image.width, 0}, y = {image.height, 0};
    if (fit == VD_FIT_PAD && wider(w0, h0, width, height))
        y.canvas = scaled(w0, height, width);
    else if (fit == VD_FIT_PAD)
        x.canvas = scaled(h0, width, height);
    x.offset = (x.canvas - image.width) / 2;
    y.offset = (y.canvas - image.height) / 2;
    VD_TRY(vd_resize_antialiased(image, x, y, VD_CLIP_SIDE, out, err));
    size_t plane = (size_t)VD_CLIP_SIDE * VD_CLIP_SIDE;
    for (int c = 0; c < 3; c++)
        for (size_t i = 0; i < plane; i++)
            out[c * plane + i] = (out[c * plane + i] - mean[c]) / std[c];
    return VD_OK;
}
