"""The world of the sample model: small landscapes in which one body moves in a way that its look tells.

A picture is 64 x 64 units, x to the right and y down, drawn at any number of pixels with antialiased edges. A ball
rolls to the right, a balloon rises, a boat sails where its jib points, a comet flies away from its tail. All else stands
still.

How far a body moves from frame to frame is a law of the settings alone: `units_per_frame`.
"""
import dataclasses
import json
import pathlib

import numpy as np

SETTINGS = json.loads((pathlib.Path(__file__).parent / "settings.json").read_text())
WORLD = SETTINGS["world"]
UNITS = 64.0
KINDS = ("ball", "balloon", "boat", "comet")
RADII = ((7.5, 9.5), (8, 9.5), (8, 9.5), (5, 6.5))           # of each kind, units
HORIZONS = ((42, 48), (54, 58), (34, 40), (50, 56))          # where the ground or the water begins, y

# sky at the top, sky at the horizon, far hills, near hills; RGB of 0..255
SKIES = {
    "day": ((70, 140, 220), (190, 225, 245), (120, 165, 170), (95, 160, 85)),
    "morning": ((120, 170, 225), (255, 225, 185), (150, 150, 180), (110, 165, 95)),
    "evening": ((75, 70, 150), (250, 165, 110), (125, 85, 135), (75, 90, 85)),
    "violet": ((90, 60, 140), (240, 150, 175), (110, 80, 140), (60, 80, 100)),
    "night": ((12, 16, 48), (50, 60, 115), (28, 36, 76), (16, 30, 48)),
    "green night": ((10, 24, 44), (36, 96, 110), (20, 52, 70), (12, 36, 40)),
}
PAINTS = ((225, 45, 45), (245, 125, 20), (250, 205, 40), (215, 45, 140), (130, 50, 180), (245, 245, 240))


def units_per_frame(motion, fps):
    """Law of motion: units from one frame to the next; proportional to the motion bucket, inverse to the frame rate."""
    return WORLD["pace"] * (motion / 127.0) * (7.0 / fps)


@dataclasses.dataclass
class Scene:
    """Everything that decides a picture. Lengths in units; colours RGB of 0..1."""
    kind: str
    start: np.ndarray      # [2] the body's centre when its path begins
    heading: np.ndarray    # [2] unit vector
    radius: float
    paint: np.ndarray      # [3] the body's colour
    trim: np.ndarray       # [3] its second colour
    sky: np.ndarray        # [4, 3] as in SKIES
    horizon: float         # y of the ground's or the water's edge
    hills: np.ndarray      # [2, 4] far and near: height above the horizon, swing, wavelength, phase
    light: np.ndarray      # [3] sun or moon: x, y, radius
    clouds: np.ndarray     # [n, 3] x, y, half-width
    stars: np.ndarray      # [n, 3] x, y, brightness


def draw_scene(seed):
    """The scene of a seed."""
    rng = np.random.default_rng(seed)
    kind = KINDS[rng.integers(len(KINDS))]
    side = rng.choice((-1.0, 1.0))
    angle = np.radians(rng.uniform(25, 45))
    heading = {"ball": (1, 0), "balloon": (0, -1), "boat": (side, 0),
               "comet": (side * np.cos(angle), np.sin(angle))}[kind]
    radius, horizon = (rng.uniform(*np.transpose(ranges))[KINDS.index(kind)] for ranges in (RADII, HORIZONS))
    dark = kind == "comet"
    sky = list(SKIES)[rng.integers(4, 6) if dark else rng.integers(0, 4)]
    first, second = rng.choice(len(PAINTS) - (kind == "boat"), 2, replace=False)  # a white jib would not show
    return Scene(
        kind=kind, start=_start(kind, side, radius, horizon, rng), heading=np.array(heading, float), radius=radius,
        paint=np.array(PAINTS[first]) / 255 * rng.uniform(0.9, 1), trim=np.array(PAINTS[second]) / 255,
        sky=np.clip(np.array(SKIES[sky]) / 255 + rng.normal(0, 0.025, (4, 3)), 0, 1), horizon=horizon,
        hills=np.stack([rng.uniform((7, 2, 34, 0), (13, 5, 60, 6.28)), rng.uniform((0, 1, 20, 0), (5, 3, 44, 6.28))]),
        light=_light(dark, side, rng),
        clouds=rng.uniform((0, 6, 6), (64, 26, 11), (0 if dark else rng.integers(1, 4), 3)),
        stars=rng.uniform((0, 0, 0.4), (64, 44, 1), (14 if dark else 0, 3)))


