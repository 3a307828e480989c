"""The networks of the sample model: diffusers' and transformers' own classes at a small size."""
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from world import SETTINGS, WORLD

EMBEDDING = 64  # width of the image embedding


def make_vae():
    """Pictures [F, 3, H, W] of -1..1 to latents [F, 4, H/4, W/4] and back."""
    return AutoencoderKLTemporalDecoder(
        block_out_channels=(64, 64, 64), down_block_types=("DownEncoderBlock2D",) * 3, layers_per_block=1,
        latent_channels=4, scaling_factor=1.0, sample_size=WORLD["pixels"])


def make_unet():
    """Latents [B, F, 8, h, w] (noisy ones, then the image's) to v [B, F, 4, h, w]."""
    return UNetSpatioTemporalConditionModel(
        in_channels=8, out_channels=4, block_out_channels=(64, 64, 96),
        down_block_types=("DownBlockSpatioTemporal",) + ("CrossAttnDownBlockSpatioTemporal",) * 2,
        up_block_types=("CrossAttnUpBlockSpatioTemporal",) * 2 + ("UpBlockSpatioTemporal",),
        layers_per_block=1, num_attention_heads=(2, 2, 3), cross_attention_dim=EMBEDDING, addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96, num_frames=WORLD["frames"], sample_size=WORLD["pixels"] // 4)


def make_image_encoder():
    """The picture at 224 x 224 [B, 3, 224, 224], normalised, to an embedding [B, EMBEDDING]."""
    return CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, image_size=224,
        patch_size=32, projection_dim=EMBEDDING, hidden_act="gelu"))


def make_scheduler():
    """Stable Video Diffusion's scheduler, begun at less noise: the whole world is of one size and smooth."""
    return EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        timestep_type="continuous", timestep_spacing="leading", use_karras_sigmas=True, sigma_min=0.002,
        sigma_max=SETTINGS["unet"]["sigma_max"], interpolation_type="linear", steps_offset=1)
