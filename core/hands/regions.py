"""Turned squares of a picture: cutting one out, as MediaPipe's ImageToTensorCalculator does it with OpenCV."""

import math
from typing import NamedTuple

import numpy as np

STEPS = 32  # OpenCV's warpPerspective rounds source positions to 1/32 pixel, and interpolates with whole numbers
BITS = 5  # STEPS is 2**BITS: shifts are many times as fast as numpy's division
ROWS_AT_ONCE = 32  # small arrays stay in the processor's cache and in malloc's hands: three times as fast as all rows


class Region(NamedTuple):
    """A turned square; in pixels of the picture, and radians clockwise."""

    x_center: float
    y_center: float
    side: float
    rotation: float

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 2) relative to the region (0 to 1) in pixels of the picture."""
        x, y = np.moveaxis(points - 0.5, -1, 0) * self.side
        cosine, sine = math.cos(self.rotation), math.sin(self.rotation)
        return np.stack([self.x_center + cosine * x - sine * y, self.y_center + sine * x + cosine * y], axis=-1)


def cut_out(image: np.ndarray, region: Region, size: int, *, black_outside: bool) -> np.ndarray:
    """The region of an RGB image (height, width, 3) uint8, as (size, size, 3) float32 from 0 to 1.

    Bilinear without antialiasing, in OpenCV's arithmetic (warpPerspective). Outside the image it is black, or repeats
    the edge.
    """
    to_image = _inverse(_perspective(_corners(region), size))
    result = np.empty((size, size, 3), np.float32)
    for top in range(0, size, ROWS_AT_ONCE):
        rows = np.arange(top, min(top + ROWS_AT_ONCE, size))
        x, y = _source_positions(to_image, rows, size)
        result[rows] = _interpolate(image, x, y, black_outside)
    return result


def _source_positions(to_image: np.ndarray, rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where in the image the pixels of some rows come from: x and y in 1/32 pixel, rounded, each (rows, size) int32.

    Where the longer side of a picture is odd, many positions lie half-way between two steps, so that the matrix's last
    bits decide; if they are not OpenCV's, landmarks move by 0.1 pixel. Hence the order of additions, and of the
    matrix's own computation below.
    """
    column, row = np.arange(size), rows[:, None]
    block = column - column % 64  # OpenCV goes block by block
    x, y, scale = (a * block + b * row + c + a * (column - block) for a, b, c in to_image)
    scale = STEPS / scale
    return np.rint(x * scale).astype(np.int32), np.rint(y * scale).astype(np.int32)


def _interpolate(image: np.ndarray, x: np.ndarray, y: np.ndarray, black_outside: bool) -> np.ndarray:
    """The image's colours at positions in steps, each (rows, size): (rows, size, 3) float32 from 0 to 1."""
    height, width = image.shape[:2]
    columns, rows = _two_nearest(x, width, black_outside), _two_nearest(y, height, black_outside)
    corners = [  # the four pixels around each position: index into the flat image, weight of 32 * 32
        (3 * (row * width + column), row_weight * column_weight)
        for row, row_weight in rows
        for column, column_weight in columns
    ]
    values = image.reshape(-1)
    result = np.empty((*x.shape, 3), np.float32)
    for channel in range(3):  # sums of whole numbers below 2**24: exact in float32
        total = sum(values[channel:].take(index) * weight for index, weight in corners)
        result[..., channel] = np.floor((total + STEPS**2 // 2) * np.float32(1 / STEPS**2))
    return result * np.float32(1 / 255)


def _two_nearest(positions: np.ndarray, length: int, black_outside: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """The pixels before and after each position (in steps) along one axis of the image, each with its weight of 32."""
    before, after_weight = positions >> BITS, positions & (STEPS - 1)
    nearest = []
    for pixel, weight in ((before, STEPS - after_weight), (before + 1, after_weight)):
        inside = pixel.clip(0, length - 1)
        if black_outside:
            weight = weight * (pixel == inside)
        nearest.append((inside.astype(np.intp), weight.astype(np.float32)))
    return nearest


def _corners(region: Region) -> np.ndarray:
    """Corners (4, 2) float32 of the region in pixels: lower left, upper left, upper right, lower right. boxPoints."""
    center, side = np.array(region[:2], np.float32), np.float32(region.side)
    cosine, sine = np.array([math.cos(region.rotation), math.sin(region.rotation)], np.float32) * np.float32(0.5)
    lower_left = center + np.stack([-sine * side - cosine * side, cosine * side - sine * side])
    upper_left = center + np.stack([sine * side - cosine * side, -cosine * side - sine * side])
    return np.stack([lower_left, upper_left, 2 * center - lower_left, 2 * center - upper_left])


def _perspective(corners: np.ndarray, size: int) -> np.ndarray:
    """The matrix (3, 3) that maps corners (4, 2) to those of a square. getPerspectiveTransform."""
    square = np.array([[0, size], [0, 0], [size, 0], [size, size]], np.float32)
    equations = np.zeros((8, 8))
    equations[:4, :2] = equations[4:, 3:5] = corners
    equations[:4, 2] = equations[4:, 5] = 1
    equations[:4, 6:], equations[4:, 6:] = -corners * square[:, :1], -corners * square[:, 1:]
    return np.append(_solve(equations, square.T.ravel().astype(float)), 1).reshape(3, 3)


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solution (n,) of matrix (n, n) @ x = right (n,), by elimination with pivots. cv::solve, to its last bit.

    numpy.linalg would be shorter, but rounds otherwise, and not on all machines alike.
    """
    rows = np.concatenate([matrix, right[:, None]], axis=1)
    for i in range(len(rows)):
        pivot = i + int(np.abs(rows[i:, i]).argmax())
        rows[[i, pivot]] = rows[[pivot, i]]
        rows[i + 1 :] += (rows[i + 1 :, i] * (-1 / rows[i, i]))[:, None] * rows[i]
    solution = rows[:, -1].copy()
    for i in reversed(range(len(rows))):
        for k in range(i + 1, len(rows)):
            solution[i] -= rows[i, k] * solution[k]
        solution[i] /= rows[i, i]
    return solution


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a matrix (3, 3) by its cofactors. cv::invert."""
    following, last = [1, 2, 0], [2, 0, 1]
    cofactors = matrix[following][:, following] * matrix[last][:, last]
    cofactors -= matrix[following][:, last] * matrix[last][:, following]
    first, second, third = matrix[0] * cofactors[0]
    return cofactors.T * (1 / (first + second + third))
