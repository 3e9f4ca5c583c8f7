"""A data folder in InterHand2.6M's layout, which the loaders of InterWild and its competitors read.

The published table trains five networks of other authors; with this they can be trained on generated pictures:

    images/train/00000000.png
    annotations/train/InterHand2.6M_train_data.json              COCO: images and annotations
    annotations/train/InterHand2.6M_train_camera.json            campos, camrot, focal, princpt of each camera
    annotations/train/InterHand2.6M_train_joint_3d.json          42 joints in mm, right hand first
    annotations/train/InterHand2.6M_train_MANO_NeuralAnnot.json  null for both hands: no MANO is known

The world's frame is the camera's. A set without `focal` and `princpt` gets a camera so far away that its perspective is
invisible. Labels in palm lengths are written as if the palm were 100 mm long.

Example:
  python -m attentionhand.reconstruction.interwild --data accepted --output_dir InterWild/data/Generated
"""

import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `python attentionhand/reconstruction/interwild.py`

from attentionhand.labels.interhand import TO_MEDIAPIPE
from attentionhand.reconstruction.data import PALMS, HandSet, read_arrays, read_hands
from core.runs.command_line import argument_parser, command_line
from core.runs.errors import UserError
from core.runs.files import atomic_folder, check_writable, write_json
from core.runs.photos import load_photo
from core.runs.processes import progress, say

PALM_MM = 100.0
FAR = 200  # focal length in longer sides of the picture, where no camera is known: joints move by less than a pixel
GOOD_FIT = 2.0  # pixels between joints_2d and the camera's projection of joints_3d, in the median
CAPTURE = "0"


class Placed(NamedTuple):
    """A picture's hands in millimetres in its camera's frame, and the camera in pixels."""

    joints: np.ndarray  # (2, 21, 3), NaN where unknown; right hand first, MediaPipe's order
    focal: np.ndarray  # (2,)
    princpt: np.ndarray  # (2,)


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled pictures")
    parser.add_argument("--output_dir", type=Path, required=True, help="new folder: images/ and annotations/")
    parser.add_argument("--split", default="train", choices=["train", "val", "test"], help="split to write it as")
    args = parser.parse_args(argv)
    if args.output_dir.exists():
        raise UserError(f"{args.output_dir}: exists already; choose another --output_dir")
    check_writable(args.output_dir)
    hands = read_hands(args.data)
    arrays = read_arrays(args.data / "joints.npz")
    with atomic_folder(args.output_dir) as folder:
        write_interhand(hands, arrays.get("focal"), arrays.get("princpt"), folder, args.split)
    say(f"{args.output_dir}: {len(hands.photos)} pictures in InterHand2.6M's layout")


def write_interhand(
    hands: HandSet, focal: np.ndarray | None, princpt: np.ndarray | None, folder: Path, split: str
) -> None:
    """Write pictures and the four annotation files of a split.

    Args:
        focal, princpt: (N, 2) in pixels, where the set has cameras.
    """
    pictures, annotations = folder / "images" / split, folder / "annotations" / split
    pictures.mkdir(parents=True)
    images, labels, joints, mano = [], [], {}, {}
    cameras: dict[str, dict[str, Any]] = {"campos": {}, "camrot": {}, "focal": {}, "princpt": {}}
    for number, photo in enumerate(progress(hands.photos, desc="Writing", unit="picture")):
        width, height = load_photo(photo).size
        given = None if focal is None or princpt is None else (focal[number], princpt[number])
        placed = place(hands, number, (width, height), given)
        name = f"{number:08}{photo.suffix}"
        shutil.copyfile(photo, pictures / name)
        place_of = {"capture": int(CAPTURE), "seq_name": "generated", "camera": str(number), "frame_idx": number}
        images.append({"id": number, "file_name": name, "width": width, "height": height, **place_of})
        labels.append(annotation(hands, number))
        world = interhand_order(placed.joints)
        valid = (~np.isnan(world).any(axis=1)).astype(int)
        kind = {"hand_type": labels[-1]["hand_type"], "hand_type_valid": True}
        joints[str(number)] = {
            "world_coord": np.nan_to_num(world).tolist(),
            "joint_valid": valid[:, None].tolist(),
            **kind,
        }
        mano[str(number)] = {"right": None, "left": None}
        cameras["campos"][str(number)] = [0.0, 0.0, 0.0]
        cameras["camrot"][str(number)] = np.eye(3).tolist()
        cameras["focal"][str(number)] = placed.focal.tolist()
        cameras["princpt"][str(number)] = placed.princpt.tolist()
    for what, content in (
        ("data", {"images": images, "annotations": labels}),
        ("camera", {CAPTURE: cameras}),
        ("joint_3d", {CAPTURE: joints}),
        ("MANO_NeuralAnnot", {CAPTURE: mano}),
    ):
        write_json(annotations / f"InterHand2.6M_{split}_{what}.json", content)


