"""Checkpoints of a training, folders with a diffusers ControlNet and all that resuming needs; the finished weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, StableDiffusionPipeline, T2IAdapter, UNet2DConditionModel
from safetensors.torch import load_file

from attentionhand.runs import LOSS_COLUMNS, STAGE_FILE, CheckpointState
from attentionhand.weights import save_single_file
from core.diffusion.stable_diffusion import model_bytes
from core.diffusion.unpickling import load_optimizer_state
from core.runs.errors import UserError, reason_of
from core.runs.files import atomic_parts
from core.runs.run import Run, damaged_checkpoint, is_disk_error, read_losses, write_losses
from core.runs.schema import misfit


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
    try:
        with atomic_parts(folder, last="config.json") as temporary:
            save_weights(temporary, stage, unet, losses)
        if single_file:
            save_single_file(pipe, stage, single_file)
    except Exception as error:
        if not is_disk_error(error):
            raise
        raise UserError(
            f"{folder}: can't save the model ({reason_of(error)}); free some space and start again "
            "with --resume_from_checkpoint latest"
        ) from None


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
    """Write checkpoints/checkpoint-{step} as `Run.save_checkpoint` does: a full disk costs it, but not the run.

    Args:
        step: how many steps have been made, one row of `losses` for each.
        unet: given where it is not the base model's, such as one whose decoder is trained.
        scaler: given in fp16.
    """

    optimizer_state = optimizer.state_dict()

    def write(folder: Path) -> None:
        save_weights(folder, stage, unet, losses)
        torch.save(optimizer_state, folder / "optimizer.pt")

    state = {"step": step, "scaler": scaler.state_dict() if scaler else None, "moments": len(optimizer_state["state"])}
    size = 3 * model_bytes(*filter(None, (stage, unet)))  # the optimizer keeps two numbers for each weight
    run.save_checkpoint(step, write, state=state, size=size, keep=keep)


def load_checkpoint(
    run: Run,
    checkpoint: Path,
    *,
    stage: ControlNetModel | T2IAdapter,
    unet: UNet2DConditionModel | None,
    optimizer,
    scaler: torch.amp.GradScaler | None,
) -> tuple[int, list[list[Any]]]:
    """Put a checkpoint into `stage`, `unet`, `optimizer` and `scaler`; returns its step and the losses until then.

    Raises:
        UserError: it is damaged, or belongs to a run of other settings.
    """
    state = run.state_of(checkpoint)
    try:
        if problem := misfit(state, CheckpointState):
            raise ValueError(problem)
        step, losses = state["step"], list[list[Any]](read_losses(checkpoint / "losses.csv", LOSS_COLUMNS))
        if step != len(losses):
            raise ValueError(f"step {step}, but {len(losses)} losses")
        stage.load_state_dict(load_file(checkpoint / STAGE_FILE))
        if unet is not None:
            unet.load_state_dict(load_file(checkpoint / "unet" / STAGE_FILE))
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        optimizer.load_state_dict(load_optimizer_state(checkpoint / "optimizer.pt", parameters, state["moments"]))
        if scaler:
            scaler.load_state_dict(state["scaler"])
    except UserError:
        raise
    except Exception as error:  # torch, safetensors and Python each raise their own
        raise damaged_checkpoint(checkpoint, reason_of(error)) from None
    return step, losses
