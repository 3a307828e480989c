/* JPEGs: the same picture in four codings, and what must not get through. The seeds of the fuzzer (made by
 * tests/fuzz/make_image_seeds.py) serve as files of a foreign encoder. */
#include "bytes.h"

#include <malloc.h>
#include <time.h>

#define SEEDS "tests/fuzz/seeds/image/"

enum { SOF0 = 0xc0, SOF2 = 0xc2, DHT = 0xc4, SOI = 0xd8, SOS = 0xda, DQT = 0xdb, APP1 = 0xe1 };

/* The picture that make_image_seeds.py draws. */
enum { WIDTH = 40, HEIGHT = 25 };

static uint8_t drawn(int x, int y, int c) {
    return (uint8_t)(c == 0 ? x * 6 : c == 1 ? y * 10 : x * y);
}

/* Offset of the `nth` FF `marker`. */
static size_t find(const bytes *b, int marker, int nth) {
    for (size_t i = 0; i + 1 < b->count; i++)
        if (b->at[i] == 0xff && b->at[i + 1] == marker && nth-- == 0)
            return i;
    fail_msg("no marker %02x", marker);
    return 0;
}

static void insert(bytes *b, size_t where, const void *data, size_t count) {
    bytes tail = {0};
    put(&tail, b->at + where, b->count - where);
    b->count = where;
    put(b, data, count);
    put(b, tail.at, tail.count);
    drop(&tail);
}

static void erase(bytes *b, size_t where, size_t count) {
    memmove(b->at + where, b->at + where + count, b->count - where - count);
    b->count -= count;
}

static size_t segment_bytes(const bytes *b, size_t where) {
    return 2 + (size_t)(b->at[where + 2] << 8 | b->at[where + 3]);
}

static void test_pixels(void **state) {
    (void)state;
    bytes b = read_whole(SEEDS "full_colour.jpg");
    vd_image image = expect_image(&b);
    assert_int_equal(image.width, WIDTH);
    assert_int_equal(image.height, HEIGHT);
    long sum = 0;
    for (int i = 0; i < WIDTH * HEIGHT * 3; i++)
        sum += abs(image.rgb[i] - drawn(i / 3 % WIDTH, i / 3 / WIDTH, i % 3));
    assert_in_range(sum, 1, 5 * WIDTH * HEIGHT * 3);
    vd_image_free(&image);
    drop(&b);

    b = read_whole(SEEDS "tiny.jpg");
    image = expect_image(&b);
    static const uint8_t colour[] = {200, 100, 50};
    assert_int_equal(image.width, 1);
    assert_int_equal(image.height, 1);
    for (int c = 0; c < 3; c++)
        assert_in_range(image.rgb[c] - colour[c] + 3, 0, 6);
    vd_image_free(&image);
    drop(&b);
}

/* Sequential, progressive, with and without restart markers: not one bit of the picture differs. */
static void test_codings_agree(void **state) {
    (void)state;
    static const char *const paths[] = {SEEDS "coded_baseline.jpg", SEEDS "coded_restart.jpg",
                                        SEEDS "coded_progressive.jpg", SEEDS "coded_progressive_restart.jpg"};
    vd_image first = {0};
    for (int i = 0; i < 4; i++) {
        bytes b = read_whole(paths[i]);
        vd_image image = expect_image(&b);
        assert_int_equal(image.width, WIDTH);
        assert_int_equal(image.height, HEIGHT);
        if (i == 0)
            first = image;
        else {
            assert_memory_equal(image.rgb, first.rgb, WIDTH * HEIGHT * 3);
            vd_image_free(&image);
        }
        drop(&b);
    }
    vd_image_free(&first);
}

static void test_grey(void **state) {
    (void)state;
    static const char *const paths[] = {SEEDS "grey.jpg", SEEDS "grey_progressive.jpg"};
    for (int i = 0; i < 2; i++) {
        bytes b = read_whole(paths[i]);
        vd_image image = expect_image(&b);
        for (int k = 0; k < WIDTH * HEIGHT; k++) {
            assert_int_equal(image.rgb[3 * k], image.rgb[3 * k + 1]);
            assert_int_equal(image.rgb[3 * k], image.rgb[3 * k + 2]);
        }
        vd_image_free(&image);
        drop(&b);
    }
}

/* Cut anywhere, and cut with an end put on: the second is what careless repair tools leave. */
static void check_truncated(bytes b) {
    refuse_truncated(&b);
    for (size_t percent = 1; percent < 99; percent++) {
        bytes cut = copy_of(&b, b.count * percent / 100);
        put(&cut, "\xff\xd9", 2);
        refuse_and_drop(cut, "");
    }
    put(&b, "garbage \xff\xd8\xff\xda", 12);
    vd_image image = expect_image(&b);
    vd_image_free(&image);
    drop(&b);
}

