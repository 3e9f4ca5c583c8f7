"""Reading `.ckpt` / `.pt` files of tensors without running any code in them."""

import contextlib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from core.runs.errors import UserError

MOMENTS = ("exp_avg", "exp_avg_sq", "state1", "state2")  # as Adam and bitsandbytes' 8-bit Adam call them


class _Inert:
    """Stands in for a class that a checkpoint names but that holds no tensors: makes nothing, keeps nothing."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass


@contextlib.contextmanager
def inert_globals(path: Path) -> Iterator[None]:
    """Let `torch.load(weights_only=True)` read a checkpoint that names classes beside its tensors.

    CompVis's own `sd-v1-4-full-ema.ckpt` carries PyTorch Lightning callbacks, which `weights_only` refuses. Inside
    this block each such class is replaced by one that does nothing, so that nothing of the file is executed.
    """
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
    with torch.serialization.safe_globals([(_Inert, name) for name in names]):
        yield


def load_pickle(path: Path) -> dict[str, Any]:
    """A checkpoint's dictionary, its tensors memory-mapped where the file allows it.

    Raises:
        UserError: the file is not a checkpoint, or is cut short.
    """
    try:
        with inert_globals(path):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises many kinds for a file that is not a checkpoint
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: not a checkpoint that torch can read ({reason})") from None
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path}: not a checkpoint: holds a {type(checkpoint).__name__} instead of named tensors")
    return checkpoint


def load_tensors(path: Path, key: str) -> dict[str, torch.Tensor]:
    """The named tensors of a checkpoint: those that it holds under `key`, where it has one, else its own.

    Raises:
        UserError: as `load_pickle`, or there are none.
    """
    checkpoint = load_pickle(path)
    content = checkpoint.get(key, checkpoint)
    named = content.items() if isinstance(content, dict) else []
    tensors = {name: value for name, value in named if isinstance(name, str) and isinstance(value, torch.Tensor)}
    if not tensors:
        raise UserError(f"{path}: holds no named tensors")
    return tensors


def load_optimizer_state(path: Path, parameters: Iterable[torch.nn.Parameter], count: int) -> dict[str, Any]:
    """The state of an Adam, in one piece: PyTorch would start anew, without a word, where moments are missing.

    Args:
        count: how many parameters had moments; those without gradients have none, nor has any one before the first
            step, which fp16 may skip.

    Raises:
        ValueError, or what torch raises: the file does not hold these moments.
    """
    optimizer_state = torch.load(path, map_location="cpu", weights_only=True)
    moments, shapes = optimizer_state["state"], [parameter.shape for parameter in parameters]
    if len(moments) != count:
        raise ValueError(f"{path.name}: Adam's moments of {len(moments)} weights, not {count}")
    for number, kept in moments.items():
        kept = kept.get("__bnb_optimizer_quant_state__", kept)  # newer bitsandbytes nests its tensors there
        if {value.shape for name, value in kept.items() if name in MOMENTS} != {shapes[number]}:
            raise ValueError(f"{path.name}: not Adam's moments of these weights")
    return optimizer_state
