"""How good are generated pictures of labelled hands, and do their hands follow the label?

Prints, each with a 95 % interval in which labels are drawn anew as a whole: the share of the labels' hands for which
MediaPipe finds one, the landmark error in 2D and in 3D (in hand sizes), PCK (the share of joints within 10 % and 20 %
of the hand's size; a hand that is not found counts as all wrong), and HAND-CONF. With --real_images also FID, KID,
FID-H and KID-H, whose intervals take each picture by itself; with --clip_model the mean cosine of picture and text.
--shuffle compares with the labels of other pictures: what a model that ignores the mesh would get.

--export writes the pictures whose error is at most --threshold with their joints, to train 3D hand reconstruction.

Examples:
  python -m attentionhand.evaluate --labels data/joints.npz --image_folder results/attentionhand --real_images data/rgb
  python -m attentionhand.evaluate --labels meshes/joints.npz --image_size 64 --image_folder results/attentionhand
  python -m attentionhand.evaluate --labels meshes/joints.npz --image_folder results/attentionhand --export accepted
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python attentionhand/evaluate.py`

from attentionhand.known_labels import KnownLabels, label_indices, load_labels
from attentionhand.label_errors import PCK_LEVELS, FoundHands, HandErrors, find_all, hand_errors, share_within
from attentionhand.runs import PICTURE_LIST, PICTURES, PicturesFacts, identity_of_weights
from core.diffusion.pretrained import check_available_model, check_model, load_clip
from core.metrics.equations import hand_confidence
from core.metrics.intervals import hand_confidence_interval, share_interval
from core.metrics.options import add_extractor_options, resamples
from core.metrics.pictures import list_pictures
from core.metrics.scores import NO_SCORE, Score, distances_of_folders, grouped_mean
from core.metrics.table import score_text
from core.metrics.texts import clip_score
from core.runs.command_line import argument_parser, command_line, finite_float, natural_int, positive_int, seed_int
from core.runs.errors import UserError
from core.runs.files import (
    atomic_folder,
    check_outputs,
    check_writable,
    nan_to_none,
    read_lines,
    write_json,
    write_lines,
)
from core.runs.photos import map_photos
from core.runs.processes import counted, is_main_process, say, workers_a_process
from core.runs.run import check_content, read_record, refuse_unfinished
from core.runs.schema import parsed_json

EXTRACTOR_OPTIONS = ("protocol", "feature_extractor", "inception_weights")


def parse_args(argv=None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--labels", type=Path, required=True, help=".npz with joints_2d in pixels, such as data/joints.npz")
    add("--image_folder", type=Path, required=True, help="result_000_0.png ..., or one picture for each label")
    add("--image_size", type=positive_int, help="pixels per side that joints_2d refer to (default: the file's, or 512)")
    add("--real_images", type=Path, help="folder of real photos, for FID, KID, FID-H and KID-H")
    add("--real_features", type=Path, help="folder to keep the real photos' features in, which later runs read")
    add_extractor_options(parser)
    add("--clip_model", help="CLIP, for the cosine of picture and text: hub id or local folder")
    add("--threshold", type=finite_float, default=0.1, help="highest 2D error of an exported picture, in hand sizes")
    add("--export", type=Path, help="new folder for the accepted pictures and joints.npz")
    add("--shuffle", action="store_true", help="compare with other pictures' labels")
    add("--bootstrap", type=resamples, default=1000, help="resamples of the 95 %% intervals")
    add("--seed", type=seed_int, default=0, help="seed of --shuffle and of the resamples")
    add("--num_workers", type=natural_int, help="processes to use (default: one per core)")
    add("--json", type=Path, help="also write the result to this file")
    return parser.parse_args(argv)


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    check_pictures(args.image_folder)
    labels = load_labels(args.labels, args.image_size)
    pictures = list_pictures(args.image_folder)
    indices = label_indices(pictures, len(labels.hands), labels.names, args.image_folder)
    check_args(args, labels, pictures)
    texts = texts_of_pictures(args.image_folder, pictures) if args.clip_model else []

    groups = [labels.groups[index] for index in indices]
    if args.shuffle:
        turn = 1 + int(np.random.default_rng(args.seed).integers(len(labels.hands) - 1))
        indices = [(index + turn) % len(labels.hands) for index in indices]
    options = {"resamples": args.bootstrap, "seed": args.seed}
    num_workers = workers_a_process(args.num_workers)
    scores: dict[str, Score] = {}
    if args.real_images:
        with tempfile.TemporaryDirectory() as temporary:
            cache = args.real_features or Path(temporary)
            cache.mkdir(parents=True, exist_ok=True)
            extractor = {name: getattr(args, name) for name in EXTRACTOR_OPTIONS}
            more = {"cache": cache, "num_workers": num_workers, **options, **extractor}
            scores |= distances_of_folders(args.real_images, args.image_folder, **more)
    if not is_main_process():  # several share the features; the rest is one process's work
        return
    found = list(map_photos(find_all, pictures, num_workers=num_workers, desc="Finding hands"))
    errors = [hand_errors(one.hands, labels.hands[index], labels.sizes[index]) for one, index in zip(found, indices)]
    scores |= confidence_score(found, groups, **options) | label_scores(errors, groups, **options)
    if args.clip_model:
        model, processor = load_clip(args.clip_model)
        scores |= clip_score(model, processor, pictures, texts, groups, num_workers=num_workers, **options)

    for name, score in scores.items():
        say(f"{name}: {score_text(name, score)}")
    if args.json:
        facts = {"pictures": len(pictures), "labels": str(args.labels), "shuffled": args.shuffle}
        write_json(args.json, nan_to_none({"scores": scores, **facts}))
    if args.export:
        export(args.export, pictures, indices, errors, labels.arrays, threshold=args.threshold)


def check_args(args: argparse.Namespace, labels: KnownLabels, pictures: Sequence[Path]) -> None:
    """Refuse what can't work before anything is computed.

    Raises:
        UserError
    """
    check_outputs(args.json, inputs=[args.labels, *pictures])
    if args.shuffle and (args.export or len(labels.hands) < 2):
        raise UserError("--shuffle needs at least two labels, and its pictures can't be exported")
    if args.real_images:
        list_pictures(args.real_images)
    if args.real_features and not args.real_images:
        raise UserError("--real_features keeps the features of --real_images; give that folder")
    if args.clip_model:
        check_model(args.clip_model)
        check_available_model(args.clip_model)
    if args.export:
        if args.export.exists():
            raise UserError(f"{args.export}: exists already; choose another --export")
        check_writable(args.export)


def check_pictures(folder: Path) -> None:
    """Refuse pictures of an unfinished attentionhand.inference; say where their weights have changed since.

    Raises:
        UserError
    """
    record = read_record(folder / PICTURES)
    if record is None:
        return
    refuse_unfinished(folder / PICTURES, record, "generation of pictures", "by running attentionhand.inference again")
    check_content(folder / PICTURES, record.facts, PicturesFacts)
    weights = [Path(path) for path in record.facts["weights"]]
    if all(path.exists() for path in weights) and identity_of_weights(weights) != record.settings.get("weights"):
        say(f"warning: {' or '.join(map(str, weights))} has changed since {folder} was drawn")


def texts_of_pictures(folder: Path, pictures: Sequence[Path]) -> list[str]:
    """The text of each picture, from the list that attentionhand.inference wrote.

    Raises:
        UserError: there is none, it is damaged, or it lacks a picture.
    """
    path = folder / PICTURE_LIST
    if not path.is_file():
        raise UserError(f"{path}: no such file; --clip_model needs the texts that attentionhand.inference notes there")
    try:
        texts = {entry["file"]: str(entry["text"]) for entry in map(parsed_json, read_lines(path))}
        return [texts[picture.name] for picture in pictures]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: damaged, or not about these pictures ({error})") from None


# Scores


def label_scores(
    errors: Sequence[Sequence[HandErrors]], groups: Sequence[int], *, resamples: int, seed: int
) -> dict[str, Score]:
    """How well the hands of all labels are met, from each hand's errors.

    Args:
        errors: of each picture.
        groups: the label of each picture; labels are drawn anew as a whole.
    """
    hands = [(group, hand) for group, picture in zip(groups, errors, strict=True) for hand in picture]
    of_hands = [group for group, _ in hands]
    is_found = [hand.is_found for _, hand in hands]
    values = {
        "landmark error 2D": [hand.joints_2d.mean() for _, hand in hands],
        "landmark error 3D": [hand.joints_3d.mean() for _, hand in hands],
        **{f"PCK@{level}": [share_within(hand.joints_2d, level) for _, hand in hands] for level in PCK_LEVELS},
    }
    scores = {"hand found": grouped_mean(is_found, of_hands, resamples=resamples, seed=seed)}
    if is_found and len(set(of_hands)) == len(of_hands):  # a hand a label
        scores["hand found"] = Score(scores["hand found"].value, *share_interval(is_found))
    return scores | {name: grouped_mean(own, of_hands, resamples=resamples, seed=seed) for name, own in values.items()}


def confidence_score(
    found: Sequence[FoundHands], groups: Sequence[int], *, resamples: int, seed: int
) -> dict[str, Score]:
    """HAND-CONF of all hands that MediaPipe finds."""
    if not any(one.scores for one in found):
        return {"HAND-CONF": NO_SCORE}
    by_group: dict[int, list[float]] = {}
    for group, one in zip(groups, found, strict=True):
        by_group.setdefault(group, []).extend(one.scores)
    value, _ = hand_confidence([one.scores for one in found])
    interval = hand_confidence_interval(list(by_group.values()), resamples=resamples, seed=seed)
    return {"HAND-CONF": Score(value, *interval)}


# Export


def export(
    target: Path,
    pictures: Sequence[Path],
    indices: Sequence[int],
    errors: Sequence[Sequence[HandErrors]],
    labels: dict[str, np.ndarray],
    *,
    threshold: float,
) -> None:
    """Copy the accepted pictures to a new folder and write their rows of every label array.

    A picture's error is the mean over its label's hands, which must all be found.

    Raises:
        UserError: no picture's error is at most `threshold`.
    """
    means = np.array([np.mean([hand.joints_2d.mean() for hand in own]) if own else np.nan for own in errors])
    accepted = [number for number in range(len(pictures)) if means[number] <= threshold]
    if not accepted:
        raise UserError(f"no picture's error is at most --threshold {threshold}: nothing to export")
    rows = [indices[number] for number in accepted]
    total = len(labels["joints_2d"])
    arrays = {
        name: array[rows] if array.ndim else array  # such as the unit, which is one for all
        for name, array in labels.items()
        if not array.ndim or len(array) == total
    }
    with atomic_folder(target) as folder:
        (folder / "images").mkdir()
        names = [f"{place:08}{pictures[number].suffix}" for place, number in enumerate(accepted)]
        for number, name in zip(accepted, names):
            shutil.copyfile(pictures[number], folder / "images" / name)
        facts = {"image": np.array(names), "error": means[accepted], "label": np.array(rows)}
        np.savez(folder / "joints.npz", **{**arrays, **facts})
        write_lines(folder / "modalities.json", [json.dumps({"rgb": f"images/{name}"}) for name in names])
        write_json(folder / "export.json", {"accepted": len(accepted), "of": len(pictures), "threshold": threshold})
    say(f"{target}: {len(accepted)} of {counted(len(pictures), 'picture')} accepted")


if __name__ == "__main__":
    main()
