#!/usr/bin/env python3
"""Compares what vdpp makes with what the reference makes, tensor by tensor, in fp32.

    compare_reference.py VDPP MODEL IMAGE [-W N] [-H N] [--frames N] [--steps N] [--seed N] [--guidance MIN:MAX]
                         [--decode-chunk N] [--fps N] [--motion N] [--noise-aug X] [-- MORE OPTIONS OF VDPP]
    compare_reference.py VDPP --suite [FIRST LETTERS OF A CASE]     the cases below, on models and images made here
    compare_reference.py VDPP --random COUNT [--seed N]             COUNT models and settings drawn at random

Prints a line per tensor (suite and random: one per case, more where it fails) and exits with 1 when a limit is
passed. "own" rows recompute a part of the reference from vdpp's own tensors before it: one UNet forward, the step's
arithmetic, the decoder. Limits: exact bits for what is not a network; relative L2 error of one UNet forward and of
the VAE's mean 5e-6, of the image embedding 3e-6, of the final latents 1.5e-5 (of one or two steps, where numbers
near 2800 cancel, 5e-5); frames off by at most 1 in at most 0.1 % of the values.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

import torch
from PIL import Image
from safetensors.torch import load_file

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "tests", "golden")
sys.path.insert(0, GOLDEN)
import dummy_model
import reference
from reference import Settings

# ---- one comparison ----


def run_vdpp(vdpp, model, image, settings, more=()):
    with tempfile.TemporaryDirectory() as folder:
        command = [
            vdpp, "-i", image, "-m", model, "-W", settings.width, "-H", settings.height, "--frames", settings.frames,
            "--steps", settings.steps, "--seed", settings.seed, "--guidance", "{}:{}".format(*settings.guidance),
            "--decode-chunk", settings.chunk or settings.frames, "--fps", settings.fps, "--motion", settings.motion,
            "--noise-aug", settings.noise_aug, "--fit", "stretch", "--dump", folder, "--format", "latents", "-o",
            os.path.join(folder, "video"), "-q", "--gpus", 1, *more]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"vdpp ended with {done.returncode}: {done.stderr.strip()}")
        dump = load_file(os.path.join(folder, "sample-000.safetensors"))
        written = load_file(next(os.path.join(folder, name) for name in os.listdir(folder) if name.startswith("video")
                                 and name.endswith("safetensors")))["latents"]
        return {**dump, "file of --format latents": written}


class Table:
    def __init__(self):
        self.rows = []

    def add(self, name, kind, value, limit):
        self.rows.append((name, kind, float(value), limit, value <= limit))

    def bits(self, name, a, b):
        same = a.shape == b.shape and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
        self.add(name, "values with other bits", 0 if same else float((a != b).sum()) or 1, 0)

    def near(self, name, a, b, limit):
        a, b = a.double(), b.double()
        same_shape = a.shape == b.shape
        self.add(name, "relative L2", float((a - b).norm() / b.norm()) if same_shape else float("inf"), limit)

    def pixels(self, name, a, b):
        difference = (a.int() - b.int()).abs()
        self.add(name, "largest difference", difference.max(), 1)
        self.add(name, "share that differs", (difference != 0).float().mean(), 1e-3)

    def failures(self):
        return [row for row in self.rows if not row[4]]

    def worst(self, name):
        return max((row[2] for row in self.rows if row[0] == name), default=float("nan"))


def tensors(dump, settings, pipeline):
    """Names and shapes that --dump promises."""
    unet, vae, g = pipeline.unet.config, pipeline.vae.config, 2 if settings.guided else 1
    c, s, f = unet.out_channels, pipeline.vae_scale_factor, settings.frames
    h, w, size = settings.height // s, settings.width // s, pipeline.image_encoder.config.image_size
    video = lambda lead, channels: (lead, f, channels, h, w)
    shapes = {
        "clip_pixels": (1, 3, size, size), "image_embeds": (1, pipeline.image_encoder.config.projection_dim),
        "vae_input": (1, 3, settings.height, settings.width), "image_latents": (1, vae.latent_channels, h, w),
        "noise": video(1, c), "sigmas": (settings.steps + 1,), "timesteps": (settings.steps,), "time_ids": (g, 3),
        "latents": video(1, c), "frames": (f, settings.height, settings.width, 3)}
    for k in range(settings.steps):
        shapes[f"latents.{k}"] = video(1, c)
        if k in (0, settings.steps - 1):
            shapes.update({f"unet_in.{k}": video(g, 2 * c), f"unet_out.{k}": video(g, c)})
    return shapes


def compare(ours, pipeline, image, settings):
    table, theirs = Table(), reference.run(pipeline, image, settings)
    shapes = tensors(ours, settings, pipeline)
    wrong = [name for name in shapes if name not in ours or tuple(ours[name].shape) != shapes[name]]
    wrong += [name for name in ours if name not in shapes and not name.startswith("file of")]
    table.add(f"names and shapes {wrong}" if wrong else "names and shapes", "wrong", len(wrong), 0)
    if wrong:
        return table
    for name in ("vae_input", "noise", "sigmas", "timesteps", "time_ids"):
        table.bits(name, ours[name], theirs[name])
    table.add("clip_pixels", "largest difference", (ours["clip_pixels"] - theirs["clip_pixels"]).abs().max(), 5e-6)
    table.near("image_embeds", ours["image_embeds"], theirs["image_embeds"], 3e-6)
    table.near("image_latents", ours["image_latents"], theirs["image_latents"], 5e-6)
    channels = ours["latents"].shape[2]
    table.bits("unet_in.0, noisy half", ours["unet_in.0"][:, :, :channels], theirs["unet_in.0"][:, :, :channels])
    table.near("latents", ours["latents"], theirs["latents"], 1.5e-5 if settings.steps > 2 else 5e-5)
    table.pixels("frames", ours["frames"], theirs["frames"])
    table.bits("latents are the last step's", ours["latents"], ours[f"latents.{settings.steps - 1}"])
    table.bits("file of --format latents", ours["file of --format latents"], ours["latents"])
    compare_own(table, ours, pipeline, settings)
    return table


def compare_own(table, ours, pipeline, settings):
    """Parts of the reference from vdpp's own tensors before them."""
    embeds = ours["image_embeds"].unsqueeze(1)
    contexts = torch.cat([torch.zeros_like(embeds), embeds]) if settings.guided else embeds
    for k in sorted({0, settings.steps - 1}):
        before = ours[f"latents.{k - 1}"] if k else ours["noise"] * pipeline.scheduler.init_noise_sigma
        x, v = ours[f"unet_in.{k}"], ours[f"unet_out.{k}"]
        table.bits(f"own unet_in.{k}", x, reference.step_input(pipeline, settings, k, before, ours["image_latents"]))
        with torch.no_grad():
            expected = pipeline.unet(x, ours["timesteps"][k], encoder_hidden_states=contexts,
                                     added_time_ids=ours["time_ids"], return_dict=False)[0]
        table.near(f"own unet_out.{k}", v, expected, 5e-6)
        table.bits(f"own latents.{k}", ours[f"latents.{k}"], reference.step_result(pipeline, settings, k, before, v))
    table.pixels("own frames", ours["frames"], reference.decode(pipeline, settings, ours["latents"]))


