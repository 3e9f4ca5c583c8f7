"""The visual attention stage (VAS): a ControlNet on the mesh image, and AttentionHand's whole loss.

Paper, section 3.3 (conditioning phase). One training step is

    noise = draw_noise(seed, step, shape)                               all random numbers of the step
    views = noisy_views(vae, noise_scheduler, pair, noise, ...)         the global and the local view, noised
    views = excite_views(tas_unet, views, ...)                          the text attention stage (text_attention.py)
    losses = attentionhand_loss(unet, stage, timesteps, embeds, *views)
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDPMScheduler, T2IAdapter, UNet2DConditionModel

from attentionhand.adapter import adapted
from attentionhand.data import ViewPair
from core.diffusion.encoding import posterior_sample
from core.diffusion.noise import derived_seed, noise_loss

HINT_CHANNELS = (16, 32, 96, 256)  # of the mesh image's encoder; each one after the first halves the side
GUESS_DECAY = 0.825


# The noised views


class ViewNoise(NamedTuple):
    """A view's random numbers, (B, C, h, w) each."""

    posterior: torch.Tensor  # for the sample of the VAE's posterior
    noise: torch.Tensor  # epsilon


class StepNoise(NamedTuple):
    """All random numbers of a training step."""

    timesteps: torch.Tensor  # (B,), uniform in 0 to 999, the same for both views
    global_view: ViewNoise
    local_view: ViewNoise


class NoisyView(NamedTuple):
    """A batch of one view as the UNet meets it."""

    latents: torch.Tensor  # z_t, (B, C, h, w)
    mesh: torch.Tensor  # (B, 3, H, W) in [0, 1]
    noise: torch.Tensor  # epsilon, (B, C, h, w), that was added
    positions: Sequence[Sequence[int]]  # the CLIP positions that the text attention stage excites, for each sample


def draw_noise(
    seed: int, step: int, shape: Sequence[int], own: slice = slice(None), device: torch.device | str = "cpu"
) -> StepNoise:
    """The random numbers of a step, a function of seed and step alone, drawn on the CPU for every device alike.

    Args:
        shape: (B, C, h, w) of the whole batch's latents, that of all processes.
        own: the part of the batch that this process works on.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, 1, step))
    timesteps = torch.randint(1000, (shape[0],), generator=generator)
    drawn = [torch.randn(tuple(shape), generator=generator)[own].to(device) for _ in range(4)]
    return StepNoise(timesteps[own].to(device), ViewNoise(*drawn[:2]), ViewNoise(*drawn[2:]))


def noisy_views(
    vae: AutoencoderKL,
    noise_scheduler: DDPMScheduler,
    pair: ViewPair,
    noise: StepNoise,
    global_positions: Sequence[Sequence[int]],
    local_positions: Sequence[Sequence[int]],
    *,
    local_view: str = "paper",
) -> list[NoisyView]:
    """z_t = sqrt(a_t) z_0 + sqrt(1 - a_t) epsilon of the global view and, after it, of the local one.

    Args:
        pair: a batch of both views, on the VAE's device like the noise.
        local_view: "paper" noises the local view's own latents, "released" the global ones; "none" leaves the local
            view out, "only" the global one.
    """

    def noised(clean: torch.Tensor, own: ViewNoise, mesh: torch.Tensor, positions) -> NoisyView:
        latents = noise_scheduler.add_noise(clean, own.noise, noise.timesteps)
        return NoisyView(latents, mesh, own.noise, positions)

    views = []
    if local_view != "only":
        clean = posterior_sample(vae, pair.global_view.rgb, noise.global_view.posterior)
        views.append(noised(clean, noise.global_view, pair.global_view.mesh, global_positions))
    if local_view in ("paper", "only"):
        clean = posterior_sample(vae, pair.local_view.rgb, noise.local_view.posterior)
    if local_view != "none":
        views.append(noised(clean, noise.local_view, pair.local_view.mesh, local_positions))
    return views


# The stage


def new_stage(unet: UNet2DConditionModel, vae: AutoencoderKL, seed: int = 0) -> ControlNetModel:
    """A visual attention stage with the UNet's weights, which changes nothing before it is trained.

    Its encoding of the mesh image has the latents' side. `seed` is that of the encoder's random weights.
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
    strength: float = 1.0,
    guess_mode: bool = False,
    only_mid_control: bool = False,
) -> list[torch.Tensor]:
    """The residuals of the UNet's skip connections and, last, of its middle (13 for Stable Diffusion 1.x).

    Args:
        mesh: (B, 3, H, W) in [0, 1].
        strength: multiplies all residuals.
        guess_mode: also scales residual i of n by 0.825^(n - 1 - i), as released; diffusers has a logspace instead.
        only_mid_control: the middle's residual alone; the others are 0.
    """
    down, middle = stage(latents, timesteps, prompt_embeds, mesh, return_dict=False)
    residuals = [*down, middle]
    last = len(residuals) - 1
    scales = [strength * (GUESS_DECAY ** (last - i) if guess_mode else 1) for i in range(last + 1)]
    if only_mid_control:
        scales[:-1] = [0.0] * last
    return [residual * scale for residual, scale in zip(residuals, scales)]


