/* PNG and JPEG in, as upright 8-bit RGB. Everything that can be judged from the header is judged before
 * decoding. */
#ifndef VD_MEDIA_IMAGE_H
#define VD_MEDIA_IMAGE_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

enum {
    VD_IMAGE_MAX_FILE = 64 << 20,   /* bytes */
    VD_IMAGE_MAX_SIDE = 8192,       /* pixels */
    VD_IMAGE_MAX_PIXELS = 32000000, /* width * height */
};

typedef struct vd_image {
    int width, height; /* pixels, after EXIF orientation */
    uint8_t *rgb;      /* [height, width, 3], malloc'ed, owned */
} vd_image;

/* Reads `path`. Alpha is composited on white; grey and palette become RGB; 16 bits per channel keep the
 * high 8. Errors: VD_ERR_NO_INPUT (missing, not a regular file), VD_ERR_DATA (anything wrong inside). */
vd_code vd_image_load(const char *path, vd_image *out, vd_error *err);
/* The same from memory; `name` is used in messages. */
vd_code vd_image_decode(const uint8_t *bytes, size_t count, const char *name, vd_image *out, vd_error *err);
void vd_image_free(vd_image *image); /* zeroed images are fine */

#endif
