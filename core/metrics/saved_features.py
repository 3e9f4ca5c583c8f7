"""Features of a folder's pictures, with all that they depend on: checked, saved to an `.npz` file, and loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.runs.errors import UserError
from core.runs.files import atomic_file

LARGEST_FEATURE = 1e30  # KID takes the sixth power of features, which must stay below 1e308


class Features(NamedTuple):
    """Features of a folder's pictures, and all that makes them comparable with others."""

    features: np.ndarray  # (N, D) float32, one row a picture or hand crop
    source: str  # the folder
    images: int  # pictures read
    without_hand: int  # of these left out, because MediaPipe found no hand (hand crops only)
    protocol: str  # "released" or "standard"
    crop: str  # "whole" picture, "union" of its hands, or "each" hand
    extractor: str  # its kind and the fingerprint of its weights


def check_features(real: np.ndarray, fake: np.ndarray, names: tuple[str, str] = ("real", "fake")) -> None:
    """Check that metrics can be computed from two arrays of features.

    Args:
        names: what the two sides are called in errors.

    Raises:
        UserError: one is not an (N, D) array of numbers with N at least 2 and D at least 1, holds NaN, infinity or
            numbers above 1e30, or D differs.
    """
    for features, name in zip((real, fake), names):
        if features.ndim != 2 or features.dtype.kind not in "fiu" or not features.shape[1]:
            raise UserError(
                f"{name}: features are an (N, D) array of numbers, this is {features.dtype} {features.shape}"
            )
        if len(features) < 2:
            pictures = "1 picture" if len(features) else "no picture"
            raise UserError(f"{name}: {pictures}; a distribution needs at least 2")
        if not np.isfinite(features).all():
            rows = np.flatnonzero(~np.isfinite(features).all(axis=1))
            raise UserError(f"{name}: NaN or infinity in {len(rows)} rows of features, the first is row {rows[0]}")
        largest = max(float(features.max()), -float(features.min()))
        if largest > LARGEST_FEATURE:
            raise UserError(
                f"{name}: features of up to {largest:.2g} are too large to compute with (above {LARGEST_FEATURE:g}); "
                "the extractor seems to be broken"
            )
    if real.shape[1] != fake.shape[1]:
        raise UserError(
            f"{names[0]} has {real.shape[1]} features a picture, {names[1]} has {fake.shape[1]}; "
            "take the same extractor for both"
        )


def check_made_alike(saved: Mapping[Path, Features], **wanted: str) -> None:
    """Check that saved features were made with the wanted values of some fields, for example protocol="released".

    Raises:
        UserError
    """
    for path, side in saved.items():
        for name, value in wanted.items():
            if getattr(side, name) != value:
                raise UserError(
                    f"{path}: its features were made with {name} '{getattr(side, name)}', not '{value}'; "
                    "make them again or change this run's options"
                )


def is_features_file(path: Path) -> bool:
    """Whether a source of features is a file of saved ones and not a folder of pictures."""
    return path.suffix.lower() == ".npz"


def save_features(path: Path, features: Features) -> None:
    """Write features and what made them to an `.npz` file that `load_features` reads."""
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **features._asdict())


def load_features(path: Path) -> Features:
    """Read what `save_features` wrote.

    Raises:
        UserError: no such file, or another kind of file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            values = {name: file[name] if name == "features" else file[name].item() for name in Features._fields}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; save_features writes one") from None
    except Exception:  # not a zip, not an array, a field missing
        raise UserError(f"{path}: not a file of features; save_features writes one") from None
    return Features(**values)
