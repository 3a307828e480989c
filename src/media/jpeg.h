/* A JPEG (ITU-T T.81) as far as its scans can be walked: which symbols there are, not what they paint.
 * Walking tells that no coefficient is missing and that stb_image will meet nothing it has not been written
 * for. */
#ifndef VD_MEDIA_JPEG_H
#define VD_MEDIA_JPEG_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

enum { VD_JPEG_COMPONENTS = 3, VD_JPEG_TABLES = 4, VD_JPEG_UNSENT = 16 };

typedef struct vd_jpeg_huffman {
    bool defined;
    uint32_t limit[17]; /* codes of length n, put at the top of 16 bits, are below limit[n] */
    int first[17];      /* index in `symbols` minus code, per length */
    uint8_t symbols[256];
} vd_jpeg_huffman;

typedef struct vd_jpeg_component {
    int id, h, v, quantizer;
    int blocks_x, blocks_y; /* 8x8 blocks with picture: what a scan of this component alone holds */
    int stride;             /* blocks per row, whole MCUs */
    uint8_t missing[64];    /* lowest bits of each coefficient still to come; VD_JPEG_UNSENT: all */
    uint64_t *nonzero;      /* progressive only: [MCU rows * v, stride], bit k: coefficient k is not 0 */
    int prediction;         /* of the next DC coefficient */
} vd_jpeg_component;

typedef struct vd_jpeg {
    bool progressive;
    int width, height; /* pixels; 0 before the frame header */
    int count;         /* of components: 1 or 3 */
    vd_jpeg_component components[VD_JPEG_COMPONENTS];
    int mcus_x, mcus_y;   /* of interleaved scans */
    int restart_interval; /* MCUs; 0: none */
    bool quantizers[VD_JPEG_TABLES];
    vd_jpeg_huffman dc[VD_JPEG_TABLES], ac[VD_JPEG_TABLES];
} vd_jpeg;

typedef struct vd_jpeg_scan_header {
    int count;
    struct {
        vd_jpeg_component *component;
        const vd_jpeg_huffman *dc, *ac;
    } parts[VD_JPEG_COMPONENTS];
    int first, last; /* coefficients, in zigzag order */
    int high, low;   /* bit of the previous scan (0: none) and of this one */
} vd_jpeg_scan_header;

/* `counts`: codes per length 1 to 16, at most 256 in all; `symbols` as many. */
vd_code vd_jpeg_define_huffman(vd_jpeg_huffman *table, const uint8_t *counts, const uint8_t *symbols,
                               vd_error *err);

/* Walks the entropy-coded data at `*at`; leaves `*at` behind the last byte read, before the next marker. */
vd_code vd_jpeg_walk(vd_jpeg *jpeg, const vd_jpeg_scan_header *scan, const uint8_t **at, const uint8_t *end,
                     vd_error *err);

#endif
