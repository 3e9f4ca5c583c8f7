"""DexYCB (Chao et al. 2021): one hand grasping an object, eight cameras.

{subject}/{sequence}/{serial}/labels_%06d.npz holds joint_3d (1, 21, 3) m, joint_2d, and pose_m (1, 51), 48 PCA
coefficients of MANO and a translation; -1 and 0 where no hand is seen. {sequence}/meta.yml names the hand's side and
its calibration/mano_{name}/mano.yml (shape); calibration/intrinsics/{serial}_640x480.yml is the camera. As in
dex_ycb_toolkit/dex_ycb.py of github.com/NVlabs/dex-ycb-toolkit.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from attentionhand.labels.camera import finite, pinhole
from attentionhand.labels.label import RIGHT, SIDES, HandLabel, Label, Mano
from core.hands.rasterizer import Camera
from core.runs.errors import UserError, reason_of

SIZE = 640, 480
VALIDATION_SUBJECTS = 2  # of setup s0: every fifth sequence of the first two is for validation, of the others for tests


def read(root: Path, split: str) -> Iterator[Label]:
    """Sequence by sequence, camera by camera, frame by frame; the splits are those of setup s0."""
    for number, subject in enumerate(sorted(root.glob("*-subject-*"))):
        for place, sequence in enumerate(sorted(path for path in subject.iterdir() if path.is_dir())):
            held_out = "val" if number < VALIDATION_SUBJECTS else "test"
            if split not in ("all", held_out if place % 5 == 4 else "train"):
                continue
            meta = load_yaml(sequence / "meta.yml")
            shape = load_yaml(root / "calibration" / f"mano_{meta['mano_calib'][0]}" / "mano.yml")["betas"]
            for folder in sorted(path for path in sequence.iterdir() if path.is_dir()):
                camera = camera_of_serial(root, folder.name)
                for path in sorted(folder.glob("labels_*.npz")):
                    hands = hands_of(path, SIDES.get(meta["mano_sides"][0], RIGHT), np.array(shape, dtype=float))
                    rgb = folder / f"color_{path.stem.removeprefix('labels_')}.jpg"
                    source = "_".join((subject.name, sequence.name, folder.name, path.stem.removeprefix("labels_")))
                    yield Label(source, rgb, camera, hands, SIZE)


def camera_of_serial(root: Path, serial: str) -> Camera:
    path = root / "calibration" / "intrinsics" / f"{serial}_{SIZE[0]}x{SIZE[1]}.yml"
    colour = load_yaml(path)["color"]
    return pinhole((colour["fx"], colour["fy"]), (colour["ppx"], colour["ppy"]), str(path))


def hands_of(path: Path, handedness: str, shape: np.ndarray) -> tuple[HandLabel, ...]:
    """The hand of a label file, or none."""
    try:
        with np.load(path) as file:
            joints = finite(file["joint_3d"], (1, 21, 3), f"{path}: joint_3d")[0]
            flat = finite(file["joint_2d"], (1, 21, 2), f"{path}: joint_2d")[0]
            pose = finite(file["pose_m"], (1, 51), f"{path}: pose_m")[0]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"{path}: damaged ({reason_of(error)})") from None
    if (joints == -1).all():
        return ()
    mano = Mano(pose[:48], shape, pose[48:], "pca") if pose.any() else None
    return (HandLabel(handedness, joints, flat, mano=mano),)


def load_yaml(path: Path) -> dict:
    """A small YAML file."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable ({reason_of(error)})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not what DexYCB has there")
    return content
