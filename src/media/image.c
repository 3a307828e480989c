#include "media/image.h"

#include "base/file.h"
#include "media/image_scan.h"

#include <stb/stb_image.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t png_magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
static const uint8_t jpeg_magic[3] = {0xff, 0xd8, 0xff};

vd_code vd_scan_check_size(uint32_t width, uint32_t height, vd_error *err) {
    if (width == 0 || height == 0)
        return vd_fail(err, VD_ERR_DATA, "its size is %ux%u, which is empty", width, height);
    if (width > VD_IMAGE_MAX_SIDE || height > VD_IMAGE_MAX_SIDE ||
        (uint64_t)width * height > VD_IMAGE_MAX_PIXELS)
        return vd_fail(err, VD_ERR_DATA,
                       "its size is %ux%u; at most %d on a side and %d pixels in all are read, scale it down",
                       width, height, VD_IMAGE_MAX_SIDE, VD_IMAGE_MAX_PIXELS);
    return VD_OK;
}

void vd_scan_free(vd_scan *scan) {
    free(scan->owned);
    scan->owned = NULL;
}

/* Kinds that people try, by their first bytes. */
static const struct kind {
    const char *name;
    uint8_t offset, length;
    const char *magic;
} kinds[] = {
    {"a PNG with a damaged signature", 1, 3, "PNG"},
    {"a GIF", 0, 4, "GIF8"},
    {"a BMP", 0, 2, "BM"},
    {"a Photoshop file (PSD)", 0, 4, "8BPS"},
    {"a Radiance HDR picture", 0, 2, "#?"},
    {"a Softimage PIC", 0, 4, "\x53\x80\xf6\x34"},
    {"a PNM bitmap", 0, 2, "P1"},
    {"a PNM greymap", 0, 2, "P2"},
    {"a PNM pixmap", 0, 2, "P3"},
    {"a PNM bitmap", 0, 2, "P4"},
    {"a PNM greymap", 0, 2, "P5"},
    {"a PNM pixmap", 0, 2, "P6"},
    {"a WebP", 8, 4, "WEBP"},
    {"an AVIF", 4, 7, "ftypavi"},
    {"a HEIC", 4, 6, "ftyphe"},
    {"a HEIC", 4, 7, "ftypmif"},
    {"an MP4 or MOV video", 4, 4, "ftyp"},
    {"a TIFF", 0, 4, "II*\0"},
    {"a TIFF", 0, 4, "MM\0*"},
    {"a JPEG XL", 0, 2, "\xff\x0a"},
    {"a JPEG XL", 4, 4, "JXL "},
    {"a JPEG 2000", 4, 4, "jP  "},
    {"an OpenEXR picture", 0, 4, "\x76\x2f\x31\x01"},
    {"a QOI", 0, 4, "qoif"},
    {"a PDF", 0, 4, "%PDF"},
    {"text (HTML, SVG or XML)", 0, 1, "<"},
};

/* Targa has no magic: a header of 18 bytes in which every enumerated field makes sense. */
static bool looks_like_tga(const uint8_t *b, size_t count) {
    return count >= 18 && b[1] <= 1 && ((b[2] >= 1 && b[2] <= 3) || (b[2] >= 9 && b[2] <= 11)) &&
           (b[16] == 8 || b[16] == 15 || b[16] == 16 || b[16] == 24 || b[16] == 32);
}

static const char *name_kind(const uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const struct kind *k = &kinds[i];
        if (count >= (size_t)k->offset + k->length && memcmp(bytes + k->offset, k->magic, k->length) == 0)
            return k->name;
    }
    return looks_like_tga(bytes, count) ? "a TGA" : "of an unknown kind";
}

static bool starts_with(const uint8_t *bytes, size_t count, const uint8_t *magic, size_t length) {
    return memcmp(bytes, magic, count < length ? count : length) == 0;
}

static vd_code scan_any(const uint8_t *bytes, size_t count, vd_scan *scan, vd_error *err) {
    if (count == 0)
        return vd_fail(err, VD_ERR_DATA, "it is empty");
    if (count > VD_IMAGE_MAX_FILE)
        return vd_fail(err, VD_ERR_DATA, "it has %zu bytes; at most %d are read", count, VD_IMAGE_MAX_FILE);
    if (starts_with(bytes, count, png_magic, sizeof png_magic))
        return vd_png_scan(bytes, count, scan, err);
    if (starts_with(bytes, count, jpeg_magic, sizeof jpeg_magic))
        return vd_jpeg_scan(bytes, count, scan, err);
    return vd_fail(err, VD_ERR_DATA, "it is %s; give a PNG or a JPEG", name_kind(bytes, count));
}

