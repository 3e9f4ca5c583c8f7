"""Pictures of hands with 3D labels, from folders in AttentionHand's format, and what the network sees of them.

A folder holds `modalities.json` (a JSON object a line, of which "rgb" is read) and `joints.npz` with a row for each
line: `joints_2d` (N, 21, 2) in pixels and `joints_3d` (N, 21, 3), or (N, hands, 21, ...) with NaN for a missing hand,
and `handedness` (N,) or (N, hands), "Right" or "Left" hand of the person. `gesture` or `sequence` (N,) names groups for
the evaluation, `label` (N,) the label that a picture was drawn for.

Inside, hands are always (N, 2, 21, ...), right hand first; axes are OpenCV's (x right, y down, z away), and lengths
are millimetres or palm lengths.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from attentionhand.data import paths_of
from attentionhand.known_labels import read_arrays
from attentionhand.reconstruction.network import LEFT, RIGHT
from core.runs.errors import UserError
from core.runs.files import sha256_of_files
from core.runs.photos import load_photo, unreadable_photos

WRIST, MIDDLE_KNUCKLE = 0, 9
MM, PALMS = "mm", "palm lengths"
SCALE = {MM: 100.0, PALMS: 1.0}  # the network's unit, about a palm length, in each unit
# By the length of the palm, wrist to middle knuckle: a hand's is about 0.1 m.
PALM_RANGES = {"m": (0.03, 0.2), PALMS: (0.5, 2.0), MM: (30.0, 200.0)}
MARGIN = 1.3  # side of the crop over the longer side of the joints' box: fingers are thicker than their joints
SIZES_CHECKED, SEVERAL = 32, 4  # pictures whose size is compared with the joints; so many can't all be in a corner
GROUP_NAMES = ("gesture", "sequence", "gestures", "sequences")


class HandSet(NamedTuple):
    """Pictures with their labels; see the module's docstring for order, axes and units."""

    folder: Path
    photos: list[Path]
    joints_2d: np.ndarray  # (N, 2, 21, 2) float32, NaN where a hand or joint is missing
    joints_3d: np.ndarray  # (N, 2, 21, 3) float32, likewise
    groups: np.ndarray  # (N,) gesture or sequence, "" where none is known
    labels: np.ndarray  # (N,) which pictures were drawn for the same label
    unit: str  # "mm" or "palm lengths"

    @property
    def has_hand(self) -> np.ndarray:
        """(N, 2): whether there is a right and a left hand, known by its wrist."""
        return ~np.isnan(self.joints_3d[:, :, WRIST]).any(axis=-1)

    @property
    def left_wrist(self) -> np.ndarray:
        """(N, 3): left wrist minus right wrist, NaN where there are not both."""
        return self.joints_3d[:, LEFT, WRIST] - self.joints_3d[:, RIGHT, WRIST]


# Reading