@contextlib.contextmanager
def takes_encoded_meshes(stage: ControlNetModel) -> Iterator[None]:
    """During the block the stage is given mesh images that `stage.controlnet_cond_embedding` has already encoded."""
    encoder = stage.controlnet_cond_embedding
    stage.controlnet_cond_embedding = torch.nn.Identity()
    try:
        yield
    finally:
        stage.controlnet_cond_embedding = encoder


def controlled_noise(
    unet: UNet2DConditionModel,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    prompt_embeds: torch.Tensor,
    residuals: Sequence[torch.Tensor],
) -> torch.Tensor:
    """The UNet's noise prediction (B, C, h, w) under control."""
    return unet(
        latents,
        timesteps,
        encoder_hidden_states=prompt_embeds,
        down_block_additional_residuals=tuple(residuals[:-1]),
        mid_block_additional_residual=residuals[-1],
    ).sample


def predicted_noise(
    unet: UNet2DConditionModel,
    stage: ControlNetModel | T2IAdapter,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    prompt_embeds: torch.Tensor,
    mesh: torch.Tensor,
    *,
    only_mid_control: bool = False,
) -> torch.Tensor:
    """The noise prediction (B, C, h, w) under the control of a ControlNet, or of the baseline's adapter."""
    if isinstance(stage, T2IAdapter):
        with adapted(unet, stage(mesh)):
            return unet(latents, timesteps, encoder_hidden_states=prompt_embeds).sample
    residuals = control(stage, latents, timesteps, prompt_embeds, mesh, only_mid_control=only_mid_control)
    return controlled_noise(unet, latents, timesteps, prompt_embeds, residuals)


# The loss


class Losses(NamedTuple):
    """AttentionHand's loss and its two halves, means over the batch."""

    total: torch.Tensor
    global_view: torch.Tensor  # of the first view, which is the local one where there is no other
    local_view: torch.Tensor | None  # None where there is one view only


def attentionhand_loss(
    unet: UNet2DConditionModel,
    stage: ControlNetModel | T2IAdapter,
    timesteps: torch.Tensor,
    prompt_embeds: torch.Tensor,
    global_view: NoisyView,
    local_view: NoisyView | None = None,
    *,
    only_mid_control: bool = False,
) -> Losses:
    """AttentionHand's training loss (paper, section 3.3): half the global and half the local view's noise loss.

        L = 1/2 E ||eps_g - eps_theta(z_t^g, t, c, m_g)||^2 + 1/2 E ||eps_l - eps_theta(z_t^l, t, c, m_l)||^2

    z_t are the noisy latents after the text attention stage, eps the noise in them, t the timestep and c the text's
    embedding, both shared by the views, m the mesh image. Without a local view the loss is the global one. Training
    back-propagates the two halves one after the other, which gives the same gradient for half the memory.
    """
    views = [view for view in (global_view, local_view) if view is not None]
    losses = [
        view_loss(unet, stage, timesteps, prompt_embeds, view, only_mid_control=only_mid_control) for view in views
    ]
    return Losses(torch.stack(losses).mean(), losses[0], losses[1] if len(losses) > 1 else None)


def view_loss(
    unet: UNet2DConditionModel,
    stage: ControlNetModel | T2IAdapter,
    timesteps: torch.Tensor,
    prompt_embeds: torch.Tensor,
    view: NoisyView,
    *,
    only_mid_control: bool = False,
) -> torch.Tensor:
    """E ||eps - eps_theta(z_t, t, c, m)||^2 of one view, the mean over the batch."""
    noise_pred = predicted_noise(
        unet, stage, view.latents, timesteps, prompt_embeds, view.mesh, only_mid_control=only_mid_control
    )
    return noise_loss(noise_pred, view.noise).mean()
