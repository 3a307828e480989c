/* PNGs made here, byte by byte: every pixel format against known colours, and every way to be broken. */
#include "bytes.h"

#include <malloc.h>
#include <zlib.h>

enum { GREY = 0, RGB = 2, PALETTE = 3, GREY_ALPHA = 4, RGB_ALPHA = 6 };

typedef struct spec {
    uint32_t width, height;
    int depth, colour, interlaced, filter;
    int palette, transparent; /* bytes of PLTE and tRNS; 0: none */
    unsigned (*sample)(const struct spec *s, int x, int y, int c);
    const char *before; /* a chunk to put behind IHDR; NULL: none */
    const void *before_data;
    size_t before_bytes;
} spec;

static int channels_of(int colour) {
    return colour == RGB ? 3 : colour == GREY_ALPHA ? 2 : colour == RGB_ALPHA ? 4 : 1;
}

static unsigned wavy(const spec *s, int x, int y, int c) {
    unsigned v = (unsigned)(x * 37 + y * 101 + c * 59 + x * y * 3);
    return s->depth == 16         ? v * 257 % 65536
           : s->colour == PALETTE ? v % (unsigned)(s->palette / 3)
                                  : v % (1u << s->depth);
}

static void put_chunk(bytes *b, const char *name, const void *data, size_t count) {
    put_be32(b, (uint32_t)count);
    size_t start = b->count;
    put(b, name, 4);
    put(b, data, count);
    put_be32(b, (uint32_t)crc32(0, b->at + start, (uInt)(4 + count)));
}

static void put_signature(bytes *b) {
    put(b, "\x89PNG\r\n\x1a\n", 8);
}

static void put_ihdr(bytes *b, uint32_t width, uint32_t height, int depth, int colour, int interlaced) {
    bytes h = {0};
    put_be32(&h, width);
    put_be32(&h, height);
    put(&h, (uint8_t[]){(uint8_t)depth, (uint8_t)colour, 0, 0, (uint8_t)interlaced}, 5);
    put_chunk(b, "IHDR", h.at, h.count);
    drop(&h);
}

static void deflate_into(bytes *out, const bytes *in) {
    uLongf count = compressBound(in->count);
    uint8_t *z = malloc(count);
    assert_int_equal(compress2(z, &count, in->at, in->count, 9), Z_OK);
    put(out, z, count);
    free(z);
}

/* Predicts like a PNG encoder (W3C PNG 9.2). `previous` is NULL for a first row. */
static void put_filtered(bytes *raw, int filter, const uint8_t *row, const uint8_t *previous, int count,
                         int step) {
    put(raw, (uint8_t[]){(uint8_t)filter}, 1);
    for (int i = 0; i < count; i++) {
        int a = i >= step ? row[i - step] : 0, b = previous ? previous[i] : 0,
            c = previous && i >= step ? previous[i - step] : 0, p = a + b - c;
        int paeth = abs(p - a) <= abs(p - b) && abs(p - a) <= abs(p - c) ? a
                    : abs(p - b) <= abs(p - c)                           ? b
                                                                         : c;
        int guess[] = {0, a, b, (a + b) / 2, paeth};
        put(raw, (uint8_t[]){(uint8_t)(row[i] - guess[filter])}, 1);
    }
}

static void put_pass(bytes *raw, const spec *s, int x0, int y0, int dx, int dy) {
    int channels = channels_of(s->colour), bits = channels * s->depth;
    int width = ((int)s->width - x0 + dx - 1) / dx, count = (width * bits + 7) / 8;
    uint8_t *rows = calloc(2, (size_t)count + 1), *row = rows, *previous = NULL;
    for (int y = y0; width > 0 && y < (int)s->height; y += dy) {
        memset(row, 0, (size_t)count);
        for (int i = 0; i < width * channels; i++) {
            unsigned v = s->sample(s, x0 + i / channels * dx, y, i % channels);
            if (s->depth == 16)
                row[2 * i] = (uint8_t)(v >> 8), row[2 * i + 1] = (uint8_t)v;
            else
                row[i * s->depth / 8] |= (uint8_t)(v << (8 - s->depth - i * s->depth % 8));
        }
        put_filtered(raw, s->filter < 0 ? y % 5 : s->filter, row, previous, count, bits < 8 ? 1 : bits / 8);
        previous = row;
        row = row == rows ? rows + count : rows;
    }
    free(rows);
}

