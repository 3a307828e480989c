#!/usr/bin/env python3
"""Speed and memory of vdpp beside the reference's, on the same model and shape, in one run.

    compare_torch.py VDPP BENCH_STEP [--rounds N] [--compile] [--only LETTERS] [--start] [--note TEXT]

Networks: one thread against one thread. Torch runs in every way of WAYS and its fastest counts (--compile adds
torch.compile, which takes minutes). The two then take turns, N rounds (5), and medians are compared. Two figures each:
the clock, and the process's CPU seconds, which other load on the machine disturbs less. "of peak" is the reference's
count of operations over the time and over the machine's rate of fp32 fused multiply-adds, measured between the runs.
Whole program: time to the first denoising step, peak resident memory beside the plan and beside the reference's own
peak, and throughput of two devices against one.

Prints a table and writes bench/results/DATE-cpu-MACHINE.json.
"""

import argparse
import datetime
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from diffusers import StableVideoDiffusionPipeline
from diffusers.utils import logging
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import compare_reference as models

HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLES = os.path.join(HERE, "..", "samples")

# Four levels, 64 to 256 channels, head width 64: 60 M parameters in the UNet.
MODEL_60M = (models.unet_config([64, 128, 256, 256], "xxx-", "-xxx", [1, 2, 4, 4]),
             models.vae_config([64, 64, 128, 128], 2), models.clip_config())
# (model, network, frames, latent height and width)
SHAPES = {"unet 60M": ("60m", "step", 7, 16, 32), "unet tiny": ("tiny", "step", 3, 32, 32),
          "vae decode": ("60m", "decode", 7, 16, 32)}
GOALS = {"unet 60M": 1.5, "unet tiny": 3.0, "vae decode": 1.5}

# ---- networks on one thread ----


def unet_call(unet, frames, h, w, dtype):
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(shape, generator=generator).to(dtype)
    x, embeds = draw(2, frames, unet.config.in_channels, h, w), draw(2, 1, unet.config.cross_attention_dim)
    t, ids = torch.tensor(0.5), torch.tensor([[6.0, 127.0, 0.02]] * 2, dtype=dtype)
    return lambda: unet(x, t, encoder_hidden_states=embeds, added_time_ids=ids, return_dict=False)[0]


def decode_call(vae, frames, h, w, dtype):
    z = torch.randn((frames, vae.config.latent_channels, h, w), generator=torch.Generator().manual_seed(1)).to(dtype)
    return lambda: vae.decode(z, num_frames=frames, return_dict=False)[0]


def network_of(folder, kind, dtype):
    pipeline = StableVideoDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype)
    return pipeline.unet.eval() if kind == "step" else pipeline.vae.eval()


def plain(network):
    return network


def channels_last(network):
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.to(memory_format=torch.channels_last)
        elif isinstance(module, torch.nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)
    return network


def compiled(network):
    import torch._inductor.config as inductor
    inductor.freezing = True  # weights packed for oneDNN, activations fused into its convolutions
    network.forward = torch.compile(network.forward)
    if hasattr(network, "decoder"):
        network.decoder.forward = torch.compile(network.decoder.forward)
    return network


WAYS = {"plain": plain, "channels_last": channels_last}


def timed(call):
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        call()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def torch_calls(folder, shape, dtype):
    """{way: a call that runs the network so}."""
    _, kind, frames, h, w = shape
    make = unet_call if kind == "step" else decode_call
    return {way: make(change(network_of(folder, kind, dtype)), frames, h, w, dtype) for way, change in WAYS.items()}


def operations(folder, shape):
    call, counter = torch_calls(folder, shape, torch.float32)["plain"], FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        call()
    return counter.get_total_flops()


def fastest(calls):
    times = {}
    for way, call in calls.items():
        timed(call)
        times[way] = min(timed(call)["cpu_s"] for _ in range(2))
        print(f"    torch {way}: {times[way]:.3f} s of CPU", flush=True)
    return min(times, key=times.get)


def bench_step(program, folder, shape, dtype, runs=1):
    _, kind, frames, h, w = shape
    command = [program, folder, kind, dtype, frames, h, w, runs]
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def medians(runs):
    return {key: statistics.median(run[key] for run in runs) for key in ("wall_s", "cpu_s")}


