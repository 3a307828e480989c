"""Writes tests/golden/networks_NAME.safetensors: what the reference's networks make of the inputs of
tests/golden/test_networks.c, with the dummy weights (fp16 values, fp32 arithmetic) of configs/NAME.

    make_networks.py [NAME...]

Inputs are randn(shape) in channels-last order, each from a generator of its own, seeded as below: they need no
file.
Every GroupNorm sees a contiguous input: torch's CPU kernel for channels-last tensors is inaccurate.
Run with diffusers 0.36.0, transformers 4.57.6, torch 2.11.0 on a CPU with AVX2.
"""

import math
import os
import sys

import torch
from dummy_model import dummy_networks
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))

# The VAE's picture (height, width), a decoded chunk (frames, h, w), UNet forwards (guided, frames, h, w).
CASES = {
    "tiny": ((36, 28), (3, 9, 7), [(True, 2, 16, 16), (False, 1, 9, 7), (True, 25, 4, 6)]),
    "odd": ((40, 52), (2, 7, 5), [(True, 5, 13, 9), (False, 2, 10, 12)]),
    "real": ((64, 96), (5, 6, 8), [(True, 7, 16, 24), (False, 2, 9, 14)]),
    "last": ((24, 20), (1, 10, 12), [(True, 3, 11, 14), (False, 1, 8, 8)]),
}
SIGMAS = [700.0, 15.5899677, 0.002]
STEP = 1  # the forward is the one of this step
TIME_IDS = [6.0, 127.0, 0.02]
LATENTS, IMAGE, EMBEDS, CLIP_PIXELS, VAE_PIXELS, DECODER_LATENTS = range(1, 7)  # seeds


def draw(seed, *shape):
    """randn of a channels-last shape [n, h, w, c], as [n, c, h, w]."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).permute(0, 3, 1, 2).contiguous()


def channels_last(x):
    return x.permute(0, 2, 3, 1).contiguous()


def forward(unet, guided, frames, h, w):
    c = unet.config.out_channels
    sigma = torch.tensor(SIGMAS)[STEP]
    latents = draw(LATENTS, frames, h, w, c) * sigma
    image = draw(IMAGE, 1, h, w, c).expand(frames, -1, -1, -1)
    width = unet.config.cross_attention_dim
    embeds = draw(EMBEDS, 1, 1, 1, width if isinstance(width, int) else width[0]).reshape(1, 1, -1)
    scaled = latents / (sigma**2 + 1) ** 0.5
    images = [torch.zeros_like(image), image] if guided else [image]
    contexts = [torch.zeros_like(embeds), embeds] if guided else [embeds]
    x = torch.stack([torch.cat([scaled, half], 1) for half in images])
    t = torch.tensor([0.25 * math.log(s) for s in torch.tensor(SIGMAS).tolist()])[STEP]
    ids = torch.tensor([TIME_IDS]).expand(len(x), -1)
    v = unet(x, t, encoder_hidden_states=torch.cat(contexts), added_time_ids=ids, return_dict=False)[0]
    return channels_last(v.flatten(0, 1))


def make(name):
    picture, chunk, forwards = CASES[name]
    networks = {key: network.float() for key, network in
                dummy_networks(os.path.join(HERE, "configs", name), 0, torch.float16).items()}
    for network in networks.values():
        for module in network.modules():
            if isinstance(module, torch.nn.GroupNorm):
                module.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    clip, vae, unet = networks["image_encoder"], networks["vae"], networks["unet"]
    size = clip.config.image_size
    z = draw(DECODER_LATENTS, *chunk, vae.config.latent_channels)
    decoded = vae.decode(1 / vae.config.scaling_factor * z, num_frames=chunk[0], return_dict=False)[0]
    out = {
        "embeds": clip(draw(CLIP_PIXELS, 1, size, size, clip.config.num_channels)).image_embeds,
        "image": channels_last(vae.encode(draw(VAE_PIXELS, 1, *picture, 3)).latent_dist.mode()),
        "frames": channels_last((255 * (decoded * 0.5 + 0.5).clamp(0, 1)).round().to(torch.uint8)),
    }
    for i, case in enumerate(forwards):
        out[f"v.{i}"] = forward(unet, *case)
    save_file(out, os.path.join(HERE, f"networks_{name}.safetensors"))
    print(name, {key: (tuple(x.shape), f"{x.float().std():.3f}") for key, x in out.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        for each in sys.argv[1:] or CASES:
            make(each)
