/* Packs buffers with known lifetimes into one block: the memory plan exists before the first allocation. */
#ifndef VD_BASE_LAYOUT_H
#define VD_BASE_LAYOUT_H

#include "base/error.h"

#include <stddef.h>

enum { VD_ALIGNMENT = 256 }; /* bytes; every span starts on such a boundary */

typedef struct vd_span {
    size_t bytes;    /* in: size */
    int first, last; /* in: positions, both included, between which the content must survive */
    size_t offset;   /* out: bytes from the start of the block */
} vd_span;

/* Gives every span an offset so that spans alive at the same time never overlap: largest first, lowest free
 * place. Deterministic. `total` receives the bytes of the block. Spans of 0 bytes get offset 0. */
vd_code vd_layout_pack(vd_span *spans, int count, size_t *total, vd_error *err);

size_t vd_align_up(size_t bytes);

#endif
