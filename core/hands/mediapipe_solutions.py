"""The reference: MediaPipe's own `solutions.hands`, whose last release with its models inside is 0.10.21."""

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image

from core.hands.hand import Hand
from core.hands.quiet import quiet_stderr

with quiet_stderr():
    from mediapipe import solutions  # gone from later releases, which find other hands: an ImportError, as if missing


def find_hands_at(picture: Image.Image, confidences: Sequence[float], max_num_hands: int) -> list[list[Hand]]:
    """The hands in an RGB picture at each detection confidence."""
    pixels = np.asarray(picture)
    with quiet_stderr():
        return [_hands(_detector(max_num_hands, confidence).process(pixels)) for confidence in confidences]


def _hands(result) -> list[Hand]:
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


@functools.cache
def _detector(max_num_hands: int, min_detection_confidence: float):
    return solutions.hands.Hands(
        static_image_mode=True, max_num_hands=max_num_hands, min_detection_confidence=min_detection_confidence
    )
