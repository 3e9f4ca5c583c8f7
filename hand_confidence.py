"""HAND-CONF of a folder of pictures: how sure MediaPipe is which hand, left or right, each one is.

The mean handedness score over all hands (0.5 to 1, higher is better; at most 2 hands a picture, detection confidence 0,
as in the released code). Pictures without a hand do not count in it. Therefore the share of pictures with a hand at
detection confidence 0.5 is printed beside it.

With --gesture or --fingers also the gesture accuracy (not in the paper): the share of all pictures with a hand that
extends the fingers of the gesture and no others. --gesture knows HaGRID's gestures; for others --fingers names them.

Examples:
  python hand_confidence.py --image_folder generated/call --bootstrap 1000 --csv hands.csv
  python hand_confidence.py --image_folder generated/call --gesture call
  python hand_confidence.py --image_folder generated/my_sign --fingers index ring pinky
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.hands.fingers import FINGERS, GESTURE_FINGERS, fingers_of_gesture
from core.metrics.equations import hand_confidence
from core.metrics.hands import HandsOfPhoto, hands_of_photos
from core.metrics.intervals import hand_confidence_interval, share_interval
from core.metrics.options import add_interval_options
from core.metrics.pictures import list_pictures
from core.runs.command_line import argument_parser, command_line, positive_int
from core.runs.errors import UserError
from core.runs.files import atomic_file, check_outputs, spreadsheet_text, write_json
from core.runs.processes import counted, say


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--image_folder", type=Path, required=True, help="folder of pictures")
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument("--gesture", help="also print the gesture accuracy for a gesture of HaGRID, for example call")
    wanted.add_argument(
        "--fingers",
        nargs="+",
        choices=FINGERS,
        metavar="FINGER",
        help=f"also print the gesture accuracy for a gesture that extends exactly these fingers: {', '.join(FINGERS)}",
    )
    parser.add_argument("--num_workers", type=positive_int, help="processes to use (default: one per core)")
    add_interval_options(parser)
    parser.add_argument("--json", type=Path, help="write the result and everything it depends on to this file")
    parser.add_argument("--csv", type=Path, help="write one line for each picture to this file")
    args = parser.parse_args(argv)
    if args.gesture and args.gesture not in GESTURE_FINGERS:
        raise UserError(
            f"--gesture {args.gesture}: its fingers are not known; name them with --fingers, "
            f"or give one of {', '.join(GESTURE_FINGERS)}"
        )
    accepted = fingers_of_gesture(args.gesture) if args.gesture else None
    if args.fingers:
        accepted = [frozenset(args.fingers)]
    paths = list_pictures(args.image_folder)
    check_outputs(args.json, args.csv, inputs=paths)

    photos = hands_of_photos(paths, accepted, num_workers=args.num_workers)
    scores = [photo.scores for photo in photos]
    hands = sum(map(len, scores))
    if not hands:
        raise UserError(f"{args.image_folder}: MediaPipe found no hand in its {counted(len(paths), 'picture')}")
    share = sum(photo.found > 0 for photo in photos) / len(photos)
    say(
        f"{args.image_folder}: {counted(len(paths), 'image')}, {counted(hands, 'hand')}, "
        f"{share:.1%} of images with a hand at confidence 0.5"
    )
    mean, error = hand_confidence(scores)
    say(f"HAND-CONF: {mean:.6f}, standard error: {error:.6f}")
    result: dict[str, Any] = {"metric": "HAND-CONF", "value": mean, "interval_95": None}
    result["standard_error"] = None if math.isnan(error) else error  # JSON has no NaN
    if args.bootstrap:
        low, high = result["interval_95"] = hand_confidence_interval(scores, resamples=args.bootstrap, seed=args.seed)
        say(f"95 % interval: {low:.6f} to {high:.6f}")
    if accepted is not None:
        correct = [bool(photo.shows_gesture) for photo in photos]
        accuracy = float(np.mean(correct))
        what = args.gesture or f"exactly {' '.join(args.fingers)}"
        say(f"Gesture accuracy: {accuracy:.1%} of {counted(len(photos), 'image')} show {what}")
        result |= {"gesture": args.gesture, "fingers": args.fingers, "gesture_accuracy": accuracy}
        if args.bootstrap:
            low, high = result["gesture_accuracy_interval_95"] = share_interval(correct)
            say(f"95 % interval: {low:.1%} to {high:.1%}")
    if args.csv:
        write_csv(args.csv, paths, photos)
    if args.json:
        result |= {"source": str(args.image_folder), "images": len(paths), "hands": hands, "share_with_hand": share}
        write_json(args.json, {**result, "bootstrap": args.bootstrap, "seed": args.seed})


def write_csv(path: Path, paths: Sequence[Path], photos: Sequence[HandsOfPhoto]) -> None:
    """One line for each picture: its hands and their mean score at confidence 0; at 0.5 its hands and the gesture."""
    with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "hands", "mean_score", "hands_at_0.5", "shows_gesture"])
        for picture, photo in zip(paths, photos):
            mean = sum(photo.scores) / len(photo.scores) if photo.scores else ""
            shows = "" if photo.shows_gesture is None else photo.shows_gesture
            writer.writerow([spreadsheet_text(picture.name), len(photo.scores), mean, photo.found, shows])


if __name__ == "__main__":
    main()
