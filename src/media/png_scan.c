/* PNG (W3C, third edition): every chunk's place, length and CRC is checked, and the pixels are inflated once
 * to learn that all of them are there. The decoder then gets a file of its own, holding only IHDR, tRNS, IDAT
 * and IEND. */
#include "media/image_scan.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { SIGNATURE = 8, FRAME = 12 /* bytes of a chunk around its data: length, name, CRC */ };
enum { GREY = 0, RGB = 2, PALETTE = 3, GREY_ALPHA = 4, RGB_ALPHA = 6 }; /* colour types */

typedef struct chunk {
    const uint8_t *start; /* length, name, data, CRC */
    char name[5];
    const uint8_t *data;
    uint32_t length; /* of data */
} chunk;

typedef struct png {
    const uint8_t *at, *end;
    vd_scan *scan;
    int depth, colour; /* as IHDR says */
    bool has_transparency, in_pixels, after_pixels, finished;
    z_stream zlib;
    bool inflated_all;
    uint64_t inflated, expected; /* bytes of filtered rows */
} png;

static vd_code next_chunk(png *p, chunk *c, vd_error *err) {
    size_t left = (size_t)(p->end - p->at);
    if (left < FRAME)
        return vd_fail(err, VD_ERR_DATA, "it is cut short: no IEND chunk");
    *c = (chunk){.start = p->at, .data = p->at + 8, .length = vd_be32(p->at)};
    memcpy(c->name, p->at + 4, 4);
    if (c->length > left - FRAME)
        return vd_fail(err, VD_ERR_DATA, "it is cut short: chunk '%s' of %u bytes has %zu", c->name,
                       c->length, left - FRAME);
    uint32_t found = vd_be32(c->data + c->length), right = (uint32_t)crc32(0, c->start + 4, c->length + 4);
    if (found != right)
        return vd_fail(err, VD_ERR_DATA, "it is damaged: chunk '%s' has CRC %08x, its bytes give %08x",
                       c->name, found, right);
    p->at += FRAME + c->length;
    return VD_OK;
}

static void keep(png *p, const chunk *c) {
    memcpy(p->scan->owned + p->scan->count, c->start, FRAME + c->length);
    p->scan->count += FRAME + c->length;
}

static int channels_of(int colour) {
    return colour == RGB ? 3 : colour == GREY_ALPHA ? 2 : colour == RGB_ALPHA ? 4 : 1;
}

static bool is_depth_legal(int depth, int colour) {
    switch (colour) {
    case GREY:
        return depth == 1 || depth == 2 || depth == 4 || depth == 8 || depth == 16;
    case PALETTE:
        return depth == 1 || depth == 2 || depth == 4 || depth == 8;
    case RGB:
    case GREY_ALPHA:
    case RGB_ALPHA:
        return depth == 8 || depth == 16;
    default:
        return false;
    }
}

/* Bytes of one pass: a filter byte and packed pixels per row; empty passes have no rows. */
static uint64_t pass_bytes(uint64_t width, uint64_t height, int bits) {
    return width == 0 ? 0 : height * (1 + (width * (unsigned)bits + 7) / 8);
}