static void test_truncated(void **state) {
    (void)state;
    check_truncated(read_whole(SEEDS "full_colour.jpg"));
    check_truncated(read_whole(SEEDS "coded_baseline.jpg"));
    check_truncated(read_whole(SEEDS "coded_restart.jpg"));
    check_truncated(read_whole(SEEDS "coded_progressive.jpg"));
    check_truncated(read_whole(SEEDS "coded_progressive_restart.jpg"));
    check_truncated(read_whole(SEEDS "grey_progressive.jpg"));
}

static void refuse_changed(const char *path, int marker, size_t offset, uint8_t value, const char *why) {
    bytes b = read_whole(path);
    b.at[find(&b, marker, 0) + offset] = value;
    refuse_and_drop(b, why);
}

static void test_other_processes(void **state) {
    (void)state;
    static const char *const names[16] = {
        [3] = "lossless",    [5] = "hierarchical",  [6] = "hierarchical",  [7] = "lossless",
        [8] = "extended",    [9] = "arithmetic",    [10] = "arithmetic",   [11] = "arithmetic",
        [12] = "arithmetic", [13] = "hierarchical", [14] = "hierarchical", [15] = "hierarchical"};
    for (uint8_t i = 0; i < 16; i++)
        if (names[i])
            refuse_changed(SEEDS "coded_baseline.jpg", SOF0, 1, (uint8_t)(SOF0 + i), names[i]);
    refuse_changed(SEEDS "coded_baseline.jpg", SOF0, 4, 12, "12 bits per sample");
    bytes b = read_whole(SEEDS "coded_baseline.jpg");
    size_t frame = find(&b, SOF0, 0);
    b.at[frame + 3] += 3;
    b.at[frame + 9] = 4;
    insert(&b, frame + 19, "\x04\x11\x00", 3);
    refuse_and_drop(b, "CMYK");
    refuse_changed(SEEDS "coded_baseline.jpg", SOF0, 1, 0xf7, "marker FFF7");
}

static void test_frames(void **state) {
    (void)state;
    const char *path = SEEDS "coded_baseline.jpg";
    refuse_changed(path, SOF0, 6, 0, "empty"); /* height */
    refuse_changed(path, SOF0, 7, 0x7f, "at most 8192");
    refuse_changed(path, SOF0, 3, 16, "SOF segment");
    refuse_changed(path, SOF0, 9, 2, "SOF segment");
    refuse_changed(path, SOF0, 11, 0x05, "sampling factors 0x5");
    refuse_changed(path, SOF0, 11, 0x51, "sampling factors 5x1");
    refuse_changed(path, SOF0, 12, 4, "quantization table 4");
    refuse_changed(path, SOF0, 12, 3, "not defined");
    refuse_changed(path, SOF0, 13, 1, "same id");
    refuse_changed(path, SOF0, 11, 0x44, "blocks per unit");
    bytes b = read_whole(path);
    size_t frame = find(&b, SOF0, 0);
    b.at[frame + 11] = 0x32;
    b.at[frame + 14] = 0x21; /* 3 to 2: stb_image would read behind its rows */
    refuse(&b, "do not divide");
    b.at[frame + 11] = 0x22;
    b.at[frame + 14] = 0x11;
    insert(&b, frame, b.at + frame, segment_bytes(&b, frame));
    refuse(&b, "second frame");
    erase(&b, frame, 2 * segment_bytes(&b, frame));
    refuse_and_drop(b, "before the frame header");
}

static void test_tables(void **state) {
    (void)state;
    const char *path = SEEDS "coded_baseline.jpg";
    refuse_changed(path, DQT, 4, 0x20, "DQT segment");
    refuse_changed(path, DQT, 4, 0x04, "DQT segment");
    refuse_changed(path, DQT, 4, 0x10, "DQT segment");
    refuse_changed(path, DHT, 4, 0x20, "DHT segment");
    refuse_changed(path, DHT, 4, 0x04, "DHT segment");
    refuse_changed(path, DHT, 4, 0x03, "not defined");
    refuse_changed(path, DHT, 20, 255, "DHT segment");
    bytes b = read_whole(path);
    size_t table = find(&b, DHT, 0) + 5;
    assert_int_equal(b.at[table + 2], 5); /* codes of 3 bits of the usual table for DC */
    b.at[table + 2] = 2;
    b.at[table] = 3;
    refuse_and_drop(b, "more codes of 1 bits");
    b = read_whole(path); /* 16 * 255 symbols: stb_image would write behind its table */
    uint8_t huge[2 + 2 + 17 + 4080] = {0xff, DHT, (2 + 17 + 4080) >> 8, (2 + 17 + 4080) & 255};
    memset(huge + 5, 255, 16);
    insert(&b, find(&b, SOS, 0), huge, sizeof huge);
    refuse_and_drop(b, "DHT segment");
}

