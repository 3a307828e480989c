"""The trained VAE and the latents of all scenes, made once."""
import numpy as np
import torch
from torch import nn

from networks import make_vae
from training import load_averaged, to_tensor


def load_vae(folder):
    """The trained VAE, frozen, and how its parts were trained: {name: figures}."""
    vae = make_vae()
    states = {"vae": load_averaged(folder / "vae.pt", nn.ModuleDict({"vae": vae}))}
    if (folder / "decoder.pt").exists():
        states["decoder"] = load_averaged(folder / "decoder.pt", nn.ModuleDict({"decoder": vae.decoder}))
    return vae.requires_grad_(False).eval(), states


def cached_latents(folder, paths, vae, team):
    """float16 [scenes, P, 4, h, w] of `paths`; every process of the team encodes its share."""
    file = folder / f"latents-{len(paths)}.npy"
    if not file.exists():
        shape = (len(paths), paths.shape[1], 4, paths.shape[2] // 4, paths.shape[3] // 4)
        part = folder / "latents.tmp.npy"
        if team.rank == 0:
            np.lib.format.open_memmap(part, "w+", np.float16, shape)
        team.wait()
        latents = np.load(part, mmap_mode="r+")
        with torch.no_grad():
            for k in range(team.rank, len(paths), team.size):
                pictures = to_tensor(paths[k]).to(team.device)
                latents[k] = vae.encode(pictures).latent_dist.mean.cpu().numpy()
        latents.flush()
        team.wait()
        if team.rank == 0:
            part.rename(file)
        team.wait()
    return np.load(file, mmap_mode="r")


def scaling_factor(latents):
    """What makes the latents' variance one."""
    return round(1 / float(np.std(latents[::8], dtype=np.float64)), 3)
