#include "engine/transpose.h"

/* Matrix transpose of each of n blocks; c is small (3, 4, 8), so one side always streams. */
static void transpose(const float *in, int64_t n, int64_t rows, int64_t columns, float *out) {
    for (int64_t i = 0; i < n; i++, in += rows * columns, out += rows * columns)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t k = 0; k < columns; k++)
                out[k * rows + r] = in[r * columns + k];
}

void vd_to_channels_last(const float *in, int64_t n, int64_t c, int64_t pixels, float *out) {
    transpose(in, n, c, pixels, out);
}

void vd_to_channels_first(const float *in, int64_t n, int64_t c, int64_t pixels, float *out) {
    transpose(in, n, pixels, c, out);
}
