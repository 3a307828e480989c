#!/usr/bin/env python3
"""Draws the sample images: one of each kind, of seeds that no training sees. Needs numpy and Pillow.

    python3 samples/train/make_images.py samples/images
"""
import pathlib
import sys

from PIL import Image

from world import draw_frames, draw_scene

# seed, width, height
IMAGES = {"ball": (2000002, 256, 256), "balloon": (2000024, 256, 256), "boat": (2000015, 384, 256),
          "comet": (2000010, 64, 64)}


def main(folder):
    for name, (seed, width, height) in IMAGES.items():
        picture = draw_frames(draw_scene(seed), [3], width, height)[0]
        Image.fromarray(picture).save(pathlib.Path(folder) / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
