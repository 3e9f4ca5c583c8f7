"""What a found hand is."""

from typing import NamedTuple

import numpy as np


class Hand(NamedTuple):
    """One detected hand."""

    landmarks: np.ndarray  # (21, 3) float64: x and y relative to the picture (0 to 1), z depth relative to the wrist
    handedness: str  # "Left" or "Right", as MediaPipe names it: for a mirrored (selfie) picture
    score: float  # MediaPipe's confidence in the handedness, 0.5 to 1
