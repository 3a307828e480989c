#!/usr/bin/env python3
"""One of vdpp's networks beside PyTorch's on one GPU, taking turns in one run: the same shape, fp16, random weights.

    compare_torch_gpu.py BENCH_STEP MODEL OUT.json step|step1|decode|clip FRAMES LATENT_H LATENT_W

MODEL is a folder in the diffusers layout, of which PyTorch takes the configuration. Figures are milliseconds, medians:
for PyTorch on the GPU's own clock, for vdpp from when its stream gets there until it has passed. OUT is written after
every step, so that what was found stands when compiling takes too long. Ends with 77 where PyTorch cannot do its half.
"""

import json
import os
import statistics
import subprocess
import sys

ROUNDS = 7


class Missing(Exception):
    """What PyTorch's half needs and is not here."""


def vdpp_ms(program, model, network, shape):
    command = [program, model, network, "fp16", *map(str, shape), str(ROUNDS), "cuda"]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return {"vdpp_ms": statistics.median(found["wall_s"]) * 1e3, "arena_bytes": found["arena_bytes"],
            "weight_bytes": found["weight_bytes"]}


# ---- PyTorch's half ----


def load_torch():
    try:
        import torch
    except ImportError as error:
        raise Missing(f"there is no torch ({error})") from error
    if not torch.cuda.is_available():
        raise Missing("torch sees no GPU")
    torch.set_default_dtype(torch.float16)
    torch.backends.cudnn.benchmark = True
    return torch


def class_of(network):
    try:
        if network == "clip":
            from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
            return "image_encoder", lambda config: CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(config))
        from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    except ImportError as error:
        raise Missing(f"the reference's modules are not here ({error})") from error
    if network == "decode":
        return "vae", AutoencoderKLTemporalDecoder.from_config
    return "unet", UNetSpatioTemporalConditionModel.from_config


def build(torch, model, network):
    folder, make = class_of(network)
    with open(os.path.join(model, folder, "config.json")) as file:
        config = json.load(file)
    with torch.device("cuda"):
        return make(config).to("cuda", torch.float16).eval(), config  # some parameters ignore the device


def inputs(torch, network, config, frames, h, w):
    draw = lambda *shape: torch.randn(shape, device="cuda")
    if network == "decode":
        return (draw(frames, config["latent_channels"], h, w), frames)
    if network == "clip":
        return (draw(1, 3, config["image_size"], config["image_size"]),)
    halves = 1 if network == "step1" else 2
    times = torch.tensor([[6.0, 127.0, 0.02]] * halves, device="cuda")
    return (draw(halves, frames, config["in_channels"], h, w), torch.tensor(0.5, device="cuda"),
            draw(halves, 1, config["cross_attention_dim"]), times)


def torch_ms(torch, call, given):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times = []
    with torch.inference_mode():
        for _ in range(ROUNDS + 2):  # two to warm up
            begin.record()
            call(*given)
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end))
    return statistics.median(times[2:])


def stack(torch):
    query = "--query-gpu=clocks.sm,clocks.mem,temperature.gpu,power.draw"
    clocks = subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True).stdout.strip()
    return {"torch": torch.__version__, "CUDA of torch": torch.version.cuda,
            "cuDNN of torch": str(torch.backends.cudnn.version()), "clocks, temperature and power after a run": clocks}


def torch_steps(torch, model, network, shape):
    """Yields what is found, step by step."""
    module, config = build(torch, model, network)
    call = module.decode if network == "decode" else module
    given = inputs(torch, network, config, *shape)
    yield {"eager_ms": torch_ms(torch, call, given), "stack": stack(torch)}
    yield {"compiled_ms": torch_ms(torch, torch.compile(call), given)}


def main():
    program, model, out, network, *shape = sys.argv[1:]
    shape, found = [int(word) for word in shape], {}

    def add(more):
        found.update(more)
        with open(out, "w") as file:
            json.dump(found, file, indent=1)

    add(vdpp_ms(program, model, network, shape))
    try:
        for more in torch_steps(load_torch(), model, network, shape):
            add(more)
    except Missing as reason:
        print(reason)
        return 77
    add({"again_ms": vdpp_ms(program, model, network, shape)["vdpp_ms"]})
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
