"""How well the hands of a generated picture follow its label: MediaPipe's landmarks against the label's joints.

All errors are in hand sizes: the longer side of the box around the label's joints. The paper's MSE-2D and MSE-3D are
defined in no source at hand; these are other measures of the same thing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from core.hands.detection import Hand, find_hands_at
from core.metrics.hands import DETECTION_CONFIDENCE, HAND_CONF_CONFIDENCE, MOST_HANDS

PCK_LEVELS = (0.1, 0.2)  # of the hand's size
OTHER_SIDE = {"Left": "Right", "Right": "Left"}  # MediaPipe names hands as if the picture were mirrored
WRONG_SIDE = 1.0  # hand sizes by which a hand of the other side counts as farther away when hands are matched


class LabelledHand(NamedTuple):
    """A hand of a label, in the picture that the label belongs to."""

    joints_2d: np.ndarray  # (21, 2) pixels
    joints_3d: np.ndarray  # (21, 3) in OpenCV's axes (x right, y down, z away), any unit; NaN where not known
    handedness: str  # "Left" or "Right" hand of the person; "" where not known
    focal: np.ndarray  # (2,) pixels; NaN where no camera is known
    princpt: np.ndarray  # (2,) pixels


class HandErrors(NamedTuple):
    """How a hand of a label is met by the picture; NaN where no hand was found for it, or the label does not know."""

    joints_2d: np.ndarray  # (21,) hand sizes
    joints_3d: np.ndarray  # (21,) hand sizes

    @property
    def is_found(self) -> bool:
        return not np.isnan(self.joints_2d).any()


class FoundHands(NamedTuple):
    """What MediaPipe finds in a picture."""

    scores: list[float]  # handedness scores of all hands at detection confidence 0, for HAND-CONF
    hands: list[Hand]  # at confidence 0.5


def find_all(photo: Image.Image) -> FoundHands:
    """At most two hands of a picture, at both confidences in one pass."""
    confidences = (HAND_CONF_CONFIDENCE, DETECTION_CONFIDENCE)
    unsure, sure = find_hands_at(photo, confidences, max_num_hands=MOST_HANDS)
    return FoundHands([hand.score for hand in unsure], sure)


def hand_errors(found: Sequence[Hand], label: Sequence[LabelledHand], size: np.ndarray) -> list[HandErrors]:
    """The errors of each hand of a label.

    Args:
        found: the hands of the picture.
        label: the hands that the picture should show.
        size: width and height in pixels of the label's picture, whatever the generated one's are.
    """
    landmarks = [hand.landmarks * [size[0], size[1], size[0]] for hand in found]  # z is in the scale of x
    places = matched(landmarks, [hand.handedness for hand in found], label)
    nothing = np.full(21, np.nan)
    return [
        HandErrors(nothing, nothing)
        if place is None
        else HandErrors(errors_2d(landmarks[place], hand), errors_3d(landmarks[place], hand))
        for place, hand in zip(places, label, strict=True)
    ]


def matched(
    landmarks: Sequence[np.ndarray], handedness: Sequence[str], label: Sequence[LabelledHand]
) -> list[int | None]:
    """Which found hand belongs to each hand of the label, each to one at most; None where there are too few.

    The assignment with the least sum of 2D errors, to which a hand of the wrong side adds one hand size.

    Args:
        landmarks: (21, 3) each, in pixels.
        handedness: as MediaPipe names them.
    """
    from scipy.optimize import linear_sum_assignment  # here, because workers that only find hands need none of it

    places: list[int | None] = [None] * len(label)
    if not landmarks or not label:
        return places
    cost = np.zeros((len(label), len(landmarks)))
    for row, hand in enumerate(label):
        for column, (points, side) in enumerate(zip(landmarks, handedness, strict=True)):
            is_other = bool(hand.handedness) and hand.handedness == side  # MediaPipe's names are mirrored
            cost[row, column] = errors_2d(points, hand).mean() + WRONG_SIDE * is_other
    for row, column in zip(*linear_sum_assignment(cost)):
        places[row] = int(column)
    return places


def errors_2d(landmarks: np.ndarray, hand: LabelledHand) -> np.ndarray:
    """|p - q| / s of each joint: found p and label's q in the picture, s the label's hand size; (21,)."""
    return np.linalg.norm(landmarks[:, :2] - hand.joints_2d, axis=1) / hand_size(hand.joints_2d)


def errors_3d(landmarks: np.ndarray, hand: LabelledHand) -> np.ndarray:
    """|a P - Q| / S of each joint, P and Q from their centres, a = max(0, P·Q / P·P) the best scale, S the size in
    3D; (21,).

    Turning is no part of the fit: the hand is to point where the label's does, and a scale below 0 would mirror it.
    Where the label's camera is known, landmarks are seen through it from the depth of the label's wrist; else along
    parallel rays.
    """
    found, wanted = landmarks, hand.joints_3d
    if np.isfinite(hand.focal).all() and wanted[0, 2] > 0:
        found = seen_from(landmarks, hand.focal, hand.princpt, wanted[0, 2])
    found, wanted = found - found.mean(axis=0), wanted - wanted.mean(axis=0)
    scale = max(0.0, (found * wanted).sum() / (found * found).sum())
    return np.linalg.norm(scale * found - wanted, axis=1) / hand_size(wanted)


def seen_from(landmarks: np.ndarray, focal: np.ndarray, princpt: np.ndarray, depth: float) -> np.ndarray:
    """Points (21, 3) before a pinhole camera: Z = d + z d / f, X = (u - c) Z / f.

    Args:
        landmarks: u, v and z, (21, 3) in pixels; z is the depth behind the wrist in the scale of u.
        depth: of the wrist, d.
    """
    z = depth * (1 + landmarks[:, 2] / focal[0])
    return np.column_stack([(landmarks[:, :2] - princpt) * z[:, None] / focal, z])


def hand_size(joints: np.ndarray) -> float:
    """The longest side of the box around joints (21, 2) or (21, 3)."""
    return float(np.ptp(joints, axis=0).max())


def share_within(errors: np.ndarray, level: float) -> float:
    """PCK@level: the share of a hand's joints (21,) whose error is at most `level`; 0 for a hand that is not found."""
    return float((errors <= level).mean())
