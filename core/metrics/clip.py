"""How well texts fit pictures and each other: cosines of CLIP's embeddings (Radford et al. 2021)."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from core.runs.photos import map_photos, unchanged

if TYPE_CHECKING:
    import torch


class ClipEmbeddings(NamedTuple):
    """CLIP's embeddings of N pictures and their texts, as unit vectors in one space."""

    images: np.ndarray  # (N, D) float64
    texts: np.ndarray  # (N, D) float64
    cut_off: int  # texts that are longer than CLIP's input


def clip_embeddings(
    model: Any,
    processor: Any,
    photos: Sequence[Path],
    texts: Sequence[str],
    *,
    batch_size: int = 32,
    num_workers: int = 0,
) -> ClipEmbeddings:
    """Embed each picture and its text; texts that are too long are cut off.

    Args:
        model, processor: transformers' CLIPModel, on its device and in eval mode, and CLIPProcessor.
        batch_size: pictures, and texts, at a time.
        num_workers: processes that read pictures; 0 or 1 does it in this one.

    Raises:
        UserError: the first unreadable picture.
    """
    import torch

    longest = model.config.text_config.max_position_embeddings
    stream = map_photos(unchanged, photos, num_workers=num_workers, desc="CLIP")
    images, captions, cut_off = [], [], 0
    with torch.inference_mode():
        for start in range(0, len(photos), batch_size):
            some = list(texts[start : start + batch_size])
            cut_off += sum(len(tokens) > longest for tokens in processor.tokenizer(some).input_ids)
            pictures = list(itertools.islice(stream, len(some)))
            inputs = processor(
                text=some, images=pictures, return_tensors="pt", padding=True, truncation=True, max_length=longest
            )
            outputs = model(**inputs.to(model.device))
            images.append(unit_vectors(outputs.image_embeds))
            captions.append(unit_vectors(outputs.text_embeds))
    return ClipEmbeddings(np.concatenate(images), np.concatenate(captions), cut_off)


def unit_vectors(embeddings: "torch.Tensor") -> np.ndarray:
    """Embeddings (B, D) scaled to length 1, in float64."""
    import torch

    return torch.nn.functional.normalize(embeddings.cpu().double(), dim=-1).numpy()


def image_text_similarity(images: np.ndarray, texts: np.ndarray) -> float:
    """1/N Σᵢ vᵢ·tᵢ: the mean cosine of each picture with its text, from unit vectors v, t (N, D)."""
    return float((images * texts).sum(axis=1).mean())


def text_text_similarity(texts: np.ndarray) -> float:
    """1/N² Σᵢⱼ tᵢ·tⱼ = |1/N Σᵢ tᵢ|²: the mean cosine of all pairs of texts, each with itself included.

    The mean vector's square gives it without an N×N matrix, let alone the N×N×512 tensor of the released code.

    Args:
        texts: unit vectors (N, D).
    """
    mean = texts.mean(axis=0)
    return float(mean @ mean)
