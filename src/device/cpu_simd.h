/* Vectors of as many floats as the instruction set that the including file is compiled for can hold. Storage
 * types are converted on the way in and out; `t` is a constant wherever speed matters. Never included outside
 * cpu_kernels_*.c. */
#ifndef VD_DEVICE_CPU_SIMD_H
#define VD_DEVICE_CPU_SIMD_H

#include "base/half.h"
#include "device/cpu_kernels.h"

#include <immintrin.h>

#define VD_INLINE static inline __attribute__((always_inline))

#define VD_PASTE_(a, b) a##_##b
#define VD_PASTE(a, b) VD_PASTE_(a, b)
#define VD_ISA_NAME(name) VD_PASTE(name, VD_ISA) /* VD_ISA: sse2, avx2 or avx512, from the build */

#if defined(__AVX512F__)
#define VD_LANES 16
#define VD_MM(operation) _mm512_##operation
#elif defined(__AVX2__)
#define VD_LANES 8
#define VD_MM(operation) _mm256_##operation
#else
#define VD_LANES 4
#define VD_MM(operation) _mm_##operation
#endif

typedef float vd_vec __attribute__((vector_size(4 * VD_LANES)));
typedef uint32_t vd_bits __attribute__((vector_size(4 * VD_LANES)));
typedef uint16_t vd_halves __attribute__((vector_size(2 * VD_LANES)));

VD_INLINE vd_vec vd_all(float x) {
    return VD_MM(set1_ps)(x);
}

/* Of a NaN in x, both return x. */
VD_INLINE vd_vec vd_at_most(vd_vec x, vd_vec limit) {
    return VD_MM(min_ps)(limit, x);
}
VD_INLINE vd_vec vd_at_least(vd_vec x, vd_vec limit) {
    return VD_MM(max_ps)(limit, x);
}

/* a * b + c, with one rounding where the machine can. */
VD_INLINE vd_vec vd_fma(vd_vec a, vd_vec b, vd_vec c) {
#if defined(__FMA__)
    return VD_MM(fmadd_ps)(a, b, c);
#else
    return a * b + c;
#endif
}

/* x * 2^n for integers |n| <= 250, gradual underflow included; with AVX-512 2^floor(n) of any n. */
VD_INLINE vd_vec vd_scale2(vd_vec x, vd_vec n) {
#if defined(__AVX512F__)
    return _mm512_scalef_ps(x, n);
#else
    typedef int32_t ints __attribute__((vector_size(4 * VD_LANES)));
    ints e = (ints)VD_MM(cvttps_epi32)(n), half = e >> 1;
    return x * (vd_vec)((half + 127) << 23) * (vd_vec)((e - half + 127) << 23);
#endif
}

VD_INLINE float vd_sum(vd_vec v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(v);
#else
    float part[VD_LANES];
    memcpy(part, &v, sizeof part);
    for (int width = VD_LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            part[i] += part[i + width];
    return part[0];
#endif
}

/* Each half in the low bits of a lane, and back. The compiler's own conversions take detours. */
VD_INLINE vd_bits vd_widen(vd_halves h) {
#if defined(__AVX512F__)
    return (vd_bits)_mm512_cvtepu16_epi32((__m256i)h);
#elif defined(__AVX2__)
    return (vd_bits)_mm256_cvtepu16_epi32((__m128i)h);
#else
    return __builtin_convertvector(h, vd_bits);
#endif
}

VD_INLINE vd_halves vd_narrow(vd_bits u) {
#if defined(__AVX512F__)
    return (vd_halves)_mm512_cvtepi32_epi16((__m512i)u);
#else
    return __builtin_convertvector(u, vd_halves);
#endif
}

VD_INLINE vd_vec vd_from_f16(vd_halves h) {
#if defined(__AVX512F__)
    return _mm512_cvtph_ps((__m256i)h);
#elif defined(__F16C__)
    return _mm256_cvtph_ps((__m128i)h);
#else
    return (vd_vec){vd_f16_to_f32(h[0]), vd_f16_to_f32(h[1]), vd_f16_to_f32(h[2]), vd_f16_to_f32(h[3])};
#endif
}

VD_INLINE vd_halves vd_to_f16(vd_vec x) {
#if defined(__AVX512F__)
    return (vd_halves)_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__F16C__)
    return (vd_halves)_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
#else
    return (vd_halves){vd_f32_to_f16(x[0]), vd_f32_to_f16(x[1]), vd_f32_to_f16(x[2]), vd_f32_to_f16(x[3])};
#endif
}

