"""Stage I of Hand1000: the gesture feature, the mean of the first hand's landmarks over a gesture's photos."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.hands.detection import find_hands
from core.runs.errors import UserError
from core.runs.files import atomic_file, check_writable, write_json
from core.runs.photos import list_photos, map_photos
from core.runs.processes import counted, say
from core.runs.run import read_json

FEATURE_SIZE = 63  # 21 landmarks, each x, y, z


def mean_landmarks(landmarks: Sequence[np.ndarray]) -> np.ndarray:
    """The gesture feature (paper, section "Hand gesture feature"): f = 1/n Σᵢ (x₀, y₀, z₀, ..., x₂₀, y₂₀, z₂₀)ᵢ.

    Args:
        landmarks: of the first hand in each of n photos, (21, 3): x and y relative to the photo (0 to 1), z depth
            relative to the wrist.

    Returns:
        f, (63,) float64.
    """
    return np.stack(landmarks).reshape(len(landmarks), FEATURE_SIZE).mean(axis=0)


def compute_gesture_feature(
    folder: Path, output: Path, *, num_workers: int | None = None, skip_bad_images: bool = False
) -> None:
    """Run Stage I on a folder of photos, save the feature to `output` and say how many photos had no hand.

    A record beside it, call_feature.json for call.npy, holds its hash: see `is_users_own`.

    Args:
        num_workers: processes that find hands (default: one per core).
        skip_bad_images: leave unreadable photos out and name them.

    Raises:
        UserError: no photo, an unreadable one (unless `skip_bad_images`), or no hand in any of them.
    """
    photos = list_photos(folder)
    check_writable(output.parent)
    bad: list[UserError] = []
    try:
        found = list(
            map_photos(
                find_hands,
                photos,
                num_workers=num_workers,
                bad=bad if skip_bad_images else None,
                desc="Stage I: finding hands",
            )
        )
    except UserError as error:
        raise UserError(f"{error}, or pass --skip_bad_images") from None
    for error in bad:
        say(f"skipped: {error}")
    landmarks = [hands[0].landmarks for hands in found if hands]
    if not landmarks:
        raise UserError(f"{folder}: MediaPipe found no hand in its {counted(len(photos), 'photo')}; are they upright?")
    save_gesture_feature(output, mean_landmarks(landmarks))
    write_json(record_of(output), {"feature_sha256": feature_hash(load_gesture_feature(output))})
    unreadable = f", {len(bad)} could not be read" if bad else ""
    say(
        f"{output}: mean of {counted(len(landmarks), 'hand')}; {len(found) - len(landmarks)} of "
        f"{counted(len(photos), 'photo')} had no hand{unreadable}"
    )


def record_of(feature: Path) -> Path:
    """call_feature.json for call.npy."""
    return feature.with_name(f"{feature.stem}_feature.json")


def is_users_own(feature: Path) -> bool:
    """Whether a gesture feature is there which Stage I did not make.

    Raises:
        UserError: it, or the record of Stage I, can't be read.
    """
    if not feature.is_file():
        return False
    record = record_of(feature)
    made = read_json(record, f"{record}: damaged") if record.is_file() else {}
    return made.get("feature_sha256") != feature_hash(load_gesture_feature(feature))


def save_gesture_feature(path: Path, feature: np.ndarray) -> None:
    """Write a gesture feature (63,), atomically."""
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.save(file, feature)


def load_gesture_feature(path: Path) -> np.ndarray:
    """A gesture feature as (63,) float32.

    Raises:
        UserError: the file is missing, is not an `.npy` array, has another shape, or holds NaN or infinity.
    """
    try:
        feature = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; cal_mean_feature.py makes it") from None
    except Exception:  # NumPy also tries zip and pickle, and advises to trust the latter
        raise UserError(f"{path}: not a .npy array; run cal_mean_feature.py again") from None
    if not isinstance(feature, np.ndarray) or feature.shape != (FEATURE_SIZE,) or feature.dtype.kind not in "fiu":
        found = f"{feature.dtype} {feature.shape}" if isinstance(feature, np.ndarray) else "several arrays"
        raise UserError(f"{path}: a gesture feature is {FEATURE_SIZE} numbers, this is {found}")
    if not np.isfinite(feature).all():
        raise UserError(f"{path}: holds NaN or infinity; run cal_mean_feature.py again")
    return feature.astype(np.float32)


def feature_hash(feature: np.ndarray) -> str:
    """SHA-256 of a loaded feature, by which a run remembers it."""
    return hashlib.sha256(feature.tobytes()).hexdigest()
