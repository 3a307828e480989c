#include "diffusion/noise.h"

#include "base/rng.h"

/* A multiple of 16, the generator's block: draws in such pieces equal one long draw, so no noise image is
 * stored. */
enum { CHUNK = 2048 };

static void add_noise(vd_rng *rng, float strength, float *pixels, size_t count) {
    float noise[2 * CHUNK];
    while (count > 0) {
        size_t n =
            count < 2 * CHUNK ? count : CHUNK; /* the last piece keeps the tail rule's 16 values (12.4) */
        vd_rng_normal_f32(rng, noise, n);
        for (size_t i = 0; i < n; i++)
            pixels[i] += strength * noise[i];
        pixels += n;
        count -= n;
    }
}

void vd_noise_draw(uint64_t seed, float strength, float *pixels, size_t pixel_count, float *latents,
                   size_t latent_count) {
    vd_rng rng;
    vd_rng_seed(&rng, seed);
    if (pixels)
        add_noise(&rng, strength, pixels, pixel_count);
    vd_rng_normal_f32(&rng, latents, latent_count);
}