static void test_scans(void **state) {
    (void)state;
    const char *path = SEEDS "coded_baseline.jpg", *progressive = SEEDS "coded_progressive.jpg";
    refuse_changed(path, SOS, 3, 13, "SOS segment");
    refuse_changed(path, SOS, 4, 4, "SOS segment");
    refuse_changed(path, SOS, 4, 0, "SOS segment");
    refuse_changed(path, SOS, 5, 9, "names component 9");
    refuse_changed(path, SOS, 7, 1, "names component 1");
    refuse_changed(path, SOS, 6, 0x40, "tables 40");
    refuse_changed(path, SOS, 6, 0x33, "not defined");
    refuse_changed(path, SOS, 11, 5, "cannot be");
    refuse_changed(path, SOS, 13, 1, "cannot be");
    refuse_changed(progressive, SOS, 12, 5, "cannot be");
    refuse_changed(progressive, SOS, 13, 0x0e, "cannot be");
    refuse_changed(progressive, SOS, 13, 0x31, "cannot be");
    refuse_changed(progressive, SOS, 13, 0x21, "wrong order");
    bytes b = read_whole(path);
    size_t scan = find(&b, SOS, 0);
    insert(&b, b.count - 2, b.at + scan, b.count - 2 - scan);
    refuse_and_drop(b, "sent twice");
    b = read_whole(path);
    erase(&b, scan, b.count - 2 - scan);
    refuse_and_drop(b, "before component 1 is complete");
    refuse_and_drop(copy_of(&(bytes){(uint8_t *)"\xff\xd8\xff\xd9", 4, 0}, 4), "no picture");
}

static void put_scan(bytes *b, int first, int last, int high, int low, const char *data) {
    put(b, (uint8_t[]){0xff, SOS, 0, 8, 1, 1, 0, (uint8_t)first, (uint8_t)last, (uint8_t)(high << 4 | low)},
        10);
    put(b, data, 1);
}

/* One grey block whose coefficients 1 to `alone` come one by one, in two scans each; all are zero. */
static bytes make_many_scans(int alone) {
    bytes b = {0};
    put(&b, "\xff\xd8\xff\xdb\0\x43\0", 7);
    for (int i = 0; i < 64; i++)
        put(&b, "\1", 1);
    put(&b, "\xff\xc2\0\x0b\x08\0\x08\0\x08\1\1\x11\0", 13);
    for (int kind = 0; kind < 2; kind++) { /* one code, the bit 0, for the symbol 0 */
        put(&b, "\xff\xc4\0\x14", 4);
        put(&b, (uint8_t[18]){(uint8_t)(kind << 4), 1}, 18);
    }
    put_scan(&b, 0, 0, 0, 0, "\x7f");
    for (int k = 1; k <= alone; k++) {
        put_scan(&b, k, k, 0, 1, "\x7f");
        put_scan(&b, k, k, 1, 0, "\x7f");
    }
    put_scan(&b, alone + 1, 63, 0, 0, "\x7f");
    put(&b, "\xff\xd9", 2);
    return b;
}

/* Each pass over the blocks costs time however little it sends. */
static void test_many_scans(void **state) {
    (void)state;
    bytes b = make_many_scans(49);
    vd_image image = expect_image(&b);
    for (int i = 0; i < 8 * 8 * 3; i++)
        assert_int_equal(image.rgb[i], 128);
    vd_image_free(&image);
    drop(&b);
    refuse_and_drop(make_many_scans(50), "more than 100 scans");
}

static void test_ten_thousand_scans(void **state) {
    (void)state;
    bytes b = make_many_scans(0);
    b.count -= 2 + 11;
    for (int i = 0; i < 10000; i++)
        put_scan(&b, 1, 63, 0, 0, "\x7f");
    put(&b, "\xff\xd9", 2);
    clock_t start = clock();
    refuse(&b, "sent twice");
    assert_true(clock() - start < CLOCKS_PER_SEC / 10);
    drop(&b);
}

