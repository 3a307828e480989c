"""Finds a scene's body in a picture: where background plus body, as the generator draws them, explains it best."""
import numpy as np

from world import UNITS, WORLD, draw_background, draw_body, grid

REACH = 24  # pixels from the body's centre to the edge of its template


def find_body(scene, frame):
    """Centre [x, y] in units and the share of the body's difference from the background that is seen there (1: all).

    With background b, picture b + r and the template's opacity a and colour c, a body at p would change b by
    d = a (c - b); it explains 2 r d - d d of r r. Both sums over the template are correlations, for all p at once.
    """
    b = draw_background(scene, *grid(WORLD["pixels"], WORLD["pixels"]))
    r = frame / 255.0 - b
    x, y, px = grid(2 * REACH + 1, 2 * REACH + 1, (2 * REACH + 1) * UNITS / WORLD["pixels"])
    colour, opacity = draw_body(scene, x - UNITS / 2, y - UNITS / 2, px)
    a = np.repeat(opacity[..., None], 3, 2)
    m = a * colour
    together = _correlate(r, m) - _correlate(r * b, a)
    alone = _correlate(np.ones_like(b), m * m) - 2 * _correlate(b, m * a) + _correlate(b * b, a * a)
    explained = 2 * together - alone
    best = int(explained.argmax())
    row, column = divmod(best, explained.shape[1])
    return (np.array([column, row]) + 0.5) * px, explained.flat[best] / alone.flat[best]


def _correlate(field, template):
    """[H, W]: sum of field [H, W, 3] times template [T, T, 3] with its centre at each pixel; nothing lies outside."""
    size = np.add(field.shape[:2], 2 * REACH)
    product = np.fft.rfft2(field, size, (0, 1)) * np.fft.rfft2(template[::-1, ::-1], size, (0, 1))
    whole = np.fft.irfft2(product.sum(2), size, (0, 1))
    return whole[REACH:REACH + field.shape[0], REACH:REACH + field.shape[1]]
