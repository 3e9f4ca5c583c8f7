"""What the metric scripts and `reproduce.py` share: options, what they check and print, all scores of a folder."""

import argparse
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from core.hands.crops import find_hands
from core.hands.fingers import GESTURE_FINGERS, shows_gesture
from core.metrics.distances import (
    fid,
    fid_interval,
    hand_confidence,
    hand_confidence_interval,
    kid,
    kid_interval,
    share_interval,
)
from core.runs.command_line import argument_parser, natural_int, positive_int, seed_int
from core.runs.errors import UserError
from core.runs.files import atomic_file, check_writable
from core.runs.photos import list_photos, map_photos
from core.runs.processes import check_all_processes_started, cpu_count, is_main_process, num_processes, progress, say

if TYPE_CHECKING:
    from core.metrics.features import Features


def metric_parser(docstring: str) -> argparse.ArgumentParser:
    """The options of a metric that compares two folders."""
    parser = argument_parser(docstring)
    features = "folder of pictures, or an .npz that --save_features wrote"
    parser.add_argument("--real_images", type=Path, required=True, help=features)
    parser.add_argument("--fake_images", type=Path, required=True, help=features)
    parser.add_argument("--hands", action="store_true", help="on MediaPipe's hand crops; pictures without are left out")
    parser.add_argument(
        "--hand_crop", choices=["union", "each"], default="union", help="one crop around all hands, or one for each"
    )
    parser.add_argument(
        "--protocol", choices=["released", "standard"], default="released", help="the papers' code, or torchmetrics"
    )
    parser.add_argument(
        "--feature_extractor", type=Path, help="TorchScript module, uint8 (N, 3, H, W) to (N, D), instead of Inception"
    )
    parser.add_argument("--inception_weights", type=Path, help="local file of the protocol's Inception weights")
    parser.add_argument("--batch_size", type=positive_int, default=32, help="photos at a time")
    parser.add_argument(
        "--num_workers", type=natural_int, help="processes that read photos and find hands (default: one a core)"
    )
    parser.add_argument("--bootstrap", type=resamples, help="print a 95 %% interval from so many resamples: 1000")
    parser.add_argument("--seed", type=seed_int, default=0, help="of random subsets and resamples")
    parser.add_argument(
        "--save_features",
        type=Path,
        nargs="+",
        metavar="NPZ",
        help="keep the features of the real pictures (and in a second file of the fake ones) for later runs",
    )
    parser.add_argument("--json", type=Path, help="also write the result and all that it depends on to this file")
    return parser


def hands_of_photo(photo: Image.Image, *, gesture: str | None) -> tuple[list[float], int, bool | None]:
    """Handedness scores at detection confidence 0; at 0.5 the number of hands, and whether one shows the gesture."""
    scores = [hand.score for hand in find_hands(photo, max_num_hands=2, min_detection_confidence=0.0)]
    hands = find_hands(photo, max_num_hands=2, min_detection_confidence=0.5)
    return scores, len(hands), shows_gesture(hands, gesture, photo.size) if gesture else None


def resamples(text: str) -> int:
    """argparse type: enough resamples for a 95 % interval."""
    value = int(text)
    if value < 100:
        raise argparse.ArgumentTypeError(f"{text} is too few for a 95 % interval: 100 at least")
    return value


def check_outputs(*outputs: Path | None) -> None:
    """Raises UserError where a file can't be written, or two outputs are the same file."""
    outputs = list(filter(None, outputs))
    if len({output.resolve() for output in outputs}) < len(outputs):
        raise UserError(f"{outputs[-1]}: two outputs can't go to the same file")
    for output in outputs:
        if output.is_dir():
            raise UserError(f"{output}: is a folder; give a file")
        check_writable(output.parent)


def features_for(args: argparse.Namespace) -> tuple["Features", "Features"]:
    """Check the arguments of a metric, get the features of both sides, and say what they are.

    Raises:
        UserError: as `features_of_both`, and for outputs that can't be written.
    """
    saved_to = args.save_features or []
    if len(saved_to) > 2 or any(path.suffix != ".npz" for path in saved_to):
        raise UserError("--save_features takes one or two .npz files: of the real and of the fake pictures")
    if args.feature_extractor and args.inception_weights:
        raise UserError("--feature_extractor stands in place of Inception: leave out --inception_weights")
    check_outputs(*saved_to, args.json)
    check_all_processes_started()

    from core.metrics.features import features_of_both, save_features

    num_workers = cpu_count() // num_processes() if args.num_workers is None else args.num_workers
    names = "protocol hands hand_crop feature_extractor inception_weights batch_size".split()
    options = {name: getattr(args, name) for name in names}
    sides = features_of_both(args.real_images, args.fake_images, num_workers=num_workers, **options)
    say(f"Protocol: {args.protocol}, {sides[0].extractor}, {sides[0].features.shape[1]} features")
    for name, side in zip(("Real", "Fake"), sides):
        crops = f", {side.without_hand} without a hand, {len(side.features)} hand crops" if args.hands else ""
        say(f"{name}: {side.source}: {side.images} images{crops}")
    for path, side in zip(saved_to if is_main_process() else (), sides):
        save_features(path, side)
    return sides


