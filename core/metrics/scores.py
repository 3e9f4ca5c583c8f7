"""Every metric of a folder of generated pictures, each with its 95 % interval."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.hands.fingers import GESTURE_FINGERS, fingers_of_gesture
from core.metrics.equations import frechet_distance, gaussian, hand_confidence, kernel_inception_distance
from core.metrics.hands import hands_of_photos
from core.metrics.intervals import (
    FEWEST_PICTURES,
    bootstrap_interval,
    fid_interval,
    hand_confidence_interval,
    kid_interval,
    share_interval,
)
from core.metrics.pictures import list_pictures
from core.runs.errors import UserError
from core.runs.processes import say


class Score(NamedTuple):
    """A metric and its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float


NO_SCORE = Score(math.nan, math.nan, math.nan)
METRICS = {"FID": -1, "KID": -1, "FID-H": -1, "KID-H": -1, "HAND-CONF": 1, "hand found": 1, "gesture accuracy": 1}
"""Every metric of pictures of a gesture, and 1 where more is better, -1 where less is."""
LABEL_METRICS = {
    "landmark error 2D": -1,
    "landmark error 3D": -1,
    "PCK@0.1": 1,
    "PCK@0.2": 1,
}
"""Further ones of pictures whose labels are known."""
TEXT_METRICS = {"CLIP score": 1, "attributes kept": 1}
"""Further ones of pictures whose texts are known."""
DIRECTIONS = METRICS | LABEL_METRICS | TEXT_METRICS
REAL = "real photos"
"""The row of the test photos themselves: what real hands of the gesture score."""


def all_scores(
    real: Path,
    fake: Path,
    *,
    gesture: str,
    resamples: int,
    seed: int,
    num_workers: int,
    cache: Path,
    protocol: str = "released",
    **extractor: Any,
) -> dict[str, Score]:
    """Every metric of `METRICS` for a folder of generated pictures.

    Args:
        real: photos of the gesture that training did not see.
        gesture: for the gesture accuracy, which is left out where the gesture's fingers are not known.
        resamples: of the intervals.
        seed: of everything that is drawn at random.
        num_workers: processes that read pictures and find hands; 0 or 1 does it in this one.
        cache: folder for the real photos' features; the caller sees to it that they belong to `real`.
        protocol, extractor: options of `core.metrics.features.features_of_both`.

    Raises:
        UserError: as `features_of_both`; where only hand crops can't be compared, FID-H and KID-H are left out.
    """
    options: dict[str, Any] = {"resamples": resamples, "seed": seed, "num_workers": num_workers}
    distances = distances_of_folders(real, fake, cache=cache, protocol=protocol, **extractor, **options)
    return distances | hand_scores(fake, gesture=gesture, **options)


def distances_of_folders(
    real: Path, fake: Path, *, cache: Path, protocol: str = "released", **options: Any
) -> dict[str, Score]:
    """FID, KID, FID-H and KID-H of two folders; where hand crops can't be compared, the last two are left out.

    Args:
        cache: folder for the real photos' features; the caller sees to it that they belong to `real`.
        options: as for `all_scores`.

    Raises:
        UserError: as `features_of_both` for whole pictures.
    """
    scores: dict[str, Score] = {}
    scores["FID"], scores["KID"] = distance_scores(real, fake, cache / "real.npz", protocol=protocol, **options)
    try:
        sides = distance_scores(real, fake, cache / "real-H.npz", hands=True, protocol=protocol, **options)
        scores["FID-H"], scores["KID-H"] = sides
    except UserError as error:
        say(f"FID-H and KID-H are left out: {error}")
        scores["FID-H"] = scores["KID-H"] = NO_SCORE
    return scores


def distance_scores(
    real: Path, fake: Path, saved: Path, *, resamples: int, seed: int, protocol: str, **features: Any
) -> tuple[Score, Score]:
    """FID and KID of two folders.

    Args:
        saved: file of the real photos' features, which is written unless it is there.
        protocol, features: options of `core.metrics.features.features_of_both`.
    """
    from core.metrics.features import features_of_both
    from core.metrics.saved_features import save_features

    source = saved if saved.is_file() else real
    real_side, fake_side = features_of_both(source, fake, protocol=protocol, **features)
    if source == real:
        save_features(saved, real_side)
    x, y, unbiased = real_side.features, fake_side.features, protocol == "standard"
    fid = frechet_distance(gaussian(x), gaussian(y))
    kid, _ = kernel_inception_distance(x, y, unbiased=unbiased, seed=seed)
    if min(len(x), len(y)) < FEWEST_PICTURES:
        return Score(fid, math.nan, math.nan), Score(kid, math.nan, math.nan)
    fid_ends = fid_interval(x, y, fid, resamples=resamples, seed=seed)
    kid_ends = kid_interval(x, y, kid, unbiased=unbiased, resamples=resamples, seed=seed)
    return Score(fid, *fid_ends), Score(kid, *kid_ends)


def hand_scores(folder: Path, *, gesture: str, resamples: int, seed: int, num_workers: int) -> dict[str, Score]:
    """HAND-CONF, the share of pictures with a hand, and the gesture accuracy.

    Raises:
        UserError: an unreadable picture.
    """
    accepted = fingers_of_gesture(gesture) if gesture in GESTURE_FINGERS else None
    photos = hands_of_photos(list_pictures(folder), accepted, num_workers=num_workers)
    scores = {"HAND-CONF": NO_SCORE, "gesture accuracy": NO_SCORE}
    confidences = [photo.scores for photo in photos]
    if any(confidences):
        interval = hand_confidence_interval(confidences, resamples=resamples, seed=seed)
        scores["HAND-CONF"] = Score(hand_confidence(confidences)[0], *interval)
    scores["hand found"] = share_score([photo.found > 0 for photo in photos])
    if accepted is not None:
        scores["gesture accuracy"] = share_score([bool(photo.shows_gesture) for photo in photos])
    return scores


def grouped_mean(values: Sequence[float], groups: Sequence[int], *, resamples: int, seed: int) -> Score:
    """The mean of all values that are not NaN, and its interval by whole groups."""
    array = np.array(values, float)
    if not array.size or np.isnan(array).all():
        return NO_SCORE
    return Score(float(np.nanmean(array)), *bootstrap_interval(array, groups, resamples=resamples, seed=seed))


def share_score(hits: Sequence[bool]) -> Score:
    """The share of pictures that have something."""
    return Score(float(np.mean(hits)), *share_interval(hits))