static bytes make_raw(const spec *s) {
    static const int adam7[7][4] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                                    {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
    bytes raw = {0};
    if (!s->interlaced)
        put_pass(&raw, s, 0, 0, 1, 1);
    for (int i = 0; s->interlaced && i < 7; i++)
        put_pass(&raw, s, adam7[i][0], adam7[i][1], adam7[i][2], adam7[i][3]);
    return raw;
}

static uint8_t palette_byte(int i) {
    return (uint8_t)(i * 83 + 7);
}

static void put_head(bytes *b, const spec *s) {
    uint8_t colours[768], alphas[256];
    for (int i = 0; i < 768; i++)
        colours[i] = palette_byte(i);
    for (int i = 0; i < 256; i++)
        alphas[i] = (uint8_t)(s->colour == PALETTE ? i * 91 : 0);
    put_signature(b);
    put_ihdr(b, s->width, s->height, s->depth, s->colour, s->interlaced);
    if (s->before)
        put_chunk(b, s->before, s->before_data, s->before_bytes);
    if (s->palette > 0)
        put_chunk(b, "PLTE", colours, (size_t)s->palette);
    if (s->transparent > 0)
        put_chunk(b, "tRNS", alphas, (size_t)s->transparent);
}

static bytes make_png(const spec *s) {
    bytes b = {0}, raw = make_raw(s), z = {0};
    put_head(&b, s);
    deflate_into(&z, &raw);
    put_chunk(&b, "IDAT", z.at, z.count);
    put_chunk(&b, "IEND", NULL, 0);
    drop(&raw);
    drop(&z);
    return b;
}

static const spec plain = {.width = 7, .height = 5, .depth = 8, .colour = RGB, .sample = wavy};

static int on_white(int v, int alpha) {
    return (v * alpha + 255 * (255 - alpha) + 127) / 255;
}

/* What one pixel must become. tRNS of grey and RGB makes the colour 0 transparent. */
static void expect_pixel(const spec *s, int x, int y, int rgb[3]) {
    int channels = channels_of(s->colour), v[4], alpha = 255;
    unsigned any = 0;
    for (int c = 0; c < channels; c++) {
        unsigned raw = s->sample(s, x, y, c);
        any |= raw;
        v[c] = (int)(s->depth == 16 ? raw >> 8 : raw * 255 / ((1u << s->depth) - 1));
    }
    if (s->colour == PALETTE) {
        int index = (int)s->sample(s, x, y, 0);
        for (int c = 0; c < 3; c++)
            v[c] = palette_byte(3 * index + c);
        alpha = index < s->transparent ? (uint8_t)(index * 91) : 255;
    } else if (s->transparent > 0) {
        alpha = any == 0 ? 0 : 255;
    } else if (channels % 2 == 0) {
        alpha = v[channels - 1];
    }
    for (int c = 0; c < 3; c++)
        rgb[c] = on_white(v[s->colour == GREY || s->colour == GREY_ALPHA ? 0 : c], alpha);
}

static void check_pixels(const spec *s) {
    bytes b = make_png(s);
    vd_image image = expect_image(&b);
    assert_int_equal(image.width, s->width);
    assert_int_equal(image.height, s->height);
    for (int y = 0; y < image.height; y++)
        for (int x = 0; x < image.width; x++) {
            int want[3];
            expect_pixel(s, x, y, want);
            for (int c = 0; c < 3; c++)
                assert_int_equal(image.rgb[3 * (y * image.width + x) + c], want[c]);
        }
    vd_image_free(&image);
    drop(&b);
}

static void test_formats(void **state) {
    (void)state;
    static const struct {
        int colour, depth, palette, transparent;
    } formats[] = {
        {GREY, 1, 0, 0},      {GREY, 2, 0, 0},        {GREY, 4, 0, 0},       {GREY, 8, 0, 0},
        {GREY, 16, 0, 0},     {GREY, 1, 0, 2},        {GREY, 4, 0, 2},       {GREY, 8, 0, 2},
        {GREY, 16, 0, 2},     {RGB, 8, 0, 0},         {RGB, 16, 0, 0},       {RGB, 8, 0, 6},
        {RGB, 16, 0, 6},      {RGB, 8, 30, 0},        {PALETTE, 1, 6, 0},    {PALETTE, 2, 9, 0},
        {PALETTE, 4, 48, 0},  {PALETTE, 8, 768, 0},   {PALETTE, 8, 300, 0},  {PALETTE, 1, 6, 2},
        {PALETTE, 4, 30, 7},  {PALETTE, 8, 768, 256}, {GREY_ALPHA, 8, 0, 0}, {GREY_ALPHA, 16, 0, 0},
        {RGB_ALPHA, 8, 0, 0}, {RGB_ALPHA, 16, 0, 0}};
    static const uint32_t sizes[][2] = {{1, 1}, {7, 5}, {16, 9}, {3, 11}};
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int interlaced = 0; interlaced < 2; interlaced++)
                check_pixels(&(spec){.width = sizes[i][0],
                                     .height = sizes[i][1],
                                     .depth = formats[f].depth,
                                     .colour = formats[f].colour,
                                     .interlaced = interlaced,
                                     .filter = -1,
                                     .palette = formats[f].palette,
                                     .transparent = formats[f].transparent,
                                     .sample = wavy});
}

