"""Labels that generated pictures are compared with: joints.npz, and which of its rows each picture belongs to."""

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attentionhand.label_errors import LabelledHand, hand_size
from core.runs.errors import UserError, reason_of

IMAGE_SIZE = 512  # pixels per side, where neither the label file nor --image_size says it
AXES = {"opencv": (1.0, 1, 1), "opengl": (1.0, -1, -1)}  # to OpenCV's
HANDEDNESS = ("Left", "Right", "")  # "" where not known
DEFAULT_AXES = "opengl"  # of a file that does not name them, as for attentionhand.prepare


class KnownLabels(NamedTuple):
    """The rows of a label file."""

    hands: list[list[LabelledHand]]  # of each row
    sizes: np.ndarray  # (N, 2): width and height in pixels of the pictures that the rows belong to
    names: list[str]  # of the rows' files; rows of one name are one label with several texts; none where not known
    arrays: dict[str, np.ndarray]  # everything that the file holds

    @property
    def groups(self) -> list[int]:
        """The first row of the same name for each row: resampling takes labels as a whole."""
        first: dict[str, int] = {}
        return [first.setdefault(name, row) for row, name in enumerate(self.names or map(str, range(len(self.hands))))]


def load_labels(path: Path, image_size: int | None = None) -> KnownLabels:
    """The labels of a joints.npz, as attentionhand.prepare and synthetic_hands.make_dataset write it.

    Args:
        image_size: pixels per side that joints_2d refer to; None for the file's `size` (N, 2), or 512 without it.

    Raises:
        UserError: no such file or array, arrays that do not belong together, no hand that is known.
    """
    arrays = read_arrays(path)
    joints = arrays["joints_2d"]
    if joints.ndim not in (3, 4) or joints.shape[-2:] != (21, 2):
        raise UserError(f"{path}: joints_2d is {joints.shape}, not (N, 21, 2) or (N, hands, 21, 2)")
    shape = (len(joints), 1 if joints.ndim == 3 else joints.shape[1])  # rows and hands
    flat = joints.astype(float).reshape(*shape, 21, 2)
    is_known = image_size is None and "size" in arrays
    sizes = rows_of(arrays, "size", (2,), shape[:1], path) if is_known else None
    if sizes is None:
        sizes = np.full((shape[0], 2), float(image_size or IMAGE_SIZE))
    deep = rows_of(arrays, "joints_3d", (21, 3), shape, path)
    axes = str(arrays.get("axes", DEFAULT_AXES))
    if axes not in AXES:
        raise UserError(f"{path}: axes is '{axes}', not {' or '.join(AXES)}")
    deep = np.full((*shape, 21, 3), np.nan) if deep is None else deep * AXES[axes]
    sides = rows_of(arrays, "handedness", (), shape, path)
    others = set() if sides is None else {*sides.astype(str).flat} - {*HANDEDNESS}
    if others:
        raise UserError(f"{path}: handedness is '{min(others)}', not Left or Right")
    names = rows_of(arrays, "name", (), shape[:1], path)
    cameras = [rows_of(arrays, name, (2,), shape[:1], path) for name in ("focal", "princpt")]
    focal, princpt = (np.full((shape[0], 2), np.nan) if one is None else one for one in cameras)
    hands = [
        [
            LabelledHand(flat[row, hand], deep[row, hand], "" if sides is None else sides[row, hand], *camera)
            for hand in range(shape[1])
            if np.isfinite(flat[row, hand]).all()
        ]
        for row, camera in enumerate(zip(focal, princpt))
    ]
    largest = max((hand_size(hand.joints_2d / size) for own, size in zip(hands, sizes) for hand in own), default=None)
    if largest is None:
        raise UserError(f"{path}: all its joints_2d are NaN")
    if not is_known and largest < 1 / 8:
        raise UserError(f"{path}: no hand fills an eighth of --image_size {image_size or IMAGE_SIZE}; is that right?")
    return KnownLabels(hands, sizes, [] if names is None else names.tolist(), arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a joints.npz.

    Raises:
        UserError: no such file, a damaged one, or one without joints_2d.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; it holds the labels")
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except (ValueError, OSError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not an .npz file with joints_2d ({reason_of(error)})") from None
    if "joints_2d" not in arrays:
        raise UserError(f"{path}: not an .npz file with joints_2d (the joints in pixels)")
    return arrays


def rows_of(arrays: dict[str, Any], name: str, numbers: Sequence[int], rows: Sequence[int], path: Path) -> Any:
    """An array of the file as (*rows, *numbers), numbers as float; None where the file has none.

    Raises:
        UserError: another shape, or sizes and focal lengths that are not positive.
    """
    if name not in arrays:
        return None
    array = arrays[name]
    try:
        array = array.reshape(*rows, *numbers)
    except ValueError:
        raise UserError(f"{path}: {name} is {array.shape}, but there are {rows[0]} labels") from None
    if array.dtype.kind in "fiu":
        array = array.astype(float)
        if name in ("size", "focal") and not (array > 0).all():
            raise UserError(f"{path}: {name} is not positive everywhere")
    return array


def label_indices(pictures: Sequence[Path], labels: int, names: Sequence[str], folder: Path) -> list[int]:
    """Which label each picture belongs to: the number in result_000_0.png, its name, or its place in the folder.

    Args:
        names: of the labels' own files, where the label file has them (`name`), as attentionhand.prepare writes it.

    Raises:
        UserError: a number beyond the labels, or more pictures than labels.
    """
    if not pictures:
        raise UserError(f"{folder}: has no pictures")
    numbers = [re.fullmatch(r"result_(\d+)_\d+", path.stem) for path in pictures]
    if all(numbers):
        indices = [int(match[1]) for match in numbers if match]
    elif names and {path.stem for path in pictures} <= set(names):
        place = {name: row for row, name in reversed(list(enumerate(names)))}  # the first row of a name
        indices = [place[path.stem] for path in pictures]
    elif len(pictures) == labels:
        indices = list(range(labels))
    else:
        raise UserError(f"{folder}: {len(pictures)} pictures for {labels} labels, and not named result_000_0.png")
    if max(indices) >= labels:
        raise UserError(f"{folder}: result_{max(indices):03d} has no label, there are {labels}")
    return indices
