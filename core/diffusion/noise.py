"""Noise: the forward noise schedule, the loss of predicting it, and where random numbers come from."""

from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, StableDiffusionPipeline

Scheduler = TypeVar("Scheduler", DDPMScheduler, DDIMScheduler)


def noise_loss(noise_pred: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """||noise - noise_pred||², the mean over each sample's values: (B,) float32 of two (B, C, h, w).

    The denoising loss of latent diffusion (Rombach et al. 2022, equation 2), which both papers train with.
    """
    return F.mse_loss(noise_pred.float(), noise.float(), reduction="none").mean(dim=(1, 2, 3))


def with_offset(noise: torch.Tensor, noise_offset: float | None, generator: torch.Generator) -> torch.Tensor:
    """The noise (B, C, h, w) with `noise_offset` times another normal number added to each channel.

    A model that learns to remove it takes the colours of large areas from the text rather than from the little that the
    last timestep leaves of the picture (Guttenberg 2023, and diffusers' examples). 0 or None draws nothing.
    """
    if not noise_offset:
        return noise
    return noise + noise_offset * torch.randn((*noise.shape[:2], 1, 1), generator=generator)


def training_scheduler(pipe: StableDiffusionPipeline) -> DDPMScheduler:
    """The model's forward noise schedule (released: scaled_linear from 0.00085 to 0.012 over 1,000 steps)."""
    return with_exact_alphas(DDPMScheduler.from_config(pipe.scheduler.config))


def ddim_scheduler(pipe: StableDiffusionPipeline) -> DDIMScheduler:
    """The released sampler on the model's own noise schedule: 45 steps are t = 969, 947, ..., 23, 1."""
    scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config,
        timestep_spacing="leading",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
        thresholding=False,
        rescale_betas_zero_snr=False,
    )
    return with_exact_alphas(scheduler)


def with_exact_alphas(scheduler: Scheduler) -> Scheduler:
    """CompVis accumulates the noise schedule in float64 and rounds once; diffusers' float32 is up to 1e-6 off that."""
    config = scheduler.config
    power = {"linear": 1, "scaled_linear": 2}.get(config.beta_schedule)
    if power and config.trained_betas is None:
        root = 1 / power
        betas = np.linspace(config.beta_start**root, config.beta_end**root, config.num_train_timesteps) ** power
        scheduler.alphas_cumprod = torch.from_numpy(np.cumprod(1 - betas)).float()
        scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    return scheduler


def copied(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on the device. A GPU fetches it from pinned memory by itself, while the CPU continues."""
    if device.type != "cuda":
        return tensor.to(device)
    with torch.cuda.device(device):  # a thread begins on the first GPU, which may be another process's
        return tensor.pin_memory().to(device, non_blocking=True)


def derived_seed(*parts: int) -> int:
    """A seed for one item of a run: independent streams from (run seed, purpose, index)."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
