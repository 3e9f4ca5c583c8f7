"""The four modalities: a photo, its hand-mesh image, the hands' bounding box, and a text (paper, section 3.1).

`modalities.json` has one JSON object a line, as in the released code, such as

    {"mesh": "mesh/1.png", "rgb": "rgb/1.png", "text": "text/1.txt", "bbox": [18, 9, 47, 52]}

The text is the first line of its file. "bbox" is optional: left, top, right, bottom in pixels of the mesh image.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from scipy import ndimage

from core.hands.crops import Box
from core.runs.errors import UserError
from core.runs.files import fingerprint, leaves_folder, read_lines
from core.runs.photos import load_photo
from core.runs.processes import cpu_count, progress
from core.runs.schema import parsed_json

THRESHOLD = 127  # a brighter pixel of a mesh image belongs to a hand
SPECK = 0.05  # of the largest hand's area; smaller spots (JPEG, a fingertip behind the other hand) are left out
SOON = 5  # seconds after which a progress bar appears: small data sets do without
EXAMPLE = '{"mesh": "mesh/1.png", "rgb": "rgb/1.png", "text": "text/1.txt"}'


class Sample(NamedTuple):
    """One line of `modalities.json`, its files found."""

    mesh: Path
    text: str
    rgb: Path | None = None
    box: Box | None = None  # in pixels of the mesh image
    text_file: Path | None = None


class View(NamedTuple):
    """A mesh image and its photo as the networks see them; a batch of views has B in front."""

    mesh: torch.Tensor  # (3, S, S) in [0, 1]
    rgb: torch.Tensor | None  # (3, S, S) in [-1, 1]; None where only the mesh image is needed


class ViewPair(NamedTuple):
    """Both views of a sample; a batch of pairs has B in front."""

    index: torch.Tensor  # the sample's number
    global_view: View
    local_view: View


def read_modalities(path: Path, *, with_rgb: bool = True) -> list[Sample]:
    """The samples of a `modalities.json`.

    Paths are relative to the JSON's folder, to the folder above it (whatever the JSON's folder is called), or to the
    current folder, as released.

    Raises:
        UserError: a damaged line, a missing file, a path that leaves its folder, an empty text, a bad "bbox".
    """
    samples = []
    for where, record, files in modality_files(path, ("mesh", "text", *(["rgb"] if with_rgb else []))):
        text, box = first_line(files["text"]), _check_box(record.get("bbox"), where)
        samples.append(Sample(files["mesh"], text, files.get("rgb"), box, files["text"]))
    return samples


def modality_files(path: Path, keys: Sequence[str]) -> Iterator[tuple[str, dict[str, Any], dict[str, Path]]]:
    """Of each line of a `modalities.json`: its place for messages, its object, and the files under `keys`.

    Raises:
        UserError: a damaged line, a missing file, a path that leaves its folder.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; it lists the samples of a data set (attentionhand.prepare makes one)")
    lines = read_lines(path)
    if lines[0].startswith("["):
        raise UserError(f"{path}: holds a JSON list; write one JSON object a line, without commas after it: {EXAMPLE}")
    for number, line in enumerate(progress(lines, desc="Reading", unit="sample", delay=SOON), start=1):
        where = f"{path}: line {number}"
        try:
            record = parsed_json(line)
            names = {key: record[key] for key in keys}
        except (ValueError, TypeError):
            raise UserError(f"{where}: not a JSON object; every line needs one, such as {EXAMPLE}") from None
        except KeyError as missing:
            raise UserError(f"{where}: has no {missing}; every line needs an object such as {EXAMPLE}") from None
        yield where, record, {key: _find(name, path, f"{where}: {key}") for key, name in names.items()}


def paths_of(folder: Path, key: str) -> list[Path]:
    """The files of a folder's `modalities.json` under "rgb", "mesh" or "text"; raises as `modality_files`."""
    return [files[key] for _, _, files in modality_files(folder / "modalities.json", [key])]


def photo_in_both(one: Iterable[Path], other: Iterable[Path]) -> Path | None:
    """A photo of `other` whose content `one` has, too, such as a test's that training has seen."""
    known = {fingerprint(photo) for photo in one}
    return next((photo for photo in other if fingerprint(photo) in known), None)


def _find(name: object, json_path: Path, where: str) -> Path:
    if not isinstance(name, str) or leaves_folder(name):
        raise UserError(f"{where}: '{name}' is not a path inside the folder of the data")
    beside = json_path.parent
    if (path := beside / name).is_file():
        return path
    # "samples/mesh/1.jpg" names its own folder, which may have been renamed.
    for path in (beside.joinpath(*Path(name).parts[1:]), Path(name)):
        if path.is_file():
            return path
    hint = " (name a file whose first line is the text)" if where.endswith("text") else ""
    raise UserError(f"{where}: no file '{name}' beside {json_path} or in the current folder{hint}")


