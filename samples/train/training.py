"""What both trainings share: processes, checkpoints, averages, rates, cached pictures, strips."""
import argparse
import datetime
import json
import multiprocessing
import os
import pathlib
import time

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from engine import processor_name
from world import WORLD, draw_frames, draw_scene

# glibc hands large blocks back to the system after every operation unless told otherwise: twice the time.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
                "MALLOC_TOP_PAD_": str(1 << 28)}


def arguments(description):
    """--folder and --processes. Starts the program anew where its environment lacks what it needs."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="checkpoints, caches and logs")
    parser.add_argument("--processes", type=int, default=1, help="on a CPU: one thread each, sharing every batch")
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in _KEEP_MEMORY.items()):
        command = pathlib.Path("/proc/self/cmdline").read_text().split("\0")[:-1]
        os.execve("/proc/self/exe", command, {**os.environ, **_KEEP_MEMORY})
    options.folder.mkdir(parents=True, exist_ok=True)
    return options


class Team:
    """The processes that train together: each takes its share of every batch, and gradients are averaged."""

    def __init__(self, size, folder):
        """Forks size - 1 helpers, so it must come before torch has threads."""
        self.size, self.rank = size, 0
        self.device = torch.device("cuda" if size == 1 and torch.cuda.is_available() else "cpu")
        if size == 1:
            return
        meeting = folder / "meeting"
        meeting.unlink(missing_ok=True)
        self.rank = next((rank for rank in range(1, size) if os.fork() == 0), 0)
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=self.rank, world_size=size,
                                timeout=datetime.timedelta(days=1))

    def wait(self):
        """Until all are here."""
        if self.size > 1:
            dist.barrier()

    def average_gradients(self, parameters):
        if self.size == 1:
            return
        flat = torch.cat([p.grad.flatten() for p in parameters])
        dist.all_reduce(flat)
        for p, piece in zip(parameters, flat.div_(self.size).split([p.numel() for p in parameters])):
            p.grad.copy_(piece.view_as(p))


def cached_paths(folder):
    """uint8 [scenes, P, H, W, 3]: scene k (seed k) with its body at every `path_step` units along its path."""
    file = folder / f"paths-{WORLD['scenes']}.npy"
    if not file.exists():
        with multiprocessing.Pool() as pool:
            paths = np.stack(pool.map(_draw_path, range(WORLD["scenes"]), chunksize=16))
        np.save(folder / "paths.tmp.npy", paths)
        (folder / "paths.tmp.npy").rename(file)
    return np.load(file, mmap_mode="r")


def _draw_path(seed):
    return draw_frames(draw_scene(seed), np.arange(0, WORLD["path"] + 1e-6, WORLD["path_step"]))


def to_tensor(frames):
    """uint8 [..., H, W, 3] to float [..., 3, H, W] of -1..1, as the pipeline makes it."""
    return torch.from_numpy(np.array(frames)).movedim(-1, -3).float() / 127.5 - 1


def to_pixels(pictures):
    """float [..., 3, H, W] of -1..1 to uint8 [..., H, W, 3]."""
    return ((pictures.detach().cpu() / 2 + 0.5).clamp(0, 1) * 255).round().byte().movedim(-3, -1).numpy()


def use_planar_temporal_convolutions():
    """Computes the (3, 1, 1) convolutions as (3, 1) ones over [F, H * W], for which CPUs have the faster kernel."""
    def forward(self, x):
        b, c, f, h, w = x.shape
        y = nn.functional.conv2d(x.reshape(b, c, f, h * w), self.weight.squeeze(-1), self.bias, padding=(1, 0))
        return y.view(b, -1, f, h, w)
    nn.Conv3d.forward = forward


class Trainer:
    """Steps of AdamW with a warm-up, a straight way down to zero, an average of the weights, checkpoints and a log."""

    def __init__(self, name, networks, settings, team, folder):
        """`networks` is a ModuleDict; `settings` has steps, rate, warmup, average, seed."""
        self.name, self.networks, self.settings, self.team, self.folder = name, networks, settings, team, folder
        self.parameters = list(networks.parameters())
        for parameter in self.parameters:  # also those that nothing uses: a mid attention in the VAE
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=settings["rate"], betas=(0.9, 0.99), weight_decay=0.01)
        self.averaged = [p.detach().clone() for p in self.parameters]
        self.step, self.cpu_seconds, self.wall_seconds = 0, 0.0, 0.0
        if self.checkpoint.exists():
            self._load()
        self.random = np.random.default_rng((settings["seed"], team.rank, self.step))
        torch.manual_seed(hash((settings["seed"], team.rank, self.step)))

    @property
    def checkpoint(self):
        return self.folder / f"{self.name}.pt"

    def progress(self):
        """Share of the training that is done."""
        return self.step / self.settings["steps"]

    def rate(self):
        warm = min(1.0, (self.step + 1) / self.settings["warmup"])
        return self.settings["rate"] * warm * max(0.0, 1 - self.progress())

    def advance(self, loss):
        """One step against `loss`."""
        self.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        self.team.average_gradients(self.parameters)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.param_groups[0]["lr"] = self.rate()
        self.optimizer.step()
        keep = min(self.settings["average"], (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self.averaged, self.parameters, 1 - keep)
        self.step += 1

    def run(self, loss_of_batch, every, look):
        """Trains to the last step. loss_of_batch(random) gives loss and named figures; each `every` steps the first
        process logs their means, saves a checkpoint and calls look() with the averaged weights."""
        sums, since, cpu = {}, time.time(), time.process_time()
        while self.step < self.settings["steps"]:
            loss, figures = loss_of_batch(self.random)
            self.advance(loss)
            for key, value in figures.items():
                sums.setdefault(key, []).append(float(value))
            if self.step % every == 0 or self.step == self.settings["steps"]:
                self.cpu_seconds += (time.process_time() - cpu) * self.team.size
                self.wall_seconds += time.time() - since
                since, cpu = time.time(), time.process_time()
                if self.team.rank == 0:
                    self._log({key: np.mean(values) for key, values in sums.items()})
                    self._save()
                    self._look(look)
                sums = {}

    def _log(self, figures):
        line = {"step": self.step, "rate": round(self.rate(), 6), "cpu_s": round(self.cpu_seconds),
                "wall_s": round(self.wall_seconds), **{key: round(float(v), 5) for key, v in figures.items()}}
        print(json.dumps(line), flush=True)
        with open(self.folder / f"{self.name}.log.jsonl", "a") as log:
            log.write(json.dumps(line) + "\n")

    def _look(self, look):
        trained = [p.detach().clone() for p in self.parameters]
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.averaged)
            look()
            torch._foreach_copy_(self.parameters, trained)

    def _save(self):
        state = {"networks": self.networks.state_dict(), "optimizer": self.optimizer.state_dict(),
                 "averaged": self.averaged, "step": self.step, "cpu_seconds": self.cpu_seconds,
                 "wall_seconds": self.wall_seconds, "machine": _machine(self.team)}
        torch.save(state, self.checkpoint.with_suffix(".tmp"))
        self.checkpoint.with_suffix(".tmp").rename(self.checkpoint)

    def _load(self):
        state = torch.load(self.checkpoint, map_location=self.team.device)
        self.networks.load_state_dict(state["networks"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.averaged = state["averaged"]
        self.step, self.cpu_seconds, self.wall_seconds = state["step"], state["cpu_seconds"], state["wall_seconds"]


def load_averaged(checkpoint, networks):
    """The averaged weights of a checkpoint into `networks`; the checkpoint's other figures."""
    state = torch.load(checkpoint, map_location="cpu")
    with torch.no_grad():
        for parameter, value in zip(networks.parameters(), state["averaged"], strict=True):
            parameter.copy_(value)
    return {key: state[key] for key in ("step", "cpu_seconds", "wall_seconds", "machine")}


def _machine(team):
    if team.device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor_name()}, {team.size} threads"
