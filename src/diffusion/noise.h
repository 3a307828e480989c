/* The two draws of a sample, in the reference's order (svd-spec.md 1.3): image augmentation noise [1,3,H,W],
 * then initial latents [1,F,C,h,w], both fp32 from one CPU generator seeded with the sample's seed. */
#ifndef VD_DIFFUSION_NOISE_H
#define VD_DIFFUSION_NOISE_H

#include <stddef.h>
#include <stdint.h>

/* Adds strength * noise to `pixels` [3,H,W] in place (as torch: image + strength * noise, each rounded) and
 * writes unit-variance latents noise [F,C,h,w] to `latents`. `pixels` may be NULL (latents-only mode: one
 * draw). */
void vd_noise_draw(uint64_t seed, float strength, float *pixels, size_t pixel_count, float *latents,
                   size_t latent_count);

#endif
