"""Your own labels: joints as .npz or .npy, or triangle meshes.

joints: a file, or a folder with joints.npz. `joints_3d` is (N, 21, 3) or (N, hands, 21, 3), MediaPipe's order, NaN
where a hand is missing. Further arrays, each optional:
  joints_2d           the same with 2 numbers, in pixels
  focal, princpt      the camera in pixels, (2,) or (N, 2); or K, (3, 3) or (N, 3, 3)
  handedness          "Left" or "Right", (N,) or (N, hands); without it right hands
  size                width and height in pixels, (2,) or (N, 2)
  rgb                 the photos' paths, (N,), relative to the file; or those of a modalities.json beside the file
  source              a name for each, (N,)
  axes, unit          "opencv" or "opengl" (y up, z towards the camera), "m" or "mm"
Without a camera, `joints_2d` say where the hands are: a long lens is put where the joints fit them best, and the joints
are moved sideways to fit them exactly. Without either, the hands fill the picture.

meshes: a folder of .ply, .obj, ... in the camera's frame; NAME_left and NAME_right are one picture, other names right
hands. cameras.json holds {"focal": [fx, fy], "princpt": [cx, cy], "size": [width, height]}, for all or by NAME; without
it the hands fill the picture. Photos: rgb/NAME.jpg or .png.
"""

import json
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attentionhand.labels.camera import camera_of, pinhole
from attentionhand.labels.json_stream import load_object
from attentionhand.labels.label import LEFT, RIGHT, SIDES, HandLabel, Label, file_name
from attentionhand.labels.mesh_files import SUFFIXES, load_mesh
from core.hands.rasterizer import Camera
from core.runs.errors import UserError, reason_of
from core.runs.photos import IMAGE_SUFFIXES

LONG_LENS = 10  # focal length where no camera is known, in longer sides of the picture
FILLED = 0.65  # of the picture by hands whose place is not known
GOOD_FIT = 0.05  # of the hands' size: up to this error all hands of a picture share one frame
TO_OPENCV = {"opencv": np.array([1.0, 1, 1]), "opengl": np.array([1.0, -1, -1])}
UNITS = {"m": 1.0, "mm": 1e-3}


# Joints


def read_joints(root: Path, *, axes: str | None, unit: str | None, image_size: int) -> Iterator[Label]:
    """The labels of a joints file.

    Args:
        axes, unit: instead of the file's own; without either "opengl" and "m".
        image_size: pixels per side, where neither the file nor a photo says it.
    """
    path = root / "joints.npz" if root.is_dir() else root
    content = load_joints(path)
    joints, places = content["joints_3d"], content.get("joints_2d")
    count = len(joints)
    flip = _choice(TO_OPENCV, axes or content.get("axes", "opengl"), f"{path}: axes")
    scale = _choice(UNITS, unit or content.get("unit", "m"), f"{path}: unit")
    photos = photo_names(path, content, count)
    sizes = _rows(content, "size", count, 1, path)
    handedness = _rows(content, "handedness", count, 0, path)
    if sizes is not None and not (sizes > 0).all():
        raise UserError(f"{path}: size has numbers that are not positive")
    names = _rows(content, "source", count, 0, path)
    if names is not None and len({file_name(str(name)) for name in names}) < count:
        raise UserError(f"{path}: two labels have the same name for their files; give each its own `source`")
    for row in range(count):
        rgb = None if photos is None else path.parent / photos[row]
        if sizes is not None:
            size = int(sizes[row][0]), int(sizes[row][1])
        else:
            size = picture_size(rgb) or (image_size, image_size)
        sides = [RIGHT] * len(joints[row])
        if handedness is not None:
            sides = [_side(one, f"{path}: row {row}") for one in np.broadcast_to(handedness[row], len(joints[row]))]
        there = [hand for hand in range(len(joints[row])) if not np.isnan(joints[row][hand]).all()]
        own = [joints[row][hand] * flip * scale for hand in there]
        flat = None if places is None else [places[row][hand] for hand in there]
        own_camera = camera_of_row(content, row, count, path)
        camera = own_camera
        if camera is None:
            camera, own = placed(own, flat, size)
        hands = tuple(HandLabel(sides[hand], own[n], None if flat is None else flat[n]) for n, hand in enumerate(there))
        yield Label(
            f"{row:08}" if names is None else str(names[row]), rgb, camera, hands, size, None, own_camera is not None
        )


