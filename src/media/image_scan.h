/* What is learned about an image before stb_image may touch a byte of it. A scan accepts a file only when all
 * of its pixels are there; what it hands on holds nothing that it has not checked. Messages lack the name of
 * the file: vd_image_decode puts it before them. */
#ifndef VD_MEDIA_IMAGE_SCAN_H
#define VD_MEDIA_IMAGE_SCAN_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct vd_scan {
    int width, height;    /* pixels, as stored */
    int orientation;      /* EXIF: 1 to 8, 1 is upright */
    const uint8_t *bytes; /* for the decoder; `owned` or part of the input */
    size_t count;
    uint8_t *owned; /* malloc'ed or NULL */
    /* A palette image goes to the decoder as grey, so that each index comes back and can be checked. */
    int palette_entries; /* 0: no palette */
    int index_step;      /* decoded grey value = index * index_step */
    uint8_t palette[256][4];
} vd_scan;

/* Both fill a `scan` that is zeroed but for an orientation of 1; vd_scan_free is due whatever they return. */
vd_code vd_png_scan(const uint8_t *bytes, size_t count, vd_scan *scan, vd_error *err);
vd_code vd_jpeg_scan(const uint8_t *bytes, size_t count, vd_scan *scan, vd_error *err);
void vd_scan_free(vd_scan *scan);

/* The caps of image.h, and no empty sides. */
vd_code vd_scan_check_size(uint32_t width, uint32_t height, vd_error *err);

/* Orientation in an EXIF block that starts at its TIFF header; 1 when there is none or it makes no sense. */
int vd_exif_orientation(const uint8_t *tiff, size_t count);

static inline uint16_t vd_be16(const uint8_t *p) {
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t vd_be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

#endif
