#!/usr/bin/env python3
"""Goes on with the VAE's temporal decoder alone, on cached latents; what the UNet has learned of them stays valid.
Goes on from its checkpoint.

    python3 samples/train/train_decoder.py --folder /var/tmp/vdpp-train --processes 2
"""
import numpy as np
import torch
from torch import nn

from latents import cached_latents, load_vae
from training import Team, Trainer, arguments, cached_paths, to_tensor, use_planar_temporal_convolutions
from train_vae import picture_loss, show
from world import SETTINGS, WORLD

DECODER = SETTINGS["decoder"]


def random_clip(paths, latents, random):
    """Pictures [F, 3, H, W] and their latents [F, 4, h, w], the body some path steps further in each frame."""
    stride = random.integers(0, 3)
    start = random.integers(0, paths.shape[1] - stride * (WORLD["frames"] - 1))
    scene, where = random.integers(len(paths)), start + stride * np.arange(WORLD["frames"])
    return to_tensor(paths[scene, where]), torch.from_numpy(latents[scene, where].astype(np.float32))


def main():
    options = arguments(__doc__)
    paths = cached_paths(options.folder)
    team = Team(options.processes, options.folder)
    use_planar_temporal_convolutions()
    vae = load_vae(options.folder)[0].to(team.device)
    latents = cached_latents(options.folder, paths, vae, team)
    networks = nn.ModuleDict({"decoder": vae.decoder.requires_grad_(True)})
    trainer = Trainer("decoder", networks, DECODER, team, options.folder)

    def loss_of_batch(random):
        pictures, seen = (part.to(team.device) for part in random_clip(paths, latents, random))
        blurred = seen + SETTINGS["vae"]["spread"] * torch.randn_like(seen)
        return picture_loss(vae.decode(blurred, num_frames=WORLD["frames"]).sample, pictures)

    trainer.run(loss_of_batch, DECODER["look_every"], lambda: show(vae, options.folder, trainer))


if __name__ == "__main__":
    main()
