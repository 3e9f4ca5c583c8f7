"""Stages II and III of Hand1000 (paper, sections "Text embedding optimization" and "Fine-tuning").

Stage II optimises a photo's double-fused embedding under the denoising loss with the UNet frozen; Stage III
fine-tunes the UNet under the same loss with the embedding frozen. Two schedules run them:

`train_interleaved`  photo by photo, as the released code does: the UNet goes from one photo on to the next.
`train_staged`       the paper's order: Stage II for all photos, then Stage III, in batches and on several processes.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import UNet2DConditionModel

from core.runs.errors import UserError
from core.runs.processes import progress

EMBEDDING, FINETUNE = "embedding", "finetune"  # the stages' names in losses.csv


@dataclass(frozen=True)
class Hyperparameters:
    """The defaults are the released constants."""

    embedding_steps: int = 10  # Stage II steps a photo
    embedding_lr: float = 1e-3
    finetune_steps: int = 20  # Stage III steps a photo
    finetune_lr: float = 1e-6
    train_batch_size: int = 1  # photos a step on each process; the interleaved schedule takes them one by one
    use_8bit_adam: bool = False
    seed: int = 0


@dataclass
class TrainingState:
    """How far training has come. With the UNet's weights, all that a checkpoint needs to go on with the same bits."""

    stage: str = EMBEDDING  # the stage that `done` counts in (the interleaved schedule has only one count)
    done: int = 0  # photos finished; in the staged schedule's Stage III, steps finished
    photos: int = 0  # the work done in photos, both stages counted: what checkpoints are numbered by
    losses: list[tuple[str, str, int, float]] = field(default_factory=list)  # image, stage, step, loss
    prompt_embeds: list[torch.Tensor] = field(default_factory=list)  # (77, hidden) each: optimised, staged only
    optimizer_state: dict | None = None  # staged schedule's Stage III only
    scaler_state: dict | None = None  # fp16 only

    def add_losses(self, names: Sequence[str], stage: str, step: int, losses: torch.Tensor) -> None:
        """One row for each photo of a step; `losses` is (B,)."""
        for name, loss in zip(names, losses.tolist(), strict=True):
            if not math.isfinite(loss):
                raise UserError(
                    f"the loss became {loss} at {name}; lower the learning rates or use bf16 instead of fp16"
                )
            self.losses.append((name, stage, step, loss))


class TrainingSet(NamedTuple):
    """All photos of a run, encoded, on the CPU."""

    names: list[str]
    latents: torch.Tensor  # (N, 4, h, w)
    prompt_embeds: torch.Tensor  # (N, 77, hidden), double-fused


class Draw(NamedTuple):
    """The random numbers of one step."""

    noise: torch.Tensor  # (B, 4, h, w)
    timesteps: torch.Tensor  # (B,)


Loss = Callable[..., torch.Tensor]  # (latents, noise, timesteps, prompt_embeds) -> (B,)
Save = Callable[[TrainingState], None]  # called after every photo or step; writes a checkpoint when one is due


# The loss, and one step of either stage


def denoising_loss(
    accelerator: Accelerator,
    unet: torch.nn.Module,
    noise_scheduler,
    latents: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    prompt_embeds: torch.Tensor,
) -> torch.Tensor:
    """||noise - UNet(noised latents, t, embedding)||^2, the mean over each photo's values: (B,).

    latents and noise (B, 4, h, w), timesteps (B,) from 0 to 999, prompt_embeds (B, 77, hidden). No guidance, no
    caption dropout.
    """
    device = accelerator.device
    latents, noise, timesteps = latents.to(device), noise.to(device), timesteps.to(device)
    noisy_latents = noise_scheduler.add_noise(latents, noise, timesteps)
    with accelerator.autocast():
        noise_pred = unet(noisy_latents, timesteps, prompt_embeds.to(device)).sample
    return F.mse_loss(noise_pred.float(), noise, reduction="none").mean(dim=(1, 2, 3))


