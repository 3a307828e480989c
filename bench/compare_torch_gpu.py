#!/usr/bin/env python3
"""vdpp's networks beside PyTorch's on one GPU: the same modules (diffusers, random weights of full size), the same shapes
and type, taking turns in one run.

    compare_torch_gpu.py BENCH_STEP MODEL OUT.json [--compile] [--rounds N] [--only LETTERS]

MODEL is a folder; a model of Stable Video Diffusion's full size with random fp16 weights is written there when it does
not exist (3.5 GB). Figures are milliseconds on the GPU's own clock for PyTorch (events) and on the host's for vdpp
(launch of one graph until the stream is drained), medians of the rounds.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess

import torch
from diffusers import (AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, StableVideoDiffusionPipeline,
                       UNetSpatioTemporalConditionModel)
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

# name: (network of bench_step, batch halves, frames, latent height and width, goal in ms on an H200)
SHAPES = {
    "unet 14 frames 1024x576": ("step", 2, 14, 72, 128, 135), "unet 25 frames 1024x576": ("step", 2, 25, 72, 128, None),
    "unet 14 frames 576x320": ("step", 2, 14, 40, 72, None), "unet 14 frames 512x512, unguided": ("step1", 1, 14, 64, 64, None),
    "unet 2 frames 256x256, unguided": ("step1", 1, 2, 32, 32, None), "vae decode 14 frames": ("decode", 1, 14, 72, 128, 180),
    "clip": ("clip", 1, 1, 8, 8, None)
}


def write_model(folder):
    """Full size, random weights, fp16."""
    torch.manual_seed(1)
    with torch.device("cuda"):
        unet = UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20), num_frames=25)
        vae = AutoencoderKLTemporalDecoder(block_out_channels=(128, 256, 512, 512), layers_per_block=2,
                                           down_block_types=("DownEncoderBlock2D",) * 4, latent_channels=4)
        clip = CLIPVisionModelWithProjection(CLIPVisionConfig(
            hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14,
            projection_dim=1024, hidden_act="gelu"))
    scheduler = EulerDiscreteScheduler(prediction_type="v_prediction", timestep_type="continuous", use_karras_sigmas=True,
                                       sigma_min=0.002, sigma_max=700.0, beta_schedule="scaled_linear", beta_start=0.00085,
                                       beta_end=0.012, steps_offset=1, timestep_spacing="leading")
    pipeline = StableVideoDiffusionPipeline(vae=vae, image_encoder=clip, unet=unet, scheduler=scheduler,
                                            feature_extractor=CLIPImageProcessor())
    pipeline.to(dtype=torch.float16).save_pretrained(folder)


def torch_call(pipeline, kind, halves, frames, h, w):
    draw = lambda *shape: torch.randn(shape, device="cuda", dtype=torch.float16)
    if kind == "decode":
        z = draw(frames, 4, h, w)
        return lambda: pipeline.vae.decode(z, num_frames=frames, return_dict=False)[0]
    if kind == "clip":
        pixels = draw(1, 3, 224, 224)
        return lambda: pipeline.image_encoder(pixels).image_embeds
    x, embeds = draw(halves, frames, 8, h, w), draw(halves, 1, 1024)
    t, ids = torch.tensor(0.5, device="cuda"), torch.tensor([[6.0, 127.0, 0.02]] * halves, device="cuda").half()
    return lambda: pipeline.unet(x, t, encoder_hidden_states=embeds, added_time_ids=ids, return_dict=False)[0]


def torch_ms(call, rounds):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times = []
    with torch.inference_mode():
        for i in range(rounds + 2):  # two to warm up
            begin.record()
            call()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end))
    return statistics.median(times[2:])


def vdpp_run(program, model, kind, frames, h, w, rounds):
    command = [program, model, kind, "fp16", frames, h, w, rounds, "cuda"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        return {"error": done.stderr.strip()}
    found = json.loads(done.stdout)
    return {"ms": statistics.median(found["wall_s"]) * 1e3, "arena_bytes": found["arena_bytes"],
            "weight_bytes": found["weight_bytes"]}


def measure(given, pipeline):
    rows = {}
    for name, (kind, halves, frames, h, w, goal) in SHAPES.items():
        if not name.startswith(given.only):
            continue
        row = {"vdpp": vdpp_run(given.bench_step, given.model, kind, frames, h, w, given.rounds), "goal_ms": goal}
        call = torch_call(pipeline, kind, halves, frames, h, w)
        row["eager_ms"] = torch_ms(call, given.rounds)
        if given.compile:
            row["compiled_ms"] = torch_ms(torch.compile(call), given.rounds)
        row["vdpp_again"] = vdpp_run(given.bench_step, given.model, kind, frames, h, w, given.rounds)
        rows[name] = row
        print(f"| {name} | {row['vdpp'].get('ms', row['vdpp'])} | {row['eager_ms']:.1f} | {row.get('compiled_ms', '')} "
              f"| {goal or ''} |", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench_step")
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", metavar="LETTERS")
    given = parser.parse_args()
    if not os.path.exists(given.model):
        write_model(given.model)
    pipeline = StableVideoDiffusionPipeline.from_pretrained(given.model, torch_dtype=torch.float16).to("cuda")
    print("| network | vdpp ms | torch eager ms | torch compiled ms | goal ms |\n|---|---|---|---|---|")
    clocks = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit",
                             "--format=csv,noheader"], capture_output=True, text=True).stdout.strip()
    results = {"date": str(datetime.date.today()), "card": torch.cuda.get_device_name(), "clocks": clocks,
               "torch": torch.__version__, "networks": measure(given, pipeline)}
    with open(given.out, "w") as file:
        json.dump(results, file, indent=2)
        file.write("\n")


if __name__ == "__main__":
    main()
