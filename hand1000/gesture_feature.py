"""Stage I: the gesture feature, the mean of the first hand's landmarks over a gesture's photos (paper, section
"Hand gesture feature"; released `cal_mean_feature.py`)."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.hands.crops import detect_hands_in_files
from core.runs.errors import UserError
from core.runs.files import atomic_file, check_writable
from core.runs.photos import list_photos
from core.runs.processes import progress, say

FEATURE_SIZE = 63  # 21 landmarks, each x, y, z


def mean_landmarks(landmarks: Sequence[np.ndarray]) -> np.ndarray:
    """The gesture feature: (63,) float64 x0, y0, z0, ..., x20, y20, z20 from (21, 3) arrays, one a photo."""
    return np.stack(landmarks).reshape(len(landmarks), FEATURE_SIZE).mean(axis=0)


def compute_gesture_feature(
    folder: Path, output: Path, *, num_workers: int | None = None, skip_bad_images: bool = False
) -> None:
    """Run Stage I on a folder of photos, save the feature to `output` and say how many photos had no hand.

    Raises:
        UserError: no photo, an unreadable one (unless `skip_bad_images`), or no hand in any of them.
    """
    photos = list_photos(folder)
    check_writable(output.parent)
    results = detect_hands_in_files(photos, num_workers=num_workers)
    landmarks, without_hand, bad = [], 0, []
    for hands in progress(results, total=len(photos), desc="Stage I: finding hands", unit="photo"):
        if isinstance(hands, UserError):
            if not skip_bad_images:
                raise UserError(f"{hands}, or pass --skip_bad_images")
            bad.append(hands)
        elif hands:
            landmarks.append(hands[0].landmarks)
        else:
            without_hand += 1
    for error in bad:
        say(f"skipped: {error}")
    if not landmarks:
        raise UserError(f"{folder}: MediaPipe found no hand in any of its {len(photos)} photos; are they upright?")
    with atomic_file(output) as temporary, open(temporary, "wb") as file:
        np.save(file, mean_landmarks(landmarks))
    unreadable = f", {len(bad)} could not be read" if bad else ""
    say(f"{output}: mean of {len(landmarks)} hands; {without_hand} of {len(photos)} photos had no hand{unreadable}")


def load_gesture_feature(path: Path) -> np.ndarray:
    """A gesture feature as (63,) float32.

    Raises:
        UserError: the file is missing, is no `.npy` array, has another shape, or holds NaN or infinity.
    """
    try:
        feature = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; cal_mean_feature.py makes it") from None
    except Exception as error:  # NumPy also tries zip and pickle
        raise UserError(f"{path}: not a .npy array ({error}); run cal_mean_feature.py again") from None
    if not isinstance(feature, np.ndarray) or feature.shape != (FEATURE_SIZE,) or feature.dtype.kind not in "fiu":
        found = f"{feature.dtype} {feature.shape}" if isinstance(feature, np.ndarray) else "several arrays"
        raise UserError(f"{path}: a gesture feature is {FEATURE_SIZE} numbers, this is {found}")
    if not np.isfinite(feature).all():
        raise UserError(f"{path}: holds NaN or infinity; run cal_mean_feature.py again")
    return feature.astype(np.float32)


def feature_hash(feature: np.ndarray) -> str:
    """SHA-256 of a loaded feature, by which a run remembers it."""
    return hashlib.sha256(feature.tobytes()).hexdigest()
