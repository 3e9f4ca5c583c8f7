"""How fast attentionhand.prepare draws: milliseconds of one core for each kind of label, drawing and writing files.

First the pictures of two hands at 256 x 256 pixels alone, from their joints: six of them took the first version 42 s.

Examples:
  python -m benchmarks.mesh_images
  python -m benchmarks.mesh_images --mano mano --size 512
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from core.runs.command_line import argument_parser, command_line, positive_int

PALM = 0.09  # metres
MANO_CELL = 0.115  # of the surface around the joints, in palm lengths: about as many triangles as MANO's 1,538
TWO_HANDS, SMALL = 6, 256  # pictures, and pixels per side
GESTURES = ("palm", "fist", "ok", "call", "peace", "stop")
CORES = 16  # of the machine that the last column is for


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--num", type=positive_int, default=60, help="labels of each kind")
    parser.add_argument("--size", type=positive_int, default=256, help="pixels per side of photos and mesh images")
    parser.add_argument("--mano", type=Path, help="also time MANO's parameters, with the model files of this folder")
    args = parser.parse_args(argv)

    import torch

    from attentionhand.labels.drawing import Options, draw
    from attentionhand.labels.label import HandLabel, Label, Mano
    from core.hands.joint_mesh import joint_mesh
    from core.hands.rasterizer import Camera, mesh_image

    torch.set_num_threads(1)
    camera = Camera((1.2 * args.size,) * 2, (args.size / 2,) * 2)
    pairs = [[true_joints(number, side) for side in ("Right", "Left")] for number in range(args.num)]

    small = Camera((1.2 * SMALL,) * 2, (SMALL / 2,) * 2)
    joint_mesh(pairs[0][0], "Right")  # what is loaded once does not count
    seconds = elapsed(
        lambda pair: mesh_image(
            [joint_mesh(joints, side) for joints, side in zip(pair, ("Right", "Left"))], small, (SMALL, SMALL)
        ),
        pairs[:TWO_HANDS],
    )
    print(f"{min(TWO_HANDS, args.num)} pictures of two hands, {SMALL} x {SMALL}, from their joints: {seconds:.2f} s\n")

    kinds: dict[str, Callable[[list[np.ndarray]], tuple[HandLabel, ...]]] = {
        "one hand, vertices": lambda pair: (vertex_hand(pair[0], "Right"),),
        "two hands, vertices": lambda pair: (vertex_hand(pair[0], "Right"), vertex_hand(pair[1], "Left")),
        "one hand, joints": lambda pair: (HandLabel("Right", pair[0]),),
        "two hands, joints": lambda pair: (HandLabel("Right", pair[0]), HandLabel("Left", pair[1])),
    }
    if args.mano:
        place = np.array([0.0, 0.05, 0.45])
        turn = np.array([np.pi, 0, 0])  # MANO's fingers up: the camera's y is down
        mano = Mano(np.concatenate([turn, np.zeros(45)]), np.zeros(10), place)
        kinds["two hands, MANO's parameters"] = lambda _: tuple(
            HandLabel(side, mano=mano) for side in ("Right", "Left")
        )
    print(f"| label | ms per sample, one core | samples per second | 100,000 samples on {CORES} cores |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("mesh", "rgb"):
            (folder / name).mkdir()
        photo = folder / "photo.jpg"
        pixels = np.random.default_rng(0).integers(0, 255, (args.size // 8, args.size // 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((args.size, args.size)).save(photo, quality=95)
        options = Options(folder, args.mano, None, None, 0, False, with_photos=True)
        for kind, hands_of in kinds.items():
            labels = [
                Label(f"{kind}{number}", photo, camera, hands_of(pair), (args.size, args.size))
                for number, pair in enumerate(pairs)
            ]
            draw(labels[0], options)
            milliseconds = 1000 * elapsed(lambda label: draw(label, options), labels) / args.num
            minutes = milliseconds / 1000 * 100_000 / CORES / 60
            print(f"| {kind} | {milliseconds:.0f} | {1000 / milliseconds:.0f} | {minutes:.1f} minutes |", flush=True)


def elapsed(function: Callable, items: list) -> float:
    """Processor seconds of this process for all items."""
    started = time.process_time()
    for item in items:
        function(item)
    return time.process_time() - started


def true_joints(number: int, side: str):
    """A drawn hand's joints (21, 3), metres, in front of the camera."""
    from synthetic_hands.hand import POSES, joints_of, rotation

    turn = np.random.default_rng(number).uniform(-40, 40, 3)
    joints = joints_of(POSES[GESTURES[number % len(GESTURES)]]) * (1 if side == "Right" else -1, 1, 1) * PALM
    return joints @ rotation(*turn).T * (1, -1, -1) + (-0.05 if side == "Right" else 0.05, 0.05, 0.45)


def vertex_hand(joints: np.ndarray, side: str):
    """A hand with as many triangles as MANO has, which a set ships."""
    from attentionhand.labels.label import HandLabel
    from core.hands.joint_mesh import joint_mesh

    mesh = joint_mesh(joints, side, cell=MANO_CELL)
    return HandLabel(side, joints, vertices=mesh.vertices, faces=mesh.faces)


if __name__ == "__main__":
    main()