def _light(dark, side, rng):
    """The sun high up, or the moon where the comet does not pass."""
    return np.array((32 - side * rng.uniform(10, 25), rng.uniform(32, 40), 4)) if dark else \
        rng.uniform((6, 6, 3.5), (58, 16, 5.5))


def _start(kind, side, radius, horizon, rng):
    """Where the path begins, so that the body is still in the picture where it ends."""
    across = rng.uniform(radius + 1, UNITS - radius - 1 - WORLD["path"])
    facing = across if side > 0 else UNITS - across
    return np.array({"ball": (across, horizon + rng.uniform(1, 5) - radius + 3),
                     "balloon": (rng.uniform(13, 51), rng.uniform(44, 49)),
                     "boat": (facing, horizon + rng.uniform(3, 8)),
                     "comet": (32 - side * rng.uniform(6, 18), rng.uniform(10, 20))}[kind])


# ---------------------------------------------------------------------------------------------------------------------
# Drawing. `x`, `y` are [H, W] in units, `px` is the side of a pixel in units; pictures are [H, W, 3] of 0..1.

def _cover(distance, px):
    """Share of each pixel inside a shape, from the signed distance to its edge (negative inside)."""
    return np.clip(0.5 - distance / px, 0, 1)


def _blend(under, over, alpha):
    return under + (over - under) * alpha[..., None]


def _polygon(x, y, corners):
    """Signed distance to a convex polygon with corners in clockwise order as seen (y down)."""
    distance = np.full(x.shape, -np.inf)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1]):
        length = np.hypot(bx - ax, by - ay)
        distance = np.maximum(distance, ((by - ay) * (x - ax) - (bx - ax) * (y - ay)) / length)
    return distance


def grid(width, height, units_high=UNITS):
    """x, y [height, width] of pixel centres and px; the picture's middle is that of the square world."""
    px = units_high / height
    y, x = np.mgrid[0:height, 0:width]
    return (x + 0.5 - width / 2) * px + UNITS / 2, (y + 0.5 - height / 2) * px + UNITS / 2, px


def draw_background(scene, x, y, px):
    """Everything but the body."""
    top, low, far, near = scene.sky
    picture = _blend(np.broadcast_to(top, x.shape + (3,)), low, np.clip(y / scene.horizon, 0, 1))
    for sx, sy, brightness in scene.stars:
        picture = _blend(picture, np.ones(3), brightness * _cover(np.hypot(x - sx, y - sy) - 0.6, px))
    lx, ly, lr = scene.light
    glow = np.exp(-np.hypot(x - lx, y - ly) / 9) * 0.45
    picture = _blend(_blend(picture, np.array((1, 0.95, 0.8)), glow), np.array((1, 0.97, 0.85)),
                     _cover(np.hypot(x - lx, y - ly) - lr, px))
    for cx, cy, half in scene.clouds:
        puffs = [np.hypot((x - cx - shift * half) / 1.3, y - cy) - half * size
                 for shift, size in ((-0.55, 0.24), (0, 0.36), (0.5, 0.27))]
        picture = _blend(picture, np.ones(3), 0.75 * _cover(np.min(puffs, 0), 1.5))
    for (height, swing, wave, phase), colour in zip(scene.hills, (far, near)):
        line = scene.horizon - height + swing * np.sin(2 * np.pi * x / wave + phase)
        picture = _blend(picture, colour * 0.85 + 0.15 * low, _cover(line - y, px))
    return _ground(scene, picture, x, y, px)


def _ground(scene, picture, x, y, px):
    """The meadow or the sea below the horizon."""
    depth = np.clip((y - scene.horizon) / (UNITS - scene.horizon), 0, 1)
    if scene.kind == "boat":
        waves = 0.5 + 0.5 * np.sin(y * (1.9 - depth) + 1.5 * np.sin(x / 7 + scene.hills[0, 3]))
        colour = _blend(scene.sky[1] * 0.55 + np.array((0.0, 0.18, 0.25)), scene.sky[0] * 0.6, depth)
        colour = colour + 0.06 * waves[..., None]
    else:
        colour = _blend(scene.sky[3] * 0.7 + np.array((0.13, 0.17, 0.02)), scene.sky[3] * 0.6, depth)
    return _blend(picture, np.clip(colour, 0, 1), _cover(scene.horizon - y, px))


