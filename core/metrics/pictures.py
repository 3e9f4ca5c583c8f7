"""Pictures as a model or a metric takes them: resized and cropped, whole or cut to their hands. Free of torch, because
worker processes run it and should start quickly."""

import numpy as np
from PIL import Image

from core.hands.crops import hand_crops
from core.hands.detection import find_hands
from core.runs.photos import resize_and_crop

INCEPTION_SIZE = 299  # pixels


def squeeze(picture: Image.Image, size: int) -> Image.Image:
    """size x size pixels, whatever the picture's shape."""
    return picture.resize((size, size), Image.Resampling.BILINEAR)


def pictures_of_photo(photo: Image.Image, protocol: str, crop: str) -> list[np.ndarray]:
    """What one photo contributes to a metric: uint8 arrays (3, H, W).

    Args:
        protocol: "released" makes them 299x299: shorter side and centre crop, but hands of their own (`crop` "each")
            are squeezed, as released; "standard" leaves their size to the extractor.
        crop: the "whole" photo, the "union" of its hands (at most 2), or "each" of them; none where it has no hand.
    """
    pictures = [photo]
    if crop != "whole":
        hands = find_hands(photo, max_num_hands=2, min_detection_confidence=0.5)
        pictures = hand_crops(photo, hands, union=crop == "union")
    if protocol == "released":
        fit = squeeze if crop == "each" else resize_and_crop
        pictures = [fit(picture, INCEPTION_SIZE) for picture in pictures]
    return [np.asarray(picture).transpose(2, 0, 1) for picture in pictures]
