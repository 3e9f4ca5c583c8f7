"""A picture of all gestures: each as a photo and as a mesh image.

Example:
  python -m synthetic_hands.sheet --output imgs/gestures.png
"""

from pathlib import Path

from PIL import Image, ImageDraw

from core.runs.command_line import argument_parser, command_line, positive_int, seed_int
from core.runs.files import atomic_file
from core.runs.processes import progress, say
from synthetic_hands.hand import POSES

COLUMNS, LABEL = 6, 16  # gestures a row; pixels of the line that names them


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("imgs/gestures.png"), help="picture to write")
    parser.add_argument("--size", type=positive_int, default=128, help="pixels a side of each hand")
    parser.add_argument("--seed", type=seed_int, default=0, help="another seed, other hands")
    args = parser.parse_args(argv)

    from synthetic_hands.sample import draw_sample

    rows, height = -(-len(POSES) // COLUMNS), 2 * args.size + LABEL
    sheet = Image.new("RGB", (COLUMNS * args.size, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, gesture in enumerate(progress(list(POSES), desc="Drawing", unit="gesture")):
        sample = draw_sample(gesture, args.seed, size=args.size)
        left, top = place % COLUMNS * args.size, place // COLUMNS * height
        draw.text((left + 4, top + 2), gesture, fill="black")
        sheet.paste(Image.fromarray(sample.rgb), (left, top + LABEL))
        sheet.paste(Image.fromarray(sample.mesh), (left, top + LABEL + args.size))
    with atomic_file(args.output) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
    say(f"{args.output}: {len(POSES)} gestures")


if __name__ == "__main__":
    main()
