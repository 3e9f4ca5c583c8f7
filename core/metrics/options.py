"""Options that the metric scripts share, each group added by one function."""

import argparse
from pathlib import Path

from core.metrics.pictures import HAND_CROPS, PROTOCOLS
from core.runs.command_line import natural_int, positive_int, seed_int, whole_number

FEWEST_RESAMPLES = 100


def resamples(text: str) -> int:
    """argparse type: enough resamples for a 95 % interval."""
    value = whole_number(text)
    if value < FEWEST_RESAMPLES:
        raise argparse.ArgumentTypeError(f"{text} is too few for a 95 % interval: {FEWEST_RESAMPLES} at least")
    return value


def add_extractor_options(parser: argparse.ArgumentParser) -> None:
    """What FID and KID take their features from: `protocol`, `feature_extractor`, `inception_weights`."""
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="released",
        help="released: torchvision's Inception v3 and the biased KID, as in the papers' code; standard: torchmetrics",
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--feature_extractor",
        type=Path,
        help="TorchScript file to use instead of Inception: uint8 pictures (N, 3, H, W) to features (N, D)",
    )
    either.add_argument(
        "--inception_weights",
        type=Path,
        help="file of the protocol's Inception weights (default: downloaded once into torch hub's cache)",
    )


def add_interval_options(parser: argparse.ArgumentParser) -> None:
    """The 95 % interval: `bootstrap` and `seed`."""
    parser.add_argument(
        "--bootstrap",
        type=resamples,
        metavar="N",
        help=f"also print a 95 %% interval, from N random resamples: {FEWEST_RESAMPLES} at least, 1000 is usual",
    )
    parser.add_argument("--seed", type=seed_int, default=0, help="seed of everything that is drawn at random")


def add_comparison_options(parser: argparse.ArgumentParser) -> None:
    """The options of a metric that compares two folders."""
    source = "a folder, or an .npz file that --save_features wrote"
    parser.add_argument("--real_images", type=Path, required=True, help=f"the real pictures: {source}")
    parser.add_argument("--fake_images", type=Path, required=True, help=f"the generated pictures: {source}")
    parser.add_argument(
        "--hands",
        action="store_true",
        help="compare the hands that MediaPipe finds, cut out, instead of whole pictures; pictures without a hand are "
        "left out and counted",
    )
    parser.add_argument(
        "--hand_crop",
        choices=HAND_CROPS,
        default="union",
        help="with --hands: one crop around all hands of a picture (at most 2), or one crop for each hand",
    )
    add_extractor_options(parser)
    parser.add_argument("--batch_size", type=positive_int, default=32, help="pictures that are processed at a time")
    parser.add_argument(
        "--num_workers",
        type=natural_int,
        help="processes that read pictures and find hands; 0 for none (default: one per core)",
    )
    add_interval_options(parser)
    parser.add_argument(
        "--save_features",
        type=Path,
        nargs="+",
        metavar="NPZ",
        help="write the features of the real pictures to this .npz file, and those of the generated ones to a second "
        "file if there is one; later runs read them as --real_images or --fake_images",
    )
    parser.add_argument("--json", type=Path, help="write the result and everything it depends on to this file")
