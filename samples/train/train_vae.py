#!/usr/bin/env python3
"""Trains the VAE, encoder and temporal decoder together, on clips of the world. Goes on from its checkpoint.

    python3 samples/train/train_vae.py --folder /var/tmp/vdpp-train --processes 2
"""
import math

import numpy as np
import torch
from torch import nn

from networks import make_vae
from pictures import save_strip
from training import (Team, Trainer, arguments, cached_paths, to_pixels, to_tensor,
                      use_planar_temporal_convolutions)
from world import SETTINGS, WORLD, draw_frames, draw_scene

VAE = SETTINGS["vae"]


def random_clips(paths, random, clips, frames, crop):
    """float [clips * frames, 3, crop, crop]: windows of scenes, the busiest of three each; the body is some path steps
    further in each frame."""
    out = []
    for _ in range(clips):
        stride = random.integers(0, 3)
        start = random.integers(0, paths.shape[1] - stride * (frames - 1))
        scene, where = random.integers(len(paths)), start + stride * np.arange(frames)
        corners = random.integers(0, paths.shape[2] - crop + 1, (3, 2))
        windows = [paths[scene, where, top:top + crop, left:left + crop] for top, left in corners]
        out.append(max(windows, key=np.std))
    return to_tensor(np.concatenate(out))


def vae_loss(vae, pictures, frames):
    """Error of the pictures, with latents kept at zero mean and unit variance and the decoder used to their blur."""
    posterior = vae.encode(pictures).latent_dist
    latents = posterior.mean + VAE["spread"] * torch.randn_like(posterior.mean)
    loss, figures = picture_loss(vae.decode(latents, num_frames=frames).sample, pictures)
    mean, spread = posterior.mean.mean((0, 2, 3)), posterior.mean.std((0, 2, 3))
    unit = mean.square().mean() + (spread - 1).square().mean()
    told = (posterior.logvar - 2 * math.log(VAE["spread"])).square().mean()
    return loss + 0.1 * unit + 0.001 * told, {**figures, "spread": spread.mean().item()}


def picture_loss(made, pictures):
    """Error of pictures of -1..1, and their PSNR."""
    error = made - pictures
    squared = error.square().mean()
    return error.abs().mean() + 2 * squared, {"psnr": -10 * math.log10(squared.item() / 4)}


def show(vae, folder, trainer):
    """Held-out clips above what becomes of them."""
    rows = []
    for k in range(3):
        clip = draw_frames(draw_scene(WORLD["held_out_seed"] + k), range(0, WORLD["path"], 4))
        seen = vae.decode(vae.encode(to_tensor(clip)).latent_dist.mean, num_frames=len(clip)).sample
        rows += [clip, to_pixels(seen)]
        print(f"  held-out {k}: {-10 * np.log10(np.mean((rows[-1] / 255.0 - clip / 255.0) ** 2)):.2f} dB", flush=True)
    save_strip(rows, folder / f"{trainer.name}-{trainer.step:06d}.png")


def main():
    options = arguments(__doc__)
    paths = cached_paths(options.folder)
    team = Team(options.processes, options.folder)
    use_planar_temporal_convolutions()
    torch.manual_seed(VAE["seed"])
    vae = make_vae().to(team.device)
    trainer = Trainer("vae", nn.ModuleDict({"vae": vae}), VAE, team, options.folder)

    def loss_of_batch(random):
        phase = next(phase for phase in VAE["phases"] if trainer.progress() < phase["until"])
        pictures = random_clips(paths, random, phase["clips"] // team.size, phase["frames"], phase["crop"])
        return vae_loss(vae, pictures.to(team.device), phase["frames"])

    trainer.run(loss_of_batch, 100, lambda: show(vae, options.folder, trainer))


if __name__ == "__main__":
    main()