typedef struct raster {
    uint8_t *values; /* [height, width, channels] */
    int width, height, channels;
} raster;

static uint8_t on_white(unsigned value, unsigned alpha) {
    return (uint8_t)((value * alpha + 255 * (255 - alpha) + 127) / 255);
}

static bool indices_exist(const vd_scan *scan, const raster *in) {
    size_t count = (size_t)in->width * in->height;
    for (size_t i = 0; i < count; i++)
        if (in->values[i] / scan->index_step >= scan->palette_entries)
            return false;
    return true;
}

static void convert_pixel(const vd_scan *scan, int channels, const uint8_t *from, uint8_t *to) {
    if (scan->palette_entries > 0) {
        from = scan->palette[from[0] / scan->index_step];
        channels = 4;
    }
    bool grey = channels < 3, alpha = channels % 2 == 0;
    for (int c = 0; c < 3; c++) {
        uint8_t value = from[grey ? 0 : c];
        to[c] = alpha ? on_white(value, from[channels - 1]) : value;
    }
}

/* Turns and mirrors `in` upright as EXIF's orientation 1 to 8 says, as RGB. */
static void make_upright(const vd_scan *scan, const raster *in, vd_image *out) {
    int o = scan->orientation;
    bool transposed = o >= 5, flip_x = o == 2 || o == 3 || o == 6 || o == 7,
         flip_y = o == 3 || o == 4 || o == 7 || o == 8;
    const uint8_t *from = in->values;
    for (int y = 0; y < in->height; y++)
        for (int x = 0; x < in->width; x++, from += in->channels) {
            int column = transposed ? y : x, row = transposed ? x : y;
            column = flip_x ? out->width - 1 - column : column;
            row = flip_y ? out->height - 1 - row : row;
            convert_pixel(scan, in->channels, from, out->rgb + 3 * ((size_t)row * out->width + column));
        }
}

static vd_code finish(const vd_scan *scan, const raster *in, vd_image *out, vd_error *err) {
    if (in->width != scan->width || in->height != scan->height)
        return vd_fail(err, VD_ERR_INTERNAL, "the decoder made %dx%d of %dx%d pixels", in->width, in->height,
                       scan->width, scan->height);
    if (scan->palette_entries > 0 && !indices_exist(scan, in))
        return vd_fail(err, VD_ERR_DATA, "a pixel names a colour beyond the %d of its palette",
                       scan->palette_entries);
    size_t bytes = (size_t)in->width * in->height * 3;
    uint8_t *rgb = malloc(bytes);
    if (!rgb)
        return vd_fail_memory(err, "pixels", bytes);
    bool transposed = scan->orientation >= 5;
    *out = (vd_image){transposed ? in->height : in->width, transposed ? in->width : in->height, rgb};
    make_upright(scan, in, out);
    return VD_OK;
}

static vd_code decode(const uint8_t *bytes, size_t count, vd_scan *scan, vd_image *out, vd_error *err) {
    VD_TRY(scan_any(bytes, count, scan, err));
    raster in = {0};
    in.values = stbi_load_from_memory(scan->bytes, (int)scan->count, &in.width, &in.height, &in.channels, 0);
    if (!in.values)
        return vd_fail(err, VD_ERR_DATA, "its pixels cannot be decoded; save it anew");
    vd_code code = finish(scan, &in, out, err);
    stbi_image_free(in.values);
    return code;
}

vd_code vd_image_decode(const uint8_t *bytes, size_t count, const char *name, vd_image *out, vd_error *err) {
    *out = (vd_image){0};
    vd_scan scan = {.orientation = 1};
    vd_code code = decode(bytes, count, &scan, out, err);
    vd_scan_free(&scan);
    return code == VD_OK ? code : vd_fail_in(err, "image '%s'", name);
}

vd_code vd_image_load(const char *path, vd_image *out, vd_error *err) {
    char *bytes;
    size_t count;
    *out = (vd_image){0};
    VD_TRY(vd_file_read(path, "image", VD_IMAGE_MAX_FILE, &bytes, &count, err));
    vd_code code = vd_image_decode((const uint8_t *)bytes, count, path, out, err);
    free(bytes);
    return code;
}

void vd_image_free(vd_image *image) {
    free(image->rgb);
    *image = (vd_image){0};
}
