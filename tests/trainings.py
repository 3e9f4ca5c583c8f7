"""What the tests of train.py and image_generation.py share: a short training, and what a training leaves."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from core.runs.run import FINISHED, read_losses
from hand1000.hyperparameters import LOSS_COLUMNS

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


def finish_run(folder: Path, *, resolution: int = 64, **settings: Any) -> Path:
    """Make a model's folder one of a finished run with fusion seed 3, as train.py leaves it."""
    write_record(folder, settings={"resolution": resolution, "feature_sha256": "abc", **settings})
    return folder


def write_record(folder: Path, **content: Any) -> None:
    """A finished run's hand1000.json with some of it changed."""
    record = {"status": FINISHED, "settings": {"resolution": 64, "feature_sha256": "abc"}, "fusion": {"seed": 3}}
    folder.mkdir(exist_ok=True)
    (folder / "hand1000.json").write_text(json.dumps({**record, **content}))