def compare_all(vdpp, pipeline, model, image, settings, more=()):
    return compare(run_vdpp(vdpp, model, image, settings, more), pipeline, Image.open(image).convert("RGB"), settings)


def print_table(table):
    for name, kind, value, limit, well in table.rows:
        print(f"  {name:28} {kind:24} {value:10.3g}  limit {limit:<8.2g} {'' if well else 'FAILED'}")


# ---- models and images made here ----


CROSS, PLAIN = "CrossAttn{}BlockSpatioTemporal", "{}BlockSpatioTemporal"


def unet_config(channels, down, up, heads, layers=2, depth=1, cross=64, ids=32, latent=4):
    """`down` and `up` have a letter per level: x with attention, - without."""
    kinds = lambda letters, way: [(CROSS if letter == "x" else PLAIN).format(way) for letter in letters]
    return {"_class_name": "UNetSpatioTemporalConditionModel", "block_out_channels": channels,
            "down_block_types": kinds(down, "Down"), "up_block_types": kinds(up, "Up"), "num_attention_heads": heads,
            "layers_per_block": layers, "transformer_layers_per_block": depth, "cross_attention_dim": cross,
            "addition_time_embed_dim": ids, "projection_class_embeddings_input_dim": 3 * ids,
            "in_channels": 2 * latent, "out_channels": latent, "num_frames": 4}


