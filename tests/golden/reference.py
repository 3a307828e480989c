"""The reference pipeline, run so that its tensors can be compared with those of `vdpp --dump`: fp32 on the CPU, every
GroupNorm input made contiguous (torch's kernel for channels-last tensors is inaccurate), draws from torch.manual_seed.

Run with diffusers 0.36.0, transformers 4.57.6, torch 2.11.0 on a CPU with AVX2.
"""

import contextlib
from dataclasses import dataclass

import diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion as svd
import numpy
import torch
from diffusers import StableVideoDiffusionPipeline
from diffusers.utils import logging
from PIL import Image


@dataclass
class Settings:
    width: int
    height: int
    frames: int
    steps: int = 3
    seed: int = 0
    guidance: tuple = (1.0, 3.0)
    chunk: int = 0  # frames decoded at once; 0: all
    fps: int = 7
    motion: int = 127
    noise_aug: float = 0.02

    @property
    def guided(self):
        return self.guidance[1] > 1


def photo(width, height, seed=0, grain=12):
    """Smooth shapes, edges and grain, so that resizing has something to get wrong."""
    y, x = numpy.mgrid[0:height, 0:width] / max(width, height)
    channels = [numpy.sin(9 * x * (i + 1) + 4 * y) * 70 + 60 * ((x * 3 + y * (i + 2)) % 1 > 0.5) + 90 for i in range(3)]
    pixels = numpy.stack(channels, -1) + numpy.random.default_rng(seed).normal(0, grain, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype("uint8"))


def prepare(pipeline):
    """A pipeline as the comparisons need it: networks in fp32, GroupNorm inputs contiguous."""
    pipeline.to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for network in (pipeline.unet, pipeline.vae, pipeline.image_encoder):
        for module in network.modules():
            if isinstance(module, torch.nn.GroupNorm):
                module.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    return pipeline


def load(folder):
    logging.disable_progress_bar()
    return prepare(StableVideoDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32))


@contextlib.contextmanager
def captured(pipeline, settings):
    """A dictionary that fills with the tensors of the dump while the pipeline runs."""
    found, draws, step = {}, [], [0]
    at_ends = lambda: step[0] in (0, settings.steps - 1)

    def draw(*arguments, **keywords):
        draws.append(svd_randn(*arguments, **keywords))
        found["noise"] = draws[-1]  # the second of two
        return draws[-1]

    def before_unet(_, inputs, keywords):
        found["time_ids"] = keywords["added_time_ids"]
        if at_ends():
            found[f"unet_in.{step[0]}"] = inputs[0].clone()

    def after_unet(_, inputs, output):
        if at_ends():
            found[f"unet_out.{step[0]}"] = output[0]
        step[0] += 1

    svd_randn = svd.randn_tensor
    hooks = [
        pipeline.image_encoder.register_forward_pre_hook(lambda _, inputs: found.update(clip_pixels=inputs[0])),
        pipeline.image_encoder.register_forward_hook(
            lambda _, inputs, output: found.update(image_embeds=output.image_embeds)),
        pipeline.vae.encoder.register_forward_pre_hook(lambda _, inputs: found.update(vae_input=inputs[0])),
        pipeline.vae.quant_conv.register_forward_hook(
            lambda _, inputs, moments: found.update(image_latents=moments.chunk(2, dim=1)[0])),
        pipeline.unet.register_forward_pre_hook(before_unet, with_kwargs=True),
        pipeline.unet.register_forward_hook(after_unet),
    ]
    svd.randn_tensor = draw
    try:
        yield found
    finally:
        svd.randn_tensor = svd_randn
        for hook in hooks:
            hook.remove()


def run(pipeline, image, settings):
    """{name: tensor} of one video from a PIL image, as --dump names them."""

    def after_step(_, k, timestep, tensors):
        found[f"latents.{k}"] = tensors["latents"]
        return tensors

    with captured(pipeline, settings) as found:
        frames = pipeline(
            image, settings.height, settings.width, num_frames=settings.frames, num_inference_steps=settings.steps,
            min_guidance_scale=settings.guidance[0], max_guidance_scale=settings.guidance[1], fps=settings.fps,
            motion_bucket_id=settings.motion, noise_aug_strength=settings.noise_aug,
            decode_chunk_size=settings.chunk or None, generator=torch.manual_seed(settings.seed),
            callback_on_step_end=after_step, output_type="pil").frames[0]
    found["frames"] = torch.from_numpy(numpy.stack([numpy.asarray(frame) for frame in frames]))
    found["sigmas"], found["timesteps"] = pipeline.scheduler.sigmas, pipeline.scheduler.timesteps
    found["latents"] = found[f"latents.{settings.steps - 1}"]
    return {name: tensor.contiguous() for name, tensor in found.items()}


def scheduler_at(pipeline, settings, step):
    """The scheduler's tables for these settings, about to take step number `step`."""
    pipeline.scheduler.set_timesteps(settings.steps)
    pipeline.scheduler._step_index = step
    return pipeline.scheduler


def step_input(pipeline, settings, step, latents, image_latents):
    """What the UNet is given in a step that starts from `latents`."""
    scaled = scheduler_at(pipeline, settings, step).scale_model_input(latents, pipeline.scheduler.timesteps[step])
    image = image_latents.unsqueeze(1).expand_as(scaled)
    images = [torch.zeros_like(image), image] if settings.guided else [image]
    return torch.cat([torch.cat([scaled, half], 2) for half in images])


def step_result(pipeline, settings, step, latents, v):
    """Guidance and Euler: the latents after a step in which the UNet answered `v`."""
    if settings.guided:
        scale = torch.linspace(*settings.guidance, settings.frames).reshape(1, -1, 1, 1, 1)
        unconditional, conditional = v.chunk(2)
        v = unconditional + scale * (conditional - unconditional)
    scheduler = scheduler_at(pipeline, settings, step)
    return scheduler.step(v, scheduler.timesteps[step], latents).prev_sample


def decode(pipeline, settings, latents):
    """Frames as [F,H,W,3] bytes."""
    with torch.no_grad():
        video = pipeline.decode_latents(latents, settings.frames, settings.chunk or settings.frames)
    frames = pipeline.video_processor.postprocess_video(video=video, output_type="pil")[0]
    return torch.from_numpy(numpy.stack([numpy.asarray(frame) for frame in frames]))