def read_hands(folder: Path) -> HandSet:
    """The labelled pictures of a folder.

    Raises:
        UserError: a missing or damaged file, no 3D labels, no handedness, counts that do not agree, an unknown unit,
            axes that do not fit the pictures, labels outside their pictures.
    """
    photos = paths_of(folder, "rgb")
    path = folder / "joints.npz"
    content = read_arrays(path)
    for name, lacks in (("joints_3d", "3D labels"), ("handedness", "handedness")):
        if name not in content:
            raise UserError(f"{path}: has no {lacks} ({name}), which reconstruction is trained and tested on")
    count = len(photos)
    for name in ("joints_2d", "joints_3d", "handedness"):
        if not count or content[name].shape[:1] != (count,):
            shape = content[name].shape
            raise UserError(f"{path}: {name} {shape} for {count} lines of modalities.json; the counts must agree")
    for name in ("joints_2d", "joints_3d"):
        if content[name].dtype.kind not in "fiu":
            raise UserError(f"{path}: {name} holds {content[name].dtype}, not numbers")
    if "size" in content and content["size"].shape != (count, 2):
        raise UserError(f"{path}: size has the shape {content['size'].shape}, not ({count}, 2)")
    handedness = content["handedness"].reshape(len(content["handedness"]), -1)  # (N, hands)
    joints_2d = both_hands(path, "joints_2d", content["joints_2d"], handedness, count)
    joints_3d = both_hands(path, "joints_3d", content["joints_3d"], handedness, count)
    without = np.flatnonzero(np.isnan(joints_3d[:, :, WRIST]).any(axis=-1).all(axis=1))
    if len(without):
        raise UserError(f"{path}: row {without[0] + 1} has no hand with a 3D wrist; leave such pictures out")
    unseen = np.flatnonzero(np.isnan(joints_2d).any(axis=-1).all(axis=(1, 2)))
    if len(unseen):
        raise UserError(f"{path}: row {unseen[0] + 1} has no joint in the picture (joints_2d); leave such pictures out")
    unit, factor = unit_of(path, joints_3d)
    joints_3d = factor * to_opencv_axes(path, joints_2d, joints_3d)
    group = next((content[name] for name in GROUP_NAMES if name in content), np.full(count, ""))
    labels = content.get("label", np.arange(count))
    for name, array in (("groups", group), ("label", labels)):
        if array.shape != (count,):
            raise UserError(f"{path}: {name} has the shape {array.shape}, not ({count},)")
    hands = HandSet(folder, photos, joints_2d, joints_3d.astype(np.float32), group.astype(str), labels, unit)
    check_sizes(hands, content.get("size"))
    return hands


def both_hands(path: Path, name: str, array: np.ndarray, handedness: np.ndarray, count: int) -> np.ndarray:
    """`array` (N, 21, D) or (N, hands, 21, D) as (N, 2, 21, D), right hand first, NaN where a hand is missing.

    Args:
        handedness: (N, hands).

    Raises:
        UserError: another shape or count, a hand that is neither Right nor Left, or two of the same.
    """
    dimensions = 2 if name == "joints_2d" else 3
    if array.ndim not in (3, 4) or array.shape[-2:] != (21, dimensions):
        raise UserError(f"{path}: {name} is {array.shape}, not (N, 21, {dimensions}) or (N, hands, 21, {dimensions})")
    given = array.reshape(len(array), -1, 21, dimensions).astype(float)
    if len(given) != count or handedness.shape != given.shape[:2]:
        raise UserError(
            f"{path}: {name} {array.shape} and handedness {handedness.shape} for {count} pictures in modalities.json; "
            "the counts must agree"
        )
    hands = np.full((count, 2, 21, dimensions), np.nan)
    for row, column in zip(*np.nonzero(~np.isnan(given).all(axis=(2, 3)))):
        side = {"right": RIGHT, "left": LEFT}.get(str(handedness[row, column]).lower())
        if side is None:
            raise UserError(f"{path}: row {row + 1}: handedness '{handedness[row, column]}' is not Right or Left")
        if not np.isnan(hands[row, side]).all():
            raise UserError(f"{path}: row {row + 1}: two {handedness[row, column]} hands; one of each is expected")
        hands[row, side] = given[row, column]
    return hands.astype(np.float32)


def unit_of(path: Path, joints_3d: np.ndarray) -> tuple[str, float]:
    """The unit that lengths are to have, "mm" or "palm lengths", and the factor to it, told by the length of palms.

    Raises:
        UserError: no unit fits.
    """
    palm = float(np.nanmedian(np.linalg.norm(joints_3d[:, :, MIDDLE_KNUCKLE] - joints_3d[:, :, WRIST], axis=-1)))
    for unit, (low, high) in PALM_RANGES.items():
        if low <= palm <= high:
            return (MM, 1000.0) if unit == "m" else (unit, 1.0)
    raise UserError(
        f"{path}: the palms are {palm:.3g} long, which is no hand in metres, millimetres or palm lengths; "
        "check joints_3d"
    )