def vae_config(channels, layers=1, latent=4, scaling=0.18215):
    return {"_class_name": "AutoencoderKLTemporalDecoder", "block_out_channels": channels,
            "down_block_types": ["DownEncoderBlock2D"] * len(channels), "layers_per_block": layers,
            "latent_channels": latent, "scaling_factor": scaling}


def clip_config(width=64, heads=2, layers=2, patch=32, projection=64, act="gelu", hidden=96):
    return {"architectures": ["CLIPVisionModelWithProjection"], "model_type": "clip_vision_model", "hidden_act": act,
            "hidden_size": width, "intermediate_size": hidden, "num_attention_heads": heads,
            "num_hidden_layers": layers, "image_size": 224, "patch_size": patch, "projection_dim": projection}


WIDE = (unet_config([64, 128, 192, 256], "xxx-", "-xxx", [1, 2, 3, 4]), vae_config([64, 64, 128, 128], 2), clip_config())
FIVE = (unet_config([32, 32, 64, 64, 96], "x-x-x", "x-x-x", [1, 2, 1, 4, 3], 1), vae_config([32] * 4), clip_config())
FLAT = (unet_config([64], "x", "x", 4, 3, 2), vae_config([32, 64, 32, 64], 3), clip_config(act="quick_gelu", patch=16))
# These two with a tower of 224 pixels: the pipeline makes no image of another size.
TINY = ("tiny", "tiny", clip_config(32, 4, 5, 56, 32, "quick_gelu", 37))
LAST = ("last", "last", clip_config(64, 2, 2, 32, 64, "quick_gelu"))
BARE = (unet_config([32, 160], "--", "--", [2, 1]), vae_config([64, 32]), clip_config(96, 3, 1, 56, 64))


