"""HAND-CONF of a folder of pictures: how sure MediaPipe is of the hands in them.

The mean handedness score over all hands (at most 2 a picture, detection confidence 0, as released); beside it the share
of pictures with a hand at detection confidence 0.5, which the released code hides: a picture without a hand costs a
model nothing there.

Example:
  python hand_confidence.py --image_folder generated/call --bootstrap 1000 --csv hands.csv
"""

import csv
import math
from pathlib import Path

from hand1000.cli import UserError, argument_parser, command_line, positive_int, say, seed_int
from hand1000.evaluation import check_outputs, resamples, write_json
from hand1000.files import atomic_file, list_photos, map_photos, progress
from hand1000.hands import detect_hands
from hand1000.metrics import hand_confidence, hand_confidence_interval


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--image_folder", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--num_workers", type=positive_int, help="processes to use (default: every core)")
    parser.add_argument("--bootstrap", type=resamples, help="print a 95 %% interval from so many resamples: 1000")
    parser.add_argument("--seed", type=seed_int, default=0, help="of the resamples")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--csv", type=Path, help="write one line for each picture to this file")
    args = parser.parse_args(argv)
    photos = list_photos(args.image_folder)
    check_outputs(args.json, args.csv)

    rows = []  # scores at detection confidence 0, hands at 0.5
    results = map_photos(hands_of_photo, photos, num_workers=args.num_workers)
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
    if args.csv:
        write_csv(args.csv, photos, rows)
    if args.json:
        counts = {"source": str(args.image_folder), "images": len(photos), "hands": hands, "share_with_hand": share}
        settings = {"bootstrap": args.bootstrap, "seed": args.seed}
        error = None if math.isnan(error) else error  # JSON has no NaN
        result = {"metric": "HAND-CONF", "value": mean, "standard_error": error, "interval_95": interval}
        write_json(args.json, {**result, **counts, **settings})


def hands_of_photo(photo) -> tuple[list[float], int]:
    """Handedness scores at detection confidence 0, and the number of hands at 0.5."""
    scores = [hand.score for hand in detect_hands(photo, max_num_hands=2, min_detection_confidence=0.0)]
    return scores, len(detect_hands(photo, max_num_hands=2, min_detection_confidence=0.5))


def write_csv(path: Path, photos: list[Path], rows: list[tuple[list[float], int]]) -> None:
    """One line for each picture: its hands and their mean score at confidence 0, its hands at confidence 0.5."""
    with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "hands", "mean_score", "hands_at_0.5"])
        for photo, (scores, detected) in zip(photos, rows):
            mean = sum(scores) / len(scores) if scores else ""
            writer.writerow([photo.name, len(scores), mean, detected])


if __name__ == "__main__":
    main()
