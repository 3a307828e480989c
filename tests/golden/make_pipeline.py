"""Writes tests/golden/pipeline.png, a picture, and tests/golden/pipeline_NAME.safetensors: what the reference makes of it
with the dummy weights (fp16 values, fp32 arithmetic) of configs/MODEL, for tests/golden/test_pipeline.c.

    make_pipeline.py [NAME...]

Run with diffusers 0.36.0, transformers 4.57.6, torch 2.11.0, Pillow 13.0.0 on a CPU with AVX2.
"""

import os
import sys

import reference
import torch
from dummy_model import dummy_pipeline
from reference import Settings
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))

# As `cases` of test_pipeline.c.
CASES = {
    "wide": ("real", Settings(128, 96, 7, 4, 42, (1, 3), 3)),
    "single": ("real", Settings(72, 136, 1, 5, 7, (2, 2))),
    "irregular": ("odd", Settings(104, 72, 5, 3, 1, (1, 1), 2, fps=12, motion=200, noise_aug=0.0)),
    "long": ("small", Settings(40, 24, 25, 10, 2**32 + 5, (2.5, 1.5), 7, noise_aug=0.1)),
}
KEPT = ("vae_input", "noise", "sigmas", "timesteps", "time_ids", "image_embeds", "image_latents", "latents", "frames")


def main(names):
    torch.set_num_threads(1)
    picture = reference.photo(200, 150, grain=2)
    picture.save(os.path.join(HERE, "pipeline.png"), optimize=True)
    for name in names or CASES:
        model, settings = CASES[name]
        pipeline = reference.prepare(dummy_pipeline(os.path.join(HERE, "configs", model), 0, torch.float16))
        found = reference.run(pipeline, picture, settings)
        save_file({key: found[key] for key in KEPT}, os.path.join(HERE, f"pipeline_{name}.safetensors"))
        print(name, {key: (tuple(found[key].shape), f"{found[key].float().std():.3f}") for key in KEPT})


if __name__ == "__main__":
    main(sys.argv[1:])
