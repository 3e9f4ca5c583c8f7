"""Boxes around hands, and pictures cut to them."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from core.hands.detection import Hand

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom are outside


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
