#include "base/rng.h"

#include "base/half.h"

#include <math.h>

enum { N = 624, M = 397, BLOCK = 16, PIECE = 256 * BLOCK };

void vd_rng_seed(vd_rng *rng, uint64_t seed) {
    uint32_t *state = rng->state;
    state[0] = (uint32_t)seed;
    for (uint32_t j = 1; j < N; j++)
        state[j] = 1812433253u * (state[j - 1] ^ state[j - 1] >> 30) + j;
    rng->next = N;
    rng->has_cached = false;
    rng->cached = 0;
}

static uint32_t twisted(uint32_t upper, uint32_t lower, uint32_t far) {
    uint32_t y = (upper & 0x80000000u) | (lower & 0x7fffffffu);
    return far ^ y >> 1 ^ (-(y & 1) & 0x9908b0dfu);
}

static void twist(uint32_t *state) {
    for (int i = 0; i < N - M; i++)
        state[i] = twisted(state[i], state[i + 1], state[i + M]);
    for (int i = N - M; i < N - 1; i++)
        state[i] = twisted(state[i], state[i + 1], state[i + M - N]);
    state[N - 1] = twisted(state[N - 1], state[0], state[M - 1]);
}

static uint32_t tempered(uint32_t y) {
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

/* How many words of the state may be read at rng->next: at least one, at most `wanted`. */
static size_t words_ready(vd_rng *rng, size_t wanted) {
    if (rng->next == N) {
        twist(rng->state);
        rng->next = 0;
    }
    size_t ready = (size_t)(N - rng->next);
    return ready < wanted ? ready : wanted;
}

uint32_t vd_rng_u32(vd_rng *rng) {
    words_ready(rng, 1);
    return tempered(rng->state[rng->next++]);
}

static void skip(vd_rng *rng, size_t words) {
    while (words > 0) {
        size_t ready = words_ready(rng, words);
        rng->next += (int)ready;
        words -= ready;
    }
}

/* svd-spec 12.2: uniforms in [0, 1) of the low `bits` bits, 24 or less, of each word. */
static void fill_uniform(vd_rng *rng, float *out, size_t count, int bits) {
    const uint32_t mask = (1u << bits) - 1;
    const float unit = 1.0f / (float)(1 << bits);
    while (count > 0) {
        size_t ready = words_ready(rng, count);
        const uint32_t *words = rng->state + rng->next;
        for (size_t i = 0; i < ready; i++)
            out[i] = (float)(int32_t)(tempered(words[i]) & mask) * unit;
        rng->next += (int)ready;
        out += ready;
        count -= ready;
    }
}

static double uniform_f64(vd_rng *rng) {
    uint64_t word = (uint64_t)vd_rng_u32(rng) << 32;
    word |= vd_rng_u32(rng);
    return (double)(word & ((1ull << 53) - 1)) * 0x1p-53;
}

/* svd-spec 12.5 */
static double normal_f64(vd_rng *rng) {
    if (rng->has_cached) {
        rng->has_cached = false;
        return rng->cached;
    }
    double u1 = uniform_f64(rng), u2 = uniform_f64(rng);
    double radius = sqrt(-2.0 * log1p(-u2)), angle = 2.0 * M_PI * u1;
    rng->cached = radius * sin(angle);
    rng->has_cached = true;
    return radius * cos(angle);
}

/* svd-spec 12.3, with its fused products in its places. Every operation is IEEE, so the compiler may use
 * vectors and hardware or software fmaf as it likes: the bits are the same. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* ln x for normal x in (0, 1] */
ALWAYS_INLINE float log_poly(float x) {
    uint32_t bits = (vd_bits_of_f32(x) & 0x007fffffu) | 0x3f000000u; /* of m in [0.5, 1) */
    uint32_t low = bits < vd_bits_of_f32(0.707106781f); /* integers, for a branch would forbid vectors */
    float e = (float)((int32_t)(vd_bits_of_f32(x) >> 23) - 126 - (int32_t)low);
    float f = vd_f32_of_bits(bits + (low << 23)) - 1.0f, z = f * f;
    float p = 7.0376836292e-2f;
    p = fmaf(p, f, -1.1514610310e-1f);
    p = fmaf(p, f, 1.1676998740e-1f);
    p = fmaf(p, f, -1.2420140846e-1f);
    p = fmaf(p, f, 1.4249322787e-1f);
    p = fmaf(p, f, -1.6668057665e-1f);
    p = fmaf(p, f, 2.0000714765e-1f);
    p = fmaf(p, f, -2.4999993993e-1f);
    p = fmaf(p, f, 3.3333331174e-1f);
    float y = fmaf(p * f, z, e * -2.12194440e-4f);
    y = fmaf(-0.5f, z, y);
    return fmaf(e, 0.693359375f, f + y);
}

/* sine and cosine of x >= 0, up to a few thousand */
ALWAYS_INLINE void sincos_poly(float th, float *sine, float *cosine) {
    uint32_t q = (uint32_t)((int32_t)(th * 1.27323954473516f) + 1) & ~1u;
    float y = (float)(int32_t)q;
    float x = fmaf(y, -0.78515625f, th);
    x = fmaf(y, -2.4187564849853515625e-4f, x);
    x = fmaf(y, -3.77489497744594108e-8f, x);
    float z = x * x;
    float c = fmaf(2.443315711809948e-5f, z, -1.388731625493765e-3f);
    c = fmaf(c, z, 4.166664568298827e-2f);
    c = fmaf(c * z, z, -(0.5f * z)) + 1.0f;
    float s = fmaf(-1.9515295891e-4f, z, 8.3321608736e-3f);
    s = fmaf(s, z, -1.6666654611e-1f);
    s = fmaf(s * z, x, x);
    uint32_t swap = -(q >> 1 & 1), both = vd_bits_of_f32(s) ^ vd_bits_of_f32(c);
    *sine = vd_f32_of_bits(vd_bits_of_f32(s) ^ (both & swap) ^ (q & 4) << 29);
    *cosine = vd_f32_of_bits(vd_bits_of_f32(c) ^ (both & swap) ^ (~(q - 2) & 4) << 29);
}

/* Uniforms become normals in place; `count` is a multiple of BLOCK. Adding 0 turns -0 into +0. */
ALWAYS_INLINE void transform(float *values, size_t count) {
    for (float *v = values; v < values + count; v += BLOCK) {
#pragma GCC unroll 1 /* else gcc unrolls it before it can make vectors of it */
        for (int j = 0; j < BLOCK / 2; j++) {
            float sine, cosine, radius = sqrtf(-2.0f * log_poly(1.0f - v[j]));
            sincos_poly((float)(2.0 * M_PI) * v[j + BLOCK / 2], &sine, &cosine);
            v[j] = radius * cosine + 0.0f;
            v[j + BLOCK / 2] = radius * sine + 0.0f;
        }
    }
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void transform_avx2(float *values, size_t count) {
    transform(values, count);
}
#endif

static void transform_f32(float *values, size_t count) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        transform_avx2(values, count);
        return;
    }
#endif
    transform(values, count);
}

