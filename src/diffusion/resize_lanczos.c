/* Pillow 13's Lanczos resize of 8-bit RGB, bit for bit (svd-spec.md 4.3). */
#include "diffusion/preprocess.h"
#include "diffusion/resize.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { FRACTION_BITS = 22, LOBES = 3 };

vd_code vd_taps_alloc(vd_taps *taps, int size, int width, vd_error *err) {
    size_t words = (size_t)size * (2 + (size_t)width);
    int *block = calloc(words, sizeof(int32_t));
    if (!block)
        return vd_fail_memory(err, "the weights of an image resize", words * sizeof(int32_t));
    *taps = (vd_taps){.size = size, .width = width, .first = block, .count = block + size};
    taps->fixed = block + 2 * (size_t)size;
    return VD_OK;
}

void vd_taps_free(vd_taps *taps) {
    free(taps->first);
    *taps = (vd_taps){0};
}

static double sinc(double x) {
    return x == 0 ? 1 : sin(x * M_PI) / (x * M_PI);
}

static double lanczos(double x) {
    return x >= -LOBES && x < LOBES ? sinc(x) * sinc(x / LOBES) : 0;
}

/* Round half away from zero. */
static int32_t to_fixed(double weight) {
    return (int32_t)(weight * (1 << FRACTION_BITS) + (weight < 0 ? -0.5 : 0.5));
}

static vd_code make_taps(vd_taps *taps, int in, int out, vd_error *err) {
    double scale = (double)in / out, stretch = fmax(scale, 1), support = LOBES * stretch,
           shrink = 1 / stretch;
    VD_TRY(vd_taps_alloc(taps, out, 2 * (int)ceil(support) + 1, err));
    for (int i = 0; i < out; i++) {
        double centre = (i + 0.5) * scale, sum = 0;
        int first = (int)fmax(centre - support + 0.5, 0);
        int count = (int)fmin(centre + support + 0.5, in) - first;
        int32_t *weight = taps->fixed + (size_t)i * taps->width;
        for (int t = 0; t < count; t++)
            sum += lanczos((t + first - centre + 0.5) * shrink);
        for (int t = 0; t < count; t++)
            weight[t] = to_fixed(lanczos((t + first - centre + 0.5) * shrink) / sum);
        taps->first[i] = first;
        taps->count[i] = count;
    }
    return VD_OK;
}

static uint8_t to_byte(int32_t sum) {
    int32_t value = sum >> FRACTION_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static void resize_rows(const vd_taps *taps, vd_view in, uint8_t *out) {
    for (int y = 0; y < in.height; y++) {
        const uint8_t *row = in.rgb + y * in.stride;
        for (int x = 0; x < taps->size; x++, out += 3) {
            const int32_t *weight = taps->fixed + (size_t)x * taps->width;
            const uint8_t *p = row + 3 * (size_t)taps->first[x];
            int32_t r = 1 << (FRACTION_BITS - 1), g = r, b = r;
            for (int t = 0; t < taps->count[x]; t++, p += 3) {
                r += weight[t] * p[0];
                g += weight[t] * p[1];
                b += weight[t] * p[2];
            }
            out[0] = to_byte(r);
            out[1] = to_byte(g);
            out[2] = to_byte(b);
        }
    }
}

/* Columns go in pieces whose sums stay in the first-level cache; `n` values of one output row. */
static void resize_column_piece(const int32_t *weight, int count, const uint8_t *in, size_t stride, size_t n,
                                uint8_t *out) {
    int32_t sum[1024];
    for (size_t i = 0; i < n; i++)
        sum[i] = 1 << (FRACTION_BITS - 1);
    for (int t = 0; t < count; t++, in += stride)
        for (size_t i = 0; i < n; i++)
            sum[i] += weight[t] * in[i];
    for (size_t i = 0; i < n; i++)
        out[i] = to_byte(sum[i]);
}

static void resize_columns(const vd_taps *taps, vd_view in, uint8_t *out) {
    size_t row = 3 * (size_t)in.width;
    for (int y = 0; y < taps->size; y++, out += row)
        for (size_t x = 0; x < row; x += 1024)
            resize_column_piece(taps->fixed + (size_t)y * taps->width, taps->count[y],
                                in.rgb + taps->first[y] * in.stride + x, in.stride,
                                row - x < 1024 ? row - x : 1024, out + x);
}

static vd_code resize_axis(bool vertical, vd_view in, uint8_t *out, int size, vd_error *err) {
    vd_taps taps = {0};
    VD_TRY(make_taps(&taps, vertical ? in.height : in.width, size, err));
    if (vertical)
        resize_columns(&taps, in, out);
    else
        resize_rows(&taps, in, out);
    vd_taps_free(&taps);
    return VD_OK;
}

/* Two passes with an 8-bit image between them; their order is Pillow 13's. */
static vd_code resize_both(vd_view in, uint8_t *out, int width, int height, vd_error *err) {
    bool vertical = height < in.height && in.height - height > 2 * (in.width - width);
    vd_view mid = {.width = vertical ? in.width : width, .height = vertical ? height : in.height};
    mid.stride = 3 * (size_t)mid.width;
    uint8_t *between = malloc(mid.stride * mid.height);
    if (!between)
        return vd_fail_memory(err, "an image between two resize passes", mid.stride * mid.height);
    mid.rgb = between;
    vd_code status = resize_axis(vertical, in, between, vertical ? height : width, err);
    if (status == VD_OK)
        status = resize_axis(!vertical, mid, out, vertical ? width : height, err);
    free(between);
    return status;
}

vd_code vd_resize_lanczos_view(vd_view in, uint8_t *out, int width, int height, vd_error *err) {
    if (width != in.width && height != in.height)
        return resize_both(in, out, width, height, err);
    if (width != in.width)
        return resize_axis(false, in, out, width, err);
    if (height != in.height)
        return resize_axis(true, in, out, height, err);
    size_t row = 3 * (size_t)width;
    for (int y = 0; y < height; y++)
        memcpy(out + y * row, in.rgb + y * in.stride, row);
    return VD_OK;
}

vd_code vd_resize_lanczos(const uint8_t *in, int in_w, int in_h, uint8_t *out, int out_w, int out_h,
                          vd_error *err) {
    return vd_resize_lanczos_view((vd_view){in, in_w, in_h, 3 * (size_t)in_w}, out, out_w, out_h, err);
}
