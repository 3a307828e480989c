"""Frames as pictures to look at."""
import numpy as np
from PIL import Image


def save_strip(rows, file, zoom=2):
    """Rows of frames, uint8 [R, F, H, W, 3], as one picture."""
    picture = np.concatenate([np.concatenate(list(row), 1) for row in rows], 0)
    image = Image.fromarray(picture)
    image.resize((image.width * zoom, image.height * zoom), Image.Resampling.BICUBIC).save(file, optimize=True)