static void test_extreme_shapes(void **state) {
    (void)state;
    check_pixels(&(spec){.width = 1, .height = 8192, .depth = 8, .colour = RGB, .sample = wavy});
    check_pixels(&(spec){.width = 8192, .height = 1, .depth = 16, .colour = GREY, .sample = wavy});
}

static bytes header_only(uint32_t width, uint32_t height, int depth, int colour) {
    bytes b = {0};
    put_signature(&b);
    put_ihdr(&b, width, height, depth, colour, 0);
    return b;
}

static void test_sizes_are_judged_by_the_header(void **state) {
    (void)state;
    static const uint32_t empty[][2] = {{0, 0}, {0, 5}, {5, 0}};
    static const uint32_t large[][2] = {{8193, 1},       {1, 8193},    {0x7fffffff, 0x7fffffff},
                                        {0xffffffff, 1}, {5657, 5657}, {8192, 8192}};
    for (size_t i = 0; i < 3; i++)
        refuse_and_drop(header_only(empty[i][0], empty[i][1], 8, RGB), "empty");
    for (size_t i = 0; i < 6; i++)
        refuse_and_drop(header_only(large[i][0], large[i][1], 8, RGB), "at most 8192 on a side");
    refuse_and_drop(header_only(8192, 3906, 8, RGB), "cut short"); /* the largest: 31.997952 Mpx */
}

