"""A random train and test set of one gesture's photos, out of a HaGRID download: {gesture}/ and {gesture}_test/.

With --annotations (HaGRID's JSON of the gesture) only photos with the gesture's label are taken, and nobody is in both
sets. The choice depends on the seed, the numbers, the file names and, with
--annotations, who is in each photo. {gesture}_selection.json says what was chosen.

HaGRID (https://github.com/hukenovs/hagrid) offers one archive of photos a gesture, and one of annotations: version 1
ann_train_val.zip, with ann_train_val/{gesture}.json; version 2 annotations.zip, with train/, val/ and test/, each with
a {gesture}.json.

Examples:
  python select_images.py --source hagrid --annotations hagrid/ann_train_val/call.json --gesture call
  python select_images.py --source hagrid_dataset --annotations hagrid_annotations/train/call.json --gesture call
  python select_images.py --source my_photos --gesture wave --num 40 --num_test 10
"""

import hashlib
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from core.runs.command_line import argument_parser, command_line, folder_name, natural_int, positive_int, seed_int
from core.runs.errors import UserError
from core.runs.files import atomic_folder, check_writable, free_bytes, remove_leftovers
from core.runs.photos import list_photos
from core.runs.processes import counted, progress, say
from core.runs.run import Run
from core.runs.schema import parsed_json
from hand1000.gesture_files import GestureFiles

ORDERS = 1000  # of people that are tried: where some have many photos, few orders give both sets enough
ANNOTATIONS_V1, ANNOTATIONS_V2 = "ann_train_val", "train"  # HaGRID's folders of {gesture}.json


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--source", type=Path, required=True, help="folder of photos, or a folder with a folder {gesture} of photos"
    )
    parser.add_argument("--gesture", type=folder_name, required=True, help="name of the gesture, as HaGRID labels it")
    parser.add_argument("--num", type=positive_int, default=1000, help="photos to train on")
    parser.add_argument("--num_test", type=natural_int, default=1000, help="photos to test on")
    parser.add_argument("--seed", type=seed_int, default=0, help="another seed, another choice")
    parser.add_argument("--annotations", type=Path, help="HaGRID's JSON: image id to user_id, labels, bboxes")
    parser.add_argument("--link", action="store_true", help="symbolic links instead of copies")
    parser.add_argument("--data_root", type=Path, default=Path(), help="folder to write to")
    args = parser.parse_args(argv)

    folder = args.source / args.gesture if (args.source / args.gesture).is_dir() else args.source
    photos = {photo.name: photo for photo in list_photos(folder)}
    check_writable(args.data_root)
    people = {name: name for name in photos}  # without annotations everyone is in one photo
    if args.annotations:
        people = people_of_photos(args.annotations, list(photos), args.gesture)
    train, test = choose(people, args.num, args.num_test, args.seed)

    files = GestureFiles(args.data_root, args.gesture)
    settings = {
        "source": str(args.source),
        "gesture": args.gesture,
        "annotations": str(args.annotations),
        "people": hashlib.sha256(json.dumps(people, sort_keys=True).encode()).hexdigest(),
        "num": args.num,
        "num_test": args.num_test,
        "seed": args.seed,
        "link": args.link,
    }
    run = Run(files.selection, settings, what="selection", owns_folder=False, flag="--data_root")
    with run.hold():
        make_folders(run, {files.photos: train, files.test.photos: test}, photos, link=args.link)