def metric_name(name: str, args: argparse.Namespace) -> str:
    """FID or FID-H, KID or KID-H."""
    return f"{name}-H" if args.hands else name


def write_result(args: argparse.Namespace, real: "Features", fake: "Features", **result) -> None:
    """Write `result` and all that it depends on to `--json`."""
    if args.json:
        settings = {"protocol": real.protocol, "extractor": real.extractor, "crop": real.crop}
        drawn = {"seed": args.seed, "bootstrap": args.bootstrap}
        sides = {name: _counts(side) for name, side in (("real", real), ("fake", fake))}
        write_json(args.json, {**result, **settings, **drawn, **sides})


def _counts(side: "Features") -> dict:
    return {
        "source": side.source,
        "images": side.images,
        "without_hand": side.without_hand,
        "pictures": len(side.features),
    }


def write_json(path: Path, content: dict) -> None:
    """Write atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


# All metrics of one folder


class Score(NamedTuple):
    """A metric and its 95 % interval; NaN where it can't be had."""

    value: float
    low: float
    high: float


NO_SCORE = Score(*[float("nan")] * 3)
METRICS = {"FID": -1, "KID": -1, "FID-H": -1, "KID-H": -1, "HAND-CONF": 1, "hand found": 1, "gesture accuracy": 1}
"""Every metric, and 1 where more is better, -1 where less is."""
REAL = "real photos"
"""The row of the test photos themselves: what hands of the gesture score that are real."""


def all_scores(
    real: Path, fake: Path, *, gesture: str, resamples: int, seed: int, num_workers: int, cache: Path, **features
) -> dict[str, Score]:
    """Every metric of `METRICS` for a folder of generated pictures.

    Args:
        real: photos of the gesture that training did not see.
        gesture: for the gesture accuracy, which is left out where the gesture's fingers are not known.
        cache: folder for the real photos' features; the caller sees to it that they belong to `real`.
        features: further options of `hand1000.features.features_of_both`.
    """
    from core.metrics.features import features_of_both, save_features

    scores: dict[str, Score] = {}
    protocol = features.get("protocol", "released")
    for suffix, hands in (("", False), ("-H", True)):
        saved = cache / f"real{suffix}.npz"
        try:
            source = saved if saved.is_file() else real
            sides = features_of_both(source, fake, hands=hands, num_workers=num_workers, **features)
        except UserError as error:
            if not hands:
                raise
            say(f"FID-H and KID-H left out: {error}")
            scores |= {"FID-H": NO_SCORE, "KID-H": NO_SCORE}
            continue
        if source == real:
            save_features(saved, sides[0])
        x, y = (side.features for side in sides)
        value, (mean, _) = fid(x, y), kid(x, y, protocol=protocol, seed=seed)
        intervals = [(float("nan"),) * 2] * 2
        if min(len(x), len(y)) >= 10:
            options = {"resamples": resamples, "seed": seed}
            intervals = [fid_interval(x, y, **options), kid_interval(x, y, mean, protocol=protocol, **options)]
        scores |= {f"FID{suffix}": Score(value, *intervals[0]), f"KID{suffix}": Score(mean, *intervals[1])}
    return scores | hand_scores(fake, gesture=gesture, resamples=resamples, seed=seed, num_workers=num_workers)


def hand_scores(folder: Path, *, gesture: str, resamples: int, seed: int, num_workers: int) -> dict[str, Score]:
    """HAND-CONF, the share of pictures with a hand, and the gesture accuracy.

    Raises:
        UserError: an unreadable picture.
    """
    gesture = gesture if gesture in GESTURE_FINGERS else None
    photos, rows = list_photos(folder), []
    results = map_photos(functools.partial(hands_of_photo, gesture=gesture), photos, num_workers=max(1, num_workers))
    for result in progress(results, total=len(photos), desc="Finding hands", unit="image"):
        if isinstance(result, UserError):
            raise result
        rows.append(result)
    options = {"resamples": resamples, "seed": seed}
    confidences = [row[0] for row in rows]
    confidence = NO_SCORE
    if any(confidences):
        confidence = Score(hand_confidence(confidences)[0], *hand_confidence_interval(confidences, **options))
    shares = {"hand found": [row[1] > 0 for row in rows]}
    shares |= {"gesture accuracy": [row[2] for row in rows]} if gesture else {}
    made = {name: Score(float(np.mean(hits)), *share_interval(hits)) for name, hits in shares.items()}
    return {"HAND-CONF": confidence, "gesture accuracy": NO_SCORE, **made}
