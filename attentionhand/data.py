"""The four modalities: a picture, its hand-mesh image, the hands' bounding box, and a text (released `datasets.py`).

`modalities.json` has one JSON object a line: {"mesh": "data/mesh/1.png", "rgb": "data/rgb/1.png",
"text": "data/text/1.txt"}, optionally with "bbox": [left, top, right, bottom] in pixels of the mesh image.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from scipy import ndimage

from core.hands.crops import Box
from core.runs.errors import UserError
from core.runs.files import fingerprint, leaves_folder, read_lines
from core.runs.photos import load_photo

THRESHOLD = 127  # a mesh image's pixel above it belongs to a hand
SPECK = 0.01  # of the largest hand's area; smaller spots (JPEG noise) are no hands


class Sample(NamedTuple):
    """One line of `modalities.json`, its files found."""

    mesh: Path
    text: str
    rgb: Path | None = None
    box: Box | None = None  # in pixels of the mesh image


class View(NamedTuple):
    """A mesh image and its picture as the model sees them."""

    mesh: torch.Tensor  # (3, S, S) in [0, 1]
    rgb: torch.Tensor | None  # (3, S, S) in [-1, 1]


def read_modalities(path: Path, *, with_rgb: bool = True) -> list[Sample]:
    """The samples of a `modalities.json`.

    Paths are relative to the JSON's folder, to the folder above it (whatever the JSON's folder is called), or to the
    current folder, as released.

    Raises:
        UserError: a damaged line, a missing file, a path that leaves its folder, an empty text, a bad "bbox".
    """
    samples = []
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path}: line {number}"
        try:
            record = json.loads(line)
            names = {key: record[key] for key in ("mesh", "text", *(["rgb"] if with_rgb else []))}
        except (ValueError, TypeError):
            raise UserError(f"{where}: is no JSON object") from None
        except KeyError as missing:
            raise UserError(f"{where}: has no {missing}") from None
        files = {key: _find(name, path, f"{where}: {key}") for key, name in names.items()}
        text = _first_line(files["text"])
        samples.append(Sample(files["mesh"], text, files.get("rgb"), _check_box(record.get("bbox"), where)))
    return samples


def _find(name: object, json_path: Path, where: str) -> Path:
    if not isinstance(name, str) or leaves_folder(name):
        raise UserError(f"{where}: '{name}' is not a path inside the data's folder")
    beside = json_path.parent
    # "samples/mesh/1.jpg" names its own folder, which may be called otherwise by now.
    for path in (beside / name, beside.joinpath(*Path(name).parts[1:]), Path(name)):
        if path.is_file():
            return path
    raise UserError(f"{where}: '{name}' is neither here nor beside {json_path}")


def _first_line(path: Path) -> str:
    """A text file's first line, which is all that the released code reads."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text") from None
    if not lines or not lines[0].strip():
        raise UserError(f"{path}: its first line, the picture's text, is empty")
    return lines[0].strip()


def _check_box(box: object, where: str) -> Box | None:
    if box is None:
        return None
    match box:
        case [int() | float(), int() | float(), int() | float(), int() | float()] if all(map(math.isfinite, box)):
            left, top, right, bottom = map(int, box)
            return left, top, right, bottom
    raise UserError(f'{where}: "bbox" is four numbers: left, top, right, bottom')


def content_hash(samples: Sequence[Sample]) -> str:
    """By which a run remembers its data: texts, boxes and the pictures themselves."""
    digest = hashlib.sha256()
    for sample in samples:
        files = [fingerprint(path) for path in (sample.mesh, sample.rgb) if path]
        digest.update(json.dumps([sample.text, sample.box, *files]).encode())
    return digest.hexdigest()


def load_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    return np.asarray(load_photo(path))


def resize(picture: np.ndarray, size: int) -> np.ndarray:
    """To (size, size), aspect not kept, with OpenCV's bilinear filter as released."""
    return cv2.resize(picture, (size, size))


def grey(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB to the brightness (H, W)."""
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def hand_box(mesh: np.ndarray) -> Box:
    """The box around all hands of a mesh image (H, W, 3): left, top, right, bottom; right and bottom are outside.

    The released code takes the first two contours, even if one of them is a speck.

    Raises:
        ValueError: no hand, or one of a single pixel.
    """
    spots, count = ndimage.label(grey(mesh) > THRESHOLD, structure=np.ones((3, 3)))
    if not count:
        raise ValueError("shows no hand")
    areas = np.bincount(spots.ravel())[1:]
    hands = np.isin(spots, 1 + np.flatnonzero(areas >= SPECK * areas.max()))
    rows, columns = hands.any(axis=1).nonzero()[0], hands.any(axis=0).nonzero()[0]
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    if box[2] - box[0] < 2 or box[3] - box[1] < 2:
        raise ValueError("shows a hand of a single pixel's width")
    return box


def views(sample: Sample, size: int = 512) -> tuple[View, View]:
    """The global view, the whole picture, and the local one, its hands, both (size, size).

    As released, the local mesh is grey, and its box is found in the resized mesh image.

    Raises:
        UserError: an unreadable picture, sizes that do not match, no hand, a box outside the picture.
    """
    mesh = load_picture(sample.mesh)
    rgb = load_picture(sample.rgb) if sample.rgb else None
    if rgb is not None and rgb.shape != mesh.shape:
        raise UserError(
            f"{sample.mesh}: {mesh.shape[1]}x{mesh.shape[0]} pixels, its picture {sample.rgb} has "
            f"{rgb.shape[1]}x{rgb.shape[0]}"
        )
    scale = size / np.array([mesh.shape[1], mesh.shape[0]] * 2)
    mesh, rgb = resize(mesh, size), None if rgb is None else resize(rgb, size)
    if sample.box:
        left, top, right, bottom = (np.array(sample.box) * scale).round().astype(int).clip(0, size)
        if right - left < 2 or bottom - top < 2:
            raise UserError(f'{sample.mesh}: its "bbox" {list(sample.box)} is empty or outside the picture')
    else:
        try:
            left, top, right, bottom = hand_box(mesh)
        except ValueError as error:
            raise UserError(f"{sample.mesh}: {error}") from None
    crop = slice(top, bottom), slice(left, right)
    local_mesh = resize(cv2.cvtColor(grey(mesh)[crop], cv2.COLOR_GRAY2RGB), size)
    local_rgb = None if rgb is None else resize(rgb[crop], size)
    return _as_view(mesh, rgb), _as_view(local_mesh, local_rgb)


def _as_view(mesh: np.ndarray, rgb: np.ndarray | None) -> View:
    def planes(picture: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(picture).permute(2, 0, 1).float()

    return View(planes(mesh) / 255, None if rgb is None else planes(rgb) / 127.5 - 1)


class HandViews(torch.utils.data.Dataset):
    """For a DataLoader: the global and local views of samples, with the sample's index."""

    def __init__(self, samples: Sequence[Sample], size: int) -> None:
        self.samples, self.size = samples, size

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        whole, local = views(self.samples[index], self.size)
        pictures = {"global_rgb": whole.rgb, "local_rgb": local.rgb}
        return {"index": torch.tensor(index), "global_mesh": whole.mesh, "local_mesh": local.mesh, **pictures}
