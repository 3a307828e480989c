/* Writes a model with random weights in the diffusers layout: what tests, the plan command and a first look
 * need when no trained weights are there. tests/golden/dummy_model.py makes the same values, bit for bit.
 *
 * Components 0 unet, 1 vae, 2 image_encoder; each takes one stream of torch's CPU generator, seeded with seed
 * + component, and its tensors in the order of their names (bytes). A tensor of shape S is randn(S) * gain +
 * offset in fp32, both steps rounded, then rounded to the dtype:
 *
 *     name ends with "mix_factor"                      gain 1
 *     "class_embedding", "position_embedding.weight"   gain 0.1
 *     ends with ".bias"                                gain 0.1
 *     other vectors (weights of norms)                 gain 0.1, offset 1
 *     other weights                                    gain 1 / sqrt(elements / S[0]), the fan-in
 *
 * so that activations keep the size of order 1 through every network. */
#ifndef VD_MODEL_DUMMY_H
#define VD_MODEL_DUMMY_H

#include "base/error.h"
#include "model/safetensors.h"

/* Copies the configuration files of the folder `configs` to `folder` and writes weights of `dtype` (F32, F16,
 * BF16) beside them. Files that are there are replaced. The folders may be the same. */
vd_code vd_dummy_write(const char *configs, const char *folder, uint64_t seed, vd_st_dtype dtype,
                       vd_error *err);

#endif
