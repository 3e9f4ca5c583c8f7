"""What the tests of train.py share: a short training, and what it leaves."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from core.runs.run import read_losses
from hand1000.schedules import LOSS_COLUMNS

SHORT = ("--embedding_steps", 2, "--finetune_steps", 3, "--finetune_lr", 1e-4, "--max_train_images", 4)


def unet_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "unet" / "diffusion_pytorch_model.safetensors")


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[key] - b[key]).abs().max().item() for key in a)


def losses_of(run: Path) -> list[tuple[str, str, int, float]]:
    """The rows of a run's losses.csv."""
    rows = read_losses(run / "losses.csv", LOSS_COLUMNS)
    return [(image, stage, int(step), float(loss)) for image, stage, step, loss in rows]