static uint64_t expected_bytes(unsigned width, unsigned height, int bits, bool interlaced) {
    static const struct {
        unsigned x, y, dx, dy;
    } adam7[7] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                  {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
    if (!interlaced)
        return pass_bytes(width, height, bits);
    uint64_t sum = 0;
    for (int i = 0; i < 7; i++)
        sum += pass_bytes((width + adam7[i].dx - 1 - adam7[i].x) / adam7[i].dx,
                          (height + adam7[i].dy - 1 - adam7[i].y) / adam7[i].dy, bits);
    return sum;
}

static vd_code take_ihdr(png *p, const chunk *c, vd_error *err) {
    if (p->expected > 0 || c->length != 13)
        return vd_fail(err, VD_ERR_DATA, "it has a second or malformed IHDR chunk");
    const uint8_t *d = c->data;
    uint32_t width = vd_be32(d), height = vd_be32(d + 4);
    VD_TRY(vd_scan_check_size(width, height, err));
    p->depth = d[8];
    p->colour = d[9];
    if (!is_depth_legal(p->depth, p->colour))
        return vd_fail(err, VD_ERR_DATA, "colour type %d with %d bits does not exist", p->colour, p->depth);
    if (d[10] != 0 || d[11] != 0 || d[12] > 1)
        return vd_fail(err, VD_ERR_DATA, "compression %d, filter %d, interlacing %d does not exist", d[10],
                       d[11], d[12]);
    p->scan->width = (int)width;
    p->scan->height = (int)height;
    p->expected = expected_bytes(width, height, channels_of(p->colour) * p->depth, d[12]);
    keep(p, c);
    if (p->colour == PALETTE) {
        p->scan->owned[SIGNATURE + 8 + 9] = GREY; /* the decoder does not look at CRCs */
        p->scan->index_step = 255 / ((1 << p->depth) - 1);
    }
    return VD_OK;
}

static vd_code take_plte(png *p, const chunk *c, vd_error *err) {
    vd_scan *scan = p->scan;
    unsigned entries = c->length / 3, most = p->colour == PALETTE ? 1u << p->depth : 256;
    if (c->length % 3 != 0 || entries == 0 || entries > most)
        return vd_fail(err, VD_ERR_DATA, "its PLTE chunk has %u bytes; 3 to %u, in threes, can be", c->length,
                       3 * most);
    if (p->in_pixels || p->has_transparency || scan->palette_entries > 0)
        return vd_fail(err, VD_ERR_DATA, "its PLTE chunk is doubled or comes too late");
    if (p->colour != PALETTE)
        return VD_OK; /* a suggestion for screens with few colours */
    scan->palette_entries = (int)entries;
    for (unsigned i = 0; i < entries; i++) {
        memcpy(scan->palette[i], c->data + 3 * (size_t)i, 3);
        scan->palette[i][3] = 255;
    }
    return VD_OK;
}

static vd_code take_trns(png *p, const chunk *c, vd_error *err) {
    if (p->in_pixels || p->has_transparency)
        return vd_fail(err, VD_ERR_DATA, "its tRNS chunk is doubled or comes too late");
    uint32_t most = p->colour == PALETTE ? (uint32_t)p->scan->palette_entries
                    : p->colour == GREY  ? 2
                    : p->colour == RGB   ? 6
                                         : 0;
    uint32_t least = p->colour == PALETTE ? 1 : most;
    if (most == 0 || c->length < least || c->length > most)
        return vd_fail(err, VD_ERR_DATA, "its tRNS chunk has %u bytes; colour type %d allows %u to %u",
                       c->length, p->colour, least, most);
    p->has_transparency = true;
    if (p->colour != PALETTE)
        keep(p, c);
    else
        for (uint32_t i = 0; i < c->length; i++)
            p->scan->palette[i][3] = c->data[i];
    return VD_OK;
}

/* Counts what the chunk inflates to; zlib checks the stream and, at its end, the Adler-32. */
static vd_code inflate_chunk(png *p, const chunk *c, vd_error *err) {
    uint8_t scratch[16384];
    p->zlib.next_in = (uint8_t *)c->data;
    p->zlib.avail_in = c->length;
    do {
        p->zlib.next_out = scratch;
        p->zlib.avail_out = sizeof scratch;
        int result = inflate(&p->zlib, Z_NO_FLUSH);
        p->inflated += sizeof scratch - p->zlib.avail_out;
        p->inflated_all = result == Z_STREAM_END;
        if (result == Z_MEM_ERROR)
            return vd_fail_memory(err, "inflating", 1 << 15);
        if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
            return vd_fail(err, VD_ERR_DATA, "it is damaged: its compressed pixels have an %s",
                           p->zlib.msg ? p->zlib.msg : "unknown dictionary");
        if (p->inflated > p->expected)
            return vd_fail(err, VD_ERR_DATA,
                           "its compressed pixels hold more than the %llu bytes of its size",
                           (unsigned long long)p->expected);
    } while (!p->inflated_all && p->zlib.avail_out == 0);
    return VD_OK;
}

static vd_code take_idat(png *p, const chunk *c, vd_error *err) {
    if (p->after_pixels)
        return vd_fail(err, VD_ERR_DATA, "its IDAT chunks are not in a row");
    if (p->colour == PALETTE && p->scan->palette_entries == 0)
        return vd_fail(err, VD_ERR_DATA, "its PLTE chunk is missing");
    p->in_pixels = true;
    if (c->length == 0 || p->inflated_all)
        return VD_OK;
    keep(p, c);
    return inflate_chunk(p, c, err);
}

static vd_code take_iend(png *p, const chunk *c, vd_error *err) {
    if (c->length != 0)
        return vd_fail(err, VD_ERR_DATA, "its IEND chunk has %u bytes instead of none", c->length);
    if (!p->in_pixels)
        return vd_fail(err, VD_ERR_DATA, "it has no pixels: the IDAT chunk is missing");
    if (!p->inflated_all || p->inflated < p->expected)
        return vd_fail(err, VD_ERR_DATA, "its compressed pixels end after %llu of %llu bytes",
                       (unsigned long long)p->inflated, (unsigned long long)p->expected);
    p->finished = true;
    keep(p, c);
    return VD_OK;
}

static vd_code take_exif(png *p, const chunk *c, vd_error *err) {
    (void)err;
    p->scan->orientation = vd_exif_orientation(c->data, c->length);
    return VD_OK;
}

static bool is_name_legal(const char *name) {
    for (int i = 0; i < 4; i++)
        if ((name[i] < 'A' || name[i] > 'Z') && (name[i] < 'a' || name[i] > 'z'))
            return false;
    return true;
}

static vd_code take_chunk(png *p, const chunk *c, vd_error *err) {
    static const struct {
        char name[5];
        vd_code (*take)(png *, const chunk *, vd_error *);
    } known[] = {{"IHDR", take_ihdr}, {"PLTE", take_plte}, {"tRNS", take_trns},
                 {"IDAT", take_idat}, {"IEND", take_iend}, {"eXIf", take_exif}};
    if (strcmp(c->name, "CgBI") == 0)
        return vd_fail(err, VD_ERR_DATA, "it is an iPhone PNG (CgBI); give a standard one");
    if (p->expected == 0 && strcmp(c->name, "IHDR") != 0)
        return vd_fail(err, VD_ERR_DATA, "its first chunk is '%s' instead of IHDR", c->name);
    p->after_pixels |= p->in_pixels && strcmp(c->name, "IDAT") != 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(c->name, known[i].name) == 0)
            return known[i].take(p, c, err);
    if (!is_name_legal(c->name) || (c->name[0] & 0x20) == 0)
        return vd_fail(err, VD_ERR_DATA, "it needs a reader that knows the chunk '%s'", c->name);
    return VD_OK;
}

static vd_code walk(png *p, vd_error *err) {
    while (!p->finished) {
        chunk c;
        VD_TRY(next_chunk(p, &c, err));
        VD_TRY(take_chunk(p, &c, err));
    }
    return VD_OK;
}

vd_code vd_png_scan(const uint8_t *bytes, size_t count, vd_scan *scan, vd_error *err) {
    if (count < SIGNATURE)
        return vd_fail(err, VD_ERR_DATA, "it is cut short: a PNG of %zu bytes", count);
    png p = {.at = bytes + SIGNATURE, .end = bytes + count, .scan = scan};
    scan->owned = malloc(count);
    if (!scan->owned || inflateInit(&p.zlib) != Z_OK)
        return vd_fail_memory(err, "a checked copy of the image", count);
    memcpy(scan->owned, bytes, SIGNATURE);
    scan->bytes = scan->owned;
    scan->count = SIGNATURE;
    vd_code code = walk(&p, err);
    inflateEnd(&p.zlib);
    return code;
}
