"""Checkpoints of a training, folders with a diffusers ControlNet and all that resuming needs; the finished weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, StableDiffusionPipeline, T2IAdapter, UNet2DConditionModel
from safetensors.torch import load_file

from attentionhand.runs import LOSS_COLUMNS, STAGE_FILE
from attentionhand.weights import save_single_file
from core.diffusion.checkpoints import load_step_checkpoint, save_step_checkpoint
from core.diffusion.stable_diffusion import model_bytes
from core.runs.files import atomic_parts
from core.runs.run import Run, saving, write_losses


def save_finished(
    folder: Path,
    pipe: StableDiffusionPipeline,
    stage: ControlNetModel | T2IAdapter,
    unet: UNet2DConditionModel | None,
    losses: Sequence[Sequence[Any]],
    single_file: Path | None,
) -> None:
    """Write the finished weights and losses into the run folder; config.json, which makes it a ControlNet, comes last.

    Args:
        unet: given where it is not the base model's, such as one whose decoder was trained.
        single_file: where to write all weights with the released names, if anywhere.

    Raises:
        UserError: the disk is full.
    """
    with saving(folder):
        with atomic_parts(folder, last="config.json") as temporary:
            save_weights(temporary, stage, unet, losses)
        if single_file:
            save_single_file(pipe, stage, single_file)


def needed_bytes(
    pipe: StableDiffusionPipeline,
    stage: ControlNetModel | T2IAdapter,
    unet: UNet2DConditionModel | None,
    *,
    single_file: bool,
) -> int:
    """What a checkpoint (the optimizer keeps two numbers for each weight) and the finished weights take."""
    everything = model_bytes(stage, pipe.unet, pipe.vae, pipe.text_encoder) if single_file else 0
    return 4 * model_bytes(*filter(None, (stage, unet))) + everything


def save_weights(
    folder: Path,
    stage: ControlNetModel | T2IAdapter,
    unet: UNet2DConditionModel | None,
    losses: Sequence[Sequence[Any]],
) -> None:
    """What run folders and checkpoints share: the ControlNet, unet/ if it is not the base model's, losses.csv."""
    stage.save_pretrained(folder)
    if unet is not None:
        unet.save_pretrained(folder / "unet")
    write_losses(folder / "losses.csv", LOSS_COLUMNS, losses)


def save_checkpoint(
    run: Run,
    step: int,
    *,
    stage: ControlNetModel | T2IAdapter,
    unet: UNet2DConditionModel | None,
    optimizer,
    scaler: torch.amp.GradScaler | None,
    losses: Sequence[Sequence[Any]],
    keep: int,
) -> None:
    """A checkpoint of `step` steps, one row of `losses` for each; see `save_step_checkpoint`.

    Args:
        unet: given where it is not the base model's, such as one whose decoder is trained.
    """
    save_step_checkpoint(
        run,
        step,
        lambda folder: save_weights(folder, stage, unet, losses),
        optimizer=optimizer,
        scaler=scaler,
        size=model_bytes(*filter(None, (stage, unet))),
        keep=keep,
    )


def load_checkpoint(
    run: Run,
    checkpoint: Path,
    *,
    stage: ControlNetModel | T2IAdapter,
    unet: UNet2DConditionModel | None,
    optimizer,
    scaler: torch.amp.GradScaler | None,
) -> tuple[int, list[list[Any]]]:
    """Put a checkpoint into `stage`, `unet`, `optimizer` and `scaler`; see `load_step_checkpoint`."""

    def load(folder: Path) -> None:
        stage.load_state_dict(load_file(folder / STAGE_FILE))
        if unet is not None:
            unet.load_state_dict(load_file(folder / "unet" / STAGE_FILE))

    return load_step_checkpoint(run, checkpoint, load, optimizer=optimizer, scaler=scaler, columns=LOSS_COLUMNS)
