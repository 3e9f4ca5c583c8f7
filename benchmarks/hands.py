"""Hands by LiteRT against MediaPipe's own, in one run: are they equal, and how many pictures a second?

The pass that is timed first is the evaluation's: at most 2 hands, at detection confidence 0 (HAND-CONF) and 0.5 (hand
found, gesture accuracy). "Before" is MediaPipe in a pass for each confidence, "now" is one pass of `find_hands_at`.
Where mediapipe is not installed, only LiteRT is timed.

Example:
  python -m benchmarks.hands --image_folder photos/call generated/call
"""

import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from core.hands.detection import Hand, find_hands, find_hands_at
from core.runs.command_line import argument_parser, command_line, positive_int
from core.runs.errors import UserError
from core.runs.photos import list_photos, map_photos
from core.runs.processes import cpu_count

CONFIDENCES = (0.0, 0.5)
SETTINGS = [(max_num_hands, confidence) for max_num_hands in (1, 2) for confidence in CONFIDENCES]
ROUNDS = 2  # of the timing; the faster one counts


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--image_folder", type=Path, nargs="+", required=True, help="folders of pictures")
    parser.add_argument("--timed", type=positive_int, default=200, help="pictures to time, spread over all folders")
    args = parser.parse_args(argv)
    folders = {folder: list_photos(folder) for folder in args.image_folder}
    has_mediapipe = is_installed("mediapipe")
    if has_mediapipe:
        print_equality(folders)
    else:
        print("mediapipe is not installed: nothing to compare with")
    photos = [photo for photos in folders.values() for photo in photos]
    print_speed(photos[:: max(1, len(photos) // args.timed)], has_mediapipe)


def is_installed(backend: str) -> bool:
    os.environ["HAND_DETECTOR"] = backend
    try:
        find_hands(Image.new("RGB", (8, 8)))
    except UserError:
        return False
    return True


def print_equality(folders: dict[Path, list[Path]]) -> None:
    """A row for each folder and setting; then the pictures whose hands differ in count, order or side.

    Median and largest distance of landmarks, largest difference of scores; pictures with other hands.
    """
    print("| folder | at most | confidence | pictures | hands | median | largest | score | other hands |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    others: list[str] = []
    for folder, photos in folders.items():
        results = list(map_photos(hands_of_both, photos))
        for index, (max_num_hands, confidence) in enumerate(SETTINGS):
            pairs = [(size, litert[index], reference[index]) for size, litert, reference in results]
            differ = [sides(litert) != sides(reference) for _, litert, reference in pairs]
            others += [f"{photo} ({max_num_hands}, {confidence})" for photo, other in zip(photos, differ) if other]
            off, scores = differences([pair for pair, other in zip(pairs, differ) if not other])
            print(
                f"| {folder} | {max_num_hands} | {confidence} | {len(pairs)} | {len(scores)} | {np.median(off):.4f} px"
                f" | {off.max():.3f} px | {scores.max():.5f} | {sum(differ)} |",
                flush=True,
            )
    print("\nOther count, order or side:", ", ".join(others) or "none")


def hands_of_both(photo: Image.Image) -> tuple[tuple[int, int], list[list[Hand]], list[list[Hand]]]:
    """The picture's size, and the hands of LiteRT and of MediaPipe for each setting."""
    found = []
    for backend in ("litert", "mediapipe"):
        os.environ["HAND_DETECTOR"] = backend
        found.append([hands for count in (1, 2) for hands in find_hands_at(photo, CONFIDENCES, max_num_hands=count)])
    return photo.size, found[0], found[1]


def sides(hands: list[Hand]) -> list[str]:
    return [hand.handedness for hand in hands]


def differences(pairs: list) -> tuple[np.ndarray, np.ndarray]:
    """Distances of all landmarks in pixels, and differences of scores, of hands that both found."""
    hands = [(size, *pair) for size, litert, reference in pairs for pair in zip(litert, reference)]
    off = [np.linalg.norm((one.landmarks - other.landmarks)[:, :2] * size, axis=1) for size, one, other in hands]
    scores = [abs(one.score - other.score) for _, one, other in hands]
    return (np.concatenate(off), np.array(scores)) if hands else (np.full(1, np.nan), np.full(1, np.nan))


def print_speed(photos: list[Path], has_mediapipe: bool) -> None:
    """Pictures a second, reading them and starting processes included."""
    ways = {"before": ("mediapipe", separately)} if has_mediapipe else {}
    ways["now"] = ("litert", together)
    print(f"\nPictures a second: {len(photos)} pictures, {cpu_count()} cores\n")
    print(f"| confidences | processes | {' | '.join(ways)} | ratio |\n{'| --- ' * (len(ways) + 3)}|")
    for confidences in (CONFIDENCES, (0.0,), (0.5,)):
        for num_workers in (1, 2):
            seconds = dict.fromkeys(ways, float("inf"))
            for _ in range(ROUNDS):
                for name, (backend, function) in ways.items():
                    os.environ["HAND_DETECTOR"] = backend  # worker processes inherit it
                    find = functools.partial(function, confidences=confidences)
                    seconds[name] = min(seconds[name], time_pass(find, photos, num_workers))
            rates = " | ".join(f"{len(photos) / value:.1f}" for value in seconds.values())
            ratio = f"{seconds['before'] / seconds['now']:.2f}" if has_mediapipe else ""
            print(f"| {' and '.join(map(str, confidences))} | {num_workers} | {rates} | {ratio} |", flush=True)


def time_pass(function: Callable, photos: list[Path], num_workers: int) -> float:
    """Seconds of one pass over the pictures."""
    started = time.perf_counter()
    list(map_photos(function, photos, num_workers=num_workers))
    return time.perf_counter() - started


def separately(photo: Image.Image, confidences: Sequence[float]) -> list[int]:
    """How many hands there are at each confidence, found in a pass for each, as before."""
    return [len(find_hands(photo, max_num_hands=2, min_detection_confidence=confidence)) for confidence in confidences]


def together(photo: Image.Image, confidences: Sequence[float]) -> list[int]:
    """The same, found once."""
    return [len(hands) for hands in find_hands_at(photo, confidences, max_num_hands=2)]


if __name__ == "__main__":
    main()
