"""Hands in pictures: the project's only use of MediaPipe.

The papers used MediaPipe's `solutions` API, whose last release with its models inside the wheel is 0.10.21.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from hand1000.cli import UserError
from hand1000.files import map_photos


class Hand(NamedTuple):
    """One detected hand."""

    landmarks: np.ndarray  # (21, 3) float64: x and y relative to the picture (0 to 1), z depth relative to the wrist
    handedness: str  # "Left" or "Right", as MediaPipe names it: for a mirrored (selfie) picture
    score: float  # MediaPipe's confidence in the handedness, 0.5 to 1


Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom are outside


def detect_hands(image: Image.Image, *, max_num_hands: int = 1, min_detection_confidence: float = 0.5) -> list[Hand]:
    """The hands in an RGB picture, in MediaPipe's order.

    Each picture is taken by itself (static image mode), so the result does not depend on the ones before it.
    """
    with _quiet_stderr():
        result = _detector(max_num_hands, min_detection_confidence).process(np.asarray(image.convert("RGB")))
    if not result.multi_hand_landmarks:
        return []
    return [
        Hand(
            landmarks=np.array([(point.x, point.y, point.z) for point in landmarks.landmark]),
            handedness=handedness.classification[0].label,
            score=handedness.classification[0].score,
        )
        for landmarks, handedness in zip(result.multi_hand_landmarks, result.multi_handedness, strict=True)
    ]


def detect_hands_in_files(
    paths: Sequence[Path],
    *,
    max_num_hands: int = 1,
    min_detection_confidence: float = 0.5,
    num_workers: int | None = None,
) -> Iterator[list[Hand] | UserError]:
    """The hands in each photo, in the order of `paths`, whatever `num_workers` (default: every core).

    An unreadable photo yields its UserError, for the caller to raise or to count.
    """
    detect = functools.partial(
        detect_hands, max_num_hands=max_num_hands, min_detection_confidence=min_detection_confidence
    )
    return map_photos(detect, paths, num_workers=num_workers)


def hand_box(hand: Hand, image_size: tuple[int, int]) -> Box | None:
    """The tight box of a hand's landmarks in a picture of (width, height), cut off at the picture's edge.

    All four sides are rounded down to whole pixels, as released. None where no pixel is left: all landmarks lie outside
    the picture.
    """
    width, height = image_size
    low, high = hand.landmarks[:, :2].min(axis=0), hand.landmarks[:, :2].max(axis=0)
    left, top = max(0, int(low[0] * width)), max(0, int(low[1] * height))
    right, bottom = min(width, int(high[0] * width)), min(height, int(high[1] * height))
    return (left, top, right, bottom) if left < right and top < bottom else None


def union_box(boxes: Sequence[Box]) -> Box:
    """The smallest box around several."""
    corners = np.array(boxes)
    left, top = corners[:, :2].min(axis=0)
    right, bottom = corners[:, 2:].max(axis=0)
    return int(left), int(top), int(right), int(bottom)


def hand_crops(image: Image.Image, hands: Sequence[Hand], *, union: bool = True) -> list[Image.Image]:
    """The picture cut to its hands: one crop around all of them (`union`), or one for each hand."""
    boxes = [box for hand in hands if (box := hand_box(hand, image.size))]
    if union and boxes:
        boxes = [union_box(boxes)]
    return [image.crop(box) for box in boxes]


@functools.cache
def _detector(max_num_hands: int, min_detection_confidence: float):
    import mediapipe  # here, so that scripts that only might need it start quickly

    return mediapipe.solutions.hands.Hands(
        static_image_mode=True, max_num_hands=max_num_hands, min_detection_confidence=min_detection_confidence
    )


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep MediaPipe's C++ log lines off the terminal: they are written to file descriptor 2, past Python."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
