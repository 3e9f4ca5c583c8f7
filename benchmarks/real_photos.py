"""Hand1000 on real photographs without a download: from the miniature model, which has only seen synthetic hands.

Takes a folder of photos of one gesture, gives them all the same caption, trains on some and compares with others.

Example:
  python -m benchmarks.real_photos --image_folder sign-language-digits/5 --gesture palm --output_dir results/digits
"""

import json
import random
import shutil
from pathlib import Path

from captioning.enrich import check_phrase
from core.runs.command_line import argument_parser, command_line, positive_int, seed_int
from core.runs.errors import UserError
from core.runs.files import atomic_folder
from core.runs.photos import list_photos
from core.runs.steps import run_script
from hand1000.gestures import PHRASES
from synthetic_hands.demo import RATES, REPRODUCE, mini_arguments


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--image_folder", type=Path, required=True, help="photos of one gesture")
    parser.add_argument("--gesture", default="palm", help="which it is, of HaGRID's")
    parser.add_argument("--caption", default="a light hand in front of a white wall", help="of every photo")
    parser.add_argument("--num", type=positive_int, default=100, help="photos to train on, and others to compare with")
    parser.add_argument("--schedule", choices=list(RATES), default="staged", help="of train.py")
    parser.add_argument("--seeds", nargs="+", type=seed_int, default=[0], help="of training and generation")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for everything it makes")
    args = parser.parse_args(argv)

    data, photos = args.output_dir / "data", list_photos(args.image_folder)
    made = {name: str(getattr(args, name)) for name in ("image_folder", "gesture", "caption", "num")}
    check_phrase(PHRASES.get(args.gesture), args.gesture)
    if len(photos) < 2 * args.num:
        raise UserError(f"{args.image_folder}: has {len(photos)} photos, not twice --num {args.num}")
    if not data.exists():
        random.Random(0).shuffle(photos)
        with atomic_folder(data) as folder:
            for name, chosen in ((args.gesture, photos[: args.num]), (f"{args.gesture}_test", photos[-args.num :])):
                write_captioned(folder, name, sorted(chosen), args.caption)
            (folder / "made.json").write_text(json.dumps(made), encoding="utf-8")
    elif json.loads((data / "made.json").read_text(encoding="utf-8")) != made:
        raise UserError(f"{data}: made of other photos; choose another --output_dir")
    settings = mini_arguments(args.output_dir, data, "plain", args.schedule)
    run_script(REPRODUCE, ["--gestures", args.gesture, "--seeds", *map(str, args.seeds), *settings])


def write_captioned(root: Path, name: str, photos: list[Path], caption: str) -> None:
    """A gesture's folder with its two lists, all captions the same."""
    (root / name).mkdir()
    for photo in photos:
        shutil.copyfile(photo, root / name / photo.name)
    (root / f"{name}_plain_file_name.txt").write_text("".join(f"{photo.name}\n" for photo in photos), encoding="utf-8")
    (root / f"{name}_plain.txt").write_text(f"{caption}\n" * len(photos), encoding="utf-8")


if __name__ == "__main__":
    main()
