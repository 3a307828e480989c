/* What is no image at all, and what is no file. */
#include "bytes.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static void refuse_text(const char *text, size_t count, const char *why) {
    bytes b = {(uint8_t *)text, count, 0};
    refuse(&b, why);
}

static void test_other_kinds(void **state) {
    (void)state;
    refuse_text("", 0, "it is empty");
    refuse_text("\x89", 1, "cut short");
    refuse_text("\xff", 1, "cut short");
    refuse_text("x", 1, "unknown kind");
    refuse_text("\x89PNG\r\n\x1a\n", 8, "cut short");
    refuse_text("\xff\xd8\xff", 3, "cut short");
    refuse_text("\x89PNG\n\x1a\n\0\0", 9, "damaged signature");
    refuse_text("<!DOCTYPE html><title>404</title>", 33, "text (HTML");
    refuse_text("GIF89a\1\0\1\0", 10, "a GIF; give a PNG or a JPEG");
    refuse_text("BM\0\0\0\0", 6, "a BMP");
    refuse_text("8BPS\0\1", 6, "PSD");
    refuse_text("#?RADIANCE\n", 11, "HDR");
    refuse_text("\x53\x80\xf6\x34", 4, "PIC");
    refuse_text("P6 1 1 255\n...", 14, "PNM");
    refuse_text("P1 1 1 0", 8, "PNM");
    refuse_text("RIFF\0\0\0\0WEBPVP8 ", 16, "a WebP");
    refuse_text("\0\0\0\x1c"
                "ftypavif",
                12, "an AVIF");
    refuse_text("\0\0\0\x1c"
                "ftypheic",
                12, "a HEIC");
    refuse_text("\0\0\0\x1c"
                "ftypisom",
                12, "video");
    refuse_text("II*\0", 4, "a TIFF");
    refuse_text("\0\0\2\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\x20\0", 18, "a TGA");
    refuse_text("plain words", 11, "unknown kind");
}

static void refuse_path(const char *path, const char *why) {
    vd_image image;
    vd_error err;
    assert_int_equal(vd_image_load(path, &image, &err), VD_ERR_NO_INPUT);
    assert_null(image.rgb);
    assert_non_null(strstr(err.message, why));
}

static void test_not_files(void **state) {
    (void)state;
    char folder[] = "/tmp/vdpp-test-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    refuse_path(folder, "folder");
    refuse_path("/dev/null", "device");
    snprintf(path, sizeof path, "%s/missing.png", folder);
    refuse_path(path, "No such file");
    snprintf(path, sizeof path, "%s/fifo", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    refuse_path(path, "FIFO");
    unlink(path);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", folder);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    refuse_path(address.sun_path, "socket");
    close(fd);
    unlink(address.sun_path);
    snprintf(path, sizeof path, "%s/large.png", folder);
    FILE *file = fopen(path, "wb");
    assert_int_equal(ftruncate(fileno(file), (64 << 20) + 1), 0);
    fclose(file);
    vd_image image;
    vd_error err;
    assert_int_equal(vd_image_load(path, &image, &err), VD_ERR_DATA);
    unlink(path);
    rmdir(folder);
}

/* A file is what it holds, whatever its name says. */
static void test_content_counts(void **state) {
    (void)state;
    bytes png = read_whole("tests/fuzz/seeds/image/rgb.png");
    char path[] = "/tmp/vdpp-test-XXXXXX.jpg";
    int fd = mkstemps(path, 4);
    assert_int_equal(write(fd, png.at, png.count), png.count);
    close(fd);
    vd_image image;
    vd_error err;
    assert_int_equal(vd_image_load(path, &image, &err), VD_OK);
    assert_int_equal(image.width, 40);
    assert_int_equal(image.height, 25);
    vd_image_free(&image);
    vd_image_free(&image); /* a zeroed one is fine */
    unlink(path);
    drop(&png);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_other_kinds),
        cmocka_unit_test(test_not_files),
        cmocka_unit_test(test_content_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
