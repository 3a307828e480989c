/* IEEE half and bfloat16 as bit patterns, and the bits of floats. Conversions round to nearest even; NaN
 * stays NaN. */
#ifndef VD_BASE_HALF_H
#define VD_BASE_HALF_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline float vd_f32_of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t vd_bits_of_f32(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float vd_bf16_to_f32(uint16_t b) {
    return vd_f32_of_bits((uint32_t)b << 16);
}

static inline uint16_t vd_f32_to_bf16(float f) {
    uint32_t u = vd_bits_of_f32(f);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

float vd_f16_to_f32(uint16_t h);
uint16_t vd_f32_to_f16(float f);

#endif
