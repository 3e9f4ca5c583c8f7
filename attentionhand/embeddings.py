"""CLIP's embeddings of a data set's texts, on disk: each distinct text once, and only those of a batch in memory.

One embedding is 236 kB, those of 100,000 texts are 24 GB: too much for the memory of every process.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from core.diffusion.encoding import ENCODE_BATCH, encode_texts
from core.runs.errors import UserError, reason_of
from core.runs.files import atomic_file, free_bytes
from core.runs.processes import is_main_process, progress

SUFFIX = ".embeddings.npy"
TEXTS_AT_A_TIME = 64 * ENCODE_BATCH


class TextEmbeddings:
    """The embeddings of texts, by their numbers: `embeddings[[3, 1]]` is (2, 77, hidden) float32 on the CPU."""

    def __init__(self, array: np.ndarray, rows: Sequence[int]) -> None:
        self.array, self.rows = array, rows

    def __getitem__(self, numbers: Sequence[int]) -> torch.Tensor:
        return torch.from_numpy(np.stack([self.array[self.rows[number]] for number in numbers]))


def distinct(texts: Sequence[str]) -> tuple[list[str], list[int]]:
    """The distinct texts in the order of their first use, and for each text its place among them."""
    places: dict[str, int] = {}
    rows = [places.setdefault(text, len(places)) for text in texts]
    return list(places), rows


def write_embeddings(
    pipe: StableDiffusionPipeline, texts: Sequence[str], folder: Path, device: torch.device, *, model: str
) -> Path:
    """Embed the distinct texts into a file in `folder`, where that is not there already. Main process only.

    Args:
        model: the hash or the name of `pipe`: a killed run of another model may have left its embeddings here.

    Raises:
        UserError: too little space on the disk.
    """
    chosen, _ = distinct(texts)
    digest = hashlib.sha256("\n".join([model, *chosen]).encode()).hexdigest()[:16]
    path = folder / f".{digest}{SUFFIX}"
    if not is_main_process() or path.is_file():
        return path
    hidden = pipe.text_encoder.config.hidden_size
    shape = len(chosen), pipe.tokenizer.model_max_length, hidden
    needed = 4 * int(np.prod(shape))
    if free_bytes(folder) < needed:
        raise UserError(
            f"{folder}: the texts' embeddings need {needed / 1e9:.1f} GB of disk; choose another --output_dir"
        )
    with atomic_file(path) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        starts = range(0, len(chosen), TEXTS_AT_A_TIME)
        for start in progress(starts, desc="Encoding texts", unit="batch"):
            part = slice(start, start + TEXTS_AT_A_TIME)
            array[part] = encode_texts(pipe, chosen[part], device, desc=None).numpy()
        array.flush()
    return path


def open_embeddings(path: Path, texts: Sequence[str]) -> TextEmbeddings:
    """The embeddings that `write_embeddings` made, mapped from disk.

    Raises:
        UserError: the file is damaged.
    """
    chosen, rows = distinct(texts)
    try:
        array = np.load(path, mmap_mode="r")
        if array.ndim != 3 or len(array) != len(chosen) or array.dtype != np.float32:
            raise ValueError(f"{array.dtype} {array.shape}")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: damaged ({reason_of(error)}); remove it") from None
    return TextEmbeddings(array, rows)


def remove_embeddings(folder: Path) -> None:
    """Remove the files of a finished training, and of interrupted ones with other texts."""
    for path in folder.glob(f".*{SUFFIX}"):
        path.unlink()
