#!/usr/bin/env python3
"""Writes tests/golden/diffusion.json from the pinned reference (diffusers 0.36.0, torch 2.11.0, Pillow 13.0.0).

Usage: python tests/golden/make_diffusion.py [OUTPUT]

Whatever must match bit for bit is stored as the CRC-32 of its little-endian bytes; the inputs are the bytes of
pattern(), which tests/diffusion/golden.h makes again. CLIP pixels, which match within a tolerance, are sampled.
"""
import json
import sys
import zlib

import diffusers
import numpy as np
import PIL
import torch
from diffusers import EulerDiscreteScheduler
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
from diffusers.video_processor import VideoProcessor
from PIL import Image
from transformers import CLIPImageProcessor

MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
CLIP_STRIDE = 149  # every 149th value is stored: prime, so that it visits every row and column phase


def crc(array):
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


def pattern(count):
    """Bytes that look random: the hardest input for a resize."""
    v = np.arange(count, dtype=np.uint32) * np.uint32(2654435761)
    v ^= v >> np.uint32(15)
    v *= np.uint32(2246822519)
    return (v >> np.uint32(24)).astype(np.uint8)


def image(width, height):
    return Image.fromarray(pattern(width * height * 3).reshape(height, width, 3))


def scheduler(**changes):
    return EulerDiscreteScheduler(**({
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction",
        "interpolation_type": "linear", "use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 700.0,
        "timestep_spacing": "leading", "timestep_type": "continuous", "steps_offset": 1} | changes))


def schedules():
    rows = []
    for low, high, counts in [(0.002, 700.0, range(1, 201)), (0.01, 80.0, [1, 2, 7, 25]), (0.05, 700.0, [3, 30])]:
        for n in counts:
            s = scheduler(sigma_min=low, sigma_max=high)
            s.set_timesteps(n)
            leading = s.init_noise_sigma
            s.register_to_config(timestep_spacing="trailing")
            rows.append({"sigma_min": low, "sigma_max": high, "steps": n, "sigmas": crc(s.sigmas.numpy()),
                         # The spec's promise for ln ends at 136 steps.
                         "timesteps": crc(s.timesteps.numpy()) if n <= 136 else None,
                         "scale_leading": crc(leading.numpy()),
                         "scale_trailing": crc(torch.as_tensor(s.init_noise_sigma).numpy())})
    return rows


def ramps():
    pairs = [(1.0, 3.0), (1.0, 2.5), (1.5, 3.0), (3.0, 1.0), (2.0, 2.0), (1.1, 7.7)]
    return [{"min": low, "max": high, "frames": f, "ramp": crc(torch.linspace(low, high, f).numpy())}
            for low, high in pairs for f in range(1, 130)]


def resizes():
    sizes = [((64, 48), (32, 24)), ((64, 48), (128, 96)), ((37, 91), (64, 32)), ((91, 37), (32, 64)), ((5, 300), (48, 48)),
             ((300, 5), (48, 48)), ((2, 3), (64, 40)), ((1, 1), (16, 8)), ((1, 50), (24, 16)), ((50, 1), (24, 16)),
             ((64, 48), (64, 24)), ((64, 48), (24, 48)), ((64, 48), (64, 48)), ((108, 192), (102, 57)),
             ((192, 108), (102, 57)), ((100, 60), (90, 40)), ((100, 60), (90, 39)), ((60, 100), (70, 90)),
             ((333, 777), (128, 72)), ((1920, 1080), (1024, 576)), ((1080, 1920), (1024, 576)),
             ((777, 333), (128, 72)), ((640, 480), (8, 8)), ((400, 711), (256, 144))]
    return [{"in": a, "out": b, "rgb": crc(np.asarray(image(*a).resize(b, Image.Resampling.LANCZOS)))} for a, b in sizes]


