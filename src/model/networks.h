/* The networks of Stable Video Diffusion as programs. Each builder returns a finished program; whoever
 * runs it binds the externals named here. Sizes: S x S clip pixels, H x W output pixels, h x w latents, F
 * frames, n steps, G = 2 with guidance else 1, D embedding width. All externals are fp32 unless said
 * otherwise. */
#ifndef VD_MODEL_NETWORKS_H
#define VD_MODEL_NETWORKS_H

#include "base/log.h"
#include "device/program.h"
#include "model/config.h"

typedef struct vd_model vd_model;

/* Opens configuration and weight files below `folder` (from vd_hub_resolve). */
vd_code vd_model_open(const char *folder, const vd_log *log, vd_model **out, vd_error *err);
void vd_model_close(vd_model *m); /* after every program and backend that uses its constants */
const vd_config *vd_model_config(const vd_model *m);
void vd_model_warn_unused(const vd_model *m, const vd_log *log); /* once all programs are built */

typedef struct vd_video_shape {
    int frames;             /* F */
    int latent_h, latent_w; /* h, w */
    int steps;              /* n */
    bool guided;            /* G = 2 */
} vd_video_shape;

/* "clip_pixels" [1,S,S,3] normalised -> "embeds" [1,1,1,D]   (section 5) */
vd_code vd_build_clip(vd_model *m, vd_dtype dtype, vd_program **out, vd_error *err);

/* "vae_pixels" [1,H,W,3] in [-1,1] with noise -> "image" [1,h,w,latent channels], the mode, unscaled  
 * (section 6) */
vd_code vd_build_vae_encoder(vd_model *m, vd_dtype dtype, int height, int width, vd_program **out,
                             vd_error *err);

/* What of a sample is the same in all steps, what of a step is the same for all pixels (7.2, 7.11), and the
 * input of the step that comes next. Run on a device before the first of consecutive steps of a sample there.
 *   in   "embeds" [1,1,1,D], "time_ids" [1,1,1,3], "timesteps" [1,1,1,n], "image" [1,h,w,C], "sigmas"
 *        [1,1,1,n+1], "latents" [F,h,w,C], "step" [1,1,1,1] i32
 *   out  "step_bias" [1,1,n,P]  per step: every resnet's conv1 bias + time projection, side by side
 *        "context" [1,1,1,Q]    per transformer block and batch half: to_out bias of self- and
 *                               cross-attention + one-key cross-attention
 *        "positions" [1,1,1,R]  per transformer: frame embeddings e_f [F, c]
 *        "unet_in" [G*F,h,w,2C] of type T: the network's input */
vd_code vd_build_condition(vd_model *m, vd_dtype dtype, vd_video_shape shape, vd_program **out,
                           vd_error *err);

/* One denoising step: UNet on both halves, guidance, Euler, input scaling of the next step (1.2 step 14).
 * Nothing in it varies from step to step but memory.
 *   in   "step_bias", "context", "positions", "image", "sigmas" (above), "guidance" [1,1,1,F]
 *   in/out "unet_in", "latents", "step" (above): on return those of the next step
 *   also "unet_out" [G*F,h,w,C] fp32: an external when `keep_out`, else inside. */
vd_code vd_build_step(vd_model *m, vd_dtype dtype, vd_video_shape shape, bool keep_out, vd_program **out,
                      vd_error *err);

/* "decoder_latents" [n,h,w,C] (unscaled) -> "decoder_frames" u8 [n,H,W,3]; "nonfinite" [1,1,1,1] i32 is
 * increased by the number of non-finite values before rounding (section 9; n frames are one chunk) */
vd_code vd_build_decoder(vd_model *m, vd_dtype dtype, int frames, int latent_h, int latent_w,
                         vd_program **out, vd_error *err);

#endif