def draw_body(scene, x, y, px):
    """The body with its centre at (0, 0): colour [H, W, 3], opacity [H, W]."""
    return {"ball": _ball, "balloon": _balloon, "boat": _boat, "comet": _comet}[scene.kind](scene, x, y, px)


def _layers(x, layers):
    """Layers (opacity, colour) from the lowest to the highest, made one."""
    colour, alpha = np.zeros(x.shape + (3,)), np.zeros(x.shape)
    for opacity, paint in layers:
        alpha_new = opacity + alpha * (1 - opacity)
        share = np.where(alpha_new > 0, opacity / np.maximum(alpha_new, 1e-9), 0)
        colour, alpha = _blend(colour, paint, share), alpha_new
    return colour, alpha


def _shaded(paint, x, y, radius):
    """A round thing lit from the upper left."""
    light = np.clip(1.15 - 0.5 * np.hypot(x + 0.4 * radius, y + 0.45 * radius) / radius, 0.35, 1.1)
    return np.clip(paint * light[..., None], 0, 1)


def _ball(scene, x, y, px):
    r = scene.radius
    shadow = (np.hypot(x / 1.1, (y - 0.93 * r) * 3.5) - 0.8 * r) / 2
    return _layers(x, [(0.45 * _cover(shadow, px), np.zeros(3)),
                       (_cover(np.hypot(x, y) - r, px), _shaded(scene.paint, x, y, r))])


def _balloon(scene, x, y, px):
    r = scene.radius
    cone = np.maximum(np.hypot(x, y) - 1.5 * r, np.abs(x) + 0.62 * (y - 0.4 * r) - 0.9165 * r)
    envelope = np.where(y < 0.4 * r, np.hypot(x, y) - r, cone)
    stripes = np.abs(np.sin(2.6 * np.arcsin(np.clip(x / r, -1, 1)))) < 0.5
    paint = np.where(stripes[..., None], scene.trim, scene.paint)
    basket = np.maximum(np.abs(x) - 0.24 * r, np.abs(y - 1.65 * r) - 0.2 * r)
    return _layers(x, [(_cover(envelope, px), _shaded(paint, x, y, r)),
                       (_cover(basket, px), np.array((0.45, 0.28, 0.15)))])


def _boat(scene, x, y, px):
    r, x = scene.radius, x * scene.heading[0]  # from here on the bow points to the right
    hull = _polygon(x, y, [(-0.95 * r, 0.0), (1.15 * r, 0.0), (0.6 * r, 0.5 * r), (-0.75 * r, 0.5 * r)])
    mast = np.maximum(np.abs(x - 0.05 * r) - 0.5, np.abs(y + 0.8 * r) - 0.8 * r)
    main = _polygon(x, y, [(-0.02 * r, -1.6 * r), (-0.02 * r, -0.15 * r), (-0.85 * r, -0.15 * r)])
    jib = _polygon(x, y, [(0.15 * r, -1.35 * r), (1.05 * r, -0.15 * r), (0.15 * r, -0.15 * r)])
    wood, canvas = np.array((0.35, 0.22, 0.12)), np.array((0.98, 0.97, 0.93))
    return _layers(x, [(_cover(mast, px), wood), (_cover(main, px), canvas), (_cover(jib, px), scene.trim),
                       (_cover(hull, px), scene.paint)])


def _comet(scene, x, y, px):
    r, (hx, hy) = scene.radius, scene.heading
    behind, beside = -(x * hx + y * hy), np.abs(x * hy - y * hx)
    length = 3.4 * r
    fade = np.clip(1 - behind / length, 0, 1)
    tail = np.where(behind > 0, fade * _cover(beside - 0.9 * r * fade, 2.0), 0)
    glow = scene.paint * 0.7 + 0.3
    return _layers(x, [(0.85 * tail, glow), (_cover(np.hypot(x, y) - r, px), _shaded(glow, x, y, r))])


def draw_frames(scene, travels, width=WORLD["pixels"], height=WORLD["pixels"]):
    """uint8 [F, height, width, 3]: the body `travels[f]` units along its path."""
    x, y, px = grid(width, height)
    background = draw_background(scene, x, y, px)
    frames = []
    for travel in travels:
        cx, cy = scene.start + travel * scene.heading
        colour, alpha = draw_body(scene, x - cx, y - cy, px)
        frames.append(_blend(background, colour, alpha))
    return np.clip(np.round(np.stack(frames) * 255), 0, 255).astype(np.uint8)
