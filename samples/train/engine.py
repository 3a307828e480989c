"""Runs vdpp itself on scenes of the world."""
import dataclasses
import json
import pathlib
import platform
import subprocess
import tempfile

import numpy as np
from PIL import Image

from world import WORLD, draw_frames, draw_scene, units_per_frame


@dataclasses.dataclass(frozen=True)
class Clip:
    """A scene and the settings of its video."""
    scene_seed: int
    start: int = 0        # where on its path the body is in the first frame, units
    motion: int = 127
    fps: int = 7
    seed: int = 0

    def travels(self):
        """Where the body ought to be in each frame, units along its path."""
        return self.start + units_per_frame(self.motion, self.fps) * np.arange(WORLD["frames"])

    def truth(self):
        """uint8 [F, H, W, 3]"""
        return draw_frames(draw_scene(self.scene_seed), self.travels())


def held_out_clip(k, **settings):
    """Held-out scene k at its own random place, motion and frame rate where `settings` does not say."""
    random = np.random.default_rng((WORLD["held_out_seed"], k))
    drawn = {"motion": round(np.exp(random.uniform(*np.log(WORLD["motion"])))),
             "fps": int(random.integers(WORLD["fps"][0], WORLD["fps"][1] + 1))} | settings
    longest = units_per_frame(WORLD["motion"][1] if "motion" in settings else drawn["motion"], drawn["fps"])
    room = WORLD["path"] - longest * (WORLD["frames"] - 1)
    return Clip(WORLD["held_out_seed"] + k, int(random.integers(0, int(room) + 1)), seed=k, **drawn)


def animate(vdpp, model, clips, *options):
    """uint8 [N, F, H, W, 3]: what vdpp makes of the clips' first frames."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        lines = []
        for i, clip in enumerate(clips):
            Image.fromarray(clip.truth()[0]).save(folder / f"{i:03d}.png")
            lines.append({"image": str(folder / f"{i:03d}.png"), "seed": clip.seed, "motion": clip.motion,
                          "fps": clip.fps, "output": str(folder / f"out-{i:03d}")})
        (folder / "jobs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        subprocess.run([vdpp, "-q", "-m", model, "--jobs", folder / "jobs.jsonl", "--format", "png",
                        "--parallel", "data", *options], check=True, stdout=subprocess.DEVNULL)
        return np.stack([_read_frames(folder / f"out-{i:03d}") for i in range(len(clips))])


def _read_frames(folder):
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))])


def processor_name():
    """As the system calls the CPU."""
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return names[0] if names else platform.machine()
