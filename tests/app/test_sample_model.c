/* What a newcomer sees: with no option the sample image comes to life. The ball of samples/images/ball.png
 * is the only thing in it that is much redder than blue, and it rolls to the right. */
#include "app/shell.h"

#include "media/image.h"

#include <math.h>

enum { SIDE = 64 }; /* of the model */

static vd_image load(const char *path) {
    vd_image image;
    must(vd_image_load(path, &image, err));
    return image;
}

/* Mean over the block of `image` that pixel (x, y) of a SIDE x SIDE picture covers. */
static double block(const vd_image *image, int x, int y, int channel) {
    int side = image->width / SIDE;
    double sum = 0;
    for (int i = 0; i < side; i++)
        for (int j = 0; j < side; j++)
            sum += image->rgb[((size_t)(y * side + i) * (size_t)image->width + (size_t)(x * side + j)) * 3 +
                              channel];
    return sum / (side * side);
}

static double psnr(const vd_image *a, const vd_image *b) {
    double sum = 0;
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            for (int c = 0; c < 3; c++)
                sum += pow(block(a, x, y, c) - block(b, x, y, c), 2);
    return 10 * log10(255.0 * 255.0 * SIDE * SIDE * 3 / sum);
}

typedef struct spot {
    double x, y;
    int pixels;
} spot;

static spot find_ball(const vd_image *image) {
    spot s = {0};
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            if (block(image, x, y, 0) - block(image, x, y, 2) > 90) {
                s.x += x;
                s.y += y;
                s.pixels++;
            }
    assert_true(s.pixels > 60);
    s.x /= s.pixels;
    s.y /= s.pixels;
    return s;
}

static void test_the_ball_rolls(void **state) {
    (void)state;
    expect("$V -q --format png -o ball", 0, "ball\n", "");
    expect("cp \"${V%/*}/samples/images/ball.png\" input.png", 0, "", "");
    vd_image input = load("input.png"), first = load("ball/frame-000.png"), last = load("ball/frame-007.png");
    assert_int_equal(input.width % SIDE + input.width - input.height, 0);
    assert_int_equal(first.width, SIDE);
    if (psnr(&input, &first) < 20)
        fail_msg("the first frame is %.1f dB from the image", psnr(&input, &first));
    spot before = find_ball(&input), begin = find_ball(&first), end = find_ball(&last);
    assert_true(hypot(begin.x - before.x, begin.y - before.y) < 3);
    if (end.x - begin.x < 6 || fabs(end.y - begin.y) > 4)
        fail_msg("the ball goes from (%.1f, %.1f) to (%.1f, %.1f)", begin.x, begin.y, end.x, end.y);
    vd_image_free(&input);
    vd_image_free(&first);
    vd_image_free(&last);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_the_ball_rolls)};
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
