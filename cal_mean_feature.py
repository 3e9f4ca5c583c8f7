"""Stage I of Hand1000: the mean hand landmarks of a gesture's photos, saved as {gesture}.npy.

Reads the photos in {data_root}/{gesture}/ and writes {data_root}/{gesture}.npy, 63 numbers: x, y, z of 21 landmarks
of the first hand that MediaPipe finds in each photo.

Example:
  python cal_mean_feature.py --gesture call --data_root .
"""

from pathlib import Path

from core.runs.command_line import argument_parser, command_line, gesture_name, positive_int
from hand1000.gesture_feature import compute_gesture_feature


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--gesture", type=gesture_name, required=True, help="its photos are in {data_root}/{gesture}")
    parser.add_argument("--data_root", type=Path, default=Path(), help="folder of the gesture's files")
    parser.add_argument("--num_workers", type=positive_int, help="processes to use (default: every core)")
    parser.add_argument("--skip_bad_images", action="store_true", help="leave unreadable photos out, don't stop")
    args = parser.parse_args(argv)
    compute_gesture_feature(
        args.data_root / args.gesture,
        args.data_root / f"{args.gesture}.npy",
        num_workers=args.num_workers,
        skip_bad_images=args.skip_bad_images,
    )


if __name__ == "__main__":
    main()
