"""Cameras of label files, their shapes checked."""

from typing import Any

import numpy as np

from core.hands.rasterizer import Camera
from core.runs.errors import UserError


def camera_of(matrix: Any, where: str) -> Camera:
    """The camera of a (3, 3) matrix [[fx, 0, cx], [0, fy, cy], [0, 0, 1]].

    Raises:
        UserError: another shape, numbers that are not finite, a focal length that is not positive.
    """
    numbers = finite(matrix, (3, 3), f"{where}: the camera matrix")
    return pinhole((numbers[0, 0], numbers[1, 1]), (numbers[0, 2], numbers[1, 2]), where)


def pinhole(focal: Any, center: Any, where: str) -> Camera:
    """The camera of two focal lengths and a principal point in pixels.

    Raises:
        UserError: as `camera_of`.
    """
    focal = finite(focal, (2,), f"{where}: the camera's focal lengths")
    center = finite(center, (2,), f"{where}: the camera's principal point")
    if (focal <= 0).any():
        raise UserError(f"{where}: the camera's focal lengths {focal.tolist()} are not positive")
    return Camera((float(focal[0]), float(focal[1])), (float(center[0]), float(center[1])))


def finite(numbers: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """An array of floats of this shape; a single row or column more does not matter.

    Raises:
        UserError: another shape, or numbers that are not finite.
    """
    try:
        array = np.array(numbers, dtype=float)
    except (ValueError, TypeError):
        raise UserError(f"{what}: not numbers of shape {shape}") from None
    if array.size != np.prod(shape) or (len(shape) > 1 and array.shape != shape):
        raise UserError(f"{what}: shape {array.shape}, not {shape}")
    if not np.isfinite(array).all():
        raise UserError(f"{what}: a number that is not finite")
    return array.reshape(shape)
