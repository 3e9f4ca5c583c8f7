"""Stage II and Stage III of Hand1000, each as one short function, and the loss of both.

`optimise_text_embedding`     paper, section "Stage II: Text Embedding Optimization"
`finetune_stable_diffusion`   paper, section "Stage III: Stable Diffusion Fine-tuning"

hand1000/schedules.py runs them over all photos; hand1000/draws.py draws their random numbers. Both stages take photos
and draws that are on the UNet's device already, and leave their losses there: a GPU never waits for the CPU in between.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler

from core.diffusion.noise import copied, noise_loss
from hand1000.draws import Draw


class Photos(NamedTuple):
    """Encoded photos: all of a run, or those of one step."""

    names: list[str]
    latents: torch.Tensor  # (N, 4, h, w)
    prompt_embeds: torch.Tensor  # (N, 77, hidden), the double-fused embeddings

    def take(self, places: Sequence[int]) -> "Photos":
        chosen = list(places)
        return Photos([self.names[place] for place in chosen], self.latents[chosen], self.prompt_embeds[chosen])

    def to(self, device: torch.device) -> "Photos":
        return Photos(self.names, copied(self.latents, device), copied(self.prompt_embeds, device))


class Denoiser(NamedTuple):
    """The UNet as it is called in training, with its noise schedule and its arithmetic."""

    unet: torch.nn.Module  # compiled or shared by several processes, where asked for
    weights: Sequence[torch.nn.Parameter]  # θ, what Stage III trains: all of the UNet's, or a LoRA's
    noise_scheduler: DDPMScheduler
    accelerator: Accelerator  # device and precision
    scaler: torch.amp.GradScaler  # leaves everything as it is unless training runs in fp16


def optimise_text_embedding(
    denoiser: Denoiser, photos: Photos, draws: Iterable[Draw], lr: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stage II (paper, "Stage II: Text Embedding Optimization"): min over e of ||ε - ε_θ(z_t, t, e)||².

    e starts as the double-fused embedding; the UNet θ is frozen.

    One step of Adam for each draw of ε and t; released: 10 steps at 1e-3. Any number of photos at once: Adam works on
    each value by itself and the losses are summed, so that every photo is optimised as if alone (but in fp16 an
    overflow skips the step of the whole batch).

    Returns:
        The optimised embeddings (B, 77, hidden), and the losses (steps, B).
    """
    set_trainable(denoiser.weights, False)
    prompt_embeds = photos.prompt_embeds.clone().requires_grad_()
    optimizer = torch.optim.Adam([prompt_embeds], lr=lr)
    losses = []
    for draw in draws:
        loss = denoising_loss(denoiser, photos.latents, prompt_embeds, draw)
        take_step(loss.sum(), optimizer, denoiser.scaler)
        losses.append(loss.detach())
    return prompt_embeds.detach(), stacked(losses, prompt_embeds)


def finetune_stable_diffusion(
    denoiser: Denoiser, optimizer: torch.optim.Optimizer, photos: Photos, draws: Iterable[Draw]
) -> torch.Tensor:
    """Stage III (paper, "Stage III: Stable Diffusion Fine-tuning"): min over θ of ||ε - ε_θ(z_t, t, e)||².

    θ are the UNet's weights, or those of its LoRA; the optimised embedding e is frozen.

    One step for each draw of ε and t; released: 20 steps per photo at 1e-6.

    Returns:
        The losses (steps, B).
    """
    set_trainable(denoiser.weights, True)
    losses = []
    for draw in draws:
        loss = denoising_loss(denoiser, photos.latents, photos.prompt_embeds, draw)
        take_step(loss.mean(), optimizer, denoiser.scaler)
        losses.append(loss.detach())
    return stacked(losses, photos.prompt_embeds)


def denoising_loss(denoiser: Denoiser, latents: torch.Tensor, prompt_embeds: torch.Tensor, draw: Draw) -> torch.Tensor:
    """||ε - ε_θ(z_t, t, e)||² of both stages, the mean over each photo's values: (B,).

    z_t are the latents (B, 4, h, w) with the noise ε of timestep t added; e are the embeddings (B, 77, hidden). No
    guidance, and no caption is dropped.
    """
    noisy_latents = denoiser.noise_scheduler.add_noise(latents, draw.noise, draw.timesteps)
    with denoiser.accelerator.autocast():
        noise_pred = denoiser.unet(noisy_latents, draw.timesteps, prompt_embeds).sample
    return noise_loss(noise_pred, draw.noise)


def set_trainable(weights: Sequence[torch.nn.Parameter], wanted: bool) -> None:
    for weight in weights:
        weight.requires_grad_(wanted)


def take_step(loss: torch.Tensor, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    """Backward pass, one step of the optimiser, and gradients cleared."""
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()


def stacked(losses: list[torch.Tensor], prompt_embeds: torch.Tensor) -> torch.Tensor:
    """(steps, B), also where a stage is left out (0 steps)."""
    return torch.stack(losses) if losses else prompt_embeds.new_zeros(0, len(prompt_embeds))
