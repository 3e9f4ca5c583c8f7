"""Do generated hands follow their label? MediaPipe's landmarks on the pictures against the label's 2D joints.

Prints the share of pictures with a hand, the mean landmark error as a share of the hand's size, and PCK (the share of
joints within 10 % and 20 % of it; a picture without a hand counts as all wrong), each with a 95 % interval. --shuffle
compares with the labels of other pictures: what a model that ignores the mesh would get. FID, KID, FID-H, KID-H,
HAND-CONF come from cal_fid.py, cal_kid.py and hand_confidence.py.

--export writes the pictures whose error is at most --threshold with their joints, to train 3D hand reconstruction.

Examples:
  python -m attentionhand.evaluate --labels meshes/joints.npz --image_size 64 --image_folder results/attentionhand
  python -m attentionhand.evaluate --labels meshes/joints.npz --image_folder results/attentionhand --export accepted
"""

import re
import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python attentionhand/evaluate.py`

from attentionhand.runs import PICTURES, weights_fingerprint
from core.hands.detection import Hand, find_hands
from core.metrics.intervals import bootstrap_interval
from core.metrics.options import resamples
from core.runs.command_line import argument_parser, command_line, finite_float, positive_int, seed_int
from core.runs.errors import UserError, reason_of
from core.runs.files import atomic_folder, check_outputs, check_writable, write_json
from core.runs.photos import list_photos, map_photos
from core.runs.processes import counted, say
from core.runs.run import read_record, refuse_unfinished

IMAGE_SIZE = 512  # pixels a side, where neither the label file nor --image_size says it
PCK_LEVELS = (0.1, 0.2)  # of the hand's size


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--labels", type=Path, required=True, help=".npz with joints_2d in pixels, such as data/joints.npz"
    )
    parser.add_argument(
        "--image_folder", type=Path, required=True, help="result_000_0.png ..., or one picture for each label"
    )
    parser.add_argument(
        "--image_size", type=positive_int, help="pixels a side that joints_2d refer to (default: the file's, or 512)"
    )
    parser.add_argument("--threshold", type=finite_float, default=0.1, help="highest error of an exported picture")
    parser.add_argument("--export", type=Path, help="new folder for the accepted pictures and joints.npz")
    parser.add_argument("--shuffle", action="store_true", help="compare with other pictures' labels")
    parser.add_argument("--bootstrap", type=resamples, default=1000, help="resamples of the 95 %% intervals")
    parser.add_argument("--seed", type=seed_int, default=0, help="seed of --shuffle and of the resamples")
    parser.add_argument("--num_workers", type=positive_int, help="processes to use (default: every core)")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    args = parser.parse_args(argv)
    check_pictures(args.image_folder)
    labels, content = load_labels(args.labels, args.image_size)
    pictures = [path for path in list_photos(args.image_folder) if path.name != "sheet.png"]
    names = content.get("name", np.array([])).tolist()
    indices = label_indices(pictures, len(labels), names, args.image_folder)
    check_outputs(args.json, inputs=[args.labels, *pictures])
    if args.shuffle and (args.export or len(labels) < 2):
        raise UserError("--shuffle needs at least two labels, and its pictures can't be exported")
    if args.export:
        if args.export.exists():
            raise UserError(f"{args.export}: exists already; choose another --export")
        check_writable(args.export)

    if args.shuffle:
        labels = np.roll(labels, 1 + np.random.default_rng(args.seed).integers(max(1, len(labels) - 1)), axis=0)
    found = map_photos(two_hands, pictures, num_workers=args.num_workers, desc="Finding hands")
    distances = [joint_errors(hands, labels[index]) for hands, index in zip(found, indices)]
    result = summarise(distances, indices, args.bootstrap, args.seed)
    for name, (value, low, high) in result.items():
        say(f"{name}: {value:.4f} (95 % interval {low:.4f} to {high:.4f})")
    if args.json:
        facts = {"pictures": len(pictures), "labels": str(args.labels), "shuffled": args.shuffle}
        plain = {name: [None if np.isnan(one) else one for one in values] for name, values in result.items()}
        write_json(args.json, {**plain, **facts})
    if args.export:
        export(args.export, pictures, indices, distances, content, threshold=args.threshold)


def check_pictures(folder: Path) -> None:
    """Refuse pictures of an unfinished attentionhand.inference; say where their weights have changed since.

    Raises:
        UserError
    """
    record = read_record(folder / PICTURES)
    if record is None:
        return
    refuse_unfinished(folder / PICTURES, record, "generation of pictures", "by running attentionhand.inference again")
    weights = Path(str(record.facts.get("weights")))
    if weights.exists() and weights_fingerprint(weights) != record.settings.get("weights"):
        say(f"warning: {weights} has changed since {folder} was drawn")


def load_labels(path: Path, image_size: int | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The 2D joints (N, hands, 21, 2) as shares of the picture's sides, and all arrays of the file.

    A hand that a label does not have, or whose joints are not known, is NaN.

    Args:
        image_size: pixels a side; None for the file's `size` (N, 2), or 512 where it has none.

    Raises:
        UserError: no such file or array.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file (--labels)")
    try:
        with np.load(path) as file:
            content = dict(file)
        joints = content["joints_2d"]
    except (ValueError, KeyError, OSError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not an .npz file with joints_2d ({reason_of(error)})") from None
    if joints.ndim not in (3, 4) or joints.shape[-2:] != (21, 2):
        raise UserError(f"{path}: joints_2d is {joints.shape}, not (N, 21, 2) or (N, hands, 21, 2)")
    is_known = image_size is None and "size" in content
    size = content["size"] if is_known else np.full((len(joints), 2), image_size or IMAGE_SIZE)
    if is_known and (size.shape != (len(joints), 2) or not (size > 0).all()):
        raise UserError(f"{path}: size is {size.shape}, not a width and a height for each of {len(joints)} labels")
    labels = joints.astype(float).reshape(len(joints), -1, 21, 2) / size[:, None, None]
    if np.isnan(hand_sizes(labels)).all():
        raise UserError(f"{path}: all its joints_2d are NaN")
    if not is_known and np.nanmax(hand_sizes(labels)) < 1 / 8:
        raise UserError(f"{path}: no hand fills an eighth of --image_size {image_size or IMAGE_SIZE}; is that right?")
    return labels, content


def hand_sizes(labels: np.ndarray) -> np.ndarray:
    """The longer side of the box around the joints (..., 21, 2) of each hand."""
    return np.ptp(labels, axis=-2).max(axis=-1)


def label_indices(pictures: list[Path], labels: int, names: Sequence[str], folder: Path) -> list[int]:
    """Which label each picture belongs to: the number in result_000_0.png, its name, or its place in the folder.

    Args:
        names: of the labels' own files, where the label file has them (`name`), as attentionhand.prepare writes it.

    Raises:
        UserError: a number beyond the labels, or more pictures than labels.
    """
    if not pictures:
        raise UserError(f"{folder}: has no pictures")
    numbers = [re.fullmatch(r"result_(\d+)_\d+", path.stem) for path in pictures]
    if all(numbers):
        indices = [int(match[1]) for match in numbers if match]
    elif names and {path.stem for path in pictures} <= set(names):
        place = {name: row for row, name in reversed(list(enumerate(names)))}  # the first row of a name
        indices = [place[path.stem] for path in pictures]
    elif len(pictures) == labels:
        indices = list(range(labels))
    else:
        raise UserError(f"{folder}: {len(pictures)} pictures for {labels} labels, and not named result_000_0.png")
    if max(indices) >= labels:
        raise UserError(f"{folder}: result_{max(indices):03d} has no label, there are {labels}")
    return indices


def two_hands(photo: Image.Image) -> list[Hand]:
    """At most two hands of a photo."""
    return find_hands(photo, max_num_hands=2)


def joint_errors(hands: list[Hand], joints: np.ndarray) -> np.ndarray:
    """Distances of the nearest hand's landmarks to each of the label's hands, as shares of that hand's size.

    Those of all hands in one row, (21 a hand,). NaN where the picture has no hand, or the label none with joints.

    Args:
        joints: (hands, 21, 2), 0 to 1; NaN for a hand that is not there.
    """
    known = [hand for hand in joints if np.isfinite(hand).all()]
    distances = []
    for label in known:
        size = hand_sizes(label)
        errors = [np.linalg.norm(hand.landmarks[:, :2] - label, axis=1) / size for hand in hands]
        distances.append(min(errors, key=np.mean, default=np.full(21, np.nan)))
    return np.concatenate(distances) if known else np.full(21, np.nan)


def summarise(
    distances: Sequence[np.ndarray], indices: Sequence[int], resamples: int, seed: int
) -> dict[str, tuple[float, float, float]]:
    """Value and 95 % bootstrap interval of each picture's errors; labels are resampled, with all pictures of each."""
    per_picture = {
        "hand found": np.array([float(not np.isnan(errors[0])) for errors in distances]),
        "landmark error": np.array([errors.mean() for errors in distances]),
        **{f"PCK@{level}": np.array([(errors <= level).mean() for errors in distances]) for level in PCK_LEVELS},
    }
    summary = {}
    for name, values in per_picture.items():
        mean = float("nan") if np.isnan(values).all() else float(np.nanmean(values))
        summary[name] = (mean, *bootstrap_interval(values, indices, resamples=resamples, seed=seed))
    return summary


def export(
    target: Path,
    pictures: Sequence[Path],
    indices: Sequence[int],
    distances: Sequence[np.ndarray],
    labels: dict[str, np.ndarray],
    *,
    threshold: float,
) -> None:
    """Copy the accepted pictures to a new folder and write their rows of every label array.

    Raises:
        UserError: no picture's error is at most `threshold`.
    """
    errors = np.array([one.mean() for one in distances])
    accepted = [number for number in range(len(pictures)) if errors[number] <= threshold]
    if not accepted:
        raise UserError(f"no picture's error is at most --threshold {threshold}: nothing to export")
    rows = [indices[number] for number in accepted]
    total = len(labels["joints_2d"])
    arrays = {name: array[rows] for name, array in labels.items() if array.ndim and len(array) == total}
    with atomic_folder(target) as folder:
        (folder / "images").mkdir()
        names = [f"{place:08}{pictures[number].suffix}" for place, number in enumerate(accepted)]
        for number, name in zip(accepted, names):
            shutil.copyfile(pictures[number], folder / "images" / name)
        np.savez(folder / "joints.npz", **{**arrays, "image": np.array(names), "error": errors[accepted]})
        write_json(folder / "export.json", {"accepted": len(accepted), "of": len(pictures), "threshold": threshold})
    say(f"{target}: {len(accepted)} of {counted(len(pictures), 'picture')} accepted")


if __name__ == "__main__":
    main()
