"""AttentionHand's sampling, as the released inference has it: `draw` makes pictures of a batch of meshes and texts."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import ControlNetModel, StableDiffusionPipeline, T2IAdapter, UNet2DConditionModel
from PIL import Image

from attentionhand.adapter import adapted
from attentionhand.text_attention import excite
from attentionhand.visual_attention import control, controlled_noise, takes_encoded_meshes
from core.diffusion.noise import ddim_scheduler
from core.diffusion.sampling import Denoise, ddim, decode, guided


def draw(
    pipe: StableDiffusionPipeline,
    stage: ControlNetModel | Sequence[ControlNetModel] | T2IAdapter | None,
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
        stage: what controls them: a visual attention stage or several, a baseline's adapter, or nothing but the text.
        prompt_embeds: (B, 77, hidden); `negative_prompt_embeds` (1, 77, hidden).
        mesh: (B, 3, H, W) in [0, 1].
        noise: (B, C, h, w), what to start from.
        before_step: an `exciter`, where the text attention stage is wanted.
        after_step: called after each step, such as a progress bar's update.
        control_options: of `controlled_denoiser`, or `adapted_denoiser`.
    """
    embeds = prompt_embeds, negative_prompt_embeds
    if stage is None or isinstance(stage, T2IAdapter):
        denoise = adapted_denoiser(pipe.unet, stage, *embeds, mesh, **control_options)
    else:
        denoise = controlled_denoiser(pipe.unet, stage, *embeds, mesh, **control_options)
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
    stage: ControlNetModel | Sequence[ControlNetModel],
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
        stage: of several, such as one trained on each view, the mean of their residuals is taken.
        prompt_embeds: (B, 77, hidden); `negative_prompt_embeds` (1, 77, hidden).
        mesh: (B, 3, H, W) in [0, 1].
        strength: multiplies all residuals.
        guess_mode: the pass without the text gets no control, and shallow residuals count less than deep ones.
    """
    prompt_embeds = prompt_embeds.to(unet.device)
    both_embeds = torch.cat([negative_prompt_embeds.to(unet.device).expand_as(prompt_embeds), prompt_embeds])
    stages = [stage] if isinstance(stage, ControlNetModel) else list(stage)
    with torch.no_grad():
        codes = [one.controlnet_cond_embedding(mesh.to(unet.device)) for one in stages]  # the same in every step
    options: dict[str, Any] = {"strength": strength, "only_mid_control": only_mid_control}

    def residuals_of(one: ControlNetModel, code, latents, timestep) -> list[torch.Tensor]:
        with takes_encoded_meshes(one):
            if guess_mode:
                residuals = control(one, latents, timestep, prompt_embeds, code, guess_mode=True, **options)
                return [torch.cat([torch.zeros_like(residual), residual]) for residual in residuals]
            return control(one, torch.cat([latents] * 2), timestep, both_embeds, torch.cat([code] * 2), **options)

    def denoise(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        of_stages = [residuals_of(one, code, latents, timestep) for one, code in zip(stages, codes)]
        residuals = [torch.stack(same).mean(dim=0) for same in zip(*of_stages)] if len(stages) > 1 else of_stages[0]
        twice = torch.cat([latents] * 2)  # without the text, then with it
        return guided(controlled_noise(unet, twice, timestep, both_embeds, residuals), guidance_scale)

    return denoise


def adapted_denoiser(
    unet: UNet2DConditionModel,
    adapter: T2IAdapter | None,
    prompt_embeds: torch.Tensor,
    negative_prompt_embeds: torch.Tensor,
    mesh: torch.Tensor,
    *,
    guidance_scale: float = 9.0,
    strength: float = 1.0,
) -> Denoise:
    """As `controlled_denoiser`, for the baselines: under the control of an adapter, or of the text alone (None)."""
    prompt_embeds = prompt_embeds.to(unet.device)
    both_embeds = torch.cat([negative_prompt_embeds.to(unet.device).expand_as(prompt_embeds), prompt_embeds])
    features: list[torch.Tensor] = []
    if adapter is not None:
        with torch.no_grad():
            features = [strength * torch.cat([feature] * 2) for feature in adapter(mesh.to(unet.device))]

    def denoise(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        with adapted(unet, features) if features else contextlib.nullcontext():
            noise_pred = unet(torch.cat([latents] * 2), timestep, encoder_hidden_states=both_embeds).sample
        return guided(noise_pred, guidance_scale)

    return denoise


def exciter(
    unet: UNet2DConditionModel, prompt_embeds: torch.Tensor, positions: Sequence[Sequence[int]], *, steps: int
) -> Denoise:
    """A function (latents, timestep) -> latents after the text attention stage, for ddim's `before_step`."""
    prompt_embeds = prompt_embeds.to(unet.device)

    def before_step(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return excite(unet, latents, timestep.expand(len(latents)), prompt_embeds, positions, steps=steps)

    return before_step
