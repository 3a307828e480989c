/* IEEE half and bfloat16 as bit patterns. Conversions round to nearest even; NaN stays NaN. */
#ifndef VD_BASE_HALF_H
#define VD_BASE_HALF_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline float vd_bf16_to_f32(uint16_t b) {
    uint32_t u = (uint32_t)b << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint16_t vd_f32_to_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

float vd_f16_to_f32(uint16_t h);
uint16_t vd_f32_to_f16(float f);

#endif
