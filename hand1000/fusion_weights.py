"""Fusion weights in files: read and written in row blocks, so that 14 GB never have to be in memory."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from core.diffusion.unpickling import load_tensors
from core.runs.errors import UserError
from hand1000.gesture_feature import FEATURE_SIZE

ROWS = 256  # copied at a time: 60 MB for Stable Diffusion 1


def stored_blocks(path: Path, in_features: int, out_features: int, rows: int) -> Iterator[torch.Tensor]:
    """Row blocks of the weight in a file, then its bias, read as they are asked for.

    Args:
        path: a `.safetensors` with one matrix and one vector, or a `.ckpt` / `.pt` of such a state dict, or a released
            checkpoint that holds one under `fusion_model_state_dict`.

    Raises:
        UserError: see `open_weights`.
    """
    for start in range(0, out_features, rows):
        if start % (4 * rows) == 0:  # opened anew now and then, because what was read of a mapped file stays in memory
            weight, bias = open_weights(path, in_features, out_features)
        yield weight[start : start + rows]
    yield bias[:].float()


def fusion_features(hidden_size: int) -> tuple[int, int]:
    """Inputs and outputs of the fusion layer for a text encoder's width: (59199, 59136) for Stable Diffusion 1."""
    return 77 * hidden_size + FEATURE_SIZE, 77 * hidden_size


def save_fusion_weights(source: Path, target: Path, hidden_size: int) -> None:
    """Copy fusion weights from any file that `stored_blocks` reads to float32 safetensors, block by block."""
    in_features, out_features = fusion_features(hidden_size)
    write_safetensors(target, in_features, out_features, stored_blocks(source, in_features, out_features, ROWS))


def write_safetensors(path: Path, in_features: int, out_features: int, blocks: Iterator[torch.Tensor]) -> None:
    """Write row blocks of a weight, then its bias, as they come; safetensors' own writer wants whole tensors.

    The format: the header's length in 8 bytes, a JSON header, the tensors' bytes one after the other.
    """
    split, end = 4 * out_features * in_features, 4 * out_features * (in_features + 1)
    header = json.dumps(
        {
            "weight": {"dtype": "F32", "shape": [out_features, in_features], "data_offsets": [0, split]},
            "bias": {"dtype": "F32", "shape": [out_features], "data_offsets": [split, end]},
        }
    ).encode()
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for block in blocks:
            file.write(block.float().contiguous().numpy().tobytes())


def open_weights(path: Path, in_features: int, out_features: int):
    """The fusion layer's matrix and vector in a file, each sliceable without reading all of it.

    Raises:
        UserError: no such file, no fusion weights in it, or weights for another text encoder.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of fusion weights")
    if path.suffix == ".safetensors":
        try:
            file = safe_open(path, framework="pt")
        except SafetensorError as error:
            raise UserError(f"{path}: not a safetensors file ({error})") from None
        tensors = [file.get_slice(key) for key in list(file.keys())]
    else:
        tensors = list(load_tensors(path, "fusion_model_state_dict").values())
    tensors.sort(key=lambda tensor: len(_shape(tensor)))
    if [len(_shape(tensor)) for tensor in tensors] != [1, 2]:
        raise UserError(f"{path}: holds no fusion weights (expected one matrix and one vector)")
    bias, weight = tensors
    if (_shape(weight), _shape(bias)) != ((out_features, in_features), (out_features,)):
        raise UserError(
            f"{path}: fusion weights of shape {_shape(weight)} and bias {_shape(bias)} don't fit this text encoder, "
            f"which needs {(out_features, in_features)} and {(out_features,)}"
        )
    return weight, bias


def _shape(tensor) -> tuple[int, ...]:
    return tuple(tensor.get_shape() if hasattr(tensor, "get_shape") else tensor.shape)
