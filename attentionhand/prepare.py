"""AttentionHand's data out of a 3D label set: mesh images exactly over the hands of its photos, and all labels.

Writes mesh/ rgb/ text/ modalities.json, joints.npz (2D and 3D joints, handedness, cameras), overlays.png (look at it
first: each mesh must lie on its hand) and prepare.json (the record: what was drawn, what was left out and why). Each
set's files and where they are offered: docs/data-attentionhand.md. Own labels: --labels joints or meshes, whose files
attentionhand/labels/own.py explains. A killed run resumes when started again.

Examples:
  python -m attentionhand.prepare --labels freihand --root FreiHAND --output_dir data --mano mano --num 1000
  python -m attentionhand.prepare --labels coco --root MSCOCO --output_dir data --mano mano --crop --size 512
  python -m attentionhand.prepare --labels joints --root meshes/joints.npz --output_dir data --texts scenes.txt
"""

import argparse
import collections
import itertools
import json
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python attentionhand/prepare.py`

from attentionhand.labels import own
from attentionhand.labels.checks import IMPLAUSIBLE
from attentionhand.labels.drawing import BAD_PHOTO, NO_PHOTO, OTHER_SIZE, Options, draw, usable_hands
from attentionhand.labels.label import Label
from attentionhand.labels.mano import FILES, check_mano
from attentionhand.labels.mano import SITE as MANO_SITE
from attentionhand.labels.sets import OWN, SETS, annotation_files, check_root, read_labels
from core.runs.command_line import argument_parser, command_line, natural_int, positive_int, real_number
from core.runs.errors import UserError
from core.runs.files import atomic_file, check_writable, fingerprint, read_lines, write_text
from core.runs.journal import append_journal, begin_journal, journal_path, read_journal
from core.runs.photos import load_photo
from core.runs.processes import counted, cpu_count, progress, say, worker_pool
from core.runs.run import Run
from core.runs.sheets import contact_sheet, save_png

CHECKED_FIRST = 32  # labels whose axes, units and order of joints are checked before anything is written
LABELS_A_TASK, TASKS_AHEAD = 8, 3  # of a worker process
SHEET, ACROSS, CELL = 24, 6, 256  # overlays of the contact sheet; in a row; pixels per side
ZOOM, DOT = 2.2, 2.5  # side of an overlay in sides of the hands' box; radius of a joint in the sheet's pixels
TINT = np.array([0.25, 0.85, 1.0])  # of a mesh over its photo
ONE_HAND, TWO_HANDS = "a photo of a hand", "a photo of two hands"  # texts until a captioner writes better ones
UNREADABLE = (NO_PHOTO, BAD_PHOTO, OTHER_SIZE)


class Entry(TypedDict):
    """Of the journal: what `draw` says of a label."""

    source: str


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--labels", choices=[*SETS, *OWN], required=True, help="which set, or own files")
    parser.add_argument("--root", type=Path, required=True, help="folder of the set; joints: an .npz; meshes: a folder")
    parser.add_argument("--output_dir", type=Path, required=True, help="new folder for the data")
    parser.add_argument("--split", help="of the set (default: its training split)")
    parser.add_argument("--mano", type=Path, help=f"folder of {' and '.join(FILES.values())}")
    parser.add_argument("--num", type=positive_int, help="stop after so many samples")
    parser.add_argument("--size", type=positive_int, help="longer side of photo and mesh in pixels (default: as it is)")
    parser.add_argument(
        "--crop", type=context, nargs="?", const=2.0, help="cut a square around the hands, so many times their size"
    )
    parser.add_argument("--min_hand", type=natural_int, default=32, help="leave out hands of fewer pixels")
    parser.add_argument("--two_hands", action="store_true", help="only pictures with a left and a right hand")
    parser.add_argument("--strict", action="store_true", help="end at a photo that is missing, unreadable or misfits")
    parser.add_argument("--texts", type=Path, help="new scenes, one a line: line i for sample i; photos are left out")
    parser.add_argument("--every", action="store_true", help="every line of --texts for every sample")
    parser.add_argument("--axes", choices=list(own.TO_OPENCV), help="joints, meshes: instead of what the file says")
    parser.add_argument("--unit", choices=list(own.UNITS), help="joints, meshes: instead of what the file says")
    parser.add_argument("--image_size", type=positive_int, default=512, help="joints, meshes: where nothing says it")
    parser.add_argument("--num_workers", type=positive_int, help="processes to use (default: one per core)")
    args = parser.parse_args(argv)
    if args.every and not args.texts:
        raise UserError("--every needs --texts")
    texts = read_lines(args.texts) if args.texts else None
    check_writable(args.output_dir)
    if args.mano:
        check_mano(args.mano, with_parameters=args.labels in SETS and SETS[args.labels].has_parameters)
    if args.labels in SETS:
        if args.axes or args.unit:
            raise UserError(f"--labels {args.labels} has its own axes and unit: --axes and --unit are for own files")
        split = chosen_split(args.labels, args.split)
        check_root(args.labels, args.root, split)
        if not args.mano and not SETS[args.labels].without_mano:
            others = ", ".join(name for name, one in SETS.items() if one.without_mano)
            raise UserError(
                f"--labels {args.labels} has 2D joints and MANO's parameters, so that it needs --mano FOLDER with "
                f"{' and '.join(FILES.values())} ({MANO_SITE}); without them work: {others}"
            )
        labels = read_labels(args.labels, args.root, split)
        inputs = annotation_files(args.labels, args.root, split)
    else:
        if args.split:
            raise UserError(f"--labels {args.labels} has no --split")
        split, inputs = None, [args.root] if args.root.is_file() else []
        labels = OWN[args.labels](args.root, axes=args.axes, unit=args.unit, image_size=args.image_size)

    files = [*inputs, *([args.mano / name for name in FILES.values()] if args.mano else [])]
    settings = {name: getattr(args, name) for name in "labels num size crop min_hand two_hands every axes unit".split()}
    settings |= {"root": args.root.name, "split": split, "image_size": args.image_size, "texts": texts_hash(args.texts)}
    settings["files"] = {path.name: fingerprint(path) for path in files}
    options = Options(
        args.output_dir, args.mano, args.size, args.crop, args.min_hand, args.two_hands, with_photos=texts is None
    )
    wanted = args.num
    if texts is not None and not args.every:
        wanted = min(args.num or len(texts), len(texts))
    prepare(labels, settings, options, texts, args.every, wanted, args.strict, args.num_workers or cpu_count())


def context(text: str) -> float:
    """argparse type: a factor of at least 1."""
    value = real_number(text)
    if not 1 <= value < 1000:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1 and below 1000")
    return value


def chosen_split(name: str, split: str | None) -> str:
    splits = SETS[name].splits
    if split is not None and split not in splits:
        raise UserError(f"--labels {name} has no split '{split}', but {', '.join(splits)}")
    return split or splits[0]


def texts_hash(path: Path | None) -> str | None:
    return None if path is None else fingerprint(path)


def prepare(
    labels: Iterator[Label],
    settings: dict[str, Any],
    options: Options,
    texts: Sequence[str] | None,
    every: bool,
    wanted: int | None,
    strict: bool,
    num_workers: int,
) -> None:
    """Make the data set, or resume it.

    Raises:
        UserError: the labels are no hands, nothing is left of them, or the folder holds something else.
    """
    run = Run(options.output_dir / "prepare.json", settings, what="data set")
    first = list(itertools.islice(labels, CHECKED_FIRST))
    check_plausible(first, options, hint=" (--axes, --unit)" if settings["labels"] in OWN else "")
    with run.hold():
        if run.is_finished():
            say(f"{options.output_dir}: already finished")
            return
        started = time.monotonic()
        entries = read_journal(run, Entry, None)
        begin_journal(run, entries)
        entries = [compacted(entry) for entry in entries]
        for name in ("mesh", "rgb", "text"):
            (options.output_dir / name).mkdir(exist_ok=True)
        done = len(entries)
        labels = skip_done(itertools.chain(first, labels), entries)
        with progress(desc="Samples", unit=" samples", initial=count_kept(entries), total=wanted) as bar:
            for part in drawn(labels, options, num_workers):
                if strict:
                    refuse_bad_photos(part)
                append_journal(run, part)
                entries += map(compacted, part)
                bar.update(count_kept(part))
                if wanted and count_kept(entries) >= wanted:
                    break
        samples = kept(entries, wanted)
        if not samples:
            remove_all(run)
            why = counted_reasons(entries) or "there are no labels"
            raise UserError(f"{options.output_dir}: no sample is left: {why}")
        seconds = time.monotonic() - started
        facts = write_data_set(options.output_dir, samples, texts, every)
        summarise(options.output_dir, entries, samples, facts, (len(entries) - done) / seconds)
        if texts is not None and not every and len(texts) > len(samples) and wanted == len(texts):
            say(f"texts without a sample: {len(texts) - len(samples)}; the labels ended before them")
        run.finish(**facts, left_out=reasons(entries), hands_left_out=hand_reasons(samples))
        journal_path(run).unlink(missing_ok=True)


def check_plausible(labels: Sequence[Label], options: Options, *, hint: str) -> None:
    """Refuse a set of which most of the first hands are none: wrong axes, units or orders of joints.

    Args:
        hint: the options that could help.

    Raises:
        UserError: names the likely cause.
    """
    found = [(label, *usable_hands(label, options)) for label in labels]
    bad = [(label, problems, cause) for label, _, problems, cause in found if cause]
    good = sum(len(hands) for _, hands, _, _ in found)
    if len(bad) > good:
        label, problems, cause = bad[0]
        problem = next(problem for problem in problems if problem in IMPLAUSIBLE)
        raise UserError(f"{label.source}: {problem}; the likely cause: {cause}{hint}")


def skip_done(labels: Iterator[Label], entries: Sequence[dict]) -> Iterator[Label]:
    """The labels after those that an unfinished run has done.

    Raises:
        UserError: its labels were others.
    """
    for entry in entries:
        label = next(labels, None)
        if label is None or label.source != entry["source"]:
            raise UserError(f"{entry['source']}: is no longer among the labels; choose another --output_dir")
    return labels


def drawn(labels: Iterator[Label], options: Options, num_workers: int) -> Iterator[list[dict[str, Any]]]:
    """What `draw` says of the labels, in order, a few at a time, by worker processes that run a little ahead."""
    tasks = iter(lambda: list(itertools.islice(labels, LABELS_A_TASK)), [])
    if num_workers == 1:
        use_one_thread()
        yield from ([draw(label, options) for label in task] for task in tasks)
        return
    pool = worker_pool(num_workers, use_one_thread)
    waiting: collections.deque[Future] = collections.deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(draw_all, task, options))
            if len(waiting) > TASKS_AHEAD * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def draw_all(labels: Sequence[Label], options: Options) -> list[dict[str, Any]]:
    return [draw(label, options) for label in labels]


def use_one_thread() -> None:
    """A process a core already."""
    import torch

    torch.set_num_threads(1)


def refuse_bad_photos(part: Iterable[dict]) -> None:
    for entry in part:
        if entry.get("left_out") in UNREADABLE:
            raise UserError(
                f"{entry['source']}: {entry['left_out']} ({entry['photo']}); --strict ends here: mend it and run again"
            )


def compacted(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of the journal with its joints as arrays, a tenth of the memory."""
    for hand in entry.get("hands", []):
        for name in ("joints_2d", "joints_3d"):
            hand[name] = None if hand[name] is None else np.array(hand[name], np.float32)
    return entry


def kept(entries: Sequence[dict], wanted: int | None) -> list[dict]:
    return [entry for entry in entries if "left_out" not in entry][:wanted]


def count_kept(entries: Sequence[dict]) -> int:
    return sum("left_out" not in entry for entry in entries)


def remove_all(run: Run) -> None:
    for name in ("mesh", "rgb", "text"):
        shutil.rmtree(run.folder / name, ignore_errors=True)
    for path in (journal_path(run), run.path):
        path.unlink(missing_ok=True)


# What is written at the end


def write_data_set(folder: Path, samples: Sequence[dict], texts: Sequence[str] | None, every: bool) -> dict[str, Any]:
    """Texts, modalities.json, joints.npz and the sheet of overlays; remove files of no sample. Returns counts."""
    names = {sample["name"] for sample in samples}
    if len(names) < len(samples):
        raise UserError(f"{folder}: two labels have the same name; give each its own `source`")
    for part in ("mesh", "rgb"):
        for path in (folder / part).iterdir():
            if path.stem not in names:
                path.unlink()
    if texts is not None:
        (folder / "rgb").rmdir()
    rows, lines = [], []
    for number, sample in enumerate(samples):
        own_texts = default_text(sample) if texts is None else list(texts) if every else [texts[number]]
        for place, text in enumerate(own_texts):
            name = sample["name"] if len(own_texts) == 1 else f"{sample['name']}_{place:05}"
            (folder / "text" / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
            line = {"mesh": f"mesh/{sample['name']}.png"}
            if "rgb" in sample:
                line["rgb"] = f"rgb/{sample['rgb']}"
            lines.append(json.dumps({**line, "text": f"text/{name}.txt", "bbox": sample["bbox"]}) + "\n")
            rows.append(sample)
    with atomic_file(folder / "joints.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **label_arrays(rows))
    save_png(overlay_sheet(folder, samples), folder / "overlays.png")
    write_text(folder / "modalities.json", "".join(lines))  # last: it makes the folder a data set
    origins = collections.Counter(hand["drawn_from"] for sample in samples for hand in sample["hands"])
    return {"samples": len(rows), "hands_drawn_from": dict(sorted(origins.items()))}


def default_text(sample: dict) -> list[str]:
    return [ONE_HAND if len(sample["hands"]) == 1 else TWO_HANDS]


def label_arrays(samples: Sequence[dict]) -> dict[str, np.ndarray]:
    """The arrays of joints.npz, a row a sample; hands that a sample does not have are NaN and "".

    joints_2d (N, H, 21, 2) pixels, joints_3d (N, H, 21, 3) metres in the camera's frame, handedness and drawn_from
    (N, H), focal, princpt and size (N, 2), bbox (N, 4), source and name (of the files) (N,), axes and unit.
    """
    most = max(len(sample["hands"]) for sample in samples)
    arrays = {
        name: np.array([sample[name] for sample in samples]) for name in "name source focal princpt size bbox".split()
    }
    for name, numbers in (("joints_2d", 2), ("joints_3d", 3)):
        arrays[name] = np.full((len(samples), most, 21, numbers), np.nan, np.float32)
    for name in ("handedness", "drawn_from"):
        arrays[name] = np.full((len(samples), most), "", "U8")
    for row, sample in enumerate(samples):
        for place, hand in enumerate(sample["hands"]):
            for name, value in hand.items():
                if value is not None:
                    arrays[name][row, place] = value
    return {**arrays, "axes": np.array("opencv"), "unit": np.array("m")}


def overlay_sheet(folder: Path, samples: Sequence[dict]) -> Image.Image:
    """Meshes over their photos, evenly chosen, each with its box and joints and cut to what is around them."""
    chosen = [samples[int(place)] for place in np.linspace(0, len(samples) - 1, min(SHEET, len(samples)))]
    tiles = [overlay(folder, sample) for sample in chosen]
    return contact_sheet([tiles[start : start + ACROSS] for start in range(0, len(tiles), ACROSS)], cell=CELL)


def overlay(folder: Path, sample: dict) -> Image.Image:
    """The mesh over its photo around the hands, in the middle of a grey square of CELL pixels."""
    mesh = np.asarray(load_photo(folder / "mesh" / f"{sample['name']}.png")) / 255.0
    photo = mesh if "rgb" not in sample else np.asarray(load_photo(folder / "rgb" / sample["rgb"])) / 255.0
    cover = 0.6 * mesh.max(axis=2, keepdims=True) if "rgb" in sample else 0.0
    picture = Image.fromarray((255 * ((1 - cover) * photo + cover * mesh * TINT)).round().astype(np.uint8))
    low, high = np.reshape(sample["bbox"], (2, 2))
    margin = (ZOOM - 1) / 2 * (high - low).max()
    start, end = np.maximum(low - margin, 0), np.minimum(high + margin, picture.size)
    scale = CELL / (end - start).max()
    width, height = ((end - start) * scale).round().clip(1).astype(int).tolist()
    picture = picture.resize((width, height), Image.Resampling.LANCZOS, box=(*start.tolist(), *end.tolist()))
    pen = ImageDraw.Draw(picture)
    pen.rectangle(
        (*((low - start) * scale).tolist(), *((high - start) * scale - 1).tolist()), outline="orange", width=2
    )
    for hand in sample["hands"]:
        colour = "red" if hand["handedness"] == "Right" else "blue"
        joints = [] if hand["joints_2d"] is None else ((hand["joints_2d"] - start) * scale).tolist()
        for x, y in joints:
            pen.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=colour)
    tile = Image.new("RGB", (CELL, CELL), (64, 64, 64))
    tile.paste(picture, ((CELL - width) // 2, (CELL - height) // 2))
    return tile


# What is said at the end


def summarise(folder: Path, entries: Sequence[dict], samples: Sequence[dict], facts: dict, speed: float) -> None:
    origins = ", ".join(f"{count} from {name}" for name, count in facts["hands_drawn_from"].items())
    hands = sum(facts["hands_drawn_from"].values())
    made = f"{counted(facts['samples'], 'sample')} of {counted(hands, 'hand')}"
    say(f"{folder}: {made} ({origins}), {speed:.1f} labels per second")
    if left := counted_reasons(entries):
        say(f"left out: {left}")
    if left := ", ".join(f"{count} for {reason}" for reason, count in hand_reasons(samples).items()):
        say(f"hands not drawn in samples with others: {left}")
    say(f"look at {folder / 'overlays.png'}: each mesh must lie on its hand (red joints: right, blue: left hands)")


def reasons(entries: Sequence[dict]) -> dict[str, int]:
    """Why labels were left out, and how many, most frequent first."""
    return dict(collections.Counter(entry["left_out"] for entry in entries if "left_out" in entry).most_common())


def hand_reasons(samples: Sequence[dict]) -> dict[str, int]:
    return dict(collections.Counter(reason for one in samples for reason in one["hands_left_out"]).most_common())


def counted_reasons(entries: Sequence[dict]) -> str:
    return ", ".join(f"{count} for {reason}" for reason, count in reasons(entries).items())


if __name__ == "__main__":
    main()
