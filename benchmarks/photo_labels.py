"""MediaPipe's hands in photos as a file of joints: labels for attentionhand.prepare where no label set is at hand.

At most two hands of each photo; photos without a hand are left out. The depth is MediaPipe's guess, and no camera is
known, so that the mesh lies on the hand as closely as MediaPipe's landmarks do.

Examples:
  python -m benchmarks.photo_labels --image_folder photos --output labels.npz
  python -m attentionhand.prepare --labels joints --root labels.npz --output_dir data
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from core.hands.detection import find_hands
from core.hands.hand import Hand
from core.runs.command_line import argument_parser, command_line, positive_int
from core.runs.errors import UserError
from core.runs.files import atomic_file, check_outputs
from core.runs.photos import list_photos, map_photos
from core.runs.processes import counted, say

HANDS = 2  # of a photo, at most
OF_THE_PERSON = {"Left": "Right", "Right": "Left"}  # MediaPipe names hands for a mirrored picture


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--image_folder", type=Path, nargs="+", required=True, help="folders of photos")
    parser.add_argument("--output", type=Path, required=True, help=".npz file to write")
    parser.add_argument("--num", type=positive_int, help="so many photos of each folder (default: all)")
    args = parser.parse_args(argv)
    photos = [photo for folder in args.image_folder for photo in list_photos(folder)[: args.num]]
    check_outputs(args.output)
    found = list(map_photos(size_and_hands, photos, desc="Finding hands"))
    rows = [(photo, *one) for photo, one in zip(photos, found) if one[1]]
    if not rows:
        raise UserError(f"{args.image_folder[0]}: no photo has a hand that MediaPipe finds")
    with atomic_file(args.output) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **label_arrays(rows))
    say(f"{args.output}: {counted(len(rows), 'label')} of {counted(len(photos), 'photo')}")


def size_and_hands(photo: Image.Image) -> tuple[tuple[int, int], list[Hand]]:
    return photo.size, find_hands(photo, max_num_hands=HANDS)


def landmarks_in_pixels(hand: Hand, size: tuple[int, int]) -> np.ndarray:
    """(21, 3): MediaPipe gives z in the scale of x, smaller nearer to the camera."""
    return hand.landmarks * [size[0], size[1], size[0]]


def label_arrays(rows: Sequence[tuple[Path, tuple[int, int], list[Hand]]]) -> dict[str, np.ndarray]:
    """The arrays that attentionhand/labels/own.py reads; joints in pixels, since the unit does not matter there."""
    joints = np.full((len(rows), HANDS, 21, 3), np.nan)
    handedness = np.full((len(rows), HANDS), "Right")
    for row, (_, (width, height), hands) in enumerate(rows):
        for place, hand in enumerate(hands):
            joints[row, place] = landmarks_in_pixels(hand, (width, height))
            handedness[row, place] = OF_THE_PERSON[hand.handedness]
    return {
        "joints_3d": joints,
        "joints_2d": joints[..., :2],
        "handedness": handedness,
        "size": np.array([size for _, size, _ in rows]),
        "rgb": np.array([str(photo.resolve()) for photo, _, _ in rows]),
        "source": np.array([f"{photo.parent.name}_{photo.stem}" for photo, _, _ in rows]),
        "axes": np.array("opencv"),
    }


if __name__ == "__main__":
    main()
