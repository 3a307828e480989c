/* torch's CPU generator, bit for bit (svd-spec.md section 12; torch 2.11, x86-64 with AVX2 or AVX-512). */
#ifndef VD_BASE_RNG_H
#define VD_BASE_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct vd_rng {
    uint32_t state[624];
    int next;        /* index of the next word; 624 triggers the twist */
    bool has_cached; /* the second half of a double Box-Muller pair (12.5) */
    double cached;
} vd_rng;

void vd_rng_seed(vd_rng *rng, uint64_t seed); /* only the low 32 bits count */
uint32_t vd_rng_u32(vd_rng *rng);

/* torch.randn of a contiguous tensor of `count` elements in the named dtype. fp32: 12.3 to 12.5; the 16-bit
 * forms run the algorithm in that type (12.6) and write its bit patterns. */
void vd_rng_normal_f32(vd_rng *rng, float *out, size_t count);
void vd_rng_normal_f16(vd_rng *rng, uint16_t *out, size_t count);
void vd_rng_normal_bf16(vd_rng *rng, uint16_t *out, size_t count);

#endif
