"""The fusion of text and gesture (paper, section "Text embedding optimization"), without storing 14 GB.

The released layer is `nn.Linear(77*768 + 63, 77*768)`: 3.5 billion weights, drawn at random and never trained. Here
its weight exists one row block at a time: drawn anew from a seed, or streamed from a file.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from core.diffusion.unpickling import load_pickle
from core.runs.errors import UserError
from core.runs.processes import progress
from hand1000.gesture_feature import FEATURE_SIZE

BLOCK_ELEMENTS = 2**24  # weights held at a time: 64 MB


def double_fusion(prompt_embeds: torch.Tensor, fused_embeds: torch.Tensor, text_share: float) -> torch.Tensor:
    """The double-fused embedding: `text_share` (Lambda in training, mu in generation) of the original text.

    All shapes (N, 77, hidden). Released: Lambda * text + (1 - Lambda) * fused, and the same with mu.
    """
    return text_share * prompt_embeds + (1 - text_share) * fused_embeds


@torch.no_grad()
def fuse(
    prompt_embeds: torch.Tensor,
    gesture_feature: torch.Tensor,
    *,
    seed: int = 0,
    weights_file: Path | None = None,
    device: torch.device | str = "cpu",
    block_elements: int = BLOCK_ELEMENTS,
) -> torch.Tensor:
    """The fused embeddings: a fully connected layer on each text embedding concatenated with the gesture feature.

    Args:
        prompt_embeds: (N, 77, hidden) text embeddings; all of a run in one call, since the weight is made once a call.
        gesture_feature: (63,).
        seed: the weight is that of `torch.manual_seed(seed); nn.Linear(in, out)`, to the bit, on every device.
        weights_file: take the weight from this file instead of the seed (see `stored_blocks`).
        device: where to multiply.
        block_elements: how many weights to hold at a time; only float rounding depends on it.

    Returns:
        (N, 77, hidden) float32 on the CPU. Memory beyond that: one copy of the input and one block.
    """
    count = len(prompt_embeds)
    text = prompt_embeds.reshape(count, -1).float()
    inputs = torch.cat([text, gesture_feature.to(text).expand(count, -1)], dim=1).to(device)  # (N, 77 * hidden + 63)
    in_features, out_features = inputs.shape[1], text.shape[1]
    rows = max(1, block_elements // in_features)
    if weights_file:
        blocks = stored_blocks(weights_file, in_features, out_features, rows)
    else:
        blocks = seeded_blocks(seed, in_features, out_features, rows)

    fused = torch.empty(count, out_features)
    start = 0
    with progress(total=out_features, desc="Fusing text and gesture", unit="row") as bar:
        for block in blocks:
            if block.ndim == 1:  # the bias comes last
                fused += block
                continue
            stop = start + len(block)
            fused[:, start:stop] = (inputs @ block.to(inputs).T).cpu()
            start = stop
            bar.update(len(block))
    return fused.view(prompt_embeds.shape)


def seeded_blocks(seed: int, in_features: int, out_features: int, rows: int) -> Iterator[torch.Tensor]:
    """Row blocks of an `nn.Linear` weight drawn from `seed`, then its bias.

    `nn.Linear`'s default initialisation: weight, then bias, uniform between -1/sqrt(fan_in) and +1/sqrt(fan_in). The
    CPU generator draws uniform numbers one by one, so the block size does not change them.
    """
    generator = torch.Generator().manual_seed(seed)
    bound = in_features**-0.5
    for start in range(0, out_features, rows):
        block = torch.empty(min(rows, out_features - start), in_features)
        yield block.uniform_(-bound, bound, generator=generator)
    yield torch.empty(out_features).uniform_(-bound, bound, generator=generator)


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
    rows = max(1, BLOCK_ELEMENTS // in_features)
    write_safetensors(target, in_features, out_features, stored_blocks(source, in_features, out_features, rows))


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
        checkpoint = load_pickle(path)
        state_dict = checkpoint.get("fusion_model_state_dict", checkpoint)
        tensors = [value for value in state_dict.values() if isinstance(value, torch.Tensor)]
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