def take_step(loss: torch.Tensor, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    """One optimiser step; the scaler passes everything through unless training runs in fp16."""
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()


def optimise_embedding(
    loss_of: Loss,
    scaler: torch.amp.GradScaler,
    latents: torch.Tensor,
    prompt_embeds: torch.Tensor,
    draws: Sequence[Draw],
    lr: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stage II: the double-fused embedding, optimised for one step on each draw with the UNet frozen.

    Any number of photos at once: Adam works on each value by itself and the losses are summed, so that every photo
    is optimised as if alone (in fp16, an overflow skips the step of the whole batch). `prompt_embeds` (B, 77, hidden)
    must be on the training device.

    Returns:
        The embeddings (B, 77, hidden) and the losses (steps, B).
    """
    prompt_embeds = prompt_embeds.clone().requires_grad_()
    optimizer = torch.optim.Adam([prompt_embeds], lr=lr)
    losses = []
    for noise, timesteps in draws:
        loss = loss_of(latents, noise, timesteps, prompt_embeds)
        take_step(loss.sum(), optimizer, scaler)
        losses.append(loss.detach())
    return prompt_embeds.detach(), stack_losses(losses, prompt_embeds)


def finetune_unet(
    loss_of: Loss,
    scaler: torch.amp.GradScaler,
    optimizer: torch.optim.Optimizer,
    latents: torch.Tensor,
    prompt_embeds: torch.Tensor,
    draws: Sequence[Draw],
) -> torch.Tensor:
    """Stage III: one step of the UNet's optimiser on each draw with the embedding frozen. Returns losses (steps, B)."""
    losses = []
    for noise, timesteps in draws:
        loss = loss_of(latents, noise, timesteps, prompt_embeds)
        take_step(loss.mean(), optimizer, scaler)
        losses.append(loss.detach())
    return stack_losses(losses, prompt_embeds)


def stack_losses(losses: list[torch.Tensor], prompt_embeds: torch.Tensor) -> torch.Tensor:
    """(steps, B), also where a stage is left out (0 steps)."""
    return torch.stack(losses) if losses else prompt_embeds.new_zeros(0, len(prompt_embeds))


def unet_optimizer(unet: UNet2DConditionModel, params: Hyperparameters) -> torch.optim.Optimizer:
    """Adam (not AdamW) over all UNet weights, as released."""
    if params.use_8bit_adam:
        from bitsandbytes.optim import Adam8bit

        return Adam8bit(unet.parameters(), lr=params.finetune_lr)
    return torch.optim.Adam(unet.parameters(), lr=params.finetune_lr)


# Random numbers: always drawn on the CPU, so that every device sees the same ones


class PhotoDraws(NamedTuple):
    """The random numbers of one photo."""

    embedding: list[Draw]
    finetune: list[Draw]


def draw(generator: torch.Generator, latent_shape: Sequence[int]) -> Draw:
    """One photo's noise, then its timestep, uniform in 0 to 999."""
    noise = torch.randn(latent_shape, generator=generator)
    return Draw(noise, torch.randint(1000, (1,), generator=generator))


def posterior_noise(seed: int, latent_shape: Sequence[int]) -> torch.Tensor:
    """A photo's first random numbers, (1, 4, h, w): for the sample of the VAE's posterior."""
    return torch.randn(latent_shape, generator=torch.Generator().manual_seed(seed))


def photo_draws(seed: int, latent_shape: Sequence[int], params: Hyperparameters) -> PhotoDraws:
    """The random numbers of a photo's steps in the released order; `latent_shape` is (1, 4, h, w).

    The released code seeds anew for every photo, so that all photos see the same 30 noises and timesteps.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.randn(latent_shape, generator=generator)  # `posterior_noise`, used when the photo is encoded
    torch.randn(latent_shape, generator=generator)  # the released code draws this one and never uses it
    embedding = [draw(generator, latent_shape) for _ in range(params.embedding_steps)]
    finetune = [draw(generator, latent_shape) for _ in range(params.finetune_steps)]
    return PhotoDraws(embedding, finetune)


def derived_seed(*parts: int) -> int:
    """A seed for one item of a run: independent streams from (run seed, purpose, index)."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def staged_photo_seed(seed: int, index: int) -> int:
    """The staged schedule gives every photo its own numbers; they depend on the photo, not on its batch."""
    return derived_seed(seed, 0, index)


def batch_draws(draws: Sequence[Draw]) -> Draw:
    return Draw(torch.cat([one.noise for one in draws]), torch.cat([one.timesteps for one in draws]))


# The two schedules


def train_interleaved(
    accelerator: Accelerator,
    unet: UNet2DConditionModel,
    make_loss: Callable[[torch.nn.Module], Loss],
    data: TrainingSet,
    params: Hyperparameters,
    state: TrainingState,
    save: Save,
) -> None:
    """The released order: for each photo Stage II, then Stage III with a new Adam, on to the next with the new UNet.

    Changes `unet` and `state` in place; starts at `state.done`.
    """
    loss_of, draws = make_loss(unet), photo_draws(params.seed, (1, *data.latents.shape[1:]), params)
    scaler = gradient_scaler(accelerator, state)
    for index in training_bar(range(state.done, len(data.names)), len(data.names), "photo"):
        name, latents = data.names[index : index + 1], data.latents[index : index + 1]
        prompt_embeds = data.prompt_embeds[index : index + 1].to(accelerator.device)

        unet.requires_grad_(False)
        prompt_embeds, embedding_losses = optimise_embedding(
            loss_of, scaler, latents, prompt_embeds, draws.embedding, params.embedding_lr
        )
        unet.requires_grad_(True)
        optimizer = unet_optimizer(unet, params)
        finetune_losses = finetune_unet(loss_of, scaler, optimizer, latents, prompt_embeds, draws.finetune)

        for stage, losses in ((EMBEDDING, embedding_losses), (FINETUNE, finetune_losses)):
            for step, loss in enumerate(losses.cpu()):
                state.add_losses(name, stage, step, loss)
            accelerator.log({f"{stage}_loss": losses.mean().item()}, step=index)
        state.done = state.photos = index + 1
        state.scaler_state = scaler.state_dict()
        save(state)


def train_staged(
    accelerator: Accelerator,
    unet: UNet2DConditionModel,
    make_loss: Callable[[torch.nn.Module], Loss],
    data: TrainingSet,
    params: Hyperparameters,
    state: TrainingState,
    save: Save,
) -> None:
    """The paper's order: Stage II for all photos with the base UNet, then Stage III over all of them, shuffled.

    Every global batch is the same whatever the number of processes, each of which takes its share of it. Changes
    `unet` and `state` in place; starts where `state` says.
    """
    if state.stage == EMBEDDING:
        unet.requires_grad_(False)
        optimise_all_embeddings(accelerator, make_loss(unet), data, params, state, save)
        # Each process has its own fp16 loss scale here, and all must have the same one in Stage III.
        state.stage, state.done, state.scaler_state = FINETUNE, 0, None
    unet.requires_grad_(True)
    model = accelerator.prepare_model(unet) if accelerator.num_processes > 1 else unet
    finetune_on_all(accelerator, unet, make_loss(model), data, params, state, save)


def optimise_all_embeddings(
    accelerator: Accelerator,
    loss_of: Loss,
    data: TrainingSet,
    params: Hyperparameters,
    state: TrainingState,
    save: Save,
) -> None:
    """Stage II of the staged schedule: fills `state.prompt_embeds`, one global batch after the other."""
    scaler = gradient_scaler(accelerator, state)
    count, global_batch = len(data.names), params.train_batch_size * accelerator.num_processes
    latent_shape = (1, *data.latents.shape[1:])
    starts = range(state.done, count, global_batch)
    for start in training_bar(starts, math.ceil(count / global_batch), "batch"):
        batch = list(range(start, min(start + global_batch, count)))
        # The last batch may not go round: processes without a photo of their own repeat one, which is cut off below.
        padded = [batch[i % len(batch)] for i in range(global_batch)]
        mine = own_share(padded, accelerator)
        seeds = [staged_photo_seed(params.seed, index) for index in mine]
        draws = [photo_draws(seed, latent_shape, params).embedding for seed in seeds]
        prompt_embeds, losses = optimise_embedding(
            loss_of,
            scaler,
            data.latents[mine],
            data.prompt_embeds[mine].to(accelerator.device),
            [batch_draws(step) for step in zip(*draws, strict=True)],
            params.embedding_lr,
        )
        prompt_embeds = accelerator.gather(prompt_embeds)[: len(batch)].cpu()
        losses = accelerator.gather(losses.T.contiguous())[: len(batch)].cpu()  # (batch, steps)
        for index, photo_losses in zip(batch, losses, strict=True):
            for step, loss in enumerate(photo_losses[:, None]):
                state.add_losses([data.names[index]], EMBEDDING, step, loss)
        accelerator.log({"embedding_loss": losses.mean().item()}, step=start)
        state.prompt_embeds += list(prompt_embeds)
        state.done = state.photos = start + len(batch)
        state.scaler_state = scaler.state_dict()
        save(state)


def finetune_on_all(
    accelerator: Accelerator,
    unet: UNet2DConditionModel,
    loss_of: Loss,
    data: TrainingSet,
    params: Hyperparameters,
    state: TrainingState,
    save: Save,
) -> None:
    """Stage III of the staged schedule: one optimiser, `finetune_steps` passes over the shuffled photos."""
    scaler = gradient_scaler(accelerator, state)
    count, global_batch = len(data.names), params.train_batch_size * accelerator.num_processes
    latent_shape = (1, *data.latents.shape[1:])
    all_prompt_embeds = torch.stack(state.prompt_embeds)
    total_steps = math.ceil(params.finetune_steps * count / global_batch)
    optimizer = unet_optimizer(unet, params)
    if state.optimizer_state:
        optimizer.load_state_dict(state.optimizer_state)
    for step in training_bar(range(state.done, total_steps), total_steps, "step"):
        places = range(step * global_batch, (step + 1) * global_batch)  # in the endless row of shuffled passes
        mine = own_share(places, accelerator)
        photos = [shuffled_photo(place, count, params.seed) for place in mine]
        draws = [stage_three_draw(params.seed, place, latent_shape) for place in mine]
        losses = finetune_unet(
            loss_of, scaler, optimizer, data.latents[photos], all_prompt_embeds[photos], [batch_draws(draws)]
        )
        losses = accelerator.gather(losses[0]).cpu()
        names = [data.names[shuffled_photo(place, count, params.seed)] for place in places]
        state.add_losses(names, FINETUNE, step, losses)
        accelerator.log({"finetune_loss": losses.mean().item()}, step=count + step)
        state.done, state.photos = step + 1, count + (step + 1) * global_batch // params.finetune_steps
        state.scaler_state, state.optimizer_state = scaler.state_dict(), optimizer.state_dict()
        save(state)


def own_share(items: Sequence[int], accelerator: Accelerator) -> list[int]:
    """This process's part of a global batch; `accelerator.gather` puts the parts together in the same order."""
    size = len(items) // accelerator.num_processes
    return list(items[accelerator.process_index * size : (accelerator.process_index + 1) * size])


def shuffled_photo(place: int, count: int, seed: int) -> int:
    """The photo at a place in the endless row of passes over `count` photos, each pass newly shuffled."""
    return _shuffle(place // count, count, seed)[place % count]


def stage_three_draw(seed: int, place: int, latent_shape: Sequence[int]) -> Draw:
    """The noise and timestep of a place in that row."""
    return draw(torch.Generator().manual_seed(derived_seed(seed, 2, place)), latent_shape)


@functools.lru_cache(maxsize=2)
def _shuffle(epoch: int, count: int, seed: int) -> list[int]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(derived_seed(seed, 1, epoch))).tolist()


def gradient_scaler(accelerator: Accelerator, state: TrainingState) -> torch.amp.GradScaler:
    scaler = torch.amp.GradScaler(accelerator.device.type, enabled=accelerator.mixed_precision == "fp16")
    if state.scaler_state:
        scaler.load_state_dict(state.scaler_state)
    return scaler


def training_bar(steps: range, total: int, unit: str):
    """A bar over the steps that are left of `total`."""
    return progress(steps, initial=total - len(steps), total=total, desc="Training", unit=unit)
