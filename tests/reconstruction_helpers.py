"""Small labelled sets for the tests of the reconstruction network: true hands in front of nothing."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from attentionhand.reconstruction.drawing import draw_skeleton
from synthetic_hands.hand import POSES, joints_of, rotation

SIZE = 64  # pixels a side


def right_hand(rng: np.random.Generator) -> np.ndarray:
    """(21, 3) joints of a right hand in palm lengths; x right, y up, z towards the camera."""
    pose = POSES[list(POSES)[int(rng.integers(len(POSES)))]]
    turn = rotation(*rng.uniform(-30, 30, 3))
    return joints_of(pose, noise=4, rng=rng) @ turn.T


def make_hands(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """`joints_2d`, `joints_3d` (OpenGL, palm lengths) and `handedness` of single hands, every other one a left hand."""
    rng = np.random.default_rng(seed)
    sides = np.array([("Right", "Left")[number % 2] for number in range(count)])
    hands = np.array([right_hand(rng) * ([1, 1, 1] if side == "Right" else [-1, 1, 1]) for side in sides])
    return {"joints_2d": project(hands), "joints_3d": hands.astype(np.float32), "handedness": sides}


def project(hands: np.ndarray) -> np.ndarray:
    """OpenGL joints (..., 21, 3) to pixels, the wrist a little below the middle."""
    return (np.array([SIZE / 2, 0.6 * SIZE]) + SIZE / 5 * hands[..., :2] * [1, -1]).astype(np.float32)


def two_hands(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """The same of pairs (N, 2, 21, ...), the left hand first, in metres and OpenCV's axes, with sequences."""
    rng = np.random.default_rng(seed)
    right = np.array([right_hand(rng) + [-0.6, 0, 0] for _ in range(count)])
    left = np.array([right_hand(rng) * [-1, 1, 1] + [0.6, 0, 0.2] for _ in range(count)])
    hands = np.stack([left, right], axis=1)
    return {
        "joints_2d": project(hands),
        "joints_3d": (0.1 * hands * [1, -1, -1] + [0, 0, 0.7]).astype(np.float32),
        "handedness": np.array([["Left", "Right"]] * count),
        "sequence": np.array(["one", "two"] * count)[:count],
    }


def write_set(folder: Path, arrays: dict[str, np.ndarray], size: int = SIZE) -> Path:
    """A data folder whose photos show the skeletons."""
    (folder / "rgb").mkdir(parents=True)
    lines = []
    for number, hands in enumerate(arrays["joints_2d"]):
        photo = Image.new("RGB", (size, size), (40, 60, 80))
        for hand in hands.reshape(-1, 21, 2):
            draw_skeleton(photo, hand)
        photo.save(folder / "rgb" / f"{number}.png")
        lines.append(json.dumps({"rgb": f"rgb/{number}.png"}))
    (folder / "modalities.json").write_text("\n".join(lines) + "\n")
    np.savez(folder / "joints.npz", **arrays)
    return folder