def make_folders(run: Run, folders: dict[Path, list[str]], photos: dict[str, Path], *, link: bool) -> None:
    """Copy or link the chosen photos into their folders, as far as these are not there yet.

    Args:
        run: is held.
        folders: the names of the photos to train on, and of those to test on.
        photos: where each photo is, by name.

    Raises:
        UserError: another choice was made here, a folder is not as it was made, or the disk is too full.
    """
    train, test = folders.values()
    record = run.record()
    for folder, names in folders.items():
        if folder.exists() and record is None:
            raise UserError(f"{folder}: exists already, without a {run.path.name} beside it; choose another {run.flag}")
        if folder.exists() and sorted(path.name for path in folder.iterdir()) != names:
            raise UserError(
                f"{folder}: does not hold the {counted(len(names), 'photo')} that {run.path.name} lists; delete it to "
                "make it again"
            )
    missing = {folder: names for folder, names in folders.items() if names and not folder.exists()}
    counts = f"{counted(len(train), 'photo')} to train on, {len(test)} to test on"
    if run.is_finished() and not missing:
        say(f"{run.path}: already finished, {counts}")
        return
    if not link:
        check_space(run.folder, [photos[name] for names in missing.values() for name in names])
    run.begin(train=train, test=test)
    for folder, names in missing.items():
        remove_leftovers(folder.parent, folder.name)
        with atomic_folder(folder) as temporary:
            for name in progress(names, desc=folder.name, unit="photo"):
                if link:
                    (temporary / name).symlink_to(photos[name].resolve())
                else:
                    shutil.copyfile(photos[name], temporary / name)
    run.finish(train=train, test=test)
    say(f"{run.path}: {counts}")


def people_of_photos(annotations: Path, names: Sequence[str], gesture: str) -> dict[str, str]:
    """Who is in each photo that has the gesture's label: file name to user_id.

    Raises:
        UserError: the file is not HaGRID's JSON, or no photo has the label.
    """
    if annotations.is_dir():
        folders = [annotations, annotations / ANNOTATIONS_V1, annotations / ANNOTATIONS_V2]
        found = [path for folder in folders if (path := folder / f"{gesture}.json").is_file()]
        where = f"--annotations {found[0]}" if found else f"it is not in {annotations}"
        raise UserError(f"{annotations}: is a folder; give its {gesture}.json ({where})")
    try:
        entries = parsed_json(annotations.read_bytes())
        people = {
            name: str(entry["user_id"])
            for name in names
            if (entry := entries.get(Path(name).stem)) and gesture in entry["labels"]
        }
    except FileNotFoundError:
        raise UserError(f"{annotations}: no such file") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{annotations}: not HaGRID's JSON of image ids with user_id and labels ({error!r})") from None
    if not people:
        raise UserError(f"{annotations}: gives the label '{gesture}' to none of the {counted(len(names), 'photo')}")
    return people


def choose(people: dict[str, str], num: int, num_test: int, seed: int) -> tuple[list[str], list[str]]:
    """Random file names for training and testing, sorted, without anyone in both.

    People are taken in random order: for the training set until their photos are enough, then for the test set.

    Args:
        people: file name to person.

    Raises:
        UserError: too few photos.
    """
    photos_of: dict[str, list[str]] = {}
    for name in sorted(people):
        photos_of.setdefault(people[name], []).append(name)
    rng = random.Random(seed)
    order = sorted(photos_of)
    for _ in range(ORDERS):
        rng.shuffle(order)
        chosen: tuple[list[str], list[str]] = ([], [])
        for person in order:
            chosen[len(chosen[0]) >= num].extend(photos_of[person])
        if len(chosen[0]) >= num and len(chosen[1]) >= num_test:
            break
    else:
        raise UserError(
            f"{len(people)} photos of {len(order)} people can't give {num} to train on and {num_test} of others to "
            "test on; lower --num or --num_test"
        )
    return sorted(rng.sample(chosen[0], num)), sorted(rng.sample(chosen[1], num_test))


def check_space(folder: Path, photos: Sequence[Path]) -> None:
    """Raises UserError where copies of the photos need more than is free."""
    needed = sum(photo.stat().st_size for photo in photos)
    if needed > free_bytes(folder):
        raise UserError(f"{folder}: the copies need {needed / 1e9:.1f} GB, more than is free; pass --link")


if __name__ == "__main__":
    main()
