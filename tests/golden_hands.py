"""Golden hands: what MediaPipe 0.10.21's `solutions` find in pictures that every checkout has, and in real photographs.

The drawn pictures lie beside the numbers, so that they do not depend on the machine; the real photographs may not lie
in the repository, so tests look for them in `../shared/data`.

  python tests/golden_hands.py             find the hands anew (needs mediapipe 0.10.21 and the real photographs)
  python tests/golden_hands.py --draw      draw the pictures anew, too
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "data" / "hands"
REAL = ROOT.parent / "shared" / "data"
CONFIDENCES, MAX_NUM_HANDS = (0.0, 0.5), (1, 2)
# Sizes at which positions lie half-way between two of OpenCV's steps, and where numpy.linalg in place of OpenCV's
# way to its matrix rounds 15 to 26 % of them to the other side.
HALF_STEPS = ((178, 315), (181, 357), (166, 273), (208, 399), (364, 399), (235, 399))


def drawn_pictures() -> dict[str, Image.Image]:
    """All pictures that need nothing but the repository, by name."""
    stored = {path.stem: Image.open(path).convert("RGB") for path in sorted(FOLDER.glob("*.png"))}
    left, two = stored["left"], stored["two"]
    width, height = left.size

    def on_wall(size: tuple[int, int]) -> Image.Image:
        wall = Image.new("RGB", size, (150, 176, 206))
        wall.paste(left, ((size[0] - width) // 2, (size[1] - height) // 2))
        return wall

    return stored | {
        **{f"half_steps_{size[0]}x{size[1]}": on_wall(size) for size in HALF_STEPS},
        "lying": left.transpose(Image.Transpose.ROTATE_90),
        "upside_down": left.transpose(Image.Transpose.ROTATE_180),
        "grey": left.convert("L"),
        "hardly_a_hand": left.crop((81, 32, 144, 144)),  # a presence of 0.35 at confidence 0
        "at_the_edge": left.crop((40, 45, width, height)),
        "tall": two.transpose(Image.Transpose.ROTATE_270),
        "huge": left.resize((15 * width, 15 * height), Image.Resampling.NEAREST),
        "tiny": left.resize((8, 8), Image.Resampling.NEAREST),
        "one_pixel": left.crop((80, 80, 81, 81)),
        "flat": Image.new("RGB", (64, 48), (120, 130, 140)),
    }


def real_photos() -> list[str]:
    """Real photographs under `REAL`: every gesture of HaGRID's chart, every 67th of the digits."""
    digits = sorted(path.relative_to(REAL).as_posix() for path in REAL.glob("sign-language-digits/*/*.jpg"))
    gestures = sorted(path.relative_to(REAL).as_posix() for path in REAL.glob("hagrid-gestures/*.png"))
    return gestures + digits[::67]


def draw() -> None:
    """Draw the pictures that are stored; 64 colours each, which keeps them small."""
    from synthetic_hands.drawn import draw_open_hand

    hands = {seed: draw_open_hand(np.random.default_rng(seed), 160)[0] for seed in (2, 3, 8, 10)}
    right, left = hands[2], hands[8]
    two = Image.new("RGB", (311, 160))  # an odd longer side
    two.paste(hands[3], (-5, 0))
    two.paste(left, (151, 0))
    pictures = {
        "right": right,
        "left": left,
        "two": two,
        "overlapping": overlapping(np.asarray(right), np.asarray(hands[10]), 30),
        "wall": right.crop((0, 0, 60, 45)).resize((160, 120)),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        picture.quantize(64).save(FOLDER / f"{name}.png", optimize=True)


def overlapping(behind: np.ndarray, front: np.ndarray, shift: int) -> Image.Image:
    """The hand `front`, cut out of its wall, `shift` pixels to the right of the hand `behind`."""
    canvas = np.concatenate([behind, behind[:, -1:].repeat(shift, axis=1)], axis=1)
    is_hand = np.abs(front.astype(int) - front[:, :1]).max(axis=2) > 18
    canvas[:, shift:][is_hand] = front[is_hand]
    return Image.fromarray(canvas)


def find_golden(pictures: dict[str, Image.Image]) -> dict[str, np.ndarray]:
    """MediaPipe's hands as arrays: a row for each hand, in order."""
    from core.hands import mediapipe_solutions

    rows = [
        (name, max_num_hands, confidence, hand)
        for name, picture in pictures.items()
        for max_num_hands in MAX_NUM_HANDS
        for confidence, hands in zip(
            CONFIDENCES, mediapipe_solutions.find_hands_at(picture.convert("RGB"), CONFIDENCES, max_num_hands)
        )
        for hand in hands
    ]
    names, max_num_hands, confidences, hands = zip(*rows)
    return {
        "pictures": np.array(list(pictures)),
        "picture": np.array([list(pictures).index(name) for name in names], np.int16),
        "max_num_hands": np.array(max_num_hands, np.int8),
        "confidence": np.array(confidences, np.float32),
        "is_left": np.array([hand.handedness == "Left" for hand in hands]),
        "score": np.array([hand.score for hand in hands], np.float32),
        "landmarks": np.array([hand.landmarks for hand in hands], np.float32),
    }


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="draw the stored pictures anew, too")
    if parser.parse_args(argv).draw:
        draw()
    np.savez_compressed(FOLDER / "drawn.npz", **find_golden(drawn_pictures()))
    real = {name: Image.open(REAL / name).convert("RGB") for name in real_photos()}
    np.savez_compressed(FOLDER / "real.npz", **find_golden(real))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
