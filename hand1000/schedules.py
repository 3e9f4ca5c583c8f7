"""The two orders in which Stage II and Stage III (hand1000/stages.py) run over all photos.

`train_interleaved`   photo by photo, as the released code does: each photo's Stage III changes the UNet for the next.
`train_staged`        as the paper describes: Stage II for all photos, then Stage III, in batches, on several processes.

Both are loops that yield the state of training after each photo or step, so that the caller can save it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from torch.optim.lr_scheduler import LRScheduler

from core.runs.errors import UserError
from core.runs.processes import made_ahead, progress
from hand1000.draws import Draw, joined, photo_draws, photo_seed, place_draw, shuffled_photo
from hand1000.hyperparameters import STAGED, Hyperparameters
from hand1000.lora import trained_weights
from hand1000.stages import Denoiser, Photos, finetune_stable_diffusion, optimise_text_embedding, set_trainable

EMBEDDING, FINETUNE = "embedding", "finetune"  # the stages' names in losses.csv
BOTH = "both"  # the interleaved schedule's only stage

Item = TypeVar("Item")


@dataclass
class TrainingState:
    """How far training has come. With the UNet's weights, all that is needed to continue with the same bits."""

    stage: str  # BOTH in the interleaved schedule; EMBEDDING, then FINETUNE in the staged one
    done: int = 0  # photos finished in this stage; in FINETUNE the steps
    photos: int = 0  # the work done in photos, see `photos_of_work`
    losses: list[tuple[str, str, int, float]] = field(default_factory=list)  # rows of LOSS_COLUMNS
    prompt_embeds: list[torch.Tensor] = field(default_factory=list)  # (77, hidden) each: optimised; staged only
    optimizer_state: dict | None = None  # FINETUNE only
    scaler_state: dict | None = None  # of fp16's loss scale; empty in other precisions

    def add_losses(self, names: Sequence[str], stage: str, losses: torch.Tensor, first_step: int = 0) -> None:
        """A row for each photo and step of `losses` (steps, B).

        Raises:
            UserError: a loss is not a finite number.
        """
        for name, photo_losses in zip(names, losses.T.tolist(), strict=True):
            for step, loss in enumerate(photo_losses, start=first_step):
                if not math.isfinite(loss):
                    raise UserError(
                        f"the loss became {loss} at {name}; lower the learning rates or use bf16 instead of fp16"
                    )
                self.losses.append((name, stage, step, loss))


def stages_of(params: Hyperparameters) -> tuple[str, ...]:
    """What `TrainingState.stage` can be."""
    return (EMBEDDING, FINETUNE) if params.schedule == STAGED else (BOTH,)


def first_state(params: Hyperparameters) -> TrainingState:
    """Of a training that has not begun."""
    return TrainingState(stages_of(params)[0])


def train(
    accelerator: Accelerator,
    unet: UNet2DConditionModel,
    noise_scheduler: DDPMScheduler,
    photos: Photos,
    params: Hyperparameters,
    state: TrainingState,
) -> Iterator[TrainingState]:
    """Stage II and Stage III over all photos, in the order that `params.schedule` names.

    Args:
        unet: in float32, on the accelerator's device; changed in place.
        photos: all of the run, on the CPU.
        state: where to begin; changed in place, and yielded after each photo or batch.

    Raises:
        UserError: a loss is not a finite number.
    """
    schedule = train_staged if params.schedule == STAGED else train_interleaved
    yield from schedule(accelerator, unet, noise_scheduler, photos, params, state)


def train_interleaved(
    accelerator: Accelerator,
    unet: UNet2DConditionModel,
    noise_scheduler: DDPMScheduler,
    photos: Photos,
    params: Hyperparameters,
    state: TrainingState,
) -> Iterator[TrainingState]:
    """The released order: for each photo Stage II, then Stage III with a new Adam, and on with the changed UNet."""
    denoiser = denoiser_of(unet, noise_scheduler, accelerator, params, state)
    optimizer, count = unet_optimizer(denoiser.weights, params), len(photos.names)
    draws = photo_draws(
        params.seed,
        latent_shape(photos),
        embedding_steps=params.embedding_steps,
        finetune_steps=params.finetune_steps,
        noise_offset=params.noise_offset,
    )  # the same for every photo
    stage_two, stage_three = ([draw.to(accelerator.device) for draw in stage] for stage in draws[1:])
    to_do = (photos.take([index]).to(accelerator.device) for index in range(state.done, count))
    for photo in training_bar(made_ahead(to_do), state.done, count, "photo"):
        prompt_embeds, embedding_losses = optimise_text_embedding(denoiser, photo, stage_two, params.embedding_lr)
        begin_anew(optimizer, params)
        finetune_losses = finetune_stable_diffusion(
            denoiser, optimizer, photo._replace(prompt_embeds=prompt_embeds), stage_three
        )
        for stage, losses in ((EMBEDDING, embedding_losses), (FINETUNE, finetune_losses)):
            state.add_losses(photo.names, stage, losses)
            accelerator.log({f"{stage}_loss": losses.mean().item()}, step=state.done)
        state.done = state.photos = state.done + 1
        state.scaler_state = denoiser.scaler.state_dict()
        yield state