def first_line(path: Path) -> str:
    """A text file's first line, which is all that the released code reads."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None
    if not lines or not lines[0].strip():
        raise UserError(f"{path}: its first line is empty; it must be the picture's text")
    return lines[0].strip()


def _check_box(box: object, where: str) -> Box | None:
    if box is None:
        return None
    match box:
        case [int() | float(), int() | float(), int() | float(), int() | float()] if all(map(math.isfinite, box)):
            left, top, right, bottom = map(int, box)
            return left, top, right, bottom
    raise UserError(f'{where}: "bbox" must be four numbers: left, top, right, bottom')


def content_hash(samples: Sequence[Sample]) -> str:
    """A SHA-256 of texts, boxes and pictures, by which a run recognises its data."""
    digest = hashlib.sha256()
    with ThreadPoolExecutor(cpu_count()) as pool:
        fingerprints = pool.map(_fingerprints, samples)
        bar = progress(fingerprints, total=len(samples), desc="Fingerprints", unit="sample", delay=SOON)
        for sample, files in zip(samples, bar):
            digest.update(json.dumps([sample.text, sample.box, *files]).encode())
    return digest.hexdigest()


def _fingerprints(sample: Sample) -> list[str]:
    return [fingerprint(path) for path in (sample.mesh, sample.rgb) if path]


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
    """The global view, the whole picture, and the local one, its hands, both (size, size) (paper, section 3.1).

    As released, mesh image and photo may differ in size, the local mesh image is grey, and its box is found in the
    resized mesh image.

    Raises:
        UserError: an unreadable picture, no hand, a box outside the picture.
    """
    mesh = load_picture(sample.mesh)
    rgb = load_picture(sample.rgb) if sample.rgb else None
    left, top, right, bottom = local_box(sample, mesh, size)
    mesh, rgb = resize(mesh, size), None if rgb is None else resize(rgb, size)
    crop = slice(top, bottom), slice(left, right)
    local_mesh = resize(cv2.cvtColor(grey(mesh)[crop], cv2.COLOR_GRAY2RGB), size)
    local_rgb = None if rgb is None else resize(rgb[crop], size)
    return _as_view(mesh, rgb), _as_view(local_mesh, local_rgb)


def local_box(sample: Sample, mesh: np.ndarray, size: int) -> Box:
    """The box of the local view in the mesh image (H, W, 3) resized to (size, size): the sample's own, or the hands'.

    Raises:
        UserError: no hand, or a box outside the picture.
    """
    if not sample.box:
        try:
            return hand_box(resize(mesh, size))
        except ValueError as error:
            raise UserError(f"{sample.mesh}: {error}") from None
    scale = size / np.array([mesh.shape[1], mesh.shape[0]] * 2)
    left, top, right, bottom = (np.array(sample.box) * scale).round().astype(int).clip(0, size)
    if right - left < 2 or bottom - top < 2:
        raise UserError(f'{sample.mesh}: its "bbox" {list(sample.box)} is empty or outside the picture')
    return left, top, right, bottom


def _as_view(mesh: np.ndarray, rgb: np.ndarray | None) -> View:
    def planes(picture: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(picture).permute(2, 0, 1).float()

    return View(planes(mesh) / 255, None if rgb is None else planes(rgb) / 127.5 - 1)


def check_views(samples: Sequence[Sample], size: int) -> None:
    """Read the pictures of every sample once, on all cores, so that a bad one is met now and not after hours.

    Raises:
        UserError: that of the first bad sample.
    """

    def check(sample: Sample) -> None:
        if sample.rgb:
            load_picture(sample.rgb)
        local_box(sample, load_picture(sample.mesh), size)

    with ThreadPoolExecutor(cpu_count()) as pool:
        checked = pool.map(check, samples)
        for _ in progress(checked, total=len(samples), desc="Checking", unit="sample"):
            pass


class HandViews(torch.utils.data.Dataset):
    """For a DataLoader: both views of each sample."""

    def __init__(self, samples: Sequence[Sample], size: int) -> None:
        self.samples, self.size = samples, size

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> ViewPair:
        return ViewPair(torch.tensor(index), *views(self.samples[index], self.size))


def load_batches(
    samples: Sequence[Sample],
    size: int,
    *,
    batch_size: int,
    own: slice,
    start: int,
    steps: int,
    seed: int,
    num_workers: int,
) -> Iterator[ViewPair]:
    """This process's part of the batches of the steps from `start` on: an endless shuffle, a function of the seed.

    Args:
        batch_size: samples of a step on all processes.
        own: the part of each batch that this process works on.
        num_workers: processes that read pictures; 0 reads them in this one.
    """
    from core.diffusion.noise import derived_seed  # brings diffusers, which reading the data does not need

    def order() -> Iterator[int]:
        epoch = 0
        while True:
            yield from np.random.default_rng(derived_seed(seed, 0, epoch)).permutation(len(samples)).tolist()
            epoch += 1

    def rows() -> Iterator[list[int]]:
        endless = order()
        for _ in range(steps):
            yield [next(endless) for _ in range(batch_size)][own]

    num_workers = num_workers if start < steps else 0
    batches = itertools.islice(rows(), start, None)  # a list of all would take a gigabyte at a million steps
    yield from torch.utils.data.DataLoader(HandViews(samples, size), batch_sampler=batches, num_workers=num_workers)
