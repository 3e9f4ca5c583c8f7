"""How faithful pictures are to their texts: CLIP's score, and the share of a caption's attributes that are found."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.metrics.clip import clip_embeddings
from core.metrics.scores import Score, grouped_mean
from core.runs.errors import UserError
from core.runs.photos import map_photos
from core.runs.schema import misfit

PHRASES_FILE = "attributes.json"  # kept inside the TorchScript file


def clip_score(
    model: Any,
    processor: Any,
    pictures: Sequence[Path],
    texts: Sequence[str],
    groups: Sequence[int],
    *,
    num_workers: int,
    resamples: int,
    seed: int,
) -> dict[str, Score]:
    """The mean cosine of CLIP's embeddings of each picture and its text (as `dataset_evaluate.py`, ViT-B/32).

    Args:
        model, processor: transformers' CLIPModel and CLIPProcessor.
        groups: which pictures belong together, for the interval.

    Raises:
        UserError: an unreadable picture.
    """
    embeddings = clip_embeddings(model, processor, pictures, texts, num_workers=num_workers)
    cosines = (embeddings.images * embeddings.texts).sum(axis=1)
    return {"CLIP score": grouped_mean(cosines, groups, resamples=resamples, seed=seed)}


class AttributeClassifier(NamedTuple):
    """Finds properties in pictures, each of which has several classes that captions name by a phrase.

    The file is a TorchScript module from uint8 pictures (N, 3, H, W) to one number for each class of each attribute
    (N, K), the larger the likelier, with the phrases beside it as the extra file attributes.json: {"sleeve": ["red
    sleeve", "green sleeve"], "pattern": ["striped", ""]}. The phrase "" is for captions that name no other of them.
    """

    classify: Any  # uint8 (N, 3, H, W) -> (N, K)
    phrases: dict[str, list[str]]

    @property
    def chance(self) -> float:
        """The share of attributes that a guess finds."""
        return float(np.mean([1 / len(classes) for classes in self.phrases.values()]))


def load_attribute_classifier(path: Path) -> AttributeClassifier:
    """A classifier on the CPU.

    Raises:
        UserError: no such file, not such a module, or it has no phrases.
    """
    import torch

    from core.metrics.extractors import load_torchscript

    if not path.is_file():
        raise UserError(f"{path}: no such file (--attribute_classifier)")
    extra = {PHRASES_FILE: "null"}
    classify = load_torchscript(path, torch.device("cpu"), extra)
    try:
        phrases = json.loads(extra[PHRASES_FILE])
    except ValueError:
        phrases = None
    if misfit(phrases, dict[str, list[str]]) or not phrases or not all(phrases.values()):
        raise UserError(f"{path}: no attribute classifier (it has no phrases in {PHRASES_FILE})")
    return AttributeClassifier(classify, phrases)


def attributes_of(caption: str, phrases: dict[str, list[str]]) -> list[int | None]:
    """The class of each attribute that a caption names; None where it names none of them."""
    named: list[int | None] = []
    for classes in phrases.values():
        found = [place for place, phrase in enumerate(classes) if phrase and re.search(whole_words(phrase), caption)]
        named.append(found[0] if found else classes.index("") if "" in classes else None)
    return named


def whole_words(phrase: str) -> str:
    return rf"(?<!\w){re.escape(phrase)}(?!\w)"


def attributes_kept(
    classifier: AttributeClassifier,
    pictures: Sequence[Path],
    captions: Sequence[str],
    *,
    num_workers: int,
    resamples: int,
    seed: int,
) -> dict[str, Score]:
    """The share of the captions' attributes that the classifier finds in their pictures; pictures are resampled.

    Raises:
        UserError: an unreadable picture, or the classifier's result does not fit its phrases.
    """
    arrays = map_photos(np.asarray, pictures, num_workers=num_workers, desc="Attributes")
    hits = attribute_hits(classifier, arrays, captions)
    groups = np.repeat(np.arange(len(hits)), hits.shape[1])
    return {"attributes kept": grouped_mean(hits.ravel(), groups, resamples=resamples, seed=seed)}


def attribute_hits(
    classifier: AttributeClassifier, arrays: Iterable[np.ndarray], captions: Sequence[str]
) -> np.ndarray:
    """Whether each attribute of each caption is in its picture, (N, A): 1 or 0, NaN where the caption names none.

    Args:
        arrays: pictures (H, W, 3) uint8.

    Raises:
        UserError: the classifier's result does not fit its phrases.
    """
    import torch

    sizes = [len(classes) for classes in classifier.phrases.values()]
    hits = np.full((len(captions), len(sizes)), np.nan)
    for row, (pixels, caption) in enumerate(zip(arrays, captions, strict=True)):
        scores = classifier.classify(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])[0]
        if len(scores) != sum(sizes):
            raise UserError(f"the attribute classifier gave {len(scores)} numbers for {sum(sizes)} classes")
        best = [int(part.argmax()) for part in scores.split(sizes)]
        for place, (wanted, found) in enumerate(zip(attributes_of(caption, classifier.phrases), best)):
            if wanted is not None:
                hits[row, place] = wanted == found
    return hits
