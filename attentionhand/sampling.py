"""Sampling under control: DDIM with classifier-free guidance as the released `inference.py` does it."""

from typing import Any

import torch
from diffusers import ControlNetModel, StableDiffusionPipeline
from PIL import Image

from attentionhand.visual_attention import control, controlled_noise
from core.diffusion.stable_diffusion import ddim_scheduler
from hand1000.generation import decode


@torch.no_grad()
def sample_latents(
    pipe: StableDiffusionPipeline,
    stage: ControlNetModel,
    latents: torch.Tensor,
    prompt_embeds: torch.Tensor,
    negative_prompt_embeds: torch.Tensor,
    mesh: torch.Tensor,
    *,
    num_inference_steps: int = 20,
    guidance_scale: float = 9.0,
    strength: float = 1.0,
    guess_mode: bool = False,
    only_mid_control: bool = False,
    after_step=lambda: None,
    before_step=lambda latents, timestep: latents,
) -> torch.Tensor:
    """DDIM (eta 0; 20 steps are t = 951, 901, ..., 1) from noise (B, C, h, w) to final latents.

    Args:
        prompt_embeds: (B, 77, hidden); `negative_prompt_embeds` (1, 77, hidden).
        mesh: (B, 3, H, W) in [0, 1].
        strength: multiplies all residuals.
        guess_mode: the unconditional pass gets no control, and deep residuals count more than shallow ones.
        before_step: moves the latents before each step, such as the text attention stage.
    """
    unet, device = pipe.unet, pipe.unet.device
    latents, prompt_embeds, mesh = latents.to(device), prompt_embeds.to(device), mesh.to(device)
    negative = negative_prompt_embeds.to(device).expand_as(prompt_embeds)
    scheduler = ddim_scheduler(pipe)
    scheduler.set_timesteps(num_inference_steps)
    options: dict[str, Any] = {
        "conditioning_scale": strength,
        "guess_mode": guess_mode,
        "only_mid_control": only_mid_control,
    }
    for timestep in scheduler.timesteps.to(device):
        latents = before_step(latents, timestep)
        if guess_mode:
            residuals = control(stage, latents, timestep, prompt_embeds, mesh, **options)
            residuals = [torch.cat([torch.zeros_like(one), one]) for one in residuals]
        else:
            twice = torch.cat([negative, prompt_embeds])
            residuals = control(stage, torch.cat([latents] * 2), timestep, twice, torch.cat([mesh] * 2), **options)
        noise_pred = controlled_noise(
            unet, torch.cat([latents] * 2), timestep, torch.cat([negative, prompt_embeds]), residuals
        )
        unconditional, conditional = noise_pred.float().chunk(2)
        noise_pred = unconditional + guidance_scale * (conditional - unconditional)
        latents = scheduler.step(noise_pred, timestep, latents).prev_sample
        after_step()
    return latents


def start_noise(seed: int, count: int, pipe: StableDiffusionPipeline, height: int, width: int) -> torch.Tensor:
    """(count, C, h, w) on the CPU: the first draw after `torch.manual_seed(seed)`, the same on every device."""
    factor = pipe.vae_scale_factor
    shape = (count, pipe.unet.config.in_channels, height // factor, width // factor)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sample_pictures(
    pipe, stage, prompt_embeds, negative_prompt_embeds, mesh: torch.Tensor, *, seed: int, **options
) -> list[Image.Image]:
    """One picture for each mesh (B, 3, H, W), to uint8 by truncation as released."""
    latents = start_noise(seed, len(mesh), pipe, *mesh.shape[-2:])
    return decode(
        pipe.vae, sample_latents(pipe, stage, latents, prompt_embeds, negative_prompt_embeds, mesh, **options)
    )
