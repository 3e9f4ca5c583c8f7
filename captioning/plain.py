"""One caption for all photos of a gesture, without a model, in {gesture}_plain.txt and {gesture}_plain_file_name.txt.

With it, and with `--backend rule`, a folder of your photos is all that a gesture of your own needs. In the examples
select_images.py puts 40 of them into wave/, to train on, and 10 others into wave_test/.

Examples:
  python select_images.py --source my_photos --gesture wave --num 40 --num_test 10
  python captioning/plain.py --gesture wave
  python captioning/plain.py --gesture wave_test
  python reproduce.py --gestures wave --phrase "waving hand gesture" --captioner plain --enrich_args="--backend rule"
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python captioning/plain.py`

from core.runs.command_line import argument_parser, command_line, folder_name
from core.runs.errors import UserError
from core.runs.files import check_writable, sha256_of_files
from core.runs.journal import finish_lists, list_run, lists_are_finished
from core.runs.photos import list_photos
from core.runs.processes import counted, say
from hand1000.enrichment import one_line
from hand1000.gesture_files import GestureFiles

NAME = "plain"


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--gesture", type=folder_name, required=True, help="its photos are in {data_root}/{gesture}")
    parser.add_argument("--data_root", type=Path, default=Path(), help="folder of the gesture's files")
    parser.add_argument("--caption", default="a person", help="caption of every photo, without the gesture")
    args = parser.parse_args(argv)
    write_plain_captions(GestureFiles(args.data_root, args.gesture, NAME), args.caption)


def write_plain_captions(files: GestureFiles, caption: str) -> None:
    """Write the lists of file names and captions, a line for each photo, sorted by file name.

    Raises:
        UserError: no photos, a caption that is not one line, lists made otherwise.
    """
    if not caption or caption != one_line(caption):
        raise UserError(f"--caption '{caption}': is empty, or has blanks at its ends, double blanks or newlines")
    photos = list_photos(files.photos)
    check_writable(files.root)
    settings = {"caption": caption, "photos": len(photos), "contents": sha256_of_files(photos)}
    run = list_run(files.captions, settings, what="captioning")
    with run.hold():
        if lists_are_finished(run, [files.names, files.captions]):
            say(f"{files.captions}: already finished, {counted(len(photos), 'caption')}")
            return
        names = [photo.name for photo in photos]
        run.begin()
        finish_lists(run, {files.names: names, files.captions: [caption] * len(photos)})
    say(f"{files.captions}: {counted(len(photos), 'caption')}")


if __name__ == "__main__":
    main()