def random_configs(draw):
    """Any model within the rules of the architecture, small enough for a quick reference run."""
    levels = draw.randint(1, 4)
    channels = [32 * draw.randint(1, 5 if levels < 4 else 3) for _ in range(levels)]
    heads = [draw.choice([n for n in (1, 2, 4, 5, 8) if c % n == 0 and 4 <= c // n <= 160]) for c in channels]
    letters = lambda: "".join(draw.choice("xx-") for _ in channels)
    layers = draw.choice([1, 2, [draw.randint(1, 2) for _ in channels]])
    depth = draw.choice([1, 1, [draw.randint(1, 2) for _ in channels]])
    latent, cross = draw.choice([4, 4, 4, 2, 6]), draw.choice([16, 40, 64])
    vae = vae_config([32 * draw.randint(1, 3) for _ in range(draw.randint(1, 4))], draw.randint(1, 3), latent,
                     draw.choice([0.18215, 0.5]))
    clip = clip_config(32 * draw.randint(1, 3), draw.choice([1, 2, 4]), draw.randint(1, 3), draw.choice([14, 28, 32, 56]),
                       cross, draw.choice(["gelu", "quick_gelu"]), draw.randint(20, 150))
    return unet_config(channels, letters(), letters(), heads, layers, depth, cross, draw.randint(5, 40), latent), vae, clip


def random_settings(draw, configs):
    """At the coarsest level at least 2 x 2 pixels are left: of a single value a norm leaves only rounding."""
    unet, vae, _ = configs
    scale = 2 ** (len(vae["block_out_channels"]) - 1)
    least = -(-scale * (2 ** (len(unet["block_out_channels"]) - 1) + 1) // 8)
    side = lambda: 8 * draw.randint(max(2, least), max(6, least + 4, 12 if scale > 4 else 0))
    lowest = 1.0 if draw.random() < 0.7 else 2.5
    frames = draw.choice([1, 2, 3, 5, 7])
    highest = lowest if frames == 1 else draw.choice([1.0, 3.0, 1.7] if lowest == 1.0 else [4.0, 1.5, 2.5])
    return Settings(side(), side(), frames, draw.choice([1, 2, 3, 4, 7]), draw.getrandbits(draw.choice([4, 31, 40])),
                    (lowest, highest), draw.choice([0, 1, 2, 3]), draw.choice([7, 7, 1, 24]),
                    draw.choice([127, 1, 255, 0]), draw.choice([0.02, 0.02, 0.0, 0.3]))


def write_model(folder, configs, seed=0, dtype=torch.float32):
    """`configs`: of the UNet, the VAE and the image encoder, each a name under tests/golden/configs or itself."""
    source = folder + ".configs"
    shutil.copytree(os.path.join(GOLDEN, "configs", "tiny"), source)
    for part, config in zip(("unet", "vae", "image_encoder"), configs):
        path = os.path.join(source, part, "config.json")
        if isinstance(config, str):
            shutil.copy(os.path.join(GOLDEN, "configs", config, part, "config.json"), path)
        else:
            with open(path, "w") as file:
                json.dump(config, file)
    dummy_model.dummy_pipeline(source, seed, dtype).save_pretrained(folder)


SAMPLE = None  # the model that lies in the tree

# name: (model, weights, image size, settings, more options of vdpp)
CASES = {
    "sample": (SAMPLE, None, (256, 256), Settings(96, 96, 8, 25, 42, (1, 2)), ()),
    "sample-crowd": (SAMPLE, None, (640, 360), Settings(64, 96, 4, 10, 7), ("--gpus", 3, "--parallel", "wrap")),
    "tiny": (TINY, torch.float32, (32, 32), Settings(32, 32, 2, 2, 0, (1, 2.5)), ()),
    "tiny-25-frames": (TINY, torch.float32, (333, 200), Settings(40, 24, 25, 3, 5, chunk=7), ()),
    "tiny-50-steps": (TINY, torch.float32, (24, 40), Settings(24, 40, 3, 50, 11), ()),
    "odd": (("odd",) * 3, torch.float32, (150, 90), Settings(104, 72, 5, 4, 1, chunk=2), ()),
    "odd-half-weights": (("odd",) * 3, torch.float16, (40, 30), Settings(72, 40, 7, 3, 3, chunk=3, noise_aug=0.0), ()),
    "odd-one-frame": (("odd",) * 3, torch.float32, (104, 72), Settings(104, 72, 1, 3, 2**40 + 5, (2, 2)), ()),
    "real": (("real",) * 3, torch.float32, (1024, 576), Settings(256, 128, 7, 4, 42), ()),
    "real-25-frames": (("real",) * 3, torch.float16, (576, 1024), Settings(72, 104, 25, 3, 9, chunk=8), ()),
    "real-no-guidance": (("real",) * 3, torch.bfloat16, (900, 700), Settings(136, 72, 5, 10, 13, (1, 1), 2), ()),
    "last": (LAST, torch.float32, (64, 64), Settings(24, 16, 3, 3, 4, motion=0, fps=1), ()),
    "wide": (WIDE, torch.float32, (1920, 1080), Settings(256, 128, 7, 3, 42), ()),
    "wide-14-frames": (WIDE, torch.float16, (300, 400), Settings(96, 160, 14, 3, 8, (1, 1), 5), ()),
    "wide-odd": (WIDE, torch.float32, (100, 100), Settings(120, 88, 2, 25, 6, (3, 1.5), motion=255, fps=24), ()),
    "five": (FIVE, torch.float32, (80, 300), Settings(152, 104, 3, 3, 21), ()),
    "flat": (FLAT, torch.float32, (16, 16), Settings(80, 56, 4, 1, 22, chunk=3), ()),
    "bare": (BARE, torch.float32, (2, 9), Settings(48, 56, 5, 5, 23, chunk=4, noise_aug=0.5), ()),
}


def report(name, table):
    shown = {"embeds": "image_embeds", "mean": "image_latents", "v": "own unet_out.0", "latents": "latents"}
    figures = "  ".join(f"{short} {table.worst(long):.1e}" for short, long in shown.items())
    share = [row[2] for row in table.rows if row[1] == "share that differs"]
    print(f"{'FAILED' if table.failures() else 'ok':7}{name:18} {figures}  frames {max(share, default=9):.1e}", flush=True)
    for row in table.failures():
        print(f"       {row[0]}: {row[1]} {row[2]:.3g}, limit {row[3]:.2g}")


def run_case(vdpp, folder, name, model, dtype, size, settings, more):
    path = os.path.join(HERE, "..", "samples", "model")
    if model is not SAMPLE:
        path = os.path.join(folder, name)
        write_model(path, model, 0, dtype)
    image = os.path.join(folder, name + ".png")
    reference.photo(*size).save(image)
    try:
        table = compare_all(vdpp, reference.load(path), path, image, settings, more)
        report(name, table)
        return bool(table.failures())
    except RuntimeError as error:
        print(f"FAILED {name}: {error}")
        return True


def suite(vdpp, first_letters):
    with tempfile.TemporaryDirectory() as folder:
        chosen = {name: case for name, case in CASES.items() if name.startswith(first_letters)}
        return sum(run_case(vdpp, folder, name, *case) for name, case in chosen.items())


def at_random(vdpp, count, seed):
    failed = 0
    for number in range(seed, seed + count):
        draw = random.Random(number)
        configs = random_configs(draw)
        settings = random_settings(draw, configs)
        size = draw.randint(2, 400), draw.randint(2, 400)
        with tempfile.TemporaryDirectory() as folder:
            wrong = run_case(vdpp, folder, f"random-{number}", configs, torch.float32, size, settings, ())
        if wrong:
            print(f"       image {size}, {settings}\n       {json.dumps(configs)}")
        failed += wrong
    return failed


def main():
    words, more = sys.argv[1:], []
    if "--" in words:
        words, more = words[:words.index("--")], words[words.index("--") + 1:]
    parser = argparse.ArgumentParser(description=__doc__, add_help=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vdpp")
    parser.add_argument("model", nargs="?")
    parser.add_argument("image", nargs="?")
    parser.add_argument("--suite", nargs="?", const="", metavar="LETTERS")
    parser.add_argument("--random", type=int, metavar="COUNT")
    parser.add_argument("-W", "--width", type=int, default=96)
    parser.add_argument("-H", "--height", type=int, default=96)
    parser.add_argument("--frames", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", default="1:3")
    parser.add_argument("--decode-chunk", type=int, default=0)
    parser.add_argument("--fps", type=int, default=7)
    parser.add_argument("--motion", type=int, default=127)
    parser.add_argument("--noise-aug", type=float, default=0.02)
    given = parser.parse_args(words)
    if given.suite is not None:
        sys.exit(suite(given.vdpp, given.suite) > 0)
    if given.random:
        sys.exit(at_random(given.vdpp, given.random, given.seed) > 0)
    if not given.image:
        parser.error("a model and an image, --suite or --random")
    lowest, highest = (float(part) for part in given.guidance.split(":"))
    settings = Settings(given.width, given.height, given.frames, given.steps, given.seed, (lowest, highest),
                        given.decode_chunk, given.fps, given.motion, given.noise_aug)
    table = compare_all(given.vdpp, reference.load(given.model), given.model, given.image, settings, more)
    print_table(table)
    sys.exit(bool(table.failures()))


if __name__ == "__main__":
    main()
