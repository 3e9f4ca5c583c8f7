"""A picture of all gestures: each as a photo and as a mesh image.

Example:
  python -m synthetic_hands.sheet --output imgs/gestures.png
"""

from pathlib import Path

from PIL import Image

from core.runs.command_line import argument_parser, command_line, positive_int, seed_int
from core.runs.processes import progress, say
from core.runs.sheets import contact_sheet, save_png, side_by_side
from synthetic_hands.hand import POSES

COLUMNS = 6  # gestures a row


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("imgs/gestures.png"), help="picture to write")
    parser.add_argument("--size", type=positive_int, default=128, help="pixels per side of each hand")
    parser.add_argument("--seed", type=seed_int, default=0, help="another seed, other hands")
    args = parser.parse_args(argv)

    from synthetic_hands.sample import draw_sample

    gestures = list(POSES)
    samples = [draw_sample(name, args.seed, size=args.size) for name in progress(gestures, desc="Drawing")]
    blocks = []
    for start in range(0, len(gestures), COLUMNS):
        shown = samples[start : start + COLUMNS]
        rows = [[Image.fromarray(sample.rgb) for sample in shown], [Image.fromarray(sample.mesh) for sample in shown]]
        blocks.append(contact_sheet(rows, column_labels=gestures[start : start + COLUMNS], cell=args.size))
    save_png(side_by_side(blocks, across=1), args.output)
    say(f"{args.output}: {len(POSES)} gestures")


if __name__ == "__main__":
    main()
