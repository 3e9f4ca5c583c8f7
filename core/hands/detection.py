"""Hands in pictures: the project's only use of MediaPipe.

The papers used MediaPipe's `solutions` API, whose last release with its models inside the wheel is 0.10.21.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image


class Hand(NamedTuple):
    """One detected hand."""

    landmarks: np.ndarray  # (21, 3) float64: x and y relative to the picture (0 to 1), z depth relative to the wrist
    handedness: str  # "Left" or "Right", as MediaPipe names it: for a mirrored (selfie) picture
    score: float  # MediaPipe's confidence in the handedness, 0.5 to 1


def find_hands(picture: Image.Image, *, max_num_hands: int = 1, min_detection_confidence: float = 0.5) -> list[Hand]:
    """The hands in an RGB picture, in MediaPipe's order.

    Each picture is taken by itself (static image mode), so the result does not depend on the ones before it.
    """
    with _quiet_stderr():
        result = _detector(max_num_hands, min_detection_confidence).process(np.asarray(picture.convert("RGB")))
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


def find_hands_at(picture: Image.Image, confidences: Sequence[float], *, max_num_hands: int) -> list[list[Hand]]:
    """The hands that `find_hands` finds at each of several detection confidences (0 to 1), in their order."""
    return [
        find_hands(picture, max_num_hands=max_num_hands, min_detection_confidence=confidence)
        for confidence in confidences
    ]


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