void vd_rng_normal_f32(vd_rng *rng, float *out, size_t count) {
    if (count < BLOCK) {
        for (size_t i = 0; i < count; i++)
            out[i] = (float)normal_f64(rng);
        return;
    }
    size_t tail = count % BLOCK, whole = count - tail;
    for (size_t at = 0, n; at < whole; at += n) { /* pieces stay in the first cache */
        n = whole - at < PIECE ? whole - at : PIECE;
        fill_uniform(rng, out + at, n, 24);
        transform_f32(out + at, n);
    }
    if (tail > 0) { /* 12.4 */
        skip(rng, tail);
        fill_uniform(rng, out + count - BLOCK, BLOCK, 24);
        transform_f32(out + count - BLOCK, BLOCK);
    }
}

typedef struct half_type {
    int bits; /* of a uniform */
    float (*widen)(uint16_t);
    uint16_t (*narrow)(float);
} half_type;

static const half_type f16 = {11, vd_f16_to_f32, vd_f32_to_f16};
static const half_type bf16 = {8, vd_bf16_to_f32, vd_f32_to_bf16};

static float rounded(const half_type *type, float x) {
    return type->widen(type->narrow(x));
}

/* svd-spec 12.6: one block of 16 */
static void normal_half_block(vd_rng *rng, uint16_t *out, const half_type *type) {
    float u[BLOCK];
    fill_uniform(rng, u, BLOCK, type->bits);
    for (int j = 0; j < BLOCK / 2; j++) {
        float radius = rounded(type, sqrtf(-2.0f * rounded(type, logf(1.0f - u[j]))));
        float angle = rounded(type, (float)(2.0 * M_PI) * u[j + BLOCK / 2]);
        out[j] = type->narrow(radius * rounded(type, cosf(angle)) + 0.0f);
        out[j + BLOCK / 2] = type->narrow(radius * rounded(type, sinf(angle)) + 0.0f);
    }
}

static void normal_half(vd_rng *rng, uint16_t *out, size_t count, const half_type *type) {
    if (count < BLOCK) {
        for (size_t i = 0; i < count; i++)
            out[i] = type->narrow((float)normal_f64(rng));
        return;
    }
    for (size_t at = 0; at + BLOCK <= count; at += BLOCK)
        normal_half_block(rng, out + at, type);
    if (count % BLOCK > 0) { /* 12.4 */
        skip(rng, count % BLOCK);
        normal_half_block(rng, out + count - BLOCK, type);
    }
}

void vd_rng_normal_f16(vd_rng *rng, uint16_t *out, size_t count) {
    normal_half(rng, out, count, &f16);
}

void vd_rng_normal_bf16(vd_rng *rng, uint16_t *out, size_t count) {
    normal_half(rng, out, count, &bf16);
}
