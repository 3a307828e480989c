/* An open model, as the builders see it. */
#ifndef VD_MODEL_MODEL_H
#define VD_MODEL_MODEL_H

#include "model/networks.h"
#include "model/nn.h"
#include "model/unet_blocks.h"

typedef enum vd_component { VD_CLIP, VD_VAE, VD_UNET, VD_COMPONENTS } vd_component;

struct vd_model {
    vd_config config;
    vd_unet_blocks blocks;
    vd_store *stores[VD_COMPONENTS];
    vd_weights *weights[VD_COMPONENTS];
};

/* The externals that the condition and step programs have in common around the network, as the operation that
 * makes its input: "latents", "image", "sigmas", "step" and "unet_in" (networks.h). */
vd_unet_input vd_step_externals(const vd_model *m, vd_video_shape shape, vd_program *p);

/* Mid attention of the VAE, one head over the pixels of each image (6). */
vd_value vd_vae_attention(vd_net *n, vd_name at, vd_value x);
/* Epsilon of every norm of the VAE but those of the temporal halves (7.9). */
extern const float vd_vae_eps;

#endif
