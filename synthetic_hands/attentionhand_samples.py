"""The mesh images and texts in attentionhand/samples: a few gestures, drawn at 512 pixels, with everyday texts.

Example:
  python -m synthetic_hands.attentionhand_samples --output_dir attentionhand/samples
"""

import json
from pathlib import Path

from PIL import Image

from core.runs.command_line import argument_parser, command_line
from core.runs.errors import UserError
from core.runs.files import atomic_folder, check_writable, write_lines, write_text
from core.runs.processes import say

SAMPLES = [
    ("palm", 1, "A woman on a beach waving her hand at the camera."),
    ("like", 2, "A man in a grey suit giving a thumbs up with his hand in an office."),
    ("peace", 3, "A girl showing two fingers in front of a brick wall."),
    ("call", 4, "A young man making a phone call gesture in the street at night."),
]
SIZE = 512


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--output_dir", type=Path, required=True, help="new folder")
    args = parser.parse_args(argv)
    if args.output_dir.exists():
        raise UserError(f"{args.output_dir}: exists already; choose another --output_dir")
    check_writable(args.output_dir)

    from synthetic_hands.sample import draw_sample

    with atomic_folder(args.output_dir) as folder:
        (folder / "mesh").mkdir()
        (folder / "text").mkdir()
        lines = []
        for number, (gesture, seed, text) in enumerate(SAMPLES):
            names = {"mesh": f"mesh/{number:03}.png", "text": f"text/{number:03}.txt"}
            Image.fromarray(draw_sample(gesture, seed, size=SIZE).mesh).save(folder / names["mesh"])
            write_text(folder / names["text"], f"{text}\n")
            lines.append(json.dumps(names))
        write_lines(folder / "modalities.json", lines)
    say(f"{args.output_dir}: {len(SAMPLES)} samples")


if __name__ == "__main__":
    main()
