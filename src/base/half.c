#include "base/half.h"

float vd_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 0x1f, fraction = h & 0x3ff;
    if (exponent == 0)
        return vd_f32_of_bits(sign | vd_bits_of_f32((float)fraction * 0x1p-24f));
    exponent = exponent == 0x1f ? 0xff : exponent + 112; /* biases 15 and 127 */
    return vd_f32_of_bits(sign | exponent << 23 | fraction << 13);
}

uint16_t vd_f32_to_f16(float f) {
    uint32_t bits = vd_bits_of_f32(f), magnitude = bits & 0x7fffffff;
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (magnitude > 0x7f800000) /* NaN: made quiet, payload cut */
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) /* from 65520 on */
        return sign | 0x7c00;
    if (magnitude <
        0x38800000) /* below 2^-14: adding 0.5, whose unit is 2^-24, rounds to a multiple of that */
        return (uint16_t)(sign | (vd_bits_of_f32(vd_f32_of_bits(magnitude) + 0.5f) - 0x3f000000));
    uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (rounded - (112u << 23)) >> 13);
}