def to_opencv_axes(path: Path, joints_2d: np.ndarray, joints_3d: np.ndarray) -> np.ndarray:
    """3D joints with y down and z away, whatever they were given as: the joints in the picture tell.

    y up comes with z towards the camera (OpenGL), or hands would be mirrored.

    Raises:
        UserError: x and y of the 3D joints fit those in the picture in no way.
    """
    flat_2d, flat_3d = (joints - joints[:, :, :1] for joints in (joints_2d, joints_3d))
    agreement = np.nansum(flat_2d * flat_3d[..., :2], axis=(0, 1, 2))
    strength = np.sqrt(np.nansum(flat_2d**2, axis=(0, 1, 2)) * np.nansum(flat_3d[..., :2] ** 2, axis=(0, 1, 2)))
    x, y = agreement / np.maximum(strength, 1e-12)
    if x < 0.5 or abs(y) < 0.5:
        raise UserError(
            f"{path}: joints_3d do not lie as joints_2d do (x agrees by {x:.2f}, y by {y:.2f}, 1 is best); "
            "give them in the camera's frame, x to the right"
        )
    return joints_3d if y > 0 else joints_3d * np.array([1, -1, -1], np.float32)


def check_sizes(hands: HandSet, sizes: np.ndarray | None) -> None:
    """Refuse a folder whose pictures are not of the size that the joints' pixels refer to.

    Args:
        sizes: (N, 2) width and height that the labels are for, where the folder says so. Otherwise a hand outside its
            picture tells, or several that all keep to the upper left quarter.

    Raises:
        UserError
    """
    corners = []
    for row, photo in enumerate(hands.photos[:SIZES_CHECKED]):
        width, height = load_photo(photo).size
        low, high = (end(hands.joints_2d[row], axis=(0, 1)) / (width, height) for end in (np.nanmin, np.nanmax))
        corners.append(high)
        is_other = sizes is not None and (width, height) != tuple(sizes[row])
        if is_other or (low > 1).any() or (high < 0).any() or (high - low > 2).any():
            wanted = f"{sizes[row][0]:.0f}x{sizes[row][1]:.0f}" if sizes is not None else "another size"
            raise UserError(f"{photo}: {width}x{height} pixels, but joints_2d of {hands.folder} are for {wanted}")
    if sizes is None and len(corners) >= SEVERAL and np.max(corners) < 0.5:
        raise UserError(
            f"{hands.photos[0]}: {width}x{height} pixels, but all hands of {hands.folder} keep to a quarter of them; "
            "joints_2d refer to smaller pictures"
        )


def check_same_unit(sets: Sequence[HandSet]) -> str:
    """The unit of all sets. Raises UserError where they differ."""
    for other in sets[1:]:
        if other.unit != sets[0].unit:
            raise UserError(
                f"{other.folder}: labels in {other.unit}, but those of {sets[0].folder} are in {sets[0].unit}; "
                "--data folders must share a unit"
            )
    return sets[0].unit


def check_photos(sets: Sequence[HandSet]) -> None:
    """Raises the UserError of the first picture that can't be read."""
    for error in unreadable_photos([photo for hands in sets for photo in hands.photos]):
        if error:
            raise error


def joined(sets: Sequence[HandSet]) -> HandSet:
    """Several sets of one unit as one; labels of different sets stay different."""
    labels = [[f"{number}/{label}" for label in hands.labels] for number, hands in enumerate(sets)]
    return HandSet(
        sets[0].folder,
        [photo for hands in sets for photo in hands.photos],
        np.concatenate([hands.joints_2d for hands in sets]),
        np.concatenate([hands.joints_3d for hands in sets]),
        np.concatenate([hands.groups for hands in sets]),
        np.concatenate(labels),
        sets[0].unit,
    )


# What the network sees


