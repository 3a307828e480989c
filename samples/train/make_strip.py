#!/usr/bin/env python3
"""Draws the strip of the README: eight frames each of videos that vdpp makes of three sample images' scenes.

    python3 samples/train/make_strip.py build/release/vdpp samples/model samples/strip.png
"""
import sys

from engine import Clip, animate
from make_images import IMAGES
from pictures import save_strip

SHOWN = ("ball", "balloon", "boat")


def main(vdpp, model, file):
    save_strip(animate(vdpp, model, [Clip(IMAGES[name][0], start=3) for name in SHOWN]), file)


if __name__ == "__main__":
    main(*sys.argv[1:])
