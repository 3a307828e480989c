"""Models with random weights, equal bit for bit to those of src/model/dummy.c (its header has the rule).

    dummy_model.py save CONFIGS FOLDER [--seed N] [--dtype float32|float16|bfloat16]
        a folder that StableVideoDiffusionPipeline.from_pretrained loads
    dummy_model.py compare CONFIGS FOLDER [--seed N] [--dtype T]
        says whether FOLDER, written by C, holds the same tensors, and loads it with strict names
    dummy_model.py inventory CONFIGS... > tests/golden/inventory.txt
        names and shapes as the reference has them: per component the number of tensors, of parameters, and a sum

Run with diffusers 0.36.0, transformers 4.57.6, torch 2.11.0 on a CPU with AVX2.
"""

import argparse
import math
import os
import sys
import zlib

import torch
from diffusers import (AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, StableVideoDiffusionPipeline,
                       UNetSpatioTemporalConditionModel)
from safetensors.torch import load_file
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection


def networks(configs, device="cpu"):
    """[(name, network)] in the order of the component numbers; on "meta" without memory."""
    path = lambda part: os.path.join(configs, part)
    with torch.device(device):
        unet = UNetSpatioTemporalConditionModel.from_config(
            UNetSpatioTemporalConditionModel.load_config(path("unet")))
        vae = AutoencoderKLTemporalDecoder.from_config(AutoencoderKLTemporalDecoder.load_config(path("vae")))
        clip = CLIPVisionModelWithProjection(CLIPVisionConfig.from_pretrained(path("image_encoder")))
    return [("unet", unet.eval()), ("vae", vae.eval()), ("image_encoder", clip.eval())]


def gain_and_offset(name, shape):
    if name.endswith("mix_factor"):
        return 1.0, 0.0
    if name.endswith(("class_embedding", "position_embedding.weight", ".bias")):
        return 0.1, 0.0
    if len(shape) == 1:
        return 0.1, 1.0
    return 1.0 / math.sqrt(math.prod(shape[1:])), 0.0


def random_state(network, seed, dtype):
    """A state dict of random values for the names and shapes of `network`."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name in sorted(shapes):
        gain, offset = gain_and_offset(name, shapes[name])
        state[name] = (torch.randn(shapes[name], generator=generator) * gain + offset).to(dtype)
    return state


def dummy_networks(configs, seed=0, dtype=torch.float32):
    """{name: network} with the dummy weights, for programs that compare with the reference."""
    made = {}
    for component, (name, network) in enumerate(networks(configs)):
        network = network.to(dtype)
        network.load_state_dict(random_state(network, seed + component, dtype), strict=True)
        made[name] = network
    return made


def dummy_pipeline(configs, seed=0, dtype=torch.float32):
    return StableVideoDiffusionPipeline(
        scheduler=EulerDiscreteScheduler.from_pretrained(os.path.join(configs, "scheduler")),
        feature_extractor=CLIPImageProcessor.from_pretrained(os.path.join(configs, "feature_extractor")),
        **dummy_networks(configs, seed, dtype))


def weight_file(folder, name):
    stem = "model" if name == "image_encoder" else "diffusion_pytorch_model"
    return os.path.join(folder, name, stem + ".safetensors")


def compare(configs, folder, seed, dtype):
    equal = True
    for component, (name, network) in enumerate(networks(configs)):
        expected = random_state(network, seed + component, dtype)
        found = load_file(weight_file(folder, name))
        network.to(dtype).load_state_dict(found, strict=True)
        different = [key for key in expected
                     if not torch.equal(expected[key].view(torch.uint8), found[key].view(torch.uint8))]
        equal = equal and not different
        print(f"{name}: {len(found)} tensors, {len(different)} differ {different[:3]}")
    StableVideoDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype)
    print("the pipeline loads")
    return equal


def inventory(configs):
    for name, network in networks(configs, "meta"):
        shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
        lines = "".join(f"{key} {list(shapes[key])}\n" for key in sorted(shapes))
        parameters = sum(math.prod(shape) for shape in shapes.values())
        label = os.path.basename(os.path.normpath(configs))
        print(label, name, len(shapes), parameters, f"{zlib.crc32(lines.encode()):08x}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["save", "compare", "inventory"])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    if arguments.action == "inventory":
        for configs in arguments.folders:
            inventory(configs)
    elif arguments.action == "save":
        dummy_pipeline(arguments.folders[0], arguments.seed, dtype).save_pretrained(arguments.folders[1])
    else:
        sys.exit(0 if compare(*arguments.folders, arguments.seed, dtype) else 1)


if __name__ == "__main__":
    main()