def alternate(program, folder, shape, dtype, rounds):
    """Medians of both, taking turns; and the best peak seen between."""
    calls = torch_calls(folder, shape, {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype])
    way, ours, theirs, peak = fastest(calls), [], [], 0.0
    for _ in range(rounds):
        theirs.append(timed(calls[way]))
        found = bench_step(program, folder, shape, dtype, 3)
        ours += [{"wall_s": wall, "cpu_s": cpu} for wall, cpu in zip(found["wall_s"], found["cpu_s"])]
        peak = max(peak, found["peak_gflops"])
    return {"torch_way": way, "torch": medians(theirs), "vdpp": medians(ours), "peak_gflops": peak}


def measure_networks(program, folders, rounds, only):
    rows = {}
    for name, shape in SHAPES.items():
        if not name.startswith(only):
            continue
        print(f"  {name}", flush=True)
        folder = folders[shape[0]]
        row = alternate(program, folder, shape, "fp32", rounds)
        row["gflop"] = operations(folder, shape) * 1e-9
        row["ratio"] = {key: row["torch"][key] / row["vdpp"][key] for key in ("wall_s", "cpu_s")}
        row["of_peak"] = {key: row["gflop"] / row["vdpp"][key] / row["peak_gflops"] for key in ("wall_s", "cpu_s")}
        row["goal"] = GOALS[name]
        rows[name] = row
    if "bf16".startswith(only[:4]):
        rows["bf16 against own fp32"] = measure_bf16(program, folders["60m"], rounds)
    return rows


def measure_bf16(program, folder, rounds):
    runs = {"fp32": [], "bf16": []}
    for _ in range(rounds):
        for dtype, list_of in runs.items():
            found = bench_step(program, folder, SHAPES["unet 60M"], dtype, 3)
            list_of += [{"wall_s": wall, "cpu_s": cpu} for wall, cpu in zip(found["wall_s"], found["cpu_s"])]
    fp32, bf16 = medians(runs["fp32"]), medians(runs["bf16"])
    return {"fp32": fp32, "bf16": bf16, "ratio": {key: fp32[key] / bf16[key] for key in fp32}, "goal": 1.5}


# ---- the whole program ----


def run_vdpp(vdpp, folder, *options, prefix=()):
    """Report of one process, its seconds, and what it printed."""
    with tempfile.TemporaryDirectory() as where:
        path = os.path.join(where, "report.json")
        command = [*prefix, vdpp, "-m", folder, "--format", "latents", "--output-dir", where, "--report", path, "-q", *options]
        begin = time.perf_counter()
        done = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - begin
        with open(path) as file:
            return json.load(file), seconds, done.stdout


def first_step(vdpp, rounds):
    """From exec to the first denoising step; the little after the run's end is counted too."""
    times = []
    for _ in range(rounds):
        report, seconds, _ = run_vdpp(vdpp, os.path.join(SAMPLES, "model"), "--steps", 1, "--gpus", 1)
        times.append(seconds - report["timing"]["wall_s"] + report["samples"][0]["first_step_s"])
    return {"seconds": statistics.median(times), "best": min(times), "goal": 0.1}


SIZE_60M = ("-W", 256, "-H", 128, "--frames", 7, "--steps", 3, "--gpus", 1)


def planned_bytes(vdpp, folder):
    done = subprocess.run([vdpp, "-m", folder, *(str(word) for word in SIZE_60M), "--dry-run"], check=True,
                          capture_output=True, text=True)
    value, unit = re.search(r"total +([0-9.]+) ([kMG]?B)", done.stdout).groups()
    return float(value) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]


# Runs its arguments and prints their peak resident bytes. A process inherits the peak of the one that forked it, so
# this one must be small.
PEAK_OF = (sys.executable, "-S", "-c", "import os, sys; child = os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:]);"
           " _, status, usage = os.wait4(child, 0); print(usage.ru_maxrss * 1024); sys.exit(status != 0)")


def reference_run(folder):
    """In a process of its own."""
    options = dict(zip(SIZE_60M[::2], SIZE_60M[1::2]))
    pipeline = StableVideoDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline(Image.open(os.path.join(SAMPLES, "images", "ball.png")).convert("RGB"), options["-H"], options["-W"],
             num_frames=options["--frames"], num_inference_steps=options["--steps"])


