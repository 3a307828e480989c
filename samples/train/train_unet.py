#!/usr/bin/env python3
"""Trains the UNet and the image encoder together, on latents of the trained VAE. Goes on from its checkpoint.

    python3 samples/train/train_unet.py --folder /var/tmp/vdpp-train --processes 2

Latents of every scene are cached at many places of its body's path; a clip at any speed is read between them.
"""
import math

import numpy as np
import torch
from diffusers import StableVideoDiffusionPipeline
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import CLIPImageProcessor

from latents import cached_latents, load_vae, scaling_factor
from networks import make_image_encoder, make_scheduler, make_unet
from pictures import save_strip
from training import Team, Trainer, arguments, cached_paths, to_tensor, use_planar_temporal_convolutions
from world import SETTINGS, WORLD, draw_frames, draw_scene, units_per_frame

UNET = SETTINGS["unet"]
FRAMES = WORLD["frames"]


def make_networks():
    """Those that this training trains."""
    return nn.ModuleDict({"unet": make_unet(), "image_encoder": make_image_encoder()})


class Clips:
    """Batches of clips with all that the UNet is told about them."""

    def __init__(self, paths, latents, vae, device):
        self.paths, self.latents, self.vae, self.device = paths, latents, vae, device

    def draw(self, random, count):
        """Latents of unit variance [B, F, 4, h, w], first pictures [B, 3, H, W] of -1..1, image latents
        [B, 4, h, w] and time ids [B, 3]."""
        clips, firsts, ids = [], [], []
        for _ in range(count):
            scene, motion, fps = random.integers(len(self.latents)), self._motion(random), random.integers(*self._fps())
            travel = units_per_frame(motion, fps) * np.arange(FRAMES)
            start = random.integers(0, int((WORLD["path"] - travel[-1]) / WORLD["path_step"]) + 1)
            clips.append(self._between(scene, start + travel / WORLD["path_step"]))
            firsts.append(self.paths[scene, start])
            ids.append((fps - 1, motion, self._noise_aug(random)))
        ids = torch.tensor(np.array(ids), dtype=torch.float32)
        pictures = to_tensor(np.stack(firsts))
        noisy = pictures + ids[:, 2, None, None, None] * torch.randn_like(pictures)
        with torch.no_grad():
            image_latents = self.vae.encode(noisy.to(self.device)).latent_dist.mean
        latents = torch.from_numpy(np.stack(clips)).to(self.device) * self.vae.config.scaling_factor
        return latents, pictures.to(self.device), image_latents, ids.to(self.device)

    def _between(self, scene, where):
        """float32 [F, 4, h, w]: the scene's latents at fractional indices of its path."""
        low = np.minimum(where.astype(int), self.latents.shape[1] - 2)
        share = (where - low)[:, None, None, None].astype(np.float32)
        path = self.latents[scene]
        return path[low] * (1 - share) + path[low + 1] * share

    @staticmethod
    def _motion(random):
        return round(random.uniform(*WORLD["motion"]))

    @staticmethod
    def _fps():
        return WORLD["fps"][0], WORLD["fps"][1] + 1

    @staticmethod
    def _noise_aug(random):
        low, high = UNET["noise_aug"]
        return low if random.random() < 0.7 else random.uniform(0, high)


def clip_pixels(pictures):
    """[B, 3, H, W] of -1..1 to [B, 3, 224, 224] as the image encoder gets them; enlarging needs no antialiasing."""
    mean, std = (torch.tensor(v, device=pictures.device).view(3, 1, 1)
                 for v in (CLIPImageProcessor().image_mean, CLIPImageProcessor().image_std))
    large = F.interpolate(pictures, (224, 224), mode="bicubic", align_corners=True)
    return ((large + 1) / 2 - mean) / std


def draw_sigmas(random, count):
    """[B]: mostly high noise, where the image alone decides what is right."""
    logs = [random.uniform(*UNET["log_sigma_low" if random.random() < UNET["low_share"] else "log_sigma_high"])
            for _ in range(count)]
    return torch.tensor(np.exp(logs), dtype=torch.float32)


def unet_loss(unet, image_encoder, batch, random):
    """Weighted squared error of v; what differs from the first frame weighs more."""
    latents, pictures, image_latents, ids = batch
    embeddings = image_encoder(clip_pixels(pictures)).image_embeds[:, None]
    told = torch.from_numpy(random.random(len(latents)) >= UNET["blank_share"]).to(latents)
    sigmas = draw_sigmas(random, len(latents)).to(latents.device)
    sigma = sigmas.view(-1, 1, 1, 1, 1)
    noisy = latents + sigma * torch.randn_like(latents)
    root = (sigma.square() + 1).sqrt()
    condition = (image_latents * told.view(-1, 1, 1, 1))[:, None].expand(-1, FRAMES, -1, -1, -1)
    v = unet(torch.cat([noisy / root, condition], 2), 0.25 * sigmas.log(), embeddings * told.view(-1, 1, 1), ids).sample
    wanted = (noisy / root.square() - latents) * root / sigma
    moving = ((latents - latents[:, :1]).square().mean(2, keepdim=True).sqrt() / 0.5).clamp(0, 1)
    squared = (v - wanted).square()
    high = (sigma > math.e).float() * told.view(-1, 1, 1, 1, 1)
    loss = (squared * (1 + UNET["moving_weight"] * moving)).mean()
    share = (squared * moving * high).sum() / (4 * (moving * high).sum()).clamp_min(1e-6)
    still = (squared * (1 - moving) * high).sum() / (4 * ((1 - moving) * high).sum()).clamp_min(1e-6)
    return loss, {"loss": loss.item(), "moving": share.item(), "still": still.item()}


def show(pipeline, folder, step):
    """Held-out clips above what the whole pipeline makes of their first frames."""
    rows = []
    for k, motion in enumerate((127, 127, 190, 70)):
        clip = draw_frames(draw_scene(WORLD["held_out_seed"] + k), units_per_frame(motion, 7) * np.arange(FRAMES))
        made = pipeline(Image.fromarray(clip[0]), WORLD["pixels"], WORLD["pixels"], num_frames=FRAMES,
                        num_inference_steps=8, fps=7, motion_bucket_id=motion, max_guidance_scale=1.0, output_type="np",
                        generator=torch.Generator().manual_seed(k)).frames[0]
        rows += [clip, np.round(made * 255).astype(np.uint8)]
    save_strip(rows, folder / f"unet-{step:06d}.png")


def main():
    options = arguments(__doc__)
    paths = cached_paths(options.folder)
    team = Team(options.processes, options.folder)
    use_planar_temporal_convolutions()
    vae = load_vae(options.folder)[0].to(team.device)
    latents = cached_latents(options.folder, paths, vae, team)
    vae.register_to_config(scaling_factor=scaling_factor(latents))
    torch.manual_seed(UNET["seed"])
    networks = make_networks().to(team.device)
    unet, image_encoder = networks["unet"], networks["image_encoder"]
    pipeline = StableVideoDiffusionPipeline(vae, image_encoder, unet, make_scheduler(), CLIPImageProcessor())
    pipeline.set_progress_bar_config(disable=True)
    trainer = Trainer("unet", networks, UNET, team, options.folder)
    clips = Clips(paths, latents, vae, team.device)

    def loss_of_batch(random):
        return unet_loss(unet, image_encoder, clips.draw(random, UNET["clips"] // team.size), random)

    trainer.run(loss_of_batch, UNET["look_every"], lambda: show(pipeline, options.folder, trainer.step))


if __name__ == "__main__":
    main()
