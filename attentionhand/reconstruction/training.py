"""The loss of the reconstruction network, its optimizer and its checkpoints."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from attentionhand.reconstruction.data import SCALE, Target
from attentionhand.reconstruction.network import HandNetwork, Hands
from core.diffusion.checkpoints import load_step_checkpoint, save_step_checkpoint
from core.runs.errors import UserError, reason_of
from core.runs.files import fingerprint
from core.runs.run import Run, damaged, read_record, refuse_unfinished, write_losses

RECORD, WEIGHTS = "reconstruction.json", "model.safetensors"
LOSS_COLUMNS = ("step", "joint_loss", "wrist_loss", "presence_loss")
PRESENCE_WEIGHT = 0.1  # lengths are about 1 where the network works, logits are not lengths
WEIGHT_DECAY = 0.01
WARM_UP_STEPS = 50


class Losses(NamedTuple):
    """Means over the batch, each a single number."""

    joints: torch.Tensor
    left_wrist: torch.Tensor
    presence: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        return self.joints + self.left_wrist + PRESENCE_WEIGHT * self.presence


def reconstruction_loss(hands: Hands, target: Target) -> Losses:
    """L1 distance of the known joints and of the left wrist, and the cross-entropy of which hands there are.

    Each picture counts as much as another, so that the loss of a batch is the mean of the losses of its parts.
    """
    joints = (hands.joints - target.joints).abs().sum(-1)  # (B, 2, 21)
    known = target.joint_known.sum(dim=(1, 2)).clamp(min=1)
    left_wrist = (hands.left_wrist - target.left_wrist).abs().sum(-1)  # (B,)
    return Losses(
        ((joints * target.joint_known).sum(dim=(1, 2)) / known).mean(),
        (left_wrist * target.both_known).mean(),
        F.binary_cross_entropy_with_logits(hands.presence, target.has_hand),
    )


def rate_at(step: int, steps: int, highest: float) -> float:
    """The learning rate: up within 50 steps, then down to 0 along a cosine."""
    return highest * min(1.0, (step + 1) / WARM_UP_STEPS) * (1 + math.cos(math.pi * step / steps)) / 2


# Checkpoints and weights


def save_weights(folder: Path, network: HandNetwork, losses: Sequence[Sequence[Any]]) -> None:
    """What a run folder and a checkpoint share."""
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}, folder / WEIGHTS
    )
    write_losses(folder / "losses.csv", LOSS_COLUMNS, losses)


def save_checkpoint(
    run: Run, step: int, network: HandNetwork, optimizer, scaler, losses: Sequence[Sequence[Any]], *, keep: int
) -> None:
    """A checkpoint of `step` steps, one row of `losses` for each; see `save_step_checkpoint`."""
    save_step_checkpoint(
        run,
        step,
        lambda folder: save_weights(folder, network, losses),
        optimizer=optimizer,
        scaler=scaler,
        size=sum(tensor.nbytes for tensor in network.state_dict().values()),
        keep=keep,
    )


def load_checkpoint(run: Run, checkpoint: Path, network: HandNetwork, optimizer, scaler) -> tuple[int, list[list[Any]]]:
    """Put a checkpoint into network, optimizer and scaler; see `load_step_checkpoint`."""
    return load_step_checkpoint(
        run,
        checkpoint,
        lambda folder: network.load_state_dict(load_file(folder / WEIGHTS)),
        optimizer=optimizer,
        scaler=scaler,
        columns=LOSS_COLUMNS,
    )


class Trained(NamedTuple):
    """A finished training's network and what its numbers mean."""

    network: HandNetwork
    unit: str  # of the labels that it was trained on: "mm" or "palm lengths"
    image_size: int  # pixels a side of the crop
    fingerprint: str  # of the weights


def load_trained(folder: Path) -> Trained:
    """The network of a run folder of `attentionhand.reconstruction.train`.

    Raises:
        UserError: no such run, an unfinished one, or a damaged one.
    """
    record = read_record(folder / RECORD)
    if record is None:
        raise UserError(f"{folder}: holds no {RECORD}; give a run folder of attentionhand.reconstruction.train")
    refuse_unfinished(folder / RECORD, record, "training")
    try:
        norm = "frozen_batch" if record.settings["imagenet"] else "group"
        network = HandNetwork(record.settings["backbone"], norm)
        network.load_state_dict(load_file(folder / WEIGHTS))
        unit, size = record.settings["unit"], record.settings["image_size"]
        if unit not in SCALE or not isinstance(size, int) or size < 1:
            raise ValueError(f"its unit is {unit!r}, its image_size {size!r}")
        return Trained(network.eval(), unit, size, fingerprint(folder / WEIGHTS))
    except Exception as error:
        raise damaged(folder / RECORD, reason_of(error)) from None
