"""AttentionHand's sampling, as the released inference has it: `draw` makes pictures of a batch of meshes and texts."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

from attentionhand.text_attention import excite
from attentionhand.visual_attention import control, controlled_noise, takes_encoded_meshes
from core.diffusion.noise import ddim_scheduler
from core.diffusion.sampling import Denoise, ddim, decode, guided


def draw(
    pipe: StableDiffusionPipeline,
    stage: ControlNetModel,
    prompt_embeds: torch.Tensor,
    negative_prompt_embeds: torch.Tensor,
    mesh: torch.Tensor,
    noise: torch.Tensor,
    *,
    num_inference_steps: int = 20,
    before_step: Denoise | None = None,
    after_step: Callable[[], object] = lambda: None,
    **control_options: Any,
) -> list[Image.Image]:
    """Pictures of a batch of mesh images and texts, by DDIM.

    Args:
        prompt_embeds: (B, 77, hidden); `negative_prompt_embeds` (1, 77, hidden).
        mesh: (B, 3, H, W) in [0, 1].
        noise: (B, C, h, w), what to start from.
        before_step: an `exciter`, where the text attention stage is wanted.
        after_step: called after each step, such as a progress bar's update.
        control_options: of `controlled_denoiser`.
    """
    denoise = controlled_denoiser(pipe.unet, stage, prompt_embeds, negative_prompt_embeds, mesh, **control_options)
    latents = ddim(
        denoise,
        ddim_scheduler(pipe),
        noise.to(pipe.unet.device),
        num_inference_steps=num_inference_steps,
        before_step=before_step,
        after_step=after_step,
    )
    with torch.autocast(latents.device.type, enabled=False):
        return decode(pipe.vae, latents.float())


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

    The mesh image is encoded once, here, and not in every step.

    Args:
        prompt_embeds: (B, 77, hidden); `negative_prompt_embeds` (1, 77, hidden).
        mesh: (B, 3, H, W) in [0, 1].
        strength: multiplies all residuals.
        guess_mode: the pass without the text gets no control, and shallow residuals count less than deep ones.
    """
    prompt_embeds = prompt_embeds.to(unet.device)
    both_embeds = torch.cat([negative_prompt_embeds.to(unet.device).expand_as(prompt_embeds), prompt_embeds])
    with torch.no_grad():
        code = stage.controlnet_cond_embedding(mesh.to(unet.device))  # the same in every step
    both_codes = torch.cat([code] * 2)
    options: dict[str, Any] = {"strength": strength, "only_mid_control": only_mid_control}

    def denoise(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        twice = torch.cat([latents] * 2)  # without the text, then with it
        with takes_encoded_meshes(stage):
            if guess_mode:
                residuals = control(stage, latents, timestep, prompt_embeds, code, guess_mode=True, **options)
                residuals = [torch.cat([torch.zeros_like(one), one]) for one in residuals]
            else:
                residuals = control(stage, twice, timestep, both_embeds, both_codes, **options)
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