VD_INLINE vd_vec vd_from_bf16(vd_halves h) {
    return (vd_vec)(vd_widen(h) << 16);
}

/* vd_f32_to_bf16 of base/half.h; the instruction for it would flush subnormals. */
VD_INLINE vd_halves vd_to_bf16(vd_vec x) {
    vd_bits u = (vd_bits)x, nan = (vd_bits)(x != x);
    vd_bits rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16, quiet = u >> 16 | 0x40;
    return vd_narrow((rounded & ~nan) | (quiet & nan));
}

VD_INLINE size_t vd_float_bytes(vd_dtype t) {
    return t == VD_F32 ? 4 : 2;
}

/* Elements i .. i + VD_LANES - 1 at p. */
VD_INLINE vd_vec vd_load(const void *p, vd_dtype t, int64_t i) {
    vd_vec x;
    vd_halves h;
    if (t == VD_F32) {
        memcpy(&x, (const float *)p + i, sizeof x);
        return x;
    }
    memcpy(&h, (const uint16_t *)p + i, sizeof h);
    return t == VD_F16 ? vd_from_f16(h) : vd_from_bf16(h);
}

VD_INLINE void vd_store(void *p, vd_dtype t, int64_t i, vd_vec x) {
    if (t == VD_F32) {
        memcpy((float *)p + i, &x, sizeof x);
        return;
    }
    vd_halves h = t == VD_F16 ? vd_to_f16(x) : vd_to_bf16(x);
    memcpy((uint16_t *)p + i, &h, sizeof h);
}

/* The same for the first n <= VD_LANES lanes; the others are loaded as zero and not stored. */
VD_INLINE vd_vec vd_load_part(const void *p, vd_dtype t, int64_t i, int64_t n) {
    if (n == VD_LANES)
        return vd_load(p, t, i);
#if defined(__AVX512BW__)
    __mmask16 lanes = (__mmask16)((1u << n) - 1);
    if (t == VD_F32)
        return _mm512_maskz_loadu_ps(lanes, (const float *)p + i);
    vd_halves h = (vd_halves)_mm256_maskz_loadu_epi16(lanes, (const uint16_t *)p + i);
    return t == VD_F16 ? vd_from_f16(h) : vd_from_bf16(h);
#else
    size_t bytes = vd_float_bytes(t);
    float part[VD_LANES] = {0};
    memcpy(part, (const char *)p + (size_t)i * bytes, (size_t)n * bytes);
    return vd_load(part, t, 0);
#endif
}

VD_INLINE void vd_store_part(void *p, vd_dtype t, int64_t i, int64_t n, vd_vec x) {
    if (n == VD_LANES) {
        vd_store(p, t, i, x);
        return;
    }
#if defined(__AVX512BW__)
    __mmask16 lanes = (__mmask16)((1u << n) - 1);
    if (t == VD_F32)
        _mm512_mask_storeu_ps((float *)p + i, lanes, x);
    else
        _mm256_mask_storeu_epi16((uint16_t *)p + i, lanes,
                                 (__m256i)(t == VD_F16 ? vd_to_f16(x) : vd_to_bf16(x)));
#else
    size_t bytes = vd_float_bytes(t);
    float part[VD_LANES];
    vd_store(part, t, 0, x);
    memcpy((char *)p + (size_t)i * bytes, part, (size_t)n * bytes);
#endif
}

/* Lanes n and above become zero. */
VD_INLINE vd_vec vd_keep(vd_vec x, int64_t n) {
    static const uint32_t mask[2 * 16] = {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u,
                                          ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u};
    vd_bits lanes;
    memcpy(&lanes, mask + 16 - n, sizeof lanes);
    return (vd_vec)((vd_bits)x & lanes);
}

#endif
