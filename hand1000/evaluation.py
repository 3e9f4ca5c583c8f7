"""What `cal_fid.py` and `cal_kid.py` share: their options, what they check and print, and their JSON."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from hand1000.cli import (
    UserError,
    argument_parser,
    check_all_processes_started,
    cpu_count,
    is_main_process,
    natural_int,
    num_processes,
    positive_int,
    say,
    seed_int,
)
from hand1000.files import atomic_file, check_writable

if TYPE_CHECKING:
    from hand1000.features import Features


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

    from hand1000.features import features_of_both, save_features

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
