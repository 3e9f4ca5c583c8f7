"""What visitors upload: looked at before it is opened, and opened without running anything in it.

The page shows the errors, so they name a file as the visitor does and not where it lies on this machine.
"""

import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attentionhand.data import hand_box
from attentionhand.known_labels import load_labels, read_arrays
from attentionhand.labels.drawing import Options, draw
from attentionhand.labels.own import read_joints
from core.runs.errors import UserError, reason_of
from core.runs.photos import IMAGE_SUFFIXES, load_photo
from studio.posed_hand import Scene

MEGABYTE = 10**6
MOST_BYTES = 20 * MEGABYTE  # of a file
MOST_PIXELS = 25_000_000  # of a picture: 75 MB in memory
TOO_MANY_PIXELS = f"pictures of more than {MOST_PIXELS // MEGABYTE} million pixels are not opened"
MOST_UNPACKED = 100 * MEGABYTE  # of a joints file
MOST_ROWS = 100_000  # of a joints file
MOST_FILES = 500  # uploaded together
MOST_TOGETHER = 200 * MEGABYTE
FORMATS = ("PNG", "JPEG", "WEBP")
# What is taken out of a joints file. Not `rgb`: those are paths, and no path of a visitor is opened.
ARRAYS = ("joints_3d", "joints_2d", "handedness", "focal", "princpt", "K", "size", "axes", "unit")
LARGEST_NUMBER = 1e6  # of an array: more is neither pixels nor millimetres
MESH_SIZE = 256  # pixels of the longer side of a mesh image that is drawn from joints
ROOM = 1.6  # its side in sizes of the hands


def visitors_file(path: object, own_folder: Path) -> Path:
    """The path of an upload, which Gradio has put into the page's own folder.

    Raises:
        UserError: it lies elsewhere, so that it is not an upload.
    """
    if not isinstance(path, str) or not Path(path).resolve().is_relative_to(own_folder):
        raise UserError("this is not a file that was uploaded here")
    return Path(path)


def check_file(path: Path, suffixes: Sequence[str]) -> None:
    """Refuse an upload by its name and its size.

    Raises:
        UserError: another kind of file, an empty one, or one of more than 20 MB.
    """
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{path.name}: not a file of the kind that is wanted here ({', '.join(suffixes)})")
    size = path.stat().st_size
    if not size:
        raise UserError(f"{path.name}: is empty")
    if size > MOST_BYTES:
        raise UserError(f"{path.name}: {size / MEGABYTE:.0f} MB; at most {MOST_BYTES // MEGABYTE} MB are taken")


def uploaded_picture(path: Path) -> Image.Image:
    """An uploaded picture, upright RGB.

    Raises:
        UserError: not a PNG, JPEG or WebP, damaged, or with more pixels or bytes than are taken.
    """
    check_file(path, IMAGE_SUFFIXES)
    try:
        with Image.open(path, formats=FORMATS) as picture:  # reads the header only
            width, height = picture.size
    except Image.DecompressionBombError:  # Pillow's own limit
        raise UserError(f"{path.name}: {TOO_MANY_PIXELS}") from None
    except Exception:  # Pillow's readers raise a dozen kinds
        raise UserError(f"{path.name}: not a PNG, JPEG or WebP picture") from None
    if width * height > MOST_PIXELS:
        raise UserError(f"{path.name}: {width} x {height} pixels; {TOO_MANY_PIXELS}")
    try:
        return load_photo(path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name)) from None


def uploaded_mesh(path: Path) -> Scene:
    """An uploaded mesh image: a light hand on black. Nothing is known of its joints.

    Raises:
        UserError: as `uploaded_picture`, and a picture that shows no hand on black.
    """
    mesh = np.asarray(uploaded_picture(path))
    try:
        left, top, right, bottom = hand_box(mesh)
    except ValueError as error:
        raise UserError(f"{path.name}: {error}; a mesh image is a light hand on black") from None
    if (right - left) * (bottom - top) >= mesh.shape[0] * mesh.shape[1]:
        raise UserError(f"{path.name}: is light up to its edges; a mesh image is a light hand on black")
    return Scene(mesh, [])


def uploaded_joints(path: Path, row: int, own_folder: Path) -> Scene:
    """A row of an uploaded joints.npz as `attentionhand.prepare` draws it, with its label.

    Args:
        row: from 0.
        own_folder: where the page may write.

    Raises:
        UserError: not such a file, a damaged or too large one, no such row, joints that are not a hand's.
    """
    check_file(path, [".npz"])
    try:
        check_archive(path)
        arrays = row_of(read_arrays(path), row, path)
        with tempfile.TemporaryDirectory(dir=own_folder) as name:
            return drawn_joints(arrays, Path(name), path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name)) from None


