"""Hands in pictures, as the papers' MediaPipe 0.10.21 finds them (`solutions.hands`, static image mode).

Two backends find the same hands. `litert`, the default, runs MediaPipe's two models by LiteRT with its graph's rules in
numpy: on every Python, and in a third of the time. `mediapipe` is the original, where it is installed (Python 3.10 to
3.12, numpy 1): the reference that tests and `benchmarks/hands.py` compare with. HAND_DETECTOR=litert|mediapipe chooses.
"""

import importlib
import os
from collections.abc import Sequence
from types import ModuleType

from PIL import Image

from core.hands.hand import Hand
from core.runs.errors import UserError

__all__ = ["Hand", "find_hands", "find_hands_at", "hand_detector"]

DEFAULT_BACKEND = "litert"
MODULES = {"litert": "core.hands.hand_graph", "mediapipe": "core.hands.mediapipe_solutions"}
INSTALL = {
    "litert": "pip install ai-edge-litert",
    "mediapipe": "pip install mediapipe==0.10.21 (Python 3.10 to 3.12; later releases find other hands)",
}


def find_hands(picture: Image.Image, *, max_num_hands: int = 1, min_detection_confidence: float = 0.5) -> list[Hand]:
    """The hands in a picture, in MediaPipe's order.

    Each picture is taken by itself (static image mode), so the result does not depend on the ones before it.

    Args:
        max_num_hands: at most so many hands, those of the surest palms.
        min_detection_confidence: how sure the palm network has to be, 0 to 1.

    Raises:
        UserError: HAND_DETECTOR is unknown or not installed, or a model file is missing or damaged.
    """
    (hands,) = find_hands_at(picture, [min_detection_confidence], max_num_hands=max_num_hands)
    return hands


def find_hands_at(picture: Image.Image, confidences: Sequence[float], *, max_num_hands: int = 1) -> list[list[Hand]]:
    """What `find_hands` finds at each of several detection confidences, for less work than separate calls.

    Raises:
        UserError: as `find_hands`.
    """
    return _backend(hand_detector()).find_hands_at(picture.convert("RGB"), confidences, max_num_hands)


def hand_detector() -> str:
    """The name of the backend: "litert", or what HAND_DETECTOR says."""
    return os.environ.get("HAND_DETECTOR") or DEFAULT_BACKEND


def _backend(name: str) -> ModuleType:
    """The backend's module; imported here, so that scripts that only might need it start quickly."""
    if name not in MODULES:
        raise UserError(f"HAND_DETECTOR={name} is unknown; known are {', '.join(MODULES)}")
    try:
        return importlib.import_module(MODULES[name])
    except ImportError as error:
        raise UserError(f"hands can't be found ({error}); {INSTALL[name]}, or choose by HAND_DETECTOR") from None
