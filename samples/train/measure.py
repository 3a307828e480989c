#!/usr/bin/env python3
"""Measures the sample model on held-out scenes, with videos that vdpp makes; prints the tables of samples/README.md.

    python3 samples/train/measure.py build/release/vdpp samples/model
"""
import argparse
import dataclasses

import numpy as np

from engine import animate, held_out_clip, processor_name
from tracker import find_body
from world import draw_scene

STEPS = (25, 12, 6)
MOTIONS = (60, 110, 190)


def psnr(a, b, where=None):
    """Between two pictures [H, W, 3] of 0..255, over the pixels `where` [H, W] says."""
    squared = np.mean((a.astype(float) - b)[... if where is None else where] ** 2)
    return 10 * np.log10(255 ** 2 / squared) if squared > 0 else np.inf


def still_pixels(clip):
    """bool [H, W]: where the body never is nor comes near."""
    truth = clip.truth().astype(int)
    moved = np.any(np.abs(truth - truth[:1]) > 4, (0, 3))
    near = np.lib.stride_tricks.sliding_window_view(np.pad(moved, 4), (9, 9)).any((2, 3))
    return ~near


def track(clip, frames):
    """Displacement [2] of the body from first truth to last frame, units; share of it that is seen there."""
    scene = draw_scene(clip.scene_seed)
    place, share = find_body(scene, frames[-1])
    return place - scene.start - clip.start * scene.heading, share


def measures(clips, videos):
    """The figures of one table row."""
    tracked = [track(clip, video) for clip, video in zip(clips, videos)]
    moved = np.array([displacement for displacement, _ in tracked])
    seen = np.array([share for _, share in tracked])
    heading = np.array([draw_scene(clip.scene_seed).heading for clip in clips])
    wanted = np.array([clip.travels()[-1] - clip.start for clip in clips])
    cosine = (moved * heading).sum(1) / np.maximum(np.hypot(*moved.T), 1e-6)
    still = [np.mean([psnr(a, b, still_pixels(clip)) for a, b in zip(video, video[1:])])
             for clip, video in zip(clips, videos)]
    return {
        "first frame, PSNR (dB)": np.mean([psnr(video[0], clip.truth()[0]) for clip, video in zip(clips, videos)]),
        "still background, neighbouring frames, PSNR (dB)": np.mean(still),
        "displacement against the truth, correlation": np.corrcoef(np.hypot(*moved.T), wanted)[0, 1],
        "displacement, mean error (px)": np.mean(np.hypot(*(moved - wanted[:, None] * heading).T)),
        "direction within 30 degrees (%)": 100 * np.mean(cosine > np.cos(np.radians(30))),
        "body found in the last frame (%)": 100 * np.mean(seen > 0.5),
    }


def table(title, columns):
    """Markdown of {column: {row: number}}."""
    names = list(columns)
    print(f"\n| {title} | " + " | ".join(names) + " |\n|---" + "|---" * len(names) + "|")
    for row in columns[names[0]]:
        print(f"| {row} | " + " | ".join(_short(columns[name][row]) for name in names) + " |")


def _short(number):
    return "equal" if np.isinf(number) else f"{number:.2f}".rstrip("0").rstrip(".")


def seeds_matter(vdpp, model):
    """Largest difference between two seeds, and between twice the same seed, 0..255."""
    clip = held_out_clip(0)
    one, again, other = animate(vdpp, model, [clip, clip, dataclasses.replace(clip, seed=clip.seed + 1)]).astype(int)
    return np.abs(other - one).max(), np.abs(again - one).max()


def mean_displacement(clips, videos):
    """Along the scenes' headings, units."""
    return np.mean([track(clip, video)[0] @ draw_scene(clip.scene_seed).heading for clip, video in zip(clips, videos)])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vdpp")
    parser.add_argument("model")
    parser.add_argument("--scenes", type=int, default=64)
    options = parser.parse_args()
    clips = [held_out_clip(k) for k in range(options.scenes)]
    print(f"{options.scenes} held-out scenes on {processor_name()}, "
          f"`samples/train/measure.py {options.vdpp} {options.model}`:")
    columns = {f"{steps} steps": measures(clips, animate(options.vdpp, options.model, clips, "--steps", str(steps)))
               for steps in STEPS}
    table("", columns | {"the truth": measures(clips, [clip.truth() for clip in clips])})
    moved = {}
    for motion in MOTIONS:
        again = [held_out_clip(k, motion=motion, fps=7) for k in range(options.scenes)]
        moved[f"`--motion {motion}`"] = {
            "mean displacement (px)": mean_displacement(again, animate(options.vdpp, options.model, again)),
            "of the truth": mean_displacement(again, [clip.truth() for clip in again])}
    table("", moved)
    print("\nLargest difference between two seeds: {} of 255; between twice the same: {}.".format(
        *seeds_matter(options.vdpp, options.model)))


if __name__ == "__main__":
    main()