def train_staged(
    accelerator: Accelerator,
    unet: UNet2DConditionModel,
    noise_scheduler: DDPMScheduler,
    photos: Photos,
    params: Hyperparameters,
    state: TrainingState,
) -> Iterator[TrainingState]:
    """The paper's order: Stage II for all photos with the base UNet, then Stage III over all of them, shuffled.

    Every global batch is the same whatever the number of processes, each of which takes its share of it.
    """
    if state.stage == EMBEDDING:
        denoiser = denoiser_of(unet, noise_scheduler, accelerator, params, state)
        yield from stage_two_of_all(denoiser, photos, params, state)
        # Each process has its own fp16 loss scale here, and all must have the same one in Stage III.
        state.stage, state.done, state.scaler_state = FINETUNE, 0, None
    # Before the UNet is shared out: only weights that are trained are kept equal.
    set_trainable(list(trained_weights(unet).values()), True)
    model = accelerator.prepare_model(unet) if accelerator.num_processes > 1 else unet
    denoiser = denoiser_of(model, noise_scheduler, accelerator, params, state)
    yield from stage_three_of_all(denoiser, unet_optimizer(denoiser.weights, params), photos, params, state)


def stage_two_of_all(
    denoiser: Denoiser, photos: Photos, params: Hyperparameters, state: TrainingState
) -> Iterator[TrainingState]:
    """Stage II of the staged schedule: fills `state.prompt_embeds`, one global batch after the other."""
    accelerator, count, size = denoiser.accelerator, len(photos.names), params.global_batch_size
    batches = (range(start, min(start + size, count)) for start in range(state.done, count, size))
    to_do = ((batch, *stage_two_share(batch, photos, params, accelerator)) for batch in batches)
    for batch, chosen, draws in training_bar(made_ahead(to_do), state.done // size, math.ceil(count / size), "batch"):
        prompt_embeds, losses = optimise_text_embedding(denoiser, chosen, draws, params.embedding_lr)
        losses = accelerator.gather(losses.T.contiguous())[: len(batch)].cpu().T  # (steps, batch)
        state.prompt_embeds += list(accelerator.gather(prompt_embeds)[: len(batch)].cpu())
        state.add_losses([photos.names[photo] for photo in batch], EMBEDDING, losses)
        accelerator.log({"embedding_loss": losses.mean().item()}, step=batch.start)
        state.done = state.photos = batch.stop
        state.scaler_state = denoiser.scaler.state_dict()
        yield state


def stage_two_share(
    batch: Sequence[int], photos: Photos, params: Hyperparameters, accelerator: Accelerator
) -> tuple[Photos, list[Draw]]:
    """This process's photos of a global batch, and the draws of all their steps, on its device.

    The last batch may be too small for all processes: they repeat some of it, which the caller cuts off.
    """
    mine = own_share([batch[place % len(batch)] for place in range(params.global_batch_size)], accelerator)
    draws = [
        photo_draws(
            photo_seed(params, photo),
            latent_shape(photos),
            embedding_steps=params.embedding_steps,
            noise_offset=params.noise_offset,
        ).stage_two
        for photo in mine
    ]
    steps = [joined(step).to(accelerator.device) for step in zip(*draws, strict=True)]
    return photos.take(mine).to(accelerator.device), steps


def stage_three_of_all(
    denoiser: Denoiser,
    optimizer: torch.optim.Optimizer,
    photos: Photos,
    params: Hyperparameters,
    state: TrainingState,
) -> Iterator[TrainingState]:
    """Stage III of the staged schedule: one optimiser, `finetune_steps` passes over the shuffled photos.

    Yields, and reads the losses, after the work of a photo: reading them is all that a GPU has to wait for.
    """
    accelerator, count = denoiser.accelerator, len(photos.names)
    photos = photos._replace(prompt_embeds=torch.stack(state.prompt_embeds))
    if state.optimizer_state:
        optimizer.load_state_dict(state.optimizer_state)
    total, unread = stage_three_steps(count, params), []
    lr_scheduler = lr_scheduler_of(optimizer, params, total, state.done)
    to_do = (stage_three_share(step, photos, params, accelerator) for step in range(state.done, total))
    for step, (names, chosen, draw) in enumerate(
        training_bar(made_ahead(to_do), state.done, total, "step"), start=state.done
    ):
        losses = finetune_stable_diffusion(denoiser, optimizer, chosen, [draw])  # (1, share of the batch)
        if lr_scheduler:
            lr_scheduler.step()
        unread.append((step, names, losses))
        work = photos_of_work(FINETUNE, step + 1, count, params)
        if work == state.photos and step + 1 < total:
            continue
        for its_step, names, losses in unread:
            losses = accelerator.gather(losses[0]).cpu()[None]  # (1, batch)
            state.add_losses(names, FINETUNE, losses, first_step=its_step)
            accelerator.log({"finetune_loss": losses.mean().item()}, step=count + its_step)
        unread.clear()
        state.done, state.photos = step + 1, work
        state.scaler_state, state.optimizer_state = denoiser.scaler.state_dict(), optimizer.state_dict()
        yield state


def stage_three_share(
    step: int, photos: Photos, params: Hyperparameters, accelerator: Accelerator
) -> tuple[list[str], Photos, Draw]:
    """The names of a step's global batch; and this process's photos of it with their draws, on its device."""
    places = range(step * params.global_batch_size, (step + 1) * params.global_batch_size)  # in the shuffled passes
    batch = {place: shuffled_photo(params.seed, place, len(photos.names)) for place in places}
    mine = own_share(places, accelerator)
    draw = joined([place_draw(params.seed, place, latent_shape(photos), params.noise_offset) for place in mine])
    chosen = photos.take([batch[place] for place in mine])
    names = [photos.names[photo] for photo in batch.values()]
    return names, chosen.to(accelerator.device), draw.to(accelerator.device)


def stage_three_steps(count: int, params: Hyperparameters) -> int:
    """How many steps the staged schedule's Stage III takes for `count` photos."""
    return math.ceil(params.finetune_steps * count / params.global_batch_size)


def photos_of_work(stage: str, done: int, count: int, params: Hyperparameters) -> int:
    """The work done in photos, both stages of the staged schedule counted: what checkpoints are numbered by."""
    return done if stage != FINETUNE else count + done * params.global_batch_size // params.finetune_steps


def own_share(batch: Sequence[int], accelerator: Accelerator) -> list[int]:
    """This process's part of a global batch; `accelerator.gather` puts the parts together in the same order."""
    size = len(batch) // accelerator.num_processes
    return list(batch[accelerator.process_index * size : (accelerator.process_index + 1) * size])


def latent_shape(photos: Photos) -> tuple[int, ...]:
    """Of one photo: (1, 4, h, w)."""
    return (1, *photos.latents.shape[1:])


def denoiser_of(
    unet: torch.nn.Module,
    noise_scheduler: DDPMScheduler,
    accelerator: Accelerator,
    params: Hyperparameters,
    state: TrainingState,
) -> Denoiser:
    """Everything that both stages need of a UNet."""
    weights, scaler = list(trained_weights(unet).values()), gradient_scaler(accelerator, state)
    return Denoiser(prepared(unet, params), weights, noise_scheduler, accelerator, scaler)


def prepared(unet: torch.nn.Module, params: Hyperparameters) -> torch.nn.Module:
    """The UNet as it is called in training."""
    if params.channels_last:
        unet.to(memory_format=torch.channels_last)
    return torch.compile(unet, mode=params.compile) if params.compile else unet


def unet_optimizer(weights: Sequence[torch.nn.Parameter], params: Hyperparameters) -> torch.optim.Optimizer:
    """Adam (not AdamW) over all weights that Stage III trains, as released, its arithmetic in one kernel."""
    if params.use_8bit_adam:
        from bitsandbytes.optim import Adam8bit

        return Adam8bit(weights, lr=params.finetune_lr)
    return torch.optim.Adam(weights, lr=params.finetune_lr, fused=True)


def lr_scheduler_of(
    optimizer: torch.optim.Optimizer, params: Hyperparameters, total: int, done: int
) -> LRScheduler | None:
    """What lets the learning rate fall over Stage III's `total` steps, of which `done` are done (in neither paper)."""
    if not params.lr_scheduler:
        return None
    for group in optimizer.param_groups:
        group["initial_lr"] = params.finetune_lr
    return get_scheduler(
        params.lr_scheduler, optimizer, num_warmup_steps=0, num_training_steps=total, last_epoch=done - 1
    )


def begin_anew(optimizer: torch.optim.Optimizer, params: Hyperparameters) -> None:
    """Make Adam as it was before its first step, in the memory that it has: its two moments and its step become 0."""
    if params.use_8bit_adam:
        optimizer.state.clear()  # holds more than numbers that begin at 0
    for state in optimizer.state.values():
        for value in state.values():
            value.zero_()


def gradient_scaler(accelerator: Accelerator, state: TrainingState) -> torch.amp.GradScaler:
    """fp16's loss scaling, as it was in `state`."""
    scaler = torch.amp.GradScaler(accelerator.device.type, enabled=accelerator.mixed_precision == "fp16")
    if state.scaler_state:
        scaler.load_state_dict(state.scaler_state)
    return scaler


def training_bar(steps: Iterable[Item], done: int, total: int, unit: str) -> Iterable[Item]:
    """A bar over the steps that are left of `total`."""
    return progress(steps, initial=done, total=total, desc="Training", unit=unit)
