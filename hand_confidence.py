"""HAND-CONF of a folder of pictures: how sure MediaPipe is of the hands in them.

The mean handedness score over all hands (at most 2 a picture, detection confidence 0, as released); beside it the share
of pictures with a hand at detection confidence 0.5, which the released code hides: a picture without a hand costs a
model nothing there. With --gesture also the gesture accuracy (not in the paper): the share of all pictures with a hand
that extends the fingers of the gesture and no others.

Examples:
  python hand_confidence.py --image_folder generated/call --bootstrap 1000 --csv hands.csv
  python hand_confidence.py --image_folder generated/call --gesture call
"""

import csv
import functools
import math
from pathlib import Path

import numpy as np

from core.hands.fingers import GESTURE_FINGERS
from core.metrics.distances import hand_confidence, hand_confidence_interval, share_interval
from core.runs.command_line import argument_parser, command_line, positive_int, seed_int
from core.runs.errors import UserError
from core.runs.files import atomic_file
from core.runs.photos import list_photos, map_photos
from core.runs.processes import progress, say
from hand1000.evaluation import check_outputs, hands_of_photo, resamples, write_json


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--image_folder", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--gesture", help="also print the gesture accuracy: a HaGRID gesture, e.g. call")
    parser.add_argument("--num_workers", type=positive_int, help="processes to use (default: every core)")
    parser.add_argument("--bootstrap", type=resamples, help="print a 95 %% interval from so many resamples: 1000")
    parser.add_argument("--seed", type=seed_int, default=0, help="of the resamples")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--csv", type=Path, help="write one line for each picture to this file")
    args = parser.parse_args(argv)
    if args.gesture and args.gesture not in GESTURE_FINGERS:
        raise UserError(f"--gesture {args.gesture}: fingers are known of {', '.join(GESTURE_FINGERS)}")
    photos = list_photos(args.image_folder)
    check_outputs(args.json, args.csv)

    rows = []  # scores at detection confidence 0; at 0.5 the hands, and whether one shows the gesture
    find = functools.partial(hands_of_photo, gesture=args.gesture)
    results = map_photos(find, photos, num_workers=args.num_workers)
    for result in progress(results, total=len(photos), desc="Finding hands", unit="image"):
        if isinstance(result, UserError):
            raise result
        rows.append(result)
    scores = [row[0] for row in rows]
    share = sum(row[1] > 0 for row in rows) / len(rows)
    hands = sum(map(len, scores))
    if not hands:
        raise UserError(f"{args.image_folder}: MediaPipe found no hand in any of its {len(photos)} pictures")
    mean, error = hand_confidence(scores)
    say(
        f"{args.image_folder}: {len(photos)} images, {hands} hands, {share:.1%} of images with a hand at confidence 0.5"
    )
    say(f"HAND-CONF: {mean:.6f}, standard error: {error:.6f}")
    interval = None
    if args.bootstrap:
        interval = hand_confidence_interval(scores, resamples=args.bootstrap, seed=args.seed)
        say(f"95 % interval: {interval[0]:.6f} to {interval[1]:.6f}")
    gesture_result = {}
    if args.gesture:
        correct = [row[2] for row in rows]
        say(f"Gesture accuracy: {np.mean(correct):.1%} of {len(rows)} images show {args.gesture}")
        gesture_result = {"gesture": args.gesture, "gesture_accuracy": float(np.mean(correct))}
        if args.bootstrap:
            low, high = share_interval(correct)
            say(f"95 % interval: {low:.1%} to {high:.1%}")
            gesture_result["gesture_accuracy_interval_95"] = (low, high)
    if args.csv:
        write_csv(args.csv, photos, rows)
    if args.json:
        counts = {"source": str(args.image_folder), "images": len(photos), "hands": hands, "share_with_hand": share}
        settings = {"bootstrap": args.bootstrap, "seed": args.seed}
        error = None if math.isnan(error) else error  # JSON has no NaN
        result = {"metric": "HAND-CONF", "value": mean, "standard_error": error, "interval_95": interval}
        write_json(args.json, {**result, **gesture_result, **counts, **settings})


def write_csv(path: Path, photos: list[Path], rows: list[tuple[list[float], int, bool | None]]) -> None:
    """One line for each picture: its hands and their mean score at confidence 0; at 0.5 its hands and the gesture."""
    with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "hands", "mean_score", "hands_at_0.5", "shows_gesture"])
        for photo, (scores, detected, shows) in zip(photos, rows):
            mean = sum(scores) / len(scores) if scores else ""
            writer.writerow([photo.name, len(scores), mean, detected, "" if shows is None else shows])


if __name__ == "__main__":
    main()
