"""The noise prediction of AttentionHand's sampling, for core.diffusion.sampling.ddim, as the released inference has it.

denoise = controlled_denoiser(pipe.unet, stage, prompt_embeds, negative_embeds, mesh)
latents = ddim(denoise, ddim_scheduler(pipe), start_noise(seed, shape), num_inference_steps=20)
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from attentionhand.text_attention import excite
from attentionhand.visual_attention import control, controlled_noise
from core.diffusion.sampling import Denoise, guided


def controlled_denoiser(
    unet: UNet2DConditionModel,
    stage: ControlNetModel,
    prompt_embeds: torch.Tensor,
    negative_prompt_embeds: torch.Tensor,
    mesh: torch.Tensor,
    *,
    guidance_scale: float = 9.0,
    strength: float = 1.0,
    guess_mode: bool = False,
    only_mid_control: bool = False,
) -> Denoise:
    """A function (latents, timestep) -> predicted noise (B, C, h, w), under control and with guidance.

    Args:
        prompt_embeds: (B, 77, hidden); `negative_prompt_embeds` (1, 77, hidden).
        mesh: (B, 3, H, W) in [0, 1].
        strength: multiplies all residuals.
        guess_mode: the pass without the text gets no control, and shallow residuals count less than deep ones.
    """
    prompt_embeds, mesh = prompt_embeds.to(unet.device), mesh.to(unet.device)
    both_embeds = torch.cat([negative_prompt_embeds.to(unet.device).expand_as(prompt_embeds), prompt_embeds])
    both_meshes = torch.cat([mesh] * 2)
    options: dict[str, Any] = {"strength": strength, "only_mid_control": only_mid_control}

    def denoise(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        twice = torch.cat([latents] * 2)  # without the text, then with it
        if guess_mode:
            residuals = control(stage, latents, timestep, prompt_embeds, mesh, guess_mode=True, **options)
            residuals = [torch.cat([torch.zeros_like(one), one]) for one in residuals]
        else:
            residuals = control(stage, twice, timestep, both_embeds, both_meshes, **options)
        return guided(controlled_noise(unet, twice, timestep, both_embeds, residuals), guidance_scale)

    return denoise


def exciter(
    unet: UNet2DConditionModel, prompt_embeds: torch.Tensor, positions: Sequence[Sequence[int]], *, steps: int
) -> Denoise:
    """A function (latents, timestep) -> latents after the text attention stage, for ddim's `before_step`."""
    prompt_embeds = prompt_embeds.to(unet.device)

    def before_step(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return excite(unet, latents, timestep.expand(len(latents)), prompt_embeds, positions, steps=steps)

    return before_step