class Target(NamedTuple):
    """One picture for the network; lengths in its own unit. A batch has B in front."""

    picture: torch.Tensor  # (3, S, S) in [0, 1]
    joints: torch.Tensor  # (2, 21, 3) each hand from its own wrist; 0 where not known
    joint_known: torch.Tensor  # (2, 21) 0 or 1
    left_wrist: torch.Tensor  # (3,) left minus right wrist; 0 where not known
    both_known: torch.Tensor  # () 0 or 1
    has_hand: torch.Tensor  # (2,) 0 or 1


class View(NamedTuple):
    """How a picture is cropped and changed; the defaults change nothing."""

    scale: float = 1.0  # of the crop's side
    shift: tuple[float, float] = (0.0, 0.0)  # of its centre, in its sides
    degrees: float = 0.0  # the hand is turned so far, clockwise as seen
    mirrored: bool = False
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of red, green and blue
    contrast: float = 1.0
    occluder: tuple[float, float, float, float] | None = None  # left, top, right, bottom as shares of the crop
    occluder_seed: int = 0


UNCHANGED = View()


def random_view(rng: np.random.Generator) -> View:
    """A view for training: crop, scale, rotation, mirror, colours, and in half of the pictures a patch on top."""
    centre, size = rng.uniform(0.1, 0.9, 2), rng.uniform(0.1, 0.4, 2)
    covered, occluder_seed = rng.random() < 0.5, int(rng.integers(2**31))
    left, top = (centre - size / 2).clip(0, 1).tolist()
    right, bottom = (centre + size / 2).clip(0, 1).tolist()
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.85, 1.15, 3)
    shift = rng.uniform(-0.08, 0.08, 2)
    return View(
        scale=float(rng.uniform(0.85, 1.2)),
        shift=(float(shift[0]), float(shift[1])),
        degrees=float(rng.uniform(-30, 30)),
        mirrored=bool(rng.random() < 0.5),
        gain=(float(gain[0]), float(gain[1]), float(gain[2])),
        contrast=float(rng.uniform(0.8, 1.2)),
        occluder=(left, top, right, bottom) if covered else None,
        occluder_seed=occluder_seed,
    )


def target_of(hands: HandSet, row: int, size: int, view: View = UNCHANGED) -> Target:
    """Picture and label of a row as the network sees them, (3, size, size)."""
    picture = crop(np.asarray(load_photo(hands.photos[row])), crop_matrix(hands.joints_2d[row], size, view), size)
    picture = recoloured(picture.astype(np.float32) / 255, view)
    joints, left_wrist = seen_joints(hands.joints_3d[row], view)
    known, both = ~np.isnan(joints).any(axis=-1), not np.isnan(left_wrist).any()
    scale = SCALE[hands.unit]
    return Target(
        torch.from_numpy(picture.transpose(2, 0, 1).copy()),
        torch.from_numpy(np.nan_to_num(joints / scale)).float(),
        torch.from_numpy(known).float(),
        torch.from_numpy(np.nan_to_num(left_wrist / scale)).float(),
        torch.tensor(float(both)),
        torch.from_numpy(known.any(axis=1)).float(),
    )


def crop_matrix(joints_2d: np.ndarray, size: int, view: View = UNCHANGED) -> np.ndarray:
    """(2, 3): from pixels of a picture to pixels of the square crop around its hands (2, 21, 2)."""
    low, high = np.nanmin(joints_2d, axis=(0, 1)), np.nanmax(joints_2d, axis=(0, 1))
    side = MARGIN * view.scale * max(float((high - low).max()), 2.0)
    centre = (low + high) / 2 + side * np.array(view.shift)
    turn, zoom = np.radians(view.degrees), size / side
    matrix = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if view.mirrored:
        matrix = np.diag([-1, 1]) @ matrix
    return np.concatenate([matrix, (size / 2 - matrix @ centre)[:, None]], axis=1)