def check_archive(path: Path) -> None:
    """Refuse an .npz whose arrays are much larger than the file, or than they say, before they are unpacked.

    Raises:
        UserError
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > MOST_UNPACKED:
                most = MOST_UNPACKED // MEGABYTE
                raise UserError(f"{path}: {unpacked / MEGABYTE:.0f} MB when unpacked; at most {most} MB are taken")
            for entry in archive.infolist():
                with archive.open(entry) as file:
                    version = np.lib.format.read_magic(file)
                    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
                    shape, _, dtype = read[version[0]](file)
                    if int(np.prod(shape, dtype=object)) * dtype.itemsize > entry.file_size:
                        raise UserError(f"{path}: the array {entry.filename[:80]} is larger than what the file holds")
    except UserError:
        raise
    except Exception as error:  # zipfile's, numpy's, and what a hostile header makes ast raise
        raise UserError(f"{path}: not an .npz file of plain arrays ({reason_of(error)})") from None


def row_of(arrays: dict[str, np.ndarray], row: int, path: Path) -> dict[str, np.ndarray]:
    """The known arrays of one row, each with an axis of length 1 for it where the file has rows.

    Raises:
        UserError: no joints_3d, too many rows, no such row, numbers that are none.
    """
    if "joints_3d" not in arrays or not arrays["joints_3d"].ndim:
        raise UserError(f"{path}: not an .npz file with joints_3d")
    count = len(arrays["joints_3d"])
    if not 0 <= row < min(count, MOST_ROWS):
        raise UserError(f"{path}: has no row {row}; there are {count}, the first is row 0")
    known = {name: arrays[name] for name in ARRAYS if name in arrays}
    rows: dict[str, np.ndarray] = {}
    for name, array in known.items():
        is_number = array.dtype.kind in "fiu"
        if is_number and (np.abs(array[np.isfinite(array)]) > LARGEST_NUMBER).any():
            raise UserError(f"{path}: {name} has numbers above {LARGEST_NUMBER:g}")
        if not is_number and array.dtype.kind not in "US":
            raise UserError(f"{path}: {name} holds {array.dtype}, not numbers or words")
        dimensions = {"axes": 0, "unit": 0, "handedness": 0, "K": 2}.get(name, 1)
        has_rows = array.ndim > dimensions and len(array) == count
        rows[name] = array[row : row + 1] if has_rows else array
    return rows


def drawn_joints(arrays: dict[str, np.ndarray], folder: Path, path: Path) -> Scene:
    """The mesh image and the label of a file of one row, by the functions of `attentionhand.prepare`."""
    clean, mesh = folder / "joints.npz", folder / "mesh"
    np.savez(clean, **arrays)  # type: ignore[arg-type]
    mesh.mkdir()
    options = Options(folder, None, MESH_SIZE, ROOM, min_hand=1, two_hands=False, with_photos=False)
    try:
        label = next(iter(read_joints(clean, axes=None, unit=None, image_size=512)))
        entry = draw(label, options)
    except UserError as error:
        raise UserError(str(error).replace(str(clean), str(path))) from None
    except (ValueError, TypeError, IndexError, FloatingPointError) as error:  # shapes that belong to nothing
        raise UserError(f"{path}: its arrays do not belong together ({reason_of(error)})") from None
    if "left_out" in entry:
        cause = f"; perhaps {entry['cause']}" if entry.get("cause") else ""
        raise UserError(f"{path}: {entry['left_out']}{cause}")
    return scene_of_entry(entry, folder)


def scene_of_entry(entry: dict[str, Any], folder: Path) -> Scene:
    """What `draw` wrote of a label. The mesh image is put in the middle of a black square."""
    with Image.open(folder / "mesh" / f"{entry['name']}.png") as file:
        picture = file.convert("RGB")
    hands, size = entry["hands"], picture.size
    side = max(size)
    shift = (side - size[0]) // 2, (side - size[1]) // 2
    square = Image.new("RGB", (side, side))
    square.paste(picture, shift)
    np.savez(
        folder / "label.npz",
        joints_2d=np.array([[hand["joints_2d"] for hand in hands]]) + shift,
        joints_3d=np.array([[hand["joints_3d"] for hand in hands]]),
        handedness=np.array([[hand["handedness"] for hand in hands]]),
        focal=np.array([entry["focal"]]),
        princpt=np.array([entry["princpt"]]) + shift,
        size=np.array([[side, side]]),
        axes="opencv",
    )
    return Scene(np.asarray(square), load_labels(folder / "label.npz").hands[0])


def uploaded_folder(paths: Sequence[Path], folder: Path) -> Path:
    """Uploaded pictures, checked, as a folder to measure.

    Args:
        folder: to make; it holds 0000.png, 0001.jpg, ... in the order of the upload.

    Raises:
        UserError: none, too many, too large together, or as `uploaded_picture`.
    """
    if not paths:
        raise UserError("upload pictures first, or choose a folder of the list")
    if len(paths) > MOST_FILES:
        raise UserError(f"{len(paths)} pictures; at most {MOST_FILES} are taken together")
    if sum(path.stat().st_size for path in paths) > MOST_TOGETHER:
        raise UserError(f"more than {MOST_TOGETHER // MEGABYTE} MB together")
    folder.mkdir()
    for number, path in enumerate(paths):
        uploaded_picture(path)
        (folder / f"{number:04}{path.suffix.lower()}").symlink_to(path.resolve())
    return folder