static void test_header_values(void **state) {
    (void)state;
    static const int bad[][2] = {{3, RGB},   {0, RGB}, {99, RGB}, {4, RGB_ALPHA}, {16, PALETTE},
                                 {32, GREY}, {8, 1},   {8, 5},    {8, 7},         {2, GREY_ALPHA}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refuse_and_drop(header_only(4, 4, bad[i][0], bad[i][1]), "does not exist");
    for (int field = 10; field <= 12; field++) {
        bytes b = header_only(4, 4, 8, RGB);
        b.at[16 + field] = 2;
        uint32_t crc = (uint32_t)crc32(0, b.at + 12, 17);
        for (int i = 0; i < 4; i++)
            b.at[29 + i] = (uint8_t)(crc >> (24 - 8 * i));
        refuse_and_drop(b, "does not exist");
    }
}

static void test_truncated(void **state) {
    (void)state;
    spec s = plain;
    s.width = s.height = 40;
    bytes b = make_png(&s);
    refuse_truncated(&b);
    put(&b, "trailing", 8);
    vd_image image = expect_image(&b);
    vd_image_free(&image);
    drop(&b);
}

/* Bit rot anywhere is seen: CRCs cover names and data, and lengths lead to wrong CRCs. */
static void test_every_flipped_bit(void **state) {
    (void)state;
    spec s = plain;
    s.colour = PALETTE;
    s.palette = 30;
    bytes b = make_png(&s);
    for (size_t i = 0; i < b.count; i++) {
        b.at[i] ^= (uint8_t)(1 << i % 8);
        refuse(&b, "");
        b.at[i] ^= (uint8_t)(1 << i % 8);
    }
    drop(&b);
}

static bytes with_idat(const spec *s, const void *z, size_t count) {
    bytes b = {0};
    put_head(&b, s);
    put_chunk(&b, "IDAT", z, count);
    put_chunk(&b, "IEND", NULL, 0);
    return b;
}

static void test_compressed_data(void **state) {
    (void)state;
    bytes raw = make_raw(&plain), z = {0};
    deflate_into(&z, &raw);
    z.at[z.count - 1] ^= 1;
    refuse_and_drop(with_idat(&plain, z.at, z.count), "incorrect data check"); /* Adler-32 */
    refuse_and_drop(with_idat(&plain, z.at, z.count - 4), "end after 110 of 110");
    refuse_and_drop(with_idat(&plain, NULL, 0), "end after 0 of 110");
    refuse_and_drop(with_idat(&plain, "\x78\x9c\xff\xff", 4), "it is damaged");
    z.count = 0;
    bytes less = {raw.at, raw.count - 1, 0};
    deflate_into(&z, &less);
    refuse_and_drop(with_idat(&plain, z.at, z.count), "end after 109 of 110");
    z.count = 0;
    put(&raw, "", 1);
    deflate_into(&z, &raw);
    refuse_and_drop(with_idat(&plain, z.at, z.count), "more than the 110 bytes");
    z.count = 0;
    raw.count--;
    raw.at[0] = 5;
    deflate_into(&z, &raw);
    refuse_and_drop(with_idat(&plain, z.at, z.count), "cannot be decoded"); /* there are filters 0 to 4 */
    drop(&raw);
    drop(&z);
}

/* 1028:1, the most that deflate gives: stops at the size that the header told. */
static void test_bomb(void **state) {
    (void)state;
    bytes zeros = {calloc(1, 16 << 20), 16 << 20, 16 << 20}, z = {0};
    deflate_into(&z, &zeros);
    refuse_and_drop(with_idat(&plain, z.at, z.count), "more than the 110 bytes");
    static const char *const compressed[] = {"zTXt", "iCCP", "iTXt"};
    for (int i = 0; i < 3; i++) { /* never inflated */
        spec s = plain;
        s.before = compressed[i];
        s.before_data = z.at;
        s.before_bytes = z.count;
        check_pixels(&s);
    }
    drop(&zeros);
    drop(&z);
}

static unsigned beyond(const spec *s, int x, int y, int c) {
    (void)c;
    return x == 6 && y == 4 ? (unsigned)s->palette / 3 : 0;
}

static void test_palettes(void **state) {
    (void)state;
    spec s = {.width = 7, .height = 5, .depth = 8, .colour = PALETTE, .palette = 30, .sample = beyond};
    refuse_and_drop(make_png(&s), "beyond the 10 of its palette");
    s.filter = 4;
    refuse_and_drop(make_png(&s), "beyond the 10 of its palette");
    s.depth = 4;
    s.interlaced = 1;
    refuse_and_drop(make_png(&s), "beyond the 10 of its palette");
    static const int bad_palettes[] = {4, 51};
    for (int i = 0; i < 2; i++) {
        s.palette = bad_palettes[i];
        refuse_and_drop(make_png(&s), "PLTE chunk has");
    }
    s.palette = 30;
    s.transparent = 11;
    refuse_and_drop(make_png(&s), "tRNS chunk has 11");
    s.palette = 0;
    refuse_and_drop(make_png(&s), "tRNS chunk has 11");
    s.transparent = 0;
    s.sample = wavy;
    s.depth = 8;
    s.palette = 3;
    bytes b = make_png(&s);
    memmove(b.at + 33, b.at + 33 + 15, b.count - 48); /* takes PLTE out */
    b.count -= 15;
    refuse_and_drop(b, "PLTE chunk is missing");
    static const int others[][3] = {{GREY, 1, 3}, {RGB, 5, 7}, {GREY_ALPHA, 2, 2}, {RGB_ALPHA, 6, 6}};
    for (int i = 0; i < 8; i++) {
        s = plain;
        s.colour = others[i / 2][0];
        s.transparent = others[i / 2][1 + i % 2];
        refuse_and_drop(make_png(&s), "tRNS chunk has");
    }
}

typedef struct piece {
    const char *name;
    const void *data;
    size_t count;
} piece;

static void refuse_pieces(const piece *pieces, const char *why) {
    bytes b = {0};
    put_signature(&b);
    for (; pieces->name; pieces++)
        put_chunk(&b, pieces->name, pieces->data, pieces->count);
    refuse_and_drop(b, why);
}

static void test_chunk_order(void **state) {
    (void)state;
    static const uint8_t ihdr[] = {0, 0, 0, 1, 0, 0, 0, 1, 8, RGB, 0, 0, 0};
    bytes z = {0}, raw = {(uint8_t[]){0, 1, 2, 3}, 4, 0};
    deflate_into(&z, &raw);
    const piece header = {"IHDR", ihdr, 13}, pixels = {"IDAT", z.at, z.count}, end = {"IEND", NULL, 0},
                palette = {"PLTE", "abc", 3}, key = {"tRNS", "\0\0\0\0\0\0", 6}, stop = {NULL, NULL, 0};
    refuse_pieces((piece[]){pixels, header, end, stop}, "first chunk is 'IDAT'");
    refuse_pieces((piece[]){{"tEXt", "a", 1}, header, pixels, end, stop}, "first chunk is 'tEXt'");
    refuse_pieces((piece[]){header, header, pixels, end, stop}, "second or malformed IHDR");
    refuse_pieces((piece[]){{"IHDR", ihdr, 12}, pixels, end, stop}, "second or malformed IHDR");
    refuse_pieces((piece[]){header, end, stop}, "IDAT chunk is missing");
    refuse_pieces((piece[]){header, pixels, stop}, "no IEND");
    refuse_pieces((piece[]){header, pixels, {"IEND", "x", 1}, stop}, "IEND chunk has 1 bytes");
    refuse_pieces((piece[]){header, pixels, palette, end, stop}, "comes too late");
    refuse_pieces((piece[]){header, pixels, key, end, stop}, "comes too late");
    refuse_pieces((piece[]){header, key, key, pixels, end, stop}, "comes too late");
    refuse_pieces((piece[]){header, pixels, {"tEXt", "a", 1}, pixels, end, stop}, "not in a row");
    refuse_pieces((piece[]){{"CgBI", "abcd", 4}, header, pixels, end, stop}, "iPhone");
    refuse_pieces((piece[]){header, {"NEWS", "a", 1}, pixels, end, stop}, "knows the chunk 'NEWS'");
    refuse_pieces((piece[]){header, {"\x1b[2J", "a", 1}, pixels, end, stop}, "'\\x1b[2J'");
    refuse_pieces((piece[]){header, {"x\x1b\nz", "a", 1}, pixels, end, stop}, "'x\\x1b\\x0az'");
    drop(&z);
}

static void test_lying_length(void **state) {
    (void)state;
    bytes b = header_only(4, 4, 8, RGB);
    put_be32(&b, 0x7fffffff);
    put(&b, "IDAT01234567890123456789", 24);
    refuse_and_drop(b, "IDAT' of 2147483647 bytes has");
}

/* Empty IDATs, IDATs of one byte, and bytes behind the stream. */
static void test_split_pixels(void **state) {
    (void)state;
    bytes b = {0}, raw = make_raw(&plain), z = {0}, whole = make_png(&plain);
    deflate_into(&z, &raw);
    put_head(&b, &plain);
    put_chunk(&b, "IDAT", NULL, 0);
    for (size_t i = 0; i < z.count; i++)
        put_chunk(&b, "IDAT", z.at + i, 1);
    put_chunk(&b, "IDAT", "more", 4);
    put_chunk(&b, "IEND", NULL, 0);
    vd_image split = expect_image(&b), image = expect_image(&whole);
    assert_memory_equal(split.rgb, image.rgb, 7 * 5 * 3);
    vd_image_free(&split);
    vd_image_free(&image);
    drop(&b), drop(&raw), drop(&z), drop(&whole);
}

static void test_first_frame_of_apng(void **state) {
    (void)state;
    bytes b = make_png(&plain), whole = copy_of(&b, b.count);
    b.count -= 12;
    put_chunk(&b, "fcTL", "01234567890123456789012345", 26);
    put_chunk(&b, "fdAT", "\0\0\0\1garbage", 11);
    put_chunk(&b, "IEND", NULL, 0);
    vd_image animated = expect_image(&b), image = expect_image(&whole);
    assert_memory_equal(animated.rgb, image.rgb, 7 * 5 * 3);
    vd_image_free(&animated);
    vd_image_free(&image);
    drop(&b), drop(&whole);
}

static void check_orientation(int stored, int expected, bool little) {
    bytes exif = make_exif(stored, little);
    spec s = plain;
    s.before = "eXIf";
    s.before_data = exif.at;
    s.before_bytes = exif.count;
    bytes b = make_png(&s);
    vd_image image = expect_image(&b);
    assert_int_equal(image.width, expected >= 5 ? 5 : 7);
    assert_int_equal(image.height, expected >= 5 ? 7 : 5);
    for (int y = 0; y < 5; y++)
        for (int x = 0; x < 7; x++) {
            int column, row;
            place_upright(expected, 7, 5, x, y, &column, &row);
            for (int c = 0; c < 3; c++)
                assert_int_equal(image.rgb[3 * (row * image.width + column) + c], wavy(&plain, x, y, c));
        }
    vd_image_free(&image);
    drop(&b), drop(&exif);
}

static void test_orientations(void **state) {
    (void)state;
    for (int orientation = 1; orientation <= 8; orientation++) {
        check_orientation(orientation, orientation, true);
        check_orientation(orientation, orientation, false);
    }
    check_orientation(0, 1, true);
    check_orientation(9, 1, true);
}

static void test_heap_content_does_not_matter(void **state) {
    (void)state;
    spec s = plain;
    s.width = s.height = 100;
    s.interlaced = 1;
    bytes b = make_png(&s);
    vd_image images[2];
    for (int i = 0; i < 2; i++) {
        mallopt(M_PERTURB, i == 0 ? 0x55 : 0xaa);
        images[i] = expect_image(&b);
    }
    mallopt(M_PERTURB, 0);
    assert_memory_equal(images[0].rgb, images[1].rgb, 100 * 100 * 3);
    vd_image_free(&images[0]);
    vd_image_free(&images[1]);
    drop(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_extreme_shapes),
        cmocka_unit_test(test_sizes_are_judged_by_the_header),
        cmocka_unit_test(test_header_values),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_every_flipped_bit),
        cmocka_unit_test(test_compressed_data),
        cmocka_unit_test(test_bomb),
        cmocka_unit_test(test_palettes),
        cmocka_unit_test(test_chunk_order),
        cmocka_unit_test(test_lying_length),
        cmocka_unit_test(test_split_pixels),
        cmocka_unit_test(test_first_frame_of_apng),
        cmocka_unit_test(test_orientations),
        cmocka_unit_test(test_heap_content_does_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
