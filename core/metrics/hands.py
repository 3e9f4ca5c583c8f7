"""The hands of a folder's pictures as the metrics see them: their scores, and whether one shows the gesture."""

import functools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from core.hands.detection import find_hands_at
from core.hands.fingers import shows_fingers
from core.runs.photos import map_photos

MOST_HANDS = 2  # of a picture, as in the released code
HAND_CONF_CONFIDENCE, DETECTION_CONFIDENCE = 0.0, 0.5  # MediaPipe's detection confidence for HAND-CONF, and its default


class HandsOfPhoto(NamedTuple):
    """What hand confidence, the share of pictures with a hand and gesture accuracy take from one picture."""

    scores: list[float]  # handedness scores (0.5 to 1) of the hands at detection confidence 0
    found: int  # hands at detection confidence 0.5
    shows_gesture: bool | None  # whether one of these extends the accepted fingers; None where none are given


def hands_of_photo(photo: Image.Image, accepted: Collection[frozenset[str]] | None = None) -> HandsOfPhoto:
    """The hands of one picture, at most 2.

    Args:
        accepted: sets of extended fingers that count as the gesture, see `core.hands.fingers`.
    """
    confidences = (HAND_CONF_CONFIDENCE, DETECTION_CONFIDENCE)
    unsure, sure = find_hands_at(photo, confidences, max_num_hands=MOST_HANDS)
    shows = shows_fingers(sure, accepted, photo.size) if accepted is not None else None
    return HandsOfPhoto([hand.score for hand in unsure], len(sure), shows)


def hands_of_photos(
    photos: Sequence[Path], accepted: Collection[frozenset[str]] | None = None, *, num_workers: int | None = None
) -> list[HandsOfPhoto]:
    """`hands_of_photo` of each photo, in order.

    Args:
        num_workers: processes that find hands (default: one per core); 0 or 1 does it in this one.

    Raises:
        UserError: the first unreadable photo.
    """
    function = functools.partial(hands_of_photo, accepted=accepted)
    return list(map_photos(function, photos, num_workers=num_workers, desc="Finding hands"))