def memory(vdpp, folder):
    done = subprocess.run([*PEAK_OF, sys.executable, __file__, "--reference-run", folder], check=True,
                          capture_output=True, text=True)
    theirs = int(done.stdout.split()[-1])
    ours = int(run_vdpp(vdpp, folder, *SIZE_60M, prefix=PEAK_OF)[2].split()[-1])
    planned = planned_bytes(vdpp, folder)
    return {"reference_bytes": theirs, "vdpp_bytes": ours, "planned_bytes": planned, "share": ours / theirs,
            "of_plan": ours / planned, "goal": 0.4}


def two_devices(vdpp, mode, rounds, samples=8):
    """Throughput of whole runs, loading and decoding included."""
    rates = {1: [], 2: []}
    for _ in range(rounds):
        for devices, list_of in rates.items():
            report, _, _ = run_vdpp(vdpp, os.path.join(SAMPLES, "model"), "--gpus", devices, "--parallel", mode,
                                    "--samples", samples, "--steps", 12)
            list_of.append(report["timing"]["throughput_sps"])
    one, two = statistics.median(rates[1]), statistics.median(rates[2])
    return {"one_sps": one, "two_sps": two, "ratio": two / one, "samples": samples, "goal": 1.8}


# ---- results ----


def machine_name():
    with open("/proc/cpuinfo") as file:
        return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))


def print_table(results):
    print("\n| | vdpp | torch | ratio (clock) | ratio (CPU) | of peak | goal |\n|---|---|---|---|---|---|---|")
    for name, row in results["networks"].items():
        ours, theirs = row.get("vdpp") or row["bf16"], row.get("torch") or row["fp32"]
        peak = f"{row['of_peak']['cpu_s']:.0%} of {row['peak_gflops']:.0f} GFLOP/s" if "of_peak" in row else ""
        print(f"| {name} | {ours['wall_s'] * 1e3:.0f} ms | {theirs['wall_s'] * 1e3:.0f} ms | {row['ratio']['wall_s']:.2f} "
              f"| {row['ratio']['cpu_s']:.2f} | {peak} | {row['goal']} |")
    for name, row in results["program"].items():
        figures = ", ".join(f"{key} {value:.4g}" for key, value in row.items())
        print(f"| {name} | {figures} | | | | | |")


def git(*words):
    return subprocess.run(["git", "-C", HERE, *words], capture_output=True, text=True).stdout.strip()


def main():
    if sys.argv[1:2] == ["--reference-run"]:
        return reference_run(sys.argv[2])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vdpp")
    parser.add_argument("bench_step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", default="", metavar="LETTERS", help="networks whose names begin so, nothing else")
    parser.add_argument("--start", action="store_true", help="the time to the first denoising step, nothing else")
    parser.add_argument("--note", default="", help="written beside the results")
    given = parser.parse_args()
    if given.start:
        return print_table({"networks": {}, "program": {"first step": first_step(given.vdpp, given.rounds)}})
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    if given.compile:
        WAYS["compiled"] = compiled
    results = {"machine": machine_name(), "commit": git("describe", "--always", "--dirty"), "command": " ".join(sys.argv),
               "torch": torch.__version__, "load_before": os.getloadavg(), "note": given.note, "program": {}}
    with tempfile.TemporaryDirectory() as where:
        folders = {name: os.path.join(where, name) for name in ("60m", "tiny")}
        models.write_model(folders["60m"], MODEL_60M)
        models.write_model(folders["tiny"], models.TINY)
        results["networks"] = measure_networks(given.bench_step, folders, given.rounds, given.only)
        if not given.only:
            results["program"] = {
                "first step": first_step(given.vdpp, given.rounds), "memory": memory(given.vdpp, folders["60m"]),
                **{f"two devices, {mode}": two_devices(given.vdpp, mode, given.rounds) for mode in ("data", "wrap")}}
    results["load_after"] = os.getloadavg()
    print_table(results)
    if not given.only:
        name = re.sub(r"[^a-z0-9]+", "-", results["machine"].lower().replace("(r)", "")).strip("-")
        path = os.path.join(HERE, "results", f"{datetime.date.today()}-cpu-{name}.json")
        with open(path, "w") as file:
            json.dump(results, file, indent=2)
            file.write("\n")
        print(f"\n{os.path.relpath(path)}")


if __name__ == "__main__":
    main()
