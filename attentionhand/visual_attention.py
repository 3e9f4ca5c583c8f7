"""The visual attention stage (VAS): a ControlNet on the mesh image, and the UNet under its control."""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel

HINT_CHANNELS = (16, 32, 96, 256)  # of the mesh image's encoder; every next one halves the side
GUESS_DECAY = 0.825


def new_stage(unet: UNet2DConditionModel, vae: AutoencoderKL, seed: int = 0) -> ControlNetModel:
    """A VAS with the UNet's weights that changes nothing yet; its hint comes out at the latents' side.

    `seed` is that of the mesh encoder's random weights.
    """
    halvings = len(vae.config.block_out_channels) - 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=HINT_CHANNELS[: halvings + 1])


def control(
    stage: ControlNetModel,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    prompt_embeds: torch.Tensor,
    mesh: torch.Tensor,
    *,
    conditioning_scale: float = 1.0,
    guess_mode: bool = False,
    only_mid_control: bool = False,
) -> list[torch.Tensor]:
    """The residuals of the UNet's skip connections and, last, of its middle (13 for Stable Diffusion 1.x).

    Guess mode scales residual i of n by 0.825^(n - 1 - i), as released; diffusers' own is a logspace from 0.1 to 1.

    Args:
        mesh: (B, 3, H, W) in [0, 1].
    """
    down, middle = stage(latents, timesteps, prompt_embeds, mesh, return_dict=False)
    residuals = [*down, middle]
    last = len(residuals) - 1
    scales = [conditioning_scale * (GUESS_DECAY ** (last - i) if guess_mode else 1) for i in range(last + 1)]
    if only_mid_control:
        scales[:-1] = [0.0] * last
    return [residual * scale for residual, scale in zip(residuals, scales)]


def controlled_noise(
    unet: UNet2DConditionModel, latents, timesteps, prompt_embeds, residuals: list[torch.Tensor]
) -> torch.Tensor:
    """The UNet's noise prediction (B, C, h, w) under control."""
    return unet(
        latents,
        timesteps,
        encoder_hidden_states=prompt_embeds,
        down_block_additional_residuals=tuple(residuals[:-1]),
        mid_block_additional_residual=residuals[-1],
    ).sample


def view_loss(unet, stage, latents, timesteps, prompt_embeds, mesh, noise, **options) -> torch.Tensor:
    """Mean squared error of the predicted noise of one view, (B,)."""
    residuals = control(stage, latents, timesteps, prompt_embeds, mesh, **options)
    noise_pred = controlled_noise(unet, latents, timesteps, prompt_embeds, residuals)
    return F.mse_loss(noise_pred.float(), noise.float(), reduction="none").mean(dim=(1, 2, 3))
