"""Checkpoints of a training that goes step by step: weights, the optimizer's moments, losses.csv, and the step."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

import torch

from core.diffusion.unpickling import load_optimizer_state
from core.runs.errors import UserError, reason_of
from core.runs.run import Run, damaged_checkpoint, read_losses
from core.runs.schema import misfit, natural, positive

OPTIMIZER = "optimizer.pt"


class StepState(TypedDict):
    """What a checkpoint's state.json holds beside its run's settings."""

    step: Annotated[int, positive]  # how many have been made
    scaler: dict[str, float] | None  # fp16 only
    moments: Annotated[int, natural]  # of how many weights the optimizer has them


def save_step_checkpoint(
    run: Run,
    step: int,
    write: Callable[[Path], object],
    *,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    size: int,
    keep: int,
) -> None:
    """Write checkpoints/checkpoint-{step} as `Run.save_checkpoint` does: a full disk costs it, but not the run.

    Args:
        step: how many steps have been made.
        write: puts the weights, and losses.csv with a row for each step, into a folder.
        scaler: given in fp16.
        size: bytes of the weights that are trained; the optimizer keeps two numbers for each.
    """
    optimizer_state = optimizer.state_dict()

    def write_all(folder: Path) -> None:
        write(folder)
        torch.save(optimizer_state, folder / OPTIMIZER)

    state = {"step": step, "scaler": scaler.state_dict() if scaler else None, "moments": len(optimizer_state["state"])}
    run.save_checkpoint(step, write_all, state=state, size=3 * size, keep=keep)


def load_step_checkpoint(
    run: Run,
    checkpoint: Path,
    load: Callable[[Path], object],
    *,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    columns: tuple[str, ...],
) -> tuple[int, list[list[Any]]]:
    """Put a checkpoint into its networks, `optimizer` and `scaler`; returns its step and the losses until then.

    Args:
        load: puts the weights of a folder into the networks.
        columns: of losses.csv.

    Raises:
        UserError: it is damaged, or belongs to a run of other settings.
    """
    state = run.state_of(checkpoint)
    try:
        if problem := misfit(state, StepState):
            raise ValueError(problem)
        step, losses = state["step"], list[list[Any]](read_losses(checkpoint / "losses.csv", columns))
        if step != len(losses):
            raise ValueError(f"step {step}, but {len(losses)} losses")
        load(checkpoint)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        optimizer_state = load_optimizer_state(checkpoint / OPTIMIZER, parameters, state["moments"])
        for saved, own in zip(optimizer_state["param_groups"], optimizer.param_groups):
            if "fused" in own:  # in an older checkpoint it was not, and fp16's scaler would stumble over that
                saved["fused"] = own["fused"]
        optimizer.load_state_dict(optimizer_state)
        if scaler:
            scaler.load_state_dict(state["scaler"])
    except UserError:
        raise
    except Exception as error:  # torch, safetensors and Python each raise their own
        raise damaged_checkpoint(checkpoint, reason_of(error)) from None
    return step, losses