def crop(picture: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3) of a picture (H, W, 3) uint8; black outside. Large pictures are averaged down first."""
    shrink = int(1 / max(np.sqrt(abs(np.linalg.det(matrix[:, :2]))), 1e-6) + 1e-3)  # pixels of the photo a pixel
    if shrink > 1:
        height, width = (max(1, side // shrink) for side in picture.shape[:2])
        ratio = np.array([picture.shape[1] / width, picture.shape[0] / height])
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        matrix = np.concatenate([matrix[:, :2] * ratio, matrix[:, 2:]], axis=1)
    # Joints have the middle of the first pixel at (0.5, 0.5), OpenCV has it at (0, 0).
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    return cv2.warpAffine(picture, shifted, (size, size), flags=cv2.INTER_LINEAR)


def recoloured(picture: np.ndarray, view: View) -> np.ndarray:
    """A picture (S, S, 3) in [0, 1] with the view's colours and its patch of noise in one random colour."""
    if view.contrast != 1.0:
        mean = picture.mean()
        picture = (picture - mean) * np.float32(view.contrast) + mean
    picture = picture * np.array(view.gain, np.float32)
    if view.occluder:
        left, top, right, bottom = (round(len(picture) * share) for share in view.occluder)
        rng = np.random.default_rng(view.occluder_seed)
        patch = rng.random(3) + 0.1 * rng.standard_normal((bottom - top, right - left, 3))
        picture[top:bottom, left:right] = patch
    return picture.clip(0, 1)


def seen_joints(joints_3d: np.ndarray, view: View = UNCHANGED) -> tuple[np.ndarray, np.ndarray]:
    """Each hand's joints (2, 21, 3) from its own wrist, and left minus right wrist (3,), as the view shows them.

    A mirrored right hand is a left hand: the hands change places.
    """
    turn = np.radians(view.degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    joints = joints_3d.astype(float) @ rotation.T
    if view.mirrored:
        joints = joints[::-1] * [-1, 1, 1]
    return joints - joints[:, :1], joints[LEFT, WRIST] - joints[RIGHT, WRIST]


# Order


def training_order(sizes: Sequence[int], shares: Sequence[float] | None, count: int, seed: int) -> np.ndarray:
    """Which pictures (count,) are trained on, in order, as rows of all sets one after the other.

    Args:
        sizes: pictures of each set.
        shares: share of each set in the training; None shuffles all pictures together, each as often as the others.
    """
    rng = np.random.default_rng(seed)
    if shares is None:
        return shuffled_passes(sum(sizes), count, rng)
    of_set = rng.choice(len(sizes), size=count, p=np.array(shares) / np.sum(shares))
    order = np.empty(count, int)
    for number, start in enumerate(np.cumsum([0, *sizes[:-1]])):
        places = np.flatnonzero(of_set == number)
        order[places] = start + shuffled_passes(sizes[number], len(places), rng)
    return order


def shuffled_passes(size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """The first `count` of endless passes over `size` pictures, each pass newly shuffled."""
    passes = [rng.permutation(size) for _ in range(-(-count // size))]
    return np.concatenate([np.empty(0, int), *passes])[:count]


class TrainingTargets(torch.utils.data.Dataset):
    """For a DataLoader: item i is the i-th picture of the training, its random view drawn from seed and i alone."""

    def __init__(self, hands: HandSet, order: np.ndarray, size: int, seed: int) -> None:
        self.hands, self.order, self.size, self.seed = hands, order, size, seed

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> Target:
        view = random_view(np.random.default_rng([self.seed, place]))
        return target_of(self.hands, int(self.order[place]), self.size, view)


class TestTargets(torch.utils.data.Dataset):
    """For a DataLoader: item i is the i-th picture, as it is."""

    def __init__(self, hands: HandSet, rows: Sequence[int], size: int) -> None:
        self.hands, self.rows, self.size = hands, rows, size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Target:
        return target_of(self.hands, self.rows[place], self.size)


def settings_of_data(sets: Sequence[HandSet]) -> dict[str, Any]:
    """By which a run recognises its data: the contents of labels and pictures, wherever they lie."""
    return {
        "pictures": [len(hands.photos) for hands in sets],
        "data_sha256": [sha256_of_files([hands.folder / "joints.npz", *hands.photos]) for hands in sets],
    }