def load_joints(path: Path) -> dict[str, Any]:
    """The arrays of a joints file, `joints_3d` and `joints_2d` with an axis for the hands.

    Raises:
        UserError: not such a file, or arrays of other shapes.
    """
    try:
        loaded = np.load(path)
        content: dict[str, Any] = {"joints_3d": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
        for name in {"joints_3d", *({"joints_2d"} & set(content))}:
            content[name] = content[name].astype(float)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; --root is a file of joints, or a folder with joints.npz") from None
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: holds no usable joints_3d ({reason_of(error)})") from None
    joints, places = content["joints_3d"], content.get("joints_2d")
    for name, array, numbers in (("joints_3d", joints, 3), ("joints_2d", places, 2)):
        if array is None:
            continue
        if array.ndim not in (3, 4) or array.shape[-2:] != (21, numbers):
            raise UserError(f"{path}: {name} is {array.shape}, not (N, 21, {numbers}) or (N, hands, 21, {numbers})")
        content[name] = array[:, None] if array.ndim == 3 else array
    if places is not None and places.shape[:-1] != joints.shape[:-1]:
        raise UserError(f"{path}: joints_2d {places.shape} and joints_3d {joints.shape} do not belong together")
    return content


def camera_of_row(content: Mapping[str, Any], row: int, count: int, path: Path) -> Camera | None:
    """A row's camera, or None where the file has none."""
    if "K" in content:
        return camera_of(_rows(content, "K", count, 2, path)[row], f"{path}: K")
    if "focal" not in content and "princpt" not in content:
        return None
    for name, other in (("focal", "princpt"), ("princpt", "focal")):
        if name not in content:
            raise UserError(f"{path}: has {other}, but no {name}; the camera needs both")
    focal, center = (_rows(content, name, count, 1, path)[row] for name in ("focal", "princpt"))
    return pinhole(focal, center, str(path))


def photo_names(path: Path, content: Mapping[str, Any], count: int) -> list[str] | None:
    """The photos' paths, from the file or from modalities.json beside it; None where there are none."""
    if "rgb" in content:
        return [str(name) for name in _rows(content, "rgb", count, 0, path)]
    beside = path.parent / "modalities.json"
    if not beside.is_file():
        return None
    try:
        names = [json.loads(line).get("rgb") for line in beside.read_text(encoding="utf-8").splitlines()]
    except (ValueError, AttributeError) as error:
        raise UserError(f"{beside}: damaged ({reason_of(error)})") from None
    return names if len(names) == count and all(names) else None


def picture_size(path: Path | None) -> tuple[int, int] | None:
    """Width and height of a photo, read from its header; None where it is not there or unreadable."""
    try:
        with Image.open(path or "") as picture:
            return picture.size
    except OSError:
        return None


def _rows(content: Mapping[str, Any], name: str, count: int, dimensions: int, path: Path) -> Any:
    """An array with a row a label, or of `dimensions`, one row for all; None where the file has none."""
    if name not in content:
        return None
    array = np.asarray(content[name])
    if array.ndim == dimensions:
        array = np.broadcast_to(array, (count, *array.shape))
    if array.ndim <= dimensions or len(array) != count:
        raise UserError(f"{path}: {name} is {array.shape}, but there are {count} labels")
    return array


def _side(name: Any, where: str) -> str:
    return str(name) if name in (LEFT, RIGHT) else _choice(SIDES, str(name).lower(), f"{where}: handedness")


def _choice(choices: Mapping[str, Any], name: Any, what: str) -> Any:
    if str(name) not in choices:
        raise UserError(f"{what} is '{name}', not {' or '.join(choices)}")
    return choices[str(name)]


# Hands without a camera


def placed(
    hands: list[np.ndarray], places: list[np.ndarray] | None, size: tuple[int, int]
) -> tuple[Camera, list[np.ndarray]]:
    """A long lens, and the hands (21, 3) where it sees them at `places` (21, 2), or filling the picture.

    All hands of a picture keep one frame if that fits; else each is fitted by itself, as hands of one size.
    """
    camera = Camera((float(LONG_LENS * max(size)),) * 2, (size[0] / 2, size[1] / 2))
    finite = [hand for hand in hands if np.isfinite(hand).all()]
    if not finite:
        return camera, hands
    if places is None:
        low, high = np.min([h.min(axis=0) for h in finite], axis=0), np.max([h.max(axis=0) for h in finite], axis=0)
        scale = FILLED * min(size) / (high - low)[:2].max()
        shift = (0, 0, camera.focal[0] / scale) - (low + high) / 2
        return camera, [hand + shift for hand in hands]
    together = fitted(np.concatenate(hands), np.concatenate(places), camera)
    error = np.abs(camera.project(together) - np.concatenate(places)).max()
    if len(hands) > 1 and not error < GOOD_FIT * np.ptp(np.concatenate(places), axis=0).max():
        return camera, [fitted(hand, place, camera) for hand, place in zip(hands, places)]
    return camera, np.split(together, len(hands))


def fitted(joints: np.ndarray, places: np.ndarray, camera: Camera) -> np.ndarray:
    """Joints (N, 3) at the distance at which they project to `places` (N, 2) best; sideways they are only moved.

    NaN where too few places are known to say.
    """
    known = np.isfinite(joints).all(axis=1) & np.isfinite(places).all(axis=1)
    flat, target = joints[known, :2], places[known]
    if known.sum() < 2 or not np.ptp(flat, axis=0).any() or not np.ptp(target, axis=0).any():
        return np.full(joints.shape, np.nan)
    centred = flat - flat.mean(axis=0)
    scale = (centred * (target - target.mean(axis=0))).sum() / (centred**2).sum()  # pixels a unit: least squares
    if not scale > 0:
        scale = np.ptp(target, axis=0).max() / np.ptp(flat, axis=0).max()  # a misfit, which is refused later
    distance = camera.focal[0] / scale
    middle = (target.mean(axis=0) - camera.center) / camera.focal * distance
    return joints + [*(middle - flat.mean(axis=0)), distance - joints[known, 2].mean()]


# Meshes


def read_meshes(root: Path, *, axes: str | None, unit: str | None, image_size: int) -> Iterator[Label]:
    """The meshes of a folder, those of one picture together."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; --root is a folder of meshes")
    pictures: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for path in sorted(root.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            name, _, side = path.stem.rpartition("_")
            known = name and side.lower() in SIDES
            pictures[name if known else path.stem].append((SIDES[side.lower()] if known else RIGHT, path))
    if not pictures:
        raise UserError(f"{root}: holds no meshes ({', '.join(SUFFIXES)})")
    file = root / "cameras.json"
    cameras = load_object(file) if file.is_file() else {}
    flip = _choice(TO_OPENCV, axes or cameras.get("axes", "opengl"), f"{file}: axes")
    scale = _choice(UNITS, unit or cameras.get("unit", "m"), f"{file}: unit")
    for name, files in pictures.items():
        meshes = [load_mesh(path) for _, path in files]
        for mesh, (_, path) in zip(meshes, files):
            if not len(mesh.faces):
                raise UserError(f"{path}: has no triangles")
        vertices = [mesh.vertices * flip * scale for mesh in meshes]
        own = cameras if "focal" in cameras else cameras.get(name)
        if own is None:
            size = image_size, image_size
            camera, vertices = placed(vertices, None, size)
        else:
            try:
                camera, size = pinhole(own["focal"], own["princpt"], f"{file}: {name}"), own.get("size")
            except (KeyError, TypeError) as missing:
                raise UserError(f"{file}: {name} has no {missing}") from None
        photos = [root / "rgb" / f"{name}{suffix}" for suffix in IMAGE_SUFFIXES]
        rgb = next((photo for photo in photos if photo.is_file()), None)
        hands = tuple(
            HandLabel(side, vertices=own_vertices, faces=mesh.faces)
            for (side, _), own_vertices, mesh in zip(files, vertices, meshes)
        )
        size = picture_size(rgb) if size is None else (int(size[0]), int(size[1]))
        yield Label(name, rgb, camera, hands, size, None, own is not None)
