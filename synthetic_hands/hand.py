"""A parametric hand: 21 joints in MediaPipe's order, from joint angles, for the 18 gestures of HaGRID v1.

Hand frame: unit palm length (wrist to middle knuckle), wrist at the origin, fingers along +y, palm towards +z (the
camera), thumb of a right hand towards +x. A left hand is its mirror image.
"""

import functools
from typing import NamedTuple

import numpy as np

FINGERS = ("index", "middle", "ring", "pinky")
KNUCKLES = np.array([[0.29, 0.95, 0.0], [0.07, 1.0, -0.02], [-0.15, 0.95, -0.01], [-0.34, 0.84, 0.03]])
FINGER_BONES = np.array([[0.47, 0.28, 0.21], [0.52, 0.33, 0.22], [0.47, 0.31, 0.22], [0.37, 0.22, 0.20]])
THUMB_ROOT = np.array([0.24, 0.20, 0.08])
THUMB_BONES = np.array([0.43, 0.34, 0.27])
FLEXION_LIMITS = np.array([[-15, 95], [0, 115], [0, 85]])  # degrees at the knuckle, the middle and the last joint
SPREAD_LIMITS = (-22, 22)  # degrees sideways, positive towards the thumb

STRAIGHT, CURLED = (4, 6, 4), (82, 100, 62)  # flexion of the three joints, degrees
APART, TOGETHER = (9, 1, -6, -14), (1, 0, -1, -3)  # spread of the four fingers, degrees

# Directions of the thumb's three bones: degrees from the fingers' direction towards the thumb's side, and towards
# the palm's side.
THUMBS = {
    "out": ((58, 14), (46, 8), (42, 4)),
    "wide": ((78, 12), (74, 4), (70, 0)),
    "along": ((40, 18), (16, 6), (8, 2)),
    "across": ((30, 42), (-48, 8), (-72, -8)),
    "over": ((36, 38), (-26, 42), (-88, 14)),
    "ring": ((20, 36), (-4, 42), (-12, 32)),
}


class Pose(NamedTuple):
    """Joint angles of a gesture, and how the hand is turned towards the camera."""

    flexion: tuple[tuple[float, float, float], ...]  # of index, middle, ring, pinky; degrees
    spread: tuple[float, float, float, float] = APART
    thumb: str = "over"
    roll: float = 0  # degrees in the picture's plane, against the clock
    pitch: float = 0  # degrees, fingertips towards the camera
    yaw: float = 0  # degrees about the forearm; 180 shows the back of the hand


def fingers(shown: str) -> tuple[tuple[float, float, float], ...]:
    """Flexion of the four fingers: those in `shown` (of "imrp") straight, the others curled."""
    return tuple(STRAIGHT if finger[0] in shown else CURLED for finger in FINGERS)


POSES = {
    "call": Pose(fingers("p"), (2, 0, -2, -18), "wide", roll=20),
    "dislike": Pose(fingers(""), TOGETHER, "wide", roll=-95),
    "fist": Pose(fingers(""), TOGETHER, "over"),
    "four": Pose(fingers("imrp"), APART, "across"),
    "like": Pose(fingers(""), TOGETHER, "wide", roll=85),
    "mute": Pose(fingers("i"), TOGETHER, "over", yaw=30),
    "ok": Pose(((46, 62, 34), (10, 14, 8), (4, 8, 6), STRAIGHT), (2, 1, -7, -16), "ring"),
    "one": Pose(fingers("i"), (2, 0, -2, -4), "over"),
    "palm": Pose(fingers("imrp"), APART, "out"),
    "peace": Pose(fingers("im"), (12, -8, -2, -4), "over"),
    "peace_inverted": Pose(fingers("im"), (12, -8, -2, -4), "over", yaw=180),
    "rock": Pose(fingers("ip"), (8, 0, -2, -14), "over"),
    "stop": Pose(fingers("imrp"), TOGETHER, "along"),
    "stop_inverted": Pose(fingers("imrp"), TOGETHER, "along", yaw=180),
    "three": Pose(fingers("imr"), (10, 0, -10, -6), "across"),
    "three2": Pose(fingers("im"), (10, -6, -2, -4), "out"),
    "two_up": Pose(fingers("im"), (0, 1, -2, -4), "over"),
    "two_up_inverted": Pose(fingers("im"), (0, 1, -2, -4), "over", yaw=180),
}


def joints_of(pose: Pose, *, noise: float = 0, rng: np.random.Generator | None = None) -> np.ndarray:
    """The joints of a right hand in its own frame, (21, 3).

    Args:
        noise: standard deviation of every joint angle in degrees; the result stays within a hand's limits.
    """
    jitter = functools.partial(rng.normal, 0, noise) if noise and rng else np.zeros
    flexion = np.clip(np.array(pose.flexion) + jitter((4, 3)), *FLEXION_LIMITS.T)
    spread = np.radians(np.clip(np.array(pose.spread) + jitter(4) / 3, *SPREAD_LIMITS))
    joints = [np.zeros(3), THUMB_ROOT]
    for (aside, forward), length in zip(np.radians(np.array(THUMBS[pose.thumb]) + jitter((3, 2))), THUMB_BONES):
        joints.append(joints[-1] + length * direction(aside, forward))
    for knuckle, bones, angles, aside in zip(KNUCKLES, FINGER_BONES, np.radians(flexion), spread):
        joints.append(knuckle)
        for length, bent in zip(bones, np.cumsum(angles)):
            # Bending turns the bone from its direction in the palm's plane towards the palm's side.
            joints.append(joints[-1] + length * direction(aside, bent))
    return np.array(joints)


def malformed(joints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The joints (21, 3) with two to four fingers as image generators draw them.

    Each of them is missing, of a wrong length, melted into its neighbour, or a second one on the neighbour's knuckle.
    """
    joints = joints.copy()
    for finger in rng.permutation(5)[: rng.integers(2, 5)]:
        own = 1 + 4 * finger + np.arange(4)
        beside = 1 + 4 * (finger - 1 if finger > 1 else finger + 1) + np.arange(4)
        root, fault = joints[own[0]], rng.integers(4)
        if fault == 0:  # missing: a stump of a twentieth of its length
            joints[own] = root + 0.05 * (joints[own] - root)
        elif fault == 1:  # of a wrong length
            joints[own] = root + rng.choice([0.5, 0.65, 1.35, 1.5]) * (joints[own] - root)
        elif fault == 2:  # melted into its neighbour
            joints[own[1:]] = joints[beside[1:]] + 0.06 * (joints[own[1:]] - joints[beside[1:]])
        else:  # on its neighbour's knuckle, beside it
            turn = rotation(rng.choice([-1, 1]) * rng.uniform(12, 30), 0, 0)
            knuckle = joints[beside[0]] + 0.2 * (root - joints[beside[0]])
            joints[own] = knuckle + (joints[beside] - joints[beside[0]]) @ turn.T
    return joints


def direction(aside: float, forward: float) -> np.ndarray:
    """Unit vector: `aside` radians from +y towards +x, then `forward` radians towards +z."""
    return np.array([np.sin(aside) * np.cos(forward), np.cos(aside) * np.cos(forward), np.sin(forward)])


def rotation(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """(3, 3): first yaw about y, then pitch about x, then roll about z; degrees."""
    (cr, cp, cy), (sr, sp, sy) = (f(np.radians([roll, pitch, yaw])) for f in (np.cos, np.sin))
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    return about_z @ about_x @ about_y
