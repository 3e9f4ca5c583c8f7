"""A random train and test set of one gesture's photos, out of a HaGRID download: {gesture}/ and {gesture}_test/.

With --annotations (HaGRID's JSON of the gesture) only photos with the gesture's label are taken, and nobody is in both
sets. The choice depends on the seed and the file names alone. {gesture}_selection.json says what was chosen.

Example:
  python select_images.py --source hagrid --annotations hagrid/ann_train_val/call.json --gesture call
"""

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from core.runs.command_line import argument_parser, command_line, gesture_name, natural_int, positive_int, seed_int
from core.runs.errors import UserError
from core.runs.files import atomic_file, atomic_folder, check_writable, free_bytes
from core.runs.photos import list_photos
from core.runs.processes import progress, say
from core.runs.run import differing_settings
from hand1000 import journal

ORDERS = 1000  # of people that are tried, where some have many photos and few orders serve


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder of photos, or of a folder {gesture} of them")
    parser.add_argument("--gesture", type=gesture_name, required=True, help="also HaGRID's label")
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

    targets: dict[Path, list[str]] = {
        args.data_root / args.gesture: train,
        args.data_root / f"{args.gesture}_test": test,
    }
    settings = {name: str(getattr(args, name)) for name in "source gesture annotations".split()}
    settings |= {name: getattr(args, name) for name in "num num_test seed link".split()}
    record = args.data_root / f"{args.gesture}_selection.json"
    with journal.locked(record):
        make(record, {"settings": settings, "train": train, "test": test}, targets, photos)


def make(record: Path, selection: dict, targets: dict[Path, list[str]], photos: dict[str, Path]) -> None:
    """Copy or link the chosen photos into their folders, those of which that are not there yet.

    Raises:
        UserError: another choice was made there, a folder is not as it was made, or the disk is too full.
    """
    begin(record, selection, list(targets))
    train, test = selection["train"], selection["test"]
    for target, names in targets.items():
        if target.exists() and sorted(path.name for path in target.iterdir()) != names:
            raise UserError(
                f"{target}: not the {len(names)} photos that {record.name} lists; delete it to make it again"
            )
    missing = {target: names for target, names in targets.items() if names and not target.exists()}
    if not missing:
        say(f"{record}: already finished, {len(train)} photos to train on, {len(test)} to test on")
        return
    link = selection["settings"]["link"]
    if not link:
        check_space(record.parent, [photos[name] for names in missing.values() for name in names])
    for target, names in missing.items():
        with atomic_folder(target) as temporary:
            for name in progress(names, desc=target.name, unit="photo"):
                if link:
                    (temporary / name).symlink_to(photos[name].resolve())
                else:
                    shutil.copyfile(photos[name], temporary / name)
    say(f"{record}: {len(train)} photos to train on, {len(test)} to test on")


def people_of_photos(annotations: Path, names: Sequence[str], gesture: str) -> dict[str, str]:
    """Who is in each photo that has the gesture's label: file name to user_id.

    Raises:
        UserError: the file is not HaGRID's JSON, or no photo has the label.
    """
    try:
        entries = json.loads(annotations.read_text(encoding="utf-8"))
        people = {
            name: str(entry["user_id"])
            for name in names
            if (entry := entries.get(Path(name).stem)) and gesture in entry["labels"]
        }
    except FileNotFoundError:
        raise UserError(f"{annotations}: no such file") from None
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise UserError(f"{annotations}: not HaGRID's JSON of image ids with user_id and labels ({error!r})") from None
    if not people:
        raise UserError(f"{annotations}: gives the label '{gesture}' to none of the {len(names)} photos")
    return people


def choose(people: dict[str, str], num: int, num_test: int, seed: int) -> tuple[list[str], list[str]]:
    """Random file names for training and testing, sorted, without anyone in both.

    People come in random order: to the training set until their photos suffice, then to the test set.

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


def begin(record: Path, selection: dict, targets: Sequence[Path]) -> None:
    """Write what will be chosen, before anything is copied; a killed run goes on by it.

    Raises:
        UserError: another choice was made there, or a folder was not made by this script.
    """
    if record.is_file():
        try:
            made = dict(json.loads(record.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise UserError(f"{record}: damaged; delete it and the folders it describes") from None
        if made != selection:
            reason = differing_settings(made.get("settings", {}), selection["settings"]) or "the source has changed"
            raise UserError(f"{record}: another choice was made here ({reason}); choose another --data_root")
        return
    for target in targets:
        if target.exists():
            raise UserError(f"{target}: exists already, and no {record.name} beside it; choose another --data_root")
    with atomic_file(record) as temporary:
        temporary.write_text(json.dumps(selection, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_space(folder: Path, photos: Sequence[Path]) -> None:
    needed = sum(photo.stat().st_size for photo in photos)
    if needed > free_bytes(folder):
        raise UserError(f"{folder}: the copies need {needed / 1e9:.1f} GB, more than is free; pass --link")


if __name__ == "__main__":
    main()
