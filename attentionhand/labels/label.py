"""What every reader yields: a picture with the hands in it, and where from."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.hands.crops import Box
from core.hands.rasterizer import Camera

LEFT, RIGHT = "Left", "Right"  # hand of the person
SIDES = {"left": LEFT, "right": RIGHT}


def file_name(source: str) -> str:
    """A label's source as the name of its files, without their suffix."""
    return re.sub(r"^\.+|[^\w.-]", "_", source)


class Mano(NamedTuple):
    """Parameters of MANO's hand, and the way from its frame to the camera's: rotation @ vertex + translation."""

    pose: np.ndarray  # (48,): the wrist's rotation, then 15 joints, as axis angles
    shape: np.ndarray  # (10,)
    translation: np.ndarray  # (3,) metres
    kind: str = "mean"  # 15 joints' angles: "mean" added to MANO's mean pose, "flat" as they are, "pca" coefficients
    rotation_to_camera: np.ndarray = np.eye(3)
    translation_to_camera: np.ndarray = np.zeros(3)  # metres


class HandLabel(NamedTuple):
    """One hand: metres, in the camera's frame (OpenCV: x to the right, y down, z away). NaN where not known."""

    handedness: str  # "Left" or "Right"
    joints_3d: np.ndarray | None = None  # (21, 3), MediaPipe's order
    joints_2d: np.ndarray | None = None  # (21, 2) pixels; only where they were annotated apart from the 3D ones
    vertices: np.ndarray | None = None  # (V, 3)
    faces: np.ndarray | None = None  # (F, 3); None for MANO's own
    mano: Mano | None = None
    camera: Camera | None = None  # of this hand, where it differs from the picture's


class Label(NamedTuple):
    """One picture."""

    source: str  # where in the set; unique, and fit for a file name
    rgb: Path | None  # the photo
    camera: Camera
    hands: tuple[HandLabel, ...]
    size: tuple[int, int] | None = None  # width and height in pixels that the camera belongs to, where the set says so
    box: Box | None = None  # around the hands, where the set has one
    is_camera_known: bool = True  # else one was put where the 2D joints say, and the unit of length is any
