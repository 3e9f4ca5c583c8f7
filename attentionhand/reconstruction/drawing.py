"""Skeletons of reconstructed hands over their pictures."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from attentionhand.reconstruction.data import HandSet, crop, crop_matrix
from core.runs.photos import load_photo
from core.runs.sheets import contact_sheet

CELL, ACROSS, GAP = 240, 3, 6  # pixels a side of a picture; pairs of pictures in a row; pixels between them
BONES = [(4 * finger + joint if joint else 0, 4 * finger + joint + 1) for finger in range(5) for joint in range(4)]
COLOURS = ((220, 60, 60), (240, 170, 40), (70, 180, 80), (60, 130, 230), (170, 90, 210))  # thumb to pinky


def skeleton_sheet(hands: HandSet, predicted: np.ndarray, count: int) -> Image.Image:
    """Evenly chosen pictures, each with the predicted skeleton and beside it the true one.

    A network predicts no place in the picture: its hand is put where the label's wrist is, in the label's scale.

    Args:
        predicted: (N, 2, 21, 3) each hand from its wrist.
    """
    rows = np.unique(np.linspace(0, len(hands.photos) - 1, count).round().astype(int))
    tiles = [tile for row in rows for tile in both_skeletons(hands, predicted, int(row))]
    lines = [tiles[start : start + 2 * ACROSS] for start in range(0, len(tiles), 2 * ACROSS)]
    return contact_sheet(lines, column_labels=["predicted", "true"] * min(ACROSS, len(rows)), cell=CELL)


def both_skeletons(hands: HandSet, predicted: np.ndarray, row: int) -> list[Image.Image]:
    """The crop of a picture with the predicted skeleton, and with the true one."""
    matrix = crop_matrix(hands.joints_2d[row], CELL)
    photo = crop(np.asarray(load_photo(hands.photos[row])), matrix, CELL)
    tiles = [Image.fromarray(photo), Image.fromarray(photo)]
    for side in np.flatnonzero(hands.has_hand[row]):
        true_2d, true_3d = hands.joints_2d[row, side], hands.joints_3d[row, side]
        placed = true_2d[0] + pixels_a_unit(true_2d, true_3d) * predicted[row, side, :, :2]
        for tile, joints in zip(tiles, (placed, true_2d), strict=True):
            draw_skeleton(tile, joints @ matrix[:, :2].T + matrix[:, 2])
    tiles[1].paste("white", (CELL - GAP, 0, CELL, CELL))  # between a pair and the next
    return tiles


def pixels_a_unit(joints_2d: np.ndarray, joints_3d: np.ndarray) -> float:
    """The scale of the picture at the hand, by least squares over its joints from the wrist."""
    flat, deep = joints_2d - joints_2d[0], (joints_3d - joints_3d[0])[:, :2]
    return float(np.nansum(flat * deep) / max(np.nansum(deep * deep), 1e-12))


def draw_skeleton(picture: Image.Image, joints: Sequence[Sequence[float]] | np.ndarray) -> None:
    """Draw the bones between 21 joints in pixels, a colour for each finger; joints that are NaN are left out."""
    pen, width = ImageDraw.Draw(picture), max(1, picture.width // 80)
    points = np.asarray(joints, float)
    for number, (start, end) in enumerate(BONES):
        if not np.isnan(points[[start, end]]).any():
            pen.line([tuple(points[start]), tuple(points[end])], fill=COLOURS[number // 4], width=width)
    for x, y in points[~np.isnan(points).any(axis=1)]:
        pen.ellipse((x - width, y - width, x + width, y + width), fill="white", outline="black")
