"""Drawn open hands: simple, but MediaPipe finds them, and nothing has to be downloaded.

Each finger is a capsule with a spherical profile; all of them make a height map, which is lit from the upper left.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from core.runs.files import write_lines
from hand1000.gesture_files import GestureFiles

CAPTIONER = "drawn"
SKINS = {"light": (236, 188, 156), "tanned": (196, 144, 112), "dark": (120, 76, 54)}
SLEEVES = {"red": (176, 40, 44), "green": (52, 120, 66), "blue": (44, 72, 150), "grey": (110, 112, 118)}
WALLS = {"white": (226, 226, 220), "yellow": (228, 214, 150), "blue": (150, 176, 206), "pink": (222, 178, 186)}

# In palm lengths, thumb side left, upwards positive: root of each finger, its direction in degrees from straight up
# (negative towards the thumb), length, width.
FINGERS = (
    ((-0.36, 0.50), -14, 0.72, 0.190),
    ((-0.12, 0.58), -4, 0.82, 0.200),
    ((0.12, 0.56), 5, 0.76, 0.190),
    ((0.34, 0.44), 16, 0.60, 0.165),
    ((-0.42, -0.10), -52, 0.72, 0.230),
)
LIGHT = np.array([-0.40, -0.50, 0.77])


def draw_open_hand(rng: np.random.Generator, size: int = 256) -> tuple[Image.Image, str]:
    """An open hand with sleeve before a wall, (size, size) RGB, and its caption, which does not name the gesture."""
    skin, sleeve, wall = (list(colours)[rng.integers(len(colours))] for colours in (SKINS, SLEEVES, WALLS))
    side = 2 * size  # drawn at twice the size, then averaged: MediaPipe finds antialiased hands more often
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    scale = rng.uniform(0.85, 1.1) * side / 4.4  # pixels a palm length: the hand needs margin to be found
    centre = side * np.array([0.5 + rng.normal(0, 0.02), 0.55])
    angle, mirror = rng.normal(0, 0.12), rng.choice([-1, 1])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    height = np.zeros((side, side), np.float32)

    def add_capsule(start, end, start_radius: float, end_radius: float) -> None:
        a, b = (centre + scale * rotation @ (mirror * x, -y) for x, y in (start, end))
        along = np.clip(((columns - a[0]) * (b - a)[0] + (rows - a[1]) * (b - a)[1]) / ((b - a) @ (b - a)), 0, 1)
        radius = scale * (start_radius + (end_radius - start_radius) * along)
        distance = (columns - a[0] - along * (b - a)[0]) ** 2 + (rows - a[1] - along * (b - a)[1]) ** 2
        np.maximum(height, np.sqrt(np.clip(radius**2 - distance, 0, None)), out=height)

    for root, degrees, length, width in FINGERS:
        direction = np.radians(degrees + rng.normal(0, 3))
        tip = np.array(root) + length * np.array([np.sin(direction), np.cos(direction)])
        middle = (np.array(root) + tip) / 2
        add_capsule(0.6 * np.array(root), root, 0.55 * width, 0.52 * width)
        add_capsule(root, middle, 0.52 * width, 0.49 * width)
        add_capsule(middle, tip, 0.48 * width, 0.40 * width)
    for x in np.linspace(-0.32, 0.30, 6):
        add_capsule((0.75 * x, -0.42), (x, 0.44), 0.20, 0.19)
    add_capsule((0, -0.4), (0, -2.4), 0.33, 0.36)  # forearm

    slope_y, slope_x = np.gradient(height)
    normals = np.stack([-slope_x, -slope_y, np.ones_like(height)], axis=-1)
    shading = 0.45 + 0.6 * np.clip(normals @ LIGHT / np.linalg.norm(normals, axis=-1), 0, 1)
    below_wrist = ((columns - centre[0]) * rotation[0, 1] + (rows - centre[1]) * rotation[1, 1]) / scale > 0.95
    colours = np.where(below_wrist[..., None], SLEEVES[sleeve], SKINS[skin]) * shading[..., None]
    background = np.array(WALLS[wall]) * (0.94 + 0.12 * rows / side)[..., None]
    picture = np.where(height[..., None] > 0, colours, background) + rng.normal(0, 3, (side, side, 3))
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.LANCZOS)
    return image, f"a {skin} hand with a {sleeve} sleeve in front of a {wall} wall"


def write_photos(data_root: Path, gesture: str, count: int, *, size: int = 256, seed: int = 0) -> None:
    """Write `count` drawn photos, their names and captions in the Hand1000 layout; the captions name no gesture."""
    files = GestureFiles(data_root, gesture, CAPTIONER)
    files.photos.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    names, captions = [], []
    for index in range(count):
        image, caption = draw_open_hand(rng, size)
        names.append(f"{gesture}_{index:03d}.png")
        captions.append(caption)
        image.save(files.photos / names[-1])
    write_lines(files.names, names)
    write_lines(files.captions, captions)
