#!/usr/bin/env python3
"""Writes the small model that ships with vdpp, samples/model: the architecture and file layout of Stable Video Diffusion
with few channels and random weights (its videos are coloured noise; what it shows is the engine).

    pip install torch==2.11.0 diffusers==0.36.0 transformers==4.57.6
    python3 samples/make_model.py samples/model
"""
import json
import pathlib
import sys

import torch
from diffusers import (AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, StableVideoDiffusionPipeline,
                       UNetSpatioTemporalConditionModel)
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

SEED = 20260
EMBEDDING = 64  # width of the image embedding
SUGGESTED = {"width": 96, "height": 96, "frames": 8, "steps": 25, "fps": 7, "motion": 127, "noise_aug": 0.02,
             "guidance_min": 1.0, "guidance_max": 2.0}


def unet():
    return UNetSpatioTemporalConditionModel(
        in_channels=8, out_channels=4, block_out_channels=(64, 96),
        down_block_types=("DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal"),
        up_block_types=("CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"),
        layers_per_block=1, num_attention_heads=(2, 3), cross_attention_dim=EMBEDDING, addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96, num_frames=SUGGESTED["frames"], sample_size=24)


def vae():
    return AutoencoderKLTemporalDecoder(
        block_out_channels=(64, 64, 64), down_block_types=("DownEncoderBlock2D",) * 3, layers_per_block=1,
        latent_channels=4, scaling_factor=0.5, sample_size=96)


def image_encoder():
    return CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, image_size=224, patch_size=32,
        projection_dim=EMBEDDING, hidden_act="gelu"))


def scheduler():
    return EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        timestep_type="continuous", timestep_spacing="leading", use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0,
        interpolation_type="linear", steps_offset=1)


def main(folder):
    torch.manual_seed(SEED)
    pipeline = StableVideoDiffusionPipeline(
        vae=vae(), image_encoder=image_encoder(), unet=unet(), scheduler=scheduler(),
        feature_extractor=CLIPImageProcessor())
    pipeline.to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)
    (pathlib.Path(folder) / "vdpp.json").write_text(json.dumps(SUGGESTED, indent=2) + "\n")
    print(f"{folder}: {sum(p.stat().st_size for p in pathlib.Path(folder).rglob('*.*')) / 1e6:.1f} MB")


if __name__ == "__main__":
    main(sys.argv[1])
