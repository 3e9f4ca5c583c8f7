"""InterHand2.6M (Moon et al. 2020): one or two hands from many cameras; MANO parameters by NeuralAnnot.

annotations/{split}/InterHand2.6M_{split}_data.json lists pictures and hands; _camera.json has each camera's position
(mm), rotation, focal length and principal point by capture; _joint_3d.json 42 joints (mm, world) by capture and frame,
right hand first, each finger from its tip to its root, the wrist last; _MANO_NeuralAnnot.json MANO's parameters (m,
world). As in data/InterHand26M/InterHand26M.py of github.com/facebookresearch/InterWild.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from attentionhand.labels.camera import finite, pinhole
from attentionhand.labels.json_stream import load_object, stream_list
from attentionhand.labels.label import LEFT, RIGHT, HandLabel, Label, Mano
from core.hands.rasterizer import Camera
from core.runs.errors import UserError

TO_MEDIAPIPE = [20, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12, 19, 18, 17, 16]
SECOND_HAND = 21  # the left hand's first joint
WRIST = 20
MM = 1e-3


def read(root: Path, split: str) -> Iterator[Label]:
    """The pictures in the order of their annotations."""
    folder = root / "annotations" / split
    data, cameras, joints, mano = (
        folder / f"InterHand2.6M_{split}_{name}.json" for name in ("data", "camera", "joint_3d", "MANO_NeuralAnnot")
    )
    cameras_of, joints_of = load_object(cameras), load_object(joints)
    mano_of = load_object(mano) if mano.is_file() else {}
    pictures = {
        picture["id"]: (picture["file_name"], picture["width"], picture["height"])
        + (str(picture["capture"]), str(picture["camera"]), str(picture["frame_idx"]))
        for picture in stream_list(data, "images")
    }
    for annotation in stream_list(data, "annotations"):
        try:
            name, width, height, capture, camera_name, frame = pictures[annotation["image_id"]]
            camera, rotation, translation = world_camera(cameras_of[capture], camera_name, str(cameras))
            frame_joints = joints_of[capture][frame]
            joints_valid = np.array(frame_joints["joint_valid"]).ravel() * np.array(annotation["joint_valid"]).ravel()
        except KeyError as missing:
            raise UserError(f"{data}: annotation {annotation.get('id')}: no {missing} for it in {folder}") from None
        world = finite(frame_joints["world_coord"], (42, 3), f"{joints}: capture {capture}, frame {frame}")
        points = (world * MM) @ rotation.T + translation
        parameters = mano_of.get(capture, {}).get(frame) or {}
        hands = []
        for side, first in ((RIGHT, 0), (LEFT, SECOND_HAND)):
            valid = joints_valid[first : first + SECOND_HAND] > 0
            if not valid[WRIST]:  # the hand's place is not known
                continue
            own = np.where(valid[:, None], points[first : first + SECOND_HAND], np.nan)[TO_MEDIAPIPE]
            fit = parameters.get(side.lower())
            hands.append(HandLabel(side, own, mano=fit and world_mano(fit, rotation, translation)))
        source = f"{split}_{annotation['id']}"
        yield Label(source, root / "images" / split / name, camera, tuple(hands), (int(width), int(height)))


def world_camera(capture: dict, name: str, where: str) -> tuple[Camera, np.ndarray, np.ndarray]:
    """A camera, its rotation (3, 3) and its translation (3,) in metres: point = R world + t, t = -R position."""
    where = f"{where}: camera {name}"
    rotation = finite(capture["camrot"][name], (3, 3), f"{where}: its rotation")
    position = finite(capture["campos"][name], (3,), f"{where}: its position")
    return pinhole(capture["focal"][name], capture["princpt"][name], where), rotation, -rotation @ position * MM


def world_mano(fit: dict, rotation: np.ndarray, translation: np.ndarray) -> Mano:
    """NeuralAnnot's parameters of one hand; its angles are added to MANO's mean pose."""
    pose, shape, place = (np.array(fit[name], dtype=float) for name in ("pose", "shape", "trans"))
    return Mano(pose, shape, place, "mean", rotation, translation)