def annotation(hands: HandSet, number: int) -> dict[str, Any]:
    """COCO's annotation of a picture: which hands there are, which joints are known, and the box around them."""
    joints_2d = hands.joints_2d[number]
    low, high = np.nanmin(joints_2d, axis=(0, 1)), np.nanmax(joints_2d, axis=(0, 1))
    right, left = hands.has_hand[number]
    valid = (~np.isnan(interhand_order(joints_2d)).any(axis=1)).astype(int).tolist()
    return {
        "id": number,
        "image_id": number,
        "iscrowd": 0,
        "bbox": [*map(float, low), *map(float, high - low)],
        "joint_valid": valid,
        "hand_type": "interacting" if right and left else "right" if right else "left",
        "hand_type_valid": 1,
    }


def interhand_order(hands: np.ndarray) -> np.ndarray:
    """(42, D) in InterHand2.6M's order, right hand first, of (2, 21, D) in MediaPipe's."""
    ordered = np.empty_like(hands)
    ordered[:, TO_MEDIAPIPE] = hands
    return ordered.reshape(42, -1)


def place(hands: HandSet, number: int, size: tuple[int, int], camera: tuple[np.ndarray, np.ndarray] | None) -> Placed:
    """A picture's joints where its camera sees them at `joints_2d`.

    Args:
        size: width and height of the picture in pixels.
        camera: focal length and principal point, (2,) each; None puts a far one where the joints fit best.

    Raises:
        UserError: the camera does not see the joints there.
    """
    joints_2d = hands.joints_2d[number].astype(float)
    joints = hands.joints_3d[number].astype(float) * (PALM_MM if hands.unit == PALMS else 1.0)
    if camera is not None:
        focal, princpt = (np.asarray(part, float) for part in camera)
        seen = joints[..., :2] / joints[..., 2:] * focal + princpt
        off = float(np.nanmedian(np.linalg.norm(seen - joints_2d, axis=-1)))
        if not off <= GOOD_FIT:
            raise UserError(
                f"{hands.photos[number]}: its camera sees the joints {off:.1f} pixels off joints_2d; check focal, "
                "princpt and joints_3d"
            )
        return Placed(joints, focal, princpt)
    focal, princpt = np.full(2, float(FAR * max(size))), np.array(size) / 2
    flat_3d, flat_2d = joints[..., :2], joints_2d
    known = ~np.isnan(flat_3d).any(axis=-1) & ~np.isnan(flat_2d).any(axis=-1)
    middle_3d, middle_2d = flat_3d[known].mean(axis=0), flat_2d[known].mean(axis=0)
    spread = flat_3d[known] - middle_3d
    scale = float((spread * (flat_2d[known] - middle_2d)).sum() / (spread**2).sum())  # pixels a millimetre
    depth = focal[0] / scale
    wanted = (middle_2d - princpt) / scale  # where the hands' middle is to lie, at that depth
    shift = np.array([*(wanted - middle_3d), depth - np.nanmean(joints[..., 2])])
    return Placed(joints + shift, focal, princpt)


if __name__ == "__main__":
    main()
