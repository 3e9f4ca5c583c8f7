"""Which pictures of a folder are measured, and how: whole or cut to their hands, in each protocol's size.

Free of torch, because worker processes run it and should start quickly.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from core.hands.crops import hand_crops
from core.hands.detection import find_hands
from core.runs.errors import UserError
from core.runs.photos import list_photos, resize_and_crop

PROTOCOLS = ("released", "standard")
HAND_CROPS = ("union", "each")
INCEPTION_SIZE = 299  # pixels
SHEETS = ("grid.png", "sheet.png")  # contact sheets that inference writes beside its pictures


def check_protocol(protocol: str) -> None:
    """Raises UserError unless there is such a protocol."""
    if protocol not in PROTOCOLS:
        raise UserError(f"no protocol '{protocol}'; there are {' and '.join(PROTOCOLS)}")


def list_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder that is to be measured, sorted by name; contact sheets are left out.

    Raises:
        UserError: no such folder, no pictures in it, or the folder of a sweep over mu, whose pictures are one level
            down (mu_0, mu_0.5, ...).
    """
    sweep = sorted(path.name for path in folder.glob("mu_*") if path.is_dir())
    if sweep:
        raise UserError(f"{folder}: holds a folder of pictures for each mu; measure one of them ({', '.join(sweep)})")
    pictures = [path for path in list_photos(folder) if path.name not in SHEETS]
    if not pictures:
        raise UserError(f"{folder}: holds only a contact sheet ({' or '.join(SHEETS)}), no pictures to measure")
    return pictures


def pictures_of_photo(photo: Image.Image, protocol: str, crop: str) -> list[np.ndarray]:
    """What one photo contributes to a metric: uint8 arrays (3, H, W).

    Args:
        protocol: "released" makes them 299x299: shorter side and centre crop, but hands of their own (`crop` "each")
            are squeezed, as in the released code; "standard" leaves their size to the extractor.
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


def squeeze(picture: Image.Image, size: int) -> Image.Image:
    """size x size pixels, whatever the picture's shape."""
    return picture.resize((size, size), Image.Resampling.BILINEAR)
