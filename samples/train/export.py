#!/usr/bin/env python3
"""Writes the trained networks as a model in diffusers' layout, fp16, with the settings that vdpp takes from it and a
record of the training.

    python3 samples/train/export.py --folder /var/tmp/vdpp-train samples/model
"""
import argparse
import json
import pathlib

import diffusers
import numpy as np
import torch
from diffusers import StableVideoDiffusionPipeline
from transformers import CLIPImageProcessor

from latents import load_vae, scaling_factor
from networks import make_scheduler
from train_unet import make_networks
from training import load_averaged
from world import SETTINGS, WORLD


def record(vae, unet):
    """What was trained where, for how long."""
    def one(state):
        return {"machine": state["machine"], "steps": state["step"], "cpu_minutes": round(state["cpu_seconds"] / 60),
                "wall_minutes": round(state["wall_seconds"] / 60)}
    return {"torch": torch.__version__, "diffusers": diffusers.__version__, "scenes": WORLD["scenes"],
            **{name: one(state) for name, state in vae.items()}, "unet and image encoder": one(unet)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="where the trainings left their checkpoints")
    parser.add_argument("model", type=pathlib.Path)
    options = parser.parse_args()
    vae, vae_states = load_vae(options.folder)
    latents = np.load(options.folder / f"latents-{WORLD['scenes']}.npy", mmap_mode="r")
    vae.register_to_config(scaling_factor=scaling_factor(latents))
    networks = make_networks()
    unet_state = load_averaged(options.folder / "unet.pt", networks)
    pipeline = StableVideoDiffusionPipeline(vae, networks["image_encoder"], networks["unet"], make_scheduler(),
                                            CLIPImageProcessor())
    pipeline.to(dtype=torch.float16).save_pretrained(options.model, safe_serialization=True)
    for name, content in (("vdpp.json", SETTINGS["suggested"]), ("training.json", record(vae_states, unet_state))):
        (options.model / name).write_text(json.dumps(content, indent=2) + "\n")
    size = sum(file.stat().st_size for file in options.model.rglob("*") if file.is_file())
    print(f"{options.model}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