def crop(im, width, height):
    """The largest centred region with the aspect ratio of width x height."""
    w, h = im.size
    cw, ch = w, h
    if w * height > h * width:
        cw = max(1, (2 * h * width + height) // (2 * height))
    else:
        ch = max(1, (2 * w * height + width) // (2 * width))
    left, top = (w - cw) // 2, (h - ch) // 2
    return im.crop((left, top, left + cw, top + ch))


def framed(im, width, height):
    """The image on a centred black canvas."""
    canvas = Image.new("RGB", (width, height))
    canvas.paste(im, ((width - im.size[0]) // 2, (height - im.size[1]) // 2))
    return canvas


def pad(im, width, height):
    """At the image's own resolution."""
    w, h = im.size
    if w * height > h * width:
        return framed(im, w, max(1, (2 * w * height + width) // (2 * width)))
    return framed(im, max(1, (2 * h * width + height) // (2 * height)), h)


def inside(im, width, height):
    """Scaled to fit, then framed."""
    w, h = im.size
    if w * height > h * width:
        return framed(im.resize((width, max(1, (2 * width * h + w) // (2 * w))), Image.Resampling.LANCZOS), width, height)
    return framed(im.resize((max(1, (2 * height * w + h) // (2 * h)), height), Image.Resampling.LANCZOS), width, height)


FITTED = [((96, 54), (64, 40)), ((200, 60), (64, 40)), ((60, 200), (64, 40)), ((64, 40), (64, 40)), ((7, 3), (24, 64))]


def vae_inputs():
    processor = VideoProcessor(do_resize=True, vae_scale_factor=8)
    rows = []
    for size, (w, h) in FITTED:
        for fit, im in [("stretch", image(*size)), ("crop", crop(image(*size), w, h)), ("pad", inside(image(*size), w, h))]:
            pixels = processor.preprocess(im, height=h, width=w)
            rows.append({"in": size, "out": [w, h], "fit": fit, "pixels": crc(pixels.numpy())})
    return rows


def clip_pixels(im):
    processor = VideoProcessor(do_resize=True, vae_scale_factor=8)
    x = processor.numpy_to_pt(processor.pil_to_numpy(im)) * 2.0 - 1.0
    x = (_resize_with_antialiasing(x, (224, 224)) + 1.0) / 2.0
    extractor = CLIPImageProcessor(image_mean=MEAN, image_std=STD)
    return extractor(images=x, do_normalize=True, do_center_crop=False, do_resize=False, do_rescale=False,
                     return_tensors="pt").pixel_values


def clip_inputs():
    cases = [(s, "stretch", (64, 40)) for s in [(224, 224), (64, 40), (2, 3), (301, 517), (900, 40), (640, 360)]]
    cases += [(s, fit, (64, 40)) for s in [(400, 90), (90, 400)] for fit in ("crop", "pad")]
    rows = []
    for size, fit, (w, h) in cases:
        im = {"stretch": lambda i: i, "crop": lambda i: crop(i, w, h), "pad": lambda i: pad(i, w, h)}[fit](image(*size))
        values = clip_pixels(im).flatten()
        rows.append({"in": size, "out": [w, h], "fit": fit,
                     "values": [float(f"{v:.8g}") for v in values[::CLIP_STRIDE].tolist()]})
    return {"stride": CLIP_STRIDE, "mean": MEAN, "std": STD, "rows": rows}


def draws():
    rows = []
    for seed, strength, pixels, latents in [(0, 0.02, 3 * 64 * 40, 4 * 5 * 8 * 3), (42, 0.02, 4095, 100), (42, 0.0, 4096, 16),
                                            (7, 0.5, 4097, 17), (2**32 + 5, 1.0, 6159, 5 * 4 * 64), (1, 0.1, 16, 4101)]:
        g = torch.Generator().manual_seed(seed)
        start = torch.from_numpy(pattern(pixels).astype(np.float32)) / 255 * 2 - 1
        image_noise = torch.randn(pixels, generator=g)
        rows.append({"seed": seed, "strength": strength, "pixel_count": pixels, "latent_count": latents,
                     "pixels": crc((start + strength * image_noise).numpy()),
                     "latents": crc(torch.randn(latents, generator=g).numpy()),
                     "latents_only": crc(torch.randn(latents, generator=torch.Generator().manual_seed(seed)).numpy())})
    return rows


def main():
    out = {"made_with": {"diffusers": diffusers.__version__, "torch": torch.__version__, "pillow": PIL.__version__},
           "schedules": schedules(), "ramps": ramps(), "resizes": resizes(), "vae": vae_inputs(), "clip": clip_inputs(),
           "draws": draws()}
    with open(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/diffusion.json", "w") as f:
        json.dump(out, f, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main()
