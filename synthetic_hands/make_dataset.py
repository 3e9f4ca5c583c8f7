"""Synthetic data sets, with captions that name everything but the gesture.

--layout hand1000: for each gesture {gesture}/, {gesture}_synthetic.txt (captions), {gesture}_synthetic_file_name.txt,
and the same of {gesture}_test with other hands. --layout attentionhand: mesh/ rgb/ text/ modalities.json, and
joints.npz with the exact 2D and 3D joints, boxes, gestures and handedness. The same seed gives the same files.

Examples:
  python -m synthetic_hands.make_dataset --output_dir data --gestures call palm --num 100 --num_test 50
  python -m synthetic_hands.make_dataset --output_dir data --layout attentionhand --size 512 --num 20
"""

import functools
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from core.runs.command_line import argument_parser, command_line, natural_int, positive_int, seed_int
from core.runs.errors import UserError
from core.runs.files import atomic_folder, check_writable
from core.runs.processes import cpu_count, progress, say
from core.runs.run import differing_settings
from synthetic_hands.hand import POSES

RECORD = "dataset.json"
CAPTIONER = "synthetic"
TEST_SEEDS = 2**31  # where the seeds of the test set begin, far from those of the training set


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder to make")
    parser.add_argument("--gestures", nargs="+", default=list(POSES), metavar="GESTURE", help="of HaGRID v1")
    parser.add_argument("--layout", choices=["hand1000", "attentionhand"], default="hand1000", help="which files")
    parser.add_argument("--num", type=positive_int, default=100, help="pictures of each gesture")
    parser.add_argument("--num_test", type=natural_int, default=0, help="further ones to test on (hand1000)")
    parser.add_argument("--size", type=positive_int, default=64, help="pixels a side")
    parser.add_argument("--handedness", choices=["both", "Right", "Left"], default="both", help="which hands to draw")
    parser.add_argument("--seed", type=seed_int, default=0, help="another seed, other hands")
    parser.add_argument("--num_workers", type=positive_int, help="processes to use (default: every core)")
    args = parser.parse_args(argv)
    unknown = [gesture for gesture in args.gestures if gesture not in POSES]
    if unknown:
        raise UserError(f"no gesture '{unknown[0]}'; there are {', '.join(POSES)}")
    if args.size < 32:
        raise UserError(f"--size {args.size}: a hand needs at least 32 pixels")
    check_writable(args.output_dir)
    settings = {name: getattr(args, name) for name in "gestures layout num num_test size handedness seed".split()}
    if is_made(args.output_dir, settings):
        say(f"{args.output_dir}: already finished")
        return

    with atomic_folder(args.output_dir) as folder:
        write = write_hand1000 if args.layout == "hand1000" else write_attentionhand
        count = write(folder, settings, args.num_workers or cpu_count())
        (folder / RECORD).write_text(json.dumps(settings, indent=2) + "\n")
    say(f"{args.output_dir}: {count} pictures of {len(args.gestures)} gestures")


def is_made(folder: Path, settings: dict) -> bool:
    """Whether the data set is there already.

    Raises:
        UserError: the folder holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        made = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        raise UserError(f"{folder}: exists already and is no synthetic data set; choose another --output_dir") from None
    if made != settings:
        raise UserError(
            f"{folder}: holds another data set ({differing_settings(made, settings)}); choose another folder"
        )
    return True


def write_hand1000(folder: Path, settings: dict, num_workers: int) -> int:
    """The files between the stages of Hand1000; how many pictures."""
    jobs: list[tuple[str, list[int], Path]] = []
    lists = []
    for gesture in settings["gestures"]:
        for name, first, count in (
            (gesture, 0, settings["num"]),
            (f"{gesture}_test", TEST_SEEDS, settings["num_test"]),
        ):
            if count:
                (folder / name).mkdir()
                files = [f"{name}_{number:05}.png" for number in range(count)]
                lists.append((name, files, len(jobs)))
                jobs += [(gesture, [settings["seed"], first + n], folder / name / file) for n, file in enumerate(files)]
    captions = drawn(write_photo, jobs, num_workers, **look_of(settings))
    for name, files, start in lists:
        (folder / f"{name}_{CAPTIONER}_file_name.txt").write_text("".join(f"{file}\n" for file in files))
        texts = captions[start : start + len(files)]
        (folder / f"{name}_{CAPTIONER}.txt").write_text("".join(f"{text}\n" for text in texts))
    return len(jobs)


def write_attentionhand(folder: Path, settings: dict, num_workers: int) -> int:
    """AttentionHand's modalities, paths relative to the JSON, and the exact labels; how many pictures."""
    for name in ("mesh", "rgb", "text"):
        (folder / name).mkdir()
    gestures = [gesture for gesture in settings["gestures"] for _ in range(settings["num"])]
    jobs = [
        (gesture, [settings["seed"], number % settings["num"]], folder / f"{number:08}")
        for number, gesture in enumerate(gestures)
    ]
    labels = drawn(write_modalities, jobs, num_workers, **look_of(settings))
    lines = []
    for number, label in enumerate(labels):
        paths = {"mesh": f"mesh/{number:08}.png", "rgb": f"rgb/{number:08}.png", "text": f"text/{number:08}.txt"}
        lines.append(json.dumps({**paths, "bbox": label["bbox"]}) + "\n")
    (folder / "modalities.json").write_text("".join(lines))
    columns = {name: np.array([label[name] for label in labels]) for name in labels[0]}
    np.savez(folder / "joints.npz", **columns, gesture=np.array(gestures))
    return len(jobs)


def look_of(settings: dict) -> dict:
    """What `draw_sample` is given for every picture."""
    return {name: settings[name] for name in ("size", "handedness")}


def drawn(write, jobs: Sequence[tuple], num_workers: int, **options) -> list:
    """`write(*job, **options)` of every job by worker processes, in order."""
    write = functools.partial(write, **options)
    if num_workers == 1:
        return [write(*job) for job in progress(jobs, desc="Drawing", unit="picture")]
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"), initializer=one_thread) as pool:
        results = pool.map(write, *zip(*jobs), chunksize=4)
        return list(progress(results, total=len(jobs), desc="Drawing", unit="picture"))


def one_thread() -> None:
    import torch

    torch.set_num_threads(1)  # a process a core already


def write_photo(gesture: str, seed: Sequence[int], path: Path, **options) -> str:
    from synthetic_hands.sample import draw_sample

    sample = draw_sample(gesture, seed, **options)
    Image.fromarray(sample.rgb).save(path)
    return sample.caption


def write_modalities(gesture: str, seed: Sequence[int], path: Path, **options) -> dict:
    from synthetic_hands.sample import draw_sample

    sample = draw_sample(gesture, seed, **options)
    for name in ("mesh", "rgb"):
        Image.fromarray(getattr(sample, name)).save(path.parent / name / f"{path.name}.png")
    (path.parent / "text" / f"{path.name}.txt").write_text(sample.caption + "\n")
    labels = {name: getattr(sample, name) for name in ("joints_2d", "joints_3d", "handedness")}
    return {**labels, "bbox": sample.box}


if __name__ == "__main__":
    main()
