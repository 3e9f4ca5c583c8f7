"""Synthetic data sets, with captions that name everything but the gesture.

--layout hand1000: for each gesture {gesture}/, {gesture}_synthetic.txt (captions), {gesture}_synthetic_file_name.txt,
and the same of {gesture}_test with other hands. --layout attentionhand: mesh/ rgb/ text/ modalities.json, and
joints.npz with the exact 2D and 3D joints, boxes, gestures and handedness. The same seed gives the same files. A data
set that was not finished is drawn again.

Examples:
  python -m synthetic_hands.make_dataset --output_dir data --gestures call palm --num 100 --num_test 50
  python -m synthetic_hands.make_dataset --output_dir data --layout attentionhand --size 512 --num 20
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from core.runs.command_line import (
    argument_parser,
    command_line,
    natural_int,
    pixels,
    plain_arguments,
    positive_int,
    seed_int,
)
from core.runs.errors import UserError
from core.runs.files import atomic_file, check_writable, write_lines
from core.runs.processes import counted, cpu_count, progress, say, worker_pool
from core.runs.run import Run
from hand1000.gesture_files import GestureFiles
from synthetic_hands.hand import POSES

RECORD = "dataset.json"
CAPTIONER = "synthetic"
LEAST_SIZE = 32  # pixels
TEST_SEEDS = 2**31  # where the seeds of the test set begin, far from those of the training set


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder to make")
    parser.add_argument("--gestures", nargs="+", default=list(POSES), metavar="GESTURE", help="of HaGRID v1")
    parser.add_argument("--layout", choices=["hand1000", "attentionhand"], default="hand1000", help="which files")
    parser.add_argument("--num", type=positive_int, default=100, help="pictures of each gesture")
    parser.add_argument("--num_test", type=natural_int, default=0, help="further ones to test on (hand1000)")
    parser.add_argument("--size", type=pixels, default=64, help="pixels per side")
    parser.add_argument("--handedness", choices=["both", "Right", "Left"], default="both", help="which hands to draw")
    parser.add_argument("--seed", type=seed_int, default=0, help="another seed, other hands")
    parser.add_argument("--num_workers", type=positive_int, help="processes to use (default: one per core)")
    args = parser.parse_args(argv)
    unknown = [gesture for gesture in args.gestures if gesture not in POSES]
    if unknown:
        raise UserError(f"no gesture '{unknown[0]}'; there are {', '.join(POSES)}")
    if args.size < LEAST_SIZE:
        raise UserError(f"--size {args.size}: a hand needs at least {LEAST_SIZE} pixels")
    check_writable(args.output_dir)
    settings = plain_arguments(args, without=["output_dir", "num_workers"])
    run = Run(args.output_dir / RECORD, settings, what="data set")
    with run.hold():
        if run.is_finished():
            say(f"{args.output_dir}: already finished")
            return
        run.begin()
        num_workers = args.num_workers or cpu_count()
        look = {"size": args.size, "handedness": args.handedness}
        if args.layout == "hand1000":
            count = write_hand1000(
                args.output_dir, args.gestures, args.num, args.num_test, args.seed, num_workers, **look
            )
        else:
            count = write_attentionhand(args.output_dir, args.gestures, args.num, args.seed, num_workers, **look)
        run.finish(pictures=count)
    say(f"{args.output_dir}: {counted(count, 'picture')} of {counted(len(args.gestures), 'gesture')}")


def write_hand1000(
    folder: Path, gestures: Sequence[str], num: int, num_test: int, seed: int, num_workers: int, **look: Any
) -> int:
    """The files that the stages of Hand1000 start from; returns the number of pictures."""
    jobs: list[tuple] = []
    lists: list[tuple[GestureFiles, list[str]]] = []
    for gesture in gestures:
        files = GestureFiles(folder, gesture, CAPTIONER)
        for part, first, count in ((files, 0, num), (files.test, TEST_SEEDS, num_test)):
            if count:
                part.photos.mkdir(exist_ok=True)
                names = [f"{part.gesture}_{number:05}.png" for number in range(count)]
                lists.append((part, names))
                jobs += [(gesture, [seed, first + n], part.photos / name, look) for n, name in enumerate(names)]
    captions = iter(draw_all(write_photo, jobs, num_workers))
    for files, names in lists:
        write_lines(files.names, names)
        write_lines(files.captions, [next(captions) for _ in names])
    return len(jobs)


def write_attentionhand(
    folder: Path, gestures: Sequence[str], num: int, seed: int, num_workers: int, **look: Any
) -> int:
    """AttentionHand's modalities, paths relative to the JSON, and the exact labels; returns the number of pictures."""
    for name in ("mesh", "rgb", "text"):
        (folder / name).mkdir(exist_ok=True)
    of_pictures = [gesture for gesture in gestures for _ in range(num)]
    jobs = [(gesture, [seed, number % num], folder, f"{number:08}", look) for number, gesture in enumerate(of_pictures)]
    labels = draw_all(write_modalities, jobs, num_workers)
    lines = []
    for number, label in enumerate(labels):
        paths = {"mesh": f"mesh/{number:08}.png", "rgb": f"rgb/{number:08}.png", "text": f"text/{number:08}.txt"}
        lines.append(json.dumps({**paths, "bbox": label["bbox"]}))
    write_lines(folder / "modalities.json", lines)
    columns = {name: np.array([label[name] for label in labels]) for name in labels[0]}
    with atomic_file(folder / "joints.npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, **columns, gesture=np.array(of_pictures))
    return len(jobs)


def draw_all(draw: Callable[..., Any], jobs: Sequence[tuple], num_workers: int) -> list[Any]:
    """`draw(*job)` of every job by worker processes, in order."""
    if num_workers == 1:
        return [draw(*job) for job in progress(jobs, desc="Drawing", unit="picture")]
    with worker_pool(num_workers, use_one_thread) as pool:
        results = pool.map(draw, *zip(*jobs), chunksize=4)
        return list(progress(results, total=len(jobs), desc="Drawing", unit="picture"))


def use_one_thread() -> None:
    """For a worker process: there is already one for every core."""
    import torch

    torch.set_num_threads(1)


def write_photo(gesture: str, seed: Sequence[int], path: Path, look: dict[str, Any]) -> str:
    """Draw one picture; returns its caption. `look`: options of draw_sample."""
    from synthetic_hands.sample import draw_sample

    sample = draw_sample(gesture, seed, **look)
    Image.fromarray(sample.rgb).save(path)
    return sample.caption


def write_modalities(
    gesture: str, seed: Sequence[int], folder: Path, name: str, look: dict[str, Any]
) -> dict[str, Any]:
    """Draw one picture with its mesh image and its text; returns its labels. `look`: options of draw_sample."""
    from synthetic_hands.sample import draw_sample

    sample = draw_sample(gesture, seed, **look)
    Image.fromarray(sample.mesh).save(folder / "mesh" / f"{name}.png")
    Image.fromarray(sample.rgb).save(folder / "rgb" / f"{name}.png")
    (folder / "text" / f"{name}.txt").write_text(sample.caption + "\n", encoding="utf-8")
    labels = {"joints_2d": sample.joints_2d, "joints_3d": sample.joints_3d, "handedness": sample.handedness}
    return {**labels, "bbox": sample.box}


if __name__ == "__main__":
    main()
