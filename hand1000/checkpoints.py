"""Saving and loading the state of a training run, whole or not at all.

A checkpoint is a folder: `unet/` (loads with diffusers' UNet2DConditionModel), `losses.csv`, `state.json`, and in the
staged schedule also `embeddings.safetensors` and `optimizer.pt`.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from core.runs.errors import UserError
from core.runs.files import atomic_folder, free_bytes, give_default_permissions
from core.runs.processes import is_main_process, say
from core.runs.run import checkpoints, read_losses, remove_old_checkpoints, write_losses
from hand1000.training import EMBEDDING, TrainingState

# What a full disk raises: Python, safetensors, and torch.save each their own.
WRITE_ERRORS = (OSError, SafetensorError, RuntimeError)


def unet_has_changed(state: TrainingState) -> bool:
    """False in the staged schedule's Stage II, where the UNet is still the base model's."""
    return not (state.prompt_embeds and state.stage == EMBEDDING)


def save_checkpoint(folder: Path, unet: UNet2DConditionModel, state: TrainingState, settings: dict[str, Any]) -> None:
    """Write a checkpoint folder, atomically."""
    with atomic_folder(folder) as temporary:
        if unet_has_changed(state):
            unet.save_pretrained(temporary / "unet")
        if state.prompt_embeds:
            save_file({"prompt_embeds": torch.stack(state.prompt_embeds)}, temporary / "embeddings.safetensors")
        if state.optimizer_state:
            torch.save(state.optimizer_state, temporary / "optimizer.pt")
        write_losses(temporary / "losses.csv", state.losses)
        facts = {
            "stage": state.stage,
            "done": state.done,
            "photos": state.photos,
            "scaler": state.scaler_state,
            "settings": settings,
        }
        (temporary / "state.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False), encoding="utf-8")


def load_checkpoint(folder: Path, unet: UNet2DConditionModel) -> TrainingState:
    """Put a checkpoint's weights into `unet` and return how far training had come.

    Raises:
        UserError: a part of it is missing or damaged.
    """
    try:
        facts = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        state = TrainingState(facts["stage"], facts["done"], facts["photos"], scaler_state=facts["scaler"])
        state.losses = read_losses(folder / "losses.csv")
        if (folder / "unet").is_dir():
            unet.load_state_dict(UNet2DConditionModel.from_pretrained(folder / "unet").state_dict())
        if (folder / "embeddings.safetensors").is_file():
            state.prompt_embeds = list(load_file(folder / "embeddings.safetensors")["prompt_embeds"])
        if (folder / "optimizer.pt").is_file():
            state.optimizer_state = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
    except Exception as error:  # json, safetensors, diffusers and torch each raise their own
        raise UserError(f"{folder}: damaged checkpoint ({' '.join(str(error).split())[:200]}); remove it") from None
    return state


def save_model(run_folder: Path, pipe: StableDiffusionPipeline) -> None:
    """Write a diffusers folder into `run_folder`; `model_index.json`, which makes it one, comes last."""
    staging = run_folder / ".model.tmp"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        pipe.save_pretrained(staging)
        give_default_permissions(staging)
        for part in sorted(staging.iterdir(), key=lambda path: path.name == "model_index.json"):
            shutil.rmtree(run_folder / part.name, ignore_errors=True)
            os.replace(part, run_folder / part.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def checkpoint_saver(
    run_folder: Path, unet: UNet2DConditionModel, settings: dict[str, Any], *, every: int, keep: int, start: int
) -> Callable[[TrainingState], None]:
    """A function to call after each photo or step: on the main process it saves once `every` photos' work is done.

    A disk too full costs that checkpoint, never the last good one or the run. `start`: the photos already done.
    """
    last = start

    def save_if_due(state: TrainingState) -> None:
        nonlocal last
        if not is_main_process() or state.photos // every == last // every:
            return
        last = state.photos
        folder, needed = run_folder / "checkpoints" / f"checkpoint-{last}", checkpoint_bytes(unet, state)
        if free_bytes(run_folder) < needed:
            warn_of_skipped(
                run_folder, folder, f"needs {gigabytes(needed)}, {gigabytes(free_bytes(run_folder))} is free"
            )
            return
        try:
            save_checkpoint(folder, unet, state, settings)
        except WRITE_ERRORS as error:
            warn_of_skipped(run_folder, folder, str(error).splitlines()[0])
            return
        remove_old_checkpoints(run_folder, keep)

    return save_if_due


def warn_of_skipped(run_folder: Path, folder: Path, reason: str) -> None:
    kept = checkpoints(run_folder)
    good = f"the last good one is {kept[-1].name}" if kept else "there is none yet"
    say(f"warning: {folder}: not saved, disk too full ({reason}); {good}. Free some space; training goes on")


def model_bytes(*models: torch.nn.Module) -> int:
    return sum(value.numel() * value.element_size() for model in models for value in model.state_dict().values())


def checkpoint_bytes(unet: torch.nn.Module, state: TrainingState) -> int:
    """About what the next checkpoint takes: the UNet, Adam's two moments where they are kept, the embeddings."""
    copies = unet_has_changed(state) + 2 * bool(state.optimizer_state)
    return copies * model_bytes(unet) + sum(value.numel() * value.element_size() for value in state.prompt_embeds)


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
