"""A hand posed by sliders: its joints, its mesh image as `attentionhand.prepare` draws them, and its label."""

from typing import NamedTuple

import numpy as np

from attentionhand.label_errors import LabelledHand
from core.hands.joint_mesh import joint_mesh
from core.hands.rasterizer import Camera, mesh_image
from core.runs.errors import UserError
from studio.offers import offered
from synthetic_hands.hand import APART, CURLED, POSES, STRAIGHT, THUMBS, TOGETHER, Pose, joints_of, rotation

SIDES = {"right": ("Right",), "left": ("Left",), "both": ("Right", "Left")}
DISTANCE = 20.0  # of the camera; palm lengths, as all lengths here
VIEW = {1: 1.9, 2: 2.5}  # from the picture's middle to its edge, by the number of hands
ASIDE = 1.25  # how far each of two hands is from the middle
CELL = 0.055  # of the mesh's grid: half as many triangles as a data set has, and half the time
SIZE = 256  # pixels per side of the mesh image


class Posed(NamedTuple):
    """What the sliders say."""

    gesture: str = "palm"  # whose spread is the middle of the slider
    bend: tuple[float, float, float, float] = (0, 0, 0, 0)  # of index, middle, ring, pinky: 0 straight, 100 curled
    spread: float = 0  # -100 together, 0 as the gesture has it, 100 apart
    thumb: str = "out"  # of THUMBS
    roll: float = 0  # degrees
    pitch: float = 0
    yaw: float = 0
    side: str = "right"  # of SIDES


class Scene(NamedTuple):
    """A mesh image and the hands that it shows."""

    mesh: np.ndarray  # (S, S, 3) uint8
    hands: list[LabelledHand]  # none where they are not known


def preset(gesture: str) -> Posed:
    """The sliders of a gesture.

    Raises:
        UserError: no such gesture.
    """
    pose = offered(POSES, gesture, "the gesture")
    bend = (np.array(pose.flexion) - STRAIGHT).sum(axis=1) / np.subtract(CURLED, STRAIGHT).sum() * 100
    percent = [float(round(one)) for one in bend.clip(0, 100)]
    return Posed(gesture, tuple(percent), 0, pose.thumb, pose.roll, pose.pitch, pose.yaw)  # type: ignore[arg-type]


def pose_of(posed: Posed) -> Pose:
    """The joint angles that the sliders say.

    Raises:
        UserError: a value that no slider has.
    """
    numbers = [*posed.bend, posed.spread, posed.roll, posed.pitch, posed.yaw]
    if not all(isinstance(n, int | float) and abs(n) <= 180 for n in numbers) or len(posed.bend) != 4:
        raise UserError("a slider has a value outside its range")
    offered(THUMBS, posed.thumb, "the thumb")
    own_spread = offered(POSES, posed.gesture, "the gesture").spread
    share = np.array(posed.bend)[:, None] / 100
    flexion = STRAIGHT + share * np.subtract(CURLED, STRAIGHT)  # (4, 3)
    spread = np.array(own_spread) + posed.spread / 100 * np.subtract(APART, TOGETHER)
    return Pose(
        tuple(map(tuple, flexion.tolist())),  # type: ignore[arg-type]
        tuple(spread.tolist()),  # type: ignore[arg-type]
        posed.thumb,
        posed.roll,
        posed.pitch,
        posed.yaw,
    )


def scene_of(posed: Posed, size: int = SIZE) -> Scene:
    """The mesh image of the posed hand, or of it and its mirror image, and their labels.

    Args:
        size: pixels per side.

    Raises:
        UserError: a value that no slider has.
    """
    pose = pose_of(posed)
    sides = offered(SIDES, posed.side, "the side")
    focal = DISTANCE * size / 2 / VIEW[len(sides)]
    camera = Camera((focal, focal), (size / 2, size / 2))
    joints = [placed(pose, side, len(sides)) for side in sides]
    meshes = [joint_mesh(own, side, cell=CELL) for own, side in zip(joints, sides)]
    labels = [
        LabelledHand(camera.project(own), own, side, np.array(camera.focal), np.array(camera.center))
        for own, side in zip(joints, sides)
    ]
    return Scene(mesh_image(meshes, camera, (size, size)), labels)


def placed(pose: Pose, side: str, hands: int) -> np.ndarray:
    """The joints of a hand in front of the camera, (21, 3) in OpenCV's axes; the right hand of two is on the left."""
    sign = 1 if side == "Right" else -1
    joints = joints_of(pose) * (sign, 1, 1) @ rotation(sign * pose.roll, pose.pitch, sign * pose.yaw).T
    joints -= (joints.max(axis=0) + joints.min(axis=0)) / 2
    joints[:, 0] -= sign * ASIDE * (hands - 1)
    return joints * (1, -1, -1) + (0, 0, DISTANCE)
