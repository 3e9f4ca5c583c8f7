"""Sampling: DDIM with classifier-free guidance, as both papers' released code samples, and pictures of latents."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from PIL import Image

from core.runs.errors import UserError
from core.runs.files import atomic_file

Denoise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (latents, timestep) -> the noise predicted in them


def start_noise(seed: int, latent_shape: Sequence[int]) -> torch.Tensor:
    """Noise of the given shape: the first draw of a CPU generator, so that every device starts from the same."""
    return torch.randn(tuple(latent_shape), generator=torch.Generator().manual_seed(seed))


def guided(noise_pred: torch.Tensor, guidance_scale: float) -> torch.Tensor:
    """Classifier-free guidance (Ho and Salimans 2022): ε(∅) + s (ε(text) - ε(∅)), float32.

    Args:
        noise_pred: (2B, C, h, w), the predictions without the text, then those with it.
    """
    unconditional, conditional = noise_pred.float().chunk(2)
    return unconditional + guidance_scale * (conditional - unconditional)


@torch.no_grad()
def ddim(
    denoise: Denoise,
    scheduler: DDIMScheduler,
    latents: torch.Tensor,
    *,
    num_inference_steps: int,
    before_step: Denoise | None = None,
    after_step: Callable[[], object] = lambda: None,
) -> torch.Tensor:
    """DDIM (Song et al. 2021, eta 0) from noise (B, C, h, w) to final latents, float32.

    Args:
        denoise: gives the predicted noise (B, C, h, w), guidance included, of latents at a timestep (0-dim tensor).
        before_step: moves the latents before each step, such as the text attention stage.
        after_step: called after each step, such as a progress bar's update.

    Raises:
        UserError: the latents became NaN or infinite.
    """
    scheduler.set_timesteps(num_inference_steps)
    for timestep in scheduler.timesteps.to(latents.device):
        if before_step:
            latents = before_step(latents, timestep)
        latents = scheduler.step(denoise(latents, timestep), timestep, latents).prev_sample
        after_step()
    if not latents.isfinite().all():
        raise UserError("the pictures became NaN; lower --guidance_scale, or use bf16 instead of fp16")
    return latents


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: torch.Tensor) -> list[Image.Image]:
    """Pictures of latents, one by one (less memory). To uint8 by truncation as released, where diffusers rounds."""
    pictures = []
    for one in latents.split(1):
        pixels = vae.decode(one.to(vae.dtype) / vae.config.scaling_factor).sample.float()
        pixels = 255 * ((pixels[0] + 1) / 2).clamp(0, 1)  # (3, height, width)
        pictures.append(Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy().astype(np.uint8)))
    return pictures


def save_picture(picture: Image.Image, path: Path, image_size: int = 0) -> None:
    """Resize to image_size x image_size (bicubic; 0 keeps) and write in the format of the name's ending, atomically."""
    if image_size:
        picture = picture.resize((image_size, image_size), Image.Resampling.BICUBIC)
    with atomic_file(path) as temporary:
        picture.save(temporary, format=Image.registered_extensions()[path.suffix.lower()])