static void test_restarts(void **state) {
    (void)state;
    bytes b = read_whole(SEEDS "coded_restart.jpg");
    size_t second = find(&b, 0xd1, 0);
    b.at[second + 1] = 0xd2;
    refuse(&b, "out of order");
    b.at[second + 1] = 0xd1;
    insert(&b, second, "\xaa\xaa", 2);
    refuse(&b, "");
    erase(&b, second, 4);
    refuse_and_drop(b, "");
}

/* Whatever a flipped bit leads to, it must not crash, and what is accepted is the same every time. */
static void test_flipped_bits_and_heap(void **state) {
    (void)state;
    static const char *const paths[] = {SEEDS "coded_baseline.jpg", SEEDS "coded_progressive_restart.jpg"};
    for (int p = 0; p < 2; p++) {
        bytes b = read_whole(paths[p]);
        for (size_t i = 2; i < b.count; i++) {
            b.at[i] ^= (uint8_t)(1 << i % 8);
            vd_image images[2];
            vd_error err;
            for (int k = 0; k < 2; k++) {
                mallopt(M_PERTURB, k == 0 ? 0x55 : 0xaa);
                decode_exact(b.at, b.count, &images[k], &err);
            }
            assert_int_equal(images[0].width, images[1].width);
            assert_int_equal(images[0].height, images[1].height);
            if (images[0].rgb)
                assert_memory_equal(images[0].rgb, images[1].rgb,
                                    3 * (size_t)images[0].width * images[0].height);
            vd_image_free(&images[0]);
            vd_image_free(&images[1]);
            b.at[i] ^= (uint8_t)(1 << i % 8);
        }
        drop(&b);
    }
    mallopt(M_PERTURB, 0);
}

static bytes with_exif(const bytes *exif, size_t claimed) {
    bytes b = read_whole(SEEDS "full_colour.jpg"), segment = {0};
    put_be16(&segment, 0xff00 | APP1);
    put_be16(&segment, (unsigned)(claimed + 8));
    put(&segment, "Exif\0", 6);
    put(&segment, exif->at, exif->count);
    insert(&b, 2, segment.at, segment.count);
    drop(&segment);
    return b;
}

static void test_orientations(void **state) {
    (void)state;
    bytes plain = read_whole(SEEDS "full_colour.jpg");
    vd_image upright = expect_image(&plain);
    for (int i = 0; i < 16; i++) {
        int orientation = i / 2 + 1;
        bytes exif = make_exif(orientation, i % 2), b = with_exif(&exif, exif.count);
        vd_image image = expect_image(&b);
        assert_int_equal(image.width, orientation >= 5 ? HEIGHT : WIDTH);
        assert_int_equal(image.height, orientation >= 5 ? WIDTH : HEIGHT);
        for (int k = 0; k < WIDTH * HEIGHT; k++) {
            int column, row;
            place_upright(orientation, WIDTH, HEIGHT, k % WIDTH, k / WIDTH, &column, &row);
            assert_memory_equal(image.rgb + 3 * (row * image.width + column), upright.rgb + 3 * k, 3);
        }
        vd_image_free(&image);
        drop(&b), drop(&exif);
    }
    vd_image_free(&upright);
    drop(&plain);
}

/* Lies inside EXIF make it worthless, not the picture; a segment longer than the file is a cut file. */
static void test_lying_exif(void **state) {
    (void)state;
    bytes exif = make_exif(6, true);
    for (size_t i = 0; i < exif.count; i++)
        for (int value = 0; value < 256; value += 51) {
            bytes lie = copy_of(&exif, exif.count);
            lie.at[i] = (uint8_t)value;
            bytes b = with_exif(&lie, lie.count);
            vd_image image = expect_image(&b);
            vd_image_free(&image);
            drop(&b), drop(&lie);
        }
    refuse_and_drop(with_exif(&exif, 65527), "cut short");
    bytes b = with_exif(&exif, exif.count);
    b.at[4] = 0, b.at[5] = 1;
    refuse_and_drop(b, "shorter than the length");
    for (size_t count = 0; count < exif.count; count++) {
        bytes cut = copy_of(&exif, count);
        b = with_exif(&cut, count);
        vd_image image = expect_image(&b);
        vd_image_free(&image);
        drop(&b), drop(&cut);
    }
    drop(&exif);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pixels),
        cmocka_unit_test(test_codings_agree),
        cmocka_unit_test(test_grey),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_other_processes),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_scans),
        cmocka_unit_test(test_many_scans),
        cmocka_unit_test(test_ten_thousand_scans),
        cmocka_unit_test(test_restarts),
        cmocka_unit_test(test_flipped_bits_and_heap),
        cmocka_unit_test(test_orientations),
        cmocka_unit_test(test_lying_exif),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
