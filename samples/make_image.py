#!/usr/bin/env python3
"""Draws the sample image: a red ball on a hill before an evening sky. Needs Pillow and numpy.

    python3 samples/make_image.py samples/images/ball.png
"""
import sys

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 320, 240


def mix(a, b, t):
    return np.asarray(a) * (1 - t[..., None]) + np.asarray(b) * t[..., None]


def main(path):
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    picture = mix((250, 190, 120), (70, 110, 190), np.clip(1 - y / 170, 0, 1))
    hill = 165 + 18 * np.sin(x / 55 + 0.6)
    picture = np.where((y > hill)[..., None], mix((70, 140, 60), (25, 70, 35), np.clip((y - hill) / 80, 0, 1)), picture)
    sun = np.clip(26 - np.hypot(x - 250, y - 60), 0, 1)
    picture = mix(picture, (255, 240, 190), sun)
    distance = np.hypot(x - 96, y - 132)
    shade = np.clip(1 - np.hypot(x - 86, y - 120) / 60, 0.25, 1)
    ball = np.stack([225 * shade, 55 * shade, 50 * shade], -1)
    picture = mix(picture, ball, np.clip(34 - distance, 0, 1))
    Image.fromarray(np.clip(picture + 0.5, 0, 255).astype(np.uint8)).save(path, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
