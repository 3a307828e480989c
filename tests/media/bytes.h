/* Files made in memory, and what the tests of images ask of them. */
#ifndef VD_TESTS_MEDIA_BYTES_H
#define VD_TESTS_MEDIA_BYTES_H

#include "media/image.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct bytes {
    uint8_t *at;
    size_t count, cap;
} bytes;

static inline void put(bytes *b, const void *data, size_t count) {
    if (b->count + count > b->cap) {
        b->cap = 2 * (b->count + count);
        b->at = realloc(b->at, b->cap);
        assert_non_null(b->at);
    }
    if (count > 0)
        memcpy(b->at + b->count, data, count);
    b->count += count;
}

static inline void put_be16(bytes *b, unsigned v) {
    put(b, (uint8_t[]){(uint8_t)(v >> 8), (uint8_t)v}, 2);
}

static inline void put_be32(bytes *b, uint32_t v) {
    put_be16(b, v >> 16);
    put_be16(b, v & 0xffff);
}

static inline bytes copy_of(const bytes *b, size_t count) {
    bytes c = {0};
    put(&c, b->at, count);
    return c;
}

static inline void drop(bytes *b) {
    free(b->at);
    *b = (bytes){0};
}

/* An exact copy on the heap, so that a read beyond the end is one that sanitizers see. */
static inline vd_code decode_exact(const uint8_t *at, size_t count, vd_image *image, vd_error *err) {
    uint8_t *exact = malloc(count > 0 ? count : 1);
    assert_non_null(exact);
    if (count > 0)
        memcpy(exact, at, count);
    vd_code code = vd_image_decode(exact, count, "test", image, err);
    free(exact);
    return code;
}

static inline vd_image expect_image(const bytes *b) {
    vd_image image;
    vd_error err;
    if (decode_exact(b->at, b->count, &image, &err) != VD_OK)
        fail_msg("refused: %s", err.message);
    return image;
}

/* `why` is part of the message. */
static inline void refuse(const bytes *b, const char *why) {
    vd_image image;
    vd_error err;
    assert_int_equal(decode_exact(b->at, b->count, &image, &err), VD_ERR_DATA);
    assert_null(image.rgb);
    assert_memory_equal(err.message, "image 'test': ", 14);
    if (!strstr(err.message, why))
        fail_msg("expected \"%s\" in: %s", why, err.message);
}

static inline void refuse_and_drop(bytes b, const char *why) {
    refuse(&b, why);
    drop(&b);
}

static inline void refuse_truncated(const bytes *b) {
    for (size_t percent = 0; percent < 100; percent++) {
        bytes cut = {b->at, b->count * percent / 100, 0};
        refuse(&cut, "");
    }
    bytes cut = {b->at, b->count - 1, 0};
    refuse(&cut, "");
}

static inline bytes read_whole(const char *path) {
    bytes b = {0};
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    uint8_t block[4096];
    for (size_t got; (got = fread(block, 1, sizeof block, file)) > 0;)
        put(&b, block, got);
    fclose(file);
    return b;
}

/* A TIFF header with one entry: the orientation. */
static inline bytes make_exif(int orientation, bool little) {
    bytes b = {0};
    uint8_t le[] = {'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, (uint8_t)orientation,
                    0,   0,   0,  0, 0, 0, 0};
    uint8_t be[] = {'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, (uint8_t)orientation,
                    0,   0,   0, 0,  0, 0};
    put(&b, little ? le : be, sizeof le);
    return b;
}

/* Where pixel (x, y) of the stored w x h picture is seen, in the words of the EXIF standard: which sides of
 * the screen the 0th row and the 0th column of the stored picture are. */
static inline void place_upright(int orientation, int w, int h, int x, int y, int *column, int *row) {
    int right = w - 1 - x, bottom = h - 1 - y;
    const int places[8][2] = {
        {x, y},          /* top, left */
        {right, y},      /* top, right */
        {right, bottom}, /* bottom, right */
        {x, bottom},     /* bottom, left */
        {y, x},          /* left, top */
        {bottom, x},     /* right, top */
        {bottom, right}, /* right, bottom */
        {y, right},      /* left, bottom */
    };
    *column = places[orientation - 1][0];
    *row = places[orientation - 1][1];
}

#endif
