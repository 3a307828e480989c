/* Convolutions with few output channels. Vector code keeps one output channel per lane, so 3 or 4 channels
 * leave most lanes idle. Here one matrix product makes, for every input pixel, what it contributes through
 * each position of the kernel (tap) to each output channel: 27 or 36 lanes instead of 3 or 4. The
 * contributions are then added up. */
#include "device/cpu_lower.h"

bool vd_taps_pay(const vd_product_spec *window) {
    int64_t lanes = window->kh * window->kw * window->k;
    return window->stride == 1 && window->kw > 1 && window->k <= 8 && lanes <= 80 && window->c >= 16;
}

vd_product_spec vd_taps_product(const vd_product_spec *window) {
    int64_t taps = window->kh * window->kw;
    return (vd_product_spec){.matrix = 1,
                             .n = window->n * window->h * window->w,
                             .c = window->c,
                             .k = taps * window->k,
                             .taps = taps,
                             .in = window->in,
                             .out = VD_F32};
}

/* Adds one tap's contributions to a row of `count` pixels. */
static void add_row(float *to, const float *from, int64_t count, int64_t k, int64_t pitch) {
    for (int64_t x = 0; x < count; x++, to += k, from += pitch)
        for (int64_t o = 0; o < k; o++)
            to[o] += from[o];
}

static void gather_row(const vd_product_spec *s, const float *image, const float *bias, int64_t y,
                       float *to) {
    int64_t pitch = s->kh * s->kw * s->k;
    for (int64_t x = 0; x < s->ow; x++)
        for (int64_t o = 0; o < s->k; o++)
            to[x * s->k + o] = bias ? bias[o] : 0;
    for (int64_t i = 0; i < s->kh; i++) {
        int64_t row = y + i - s->pad_top;
        if (row < 0 || row >= s->h)
            continue;
        for (int64_t j = 0; j < s->kw; j++) {
            int64_t shift = j - s->pad_left, first = shift < 0 ? -shift : 0;
            int64_t end = s->w - shift < s->ow ? s->w - shift : s->ow;
            const float *from = image + (row * s->w + first + shift) * pitch + (i * s->kw + j) * s->k;
            if (end > first)
                add_row(to + first * s->k, from, end - first, s->k, pitch);
        }
    }
}

void vd_taps_gather(const vd_product_spec *window, const float *taps, const float *bias, float *out) {
    int64_t image = window->h * window->w * window->kh * window->kw * window->k, row = window->ow * window->k;
    for (int64_t n = 0; n < window->n; n++)
        for (int64_t y = 0; y < window->oh; y++)
            gather_row(window, taps + n * image, bias, y, out + (n * window->oh + y) * row);
}
