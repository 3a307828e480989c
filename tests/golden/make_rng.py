"""Writes rng.json, torch's normal draws on the CPU as hashes (base/hash.h): python tests/golden/make_rng.py

Needs torch 2.11 on an x86-64 CPU with AVX2. Each stream is one generator, drawn from in the order listed: draws below
16 elements take the double path and its cached half, the others the 16-block path, with a tail unless a multiple of 16.
"""
import json
import pathlib
import random

import numpy as np
import torch

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
COUNTS = [*range(1, 18), 20, 33, 100000]


def mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def hash64(data):
    words = np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.uint64)
    index = np.arange(len(words), dtype=np.uint64) << np.uint64(32)
    total = int(mix(index + words).sum(dtype=np.uint64))
    return (total + int(mix(np.array([(0xFFFFFFFF << 32) + len(data)], np.uint64))[0])) % 2**64


def draw(generator, kind, count):
    values = torch.randn(count, generator=generator, dtype=TYPES[kind])
    raw = values.view(torch.int32 if kind == "f32" else torch.int16).numpy().tobytes()
    return [kind, count, f"{hash64(raw):016x}"]


def stream(seed, order):
    generator = torch.Generator("cpu").manual_seed(seed)
    return {"seed": seed, "draws": [draw(generator, kind, count) for kind, count in order]}


shuffled = [(kind, count) for kind in TYPES for count in COUNTS]
random.Random(1).shuffle(shuffled)
streams = [stream(seed, [(kind, count) for count in COUNTS]) for seed, kind in ((0, "f32"), (42, "f16"), (7, "bf16"))]
streams += [stream(seed, shuffled) for seed in (42, 2**32 + 5, -1)]
text = ",\n".join(json.dumps(s) for s in streams)
pathlib.Path(__file__).with_name("rng.json").write_text(f'{{"torch": "{torch.__version__}", "streams": [\n{text}\n]}}\n')
