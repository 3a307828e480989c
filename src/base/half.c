#include "base/half.h"

static float float_of(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t bits_of(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

float vd_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 0x1f, fraction = h & 0x3ff;
    if (exponent == 0)
        return float_of(sign | bits_of((float)fraction * 0x1p-24f));
    exponent = exponent == 0x1f ? 0xff : exponent + 112; /* biases 15 and 127 */
    return float_of(sign | exponent << 23 | fraction << 13);
}

uint16_t vd_f32_to_f16(float f) {
    uint32_t bits = bits_of(f), magnitude = bits & 0x7fffffff;
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (magnitude > 0x7f800000) /* NaN: made quiet, payload cut */
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) /* from 65520 on */
        return sign | 0x7c00;
    if (magnitude <
        0x38800000) /* below 2^-14: adding 0.5, whose unit is 2^-24, rounds to a multiple of that */
        return (uint16_t)(sign | (bits_of(float_of(magnitude) + 0.5f) - 0x3f000000));
    uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (rounded - (112u << 23)) >> 13);
}
