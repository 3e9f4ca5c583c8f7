"""Stage I of Hand1000: the mean hand landmarks of a gesture's photos, saved as {gesture}.npy.

Reads the photos in {data_root}/{gesture}/ and writes {data_root}/{gesture}.npy, 63 numbers: x, y, z of 21 landmarks
of the first hand that MediaPipe finds in each photo, with {gesture}_feature.json, its hash. Prints how many photos had
a hand.

Example:
  python cal_mean_feature.py --gesture call --data_root .
"""

from pathlib import Path

from core.runs.command_line import argument_parser, command_line, folder_name, positive_int
from hand1000.gesture_feature import compute_gesture_feature
from hand1000.gesture_files import GestureFiles


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--gesture", type=folder_name, required=True, help="its photos are in {data_root}/{gesture}")
    parser.add_argument("--data_root", type=Path, default=Path(), help="folder of the gesture's files")
    parser.add_argument("--num_workers", type=positive_int, help="processes to use (default: one per core)")
    parser.add_argument(
        "--skip_bad_images", action="store_true", help="leave unreadable photos out instead of stopping at the first"
    )
    args = parser.parse_args(argv)
    files = GestureFiles(args.data_root, args.gesture)
    compute_gesture_feature(
        files.photos, files.feature, num_workers=args.num_workers, skip_bad_images=args.skip_bad_images
    )


if __name__ == "__main__":
    main()
