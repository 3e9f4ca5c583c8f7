"""Mesh images: triangles seen by a pinhole camera, with a depth buffer, in NumPy alone (no display, GL driver or GPU).

Axes are OpenCV's: x to the right, y down, z away from the camera. A picture of W x H pixels spans 0 to W and 0 to H;
the middle of its first pixel is (0.5, 0.5), as in OpenGL and in the released renderer.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from core.hands.crops import Box

# The released mesh images were drawn by pyrender: a rough white material (1, 1, 0.9), ambient light 0.3, and three
# directional lights of 0.8, which all shine along the view (pyrender ignores a directional light's position), one shade
# a triangle. OpenCV then wrote RGB as BGR, so that red is the weakest colour in the released files; here as there.
BASE_COLOUR = np.array([0.9, 1.0, 1.0])
AMBIENT, LIGHT = 0.3, 3 * 0.8
REFLECTANCE = 0.04  # of any non-metal seen straight on (Schlick)
GAMMA = 2.2
SUPERSAMPLE = 2  # each pixel is the mean of 2 x 2 samples
NEAREST = 1e-6  # of the camera; triangles that reach behind it are not drawn


class Camera(NamedTuple):
    """A pinhole camera without distortion, in pixels."""

    focal: tuple[float, float]  # along x and y
    center: tuple[float, float]  # the principal point

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of points (..., 3) in the camera's frame."""
        return points[..., :2] / points[..., 2:] * self.focal + self.center

    def cropped(self, left: float, top: float, scale: tuple[float, float] = (1, 1)) -> "Camera":
        """The camera of a picture that begins at (left, top) and is then resized by `scale` along x and y."""
        focal = self.focal[0] * scale[0], self.focal[1] * scale[1]
        return Camera(focal, ((self.center[0] - left) * scale[0], (self.center[1] - top) * scale[1]))


class Mesh(NamedTuple):
    """A triangle mesh."""

    vertices: np.ndarray  # (V, 3)
    faces: np.ndarray  # (F, 3) indices of vertices


def mesh_image(meshes: Sequence[Mesh], camera: Camera, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8: all meshes in one picture, the nearer one in front, on black.

    Args:
        meshes: in the camera's frame; holes stay holes (see `closed`).
        size: width and height in pixels.
    """
    width, height = size
    picture = np.zeros((height, width, 3), np.uint8)
    triangles = np.concatenate([mesh.vertices[mesh.faces] for mesh in meshes]).astype(float)
    triangles = triangles[(triangles[..., 2] > NEAREST).all(axis=1)]
    window = pixel_window(camera.project(triangles).reshape(-1, 2), size)
    if window is None:
        return picture
    left, top, right, bottom = window
    near = camera.cropped(left, top, (SUPERSAMPLE, SUPERSAMPLE))
    corners = np.concatenate([near.project(triangles), 1 / triangles[..., 2:]], axis=-1)
    front, _ = nearest_triangles(corners, SUPERSAMPLE * (right - left), SUPERSAMPLE * (bottom - top))
    colours = np.concatenate([[np.zeros(3)], shades(triangles)])  # the first one for "no triangle"
    drawn = colours[front + 1]
    drawn = drawn.reshape(bottom - top, SUPERSAMPLE, right - left, SUPERSAMPLE, 3).mean(axis=(1, 3))
    picture[top:bottom, left:right] = (255 * drawn).round()
    return picture


def pixel_window(pixels: np.ndarray, size: tuple[int, int]) -> Box | None:
    """The part of a picture of (width, height) that points (N, 2) span; None where they lie outside."""
    if not len(pixels):
        return None
    low, high = np.floor(pixels.min(axis=0)), np.ceil(pixels.max(axis=0))
    left, top = (int(side) for side in low.clip(0, size))
    right, bottom = (int(side) for side in high.clip(0, size))
    return (left, top, right, bottom) if left < right and top < bottom else None


def nearest_triangles(corners: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Which triangle is in front at each pixel's middle, (H, W), -1 for none; and 1 / z there, 0 for none.

    Triangles are cut into rows of pixels, rows into pixels, all of them at once; then the largest 1 / z wins. 1 / z is
    linear in the picture, so that the depth is right under perspective.

    Args:
        corners: (T, 3, 3), for each corner x and y in pixels and 1 / z.
    """
    x, y, nearness = np.moveaxis(corners, -1, 0)  # (T, 3) each
    first = np.ceil(y.min(axis=1) - 0.5).clip(0, height).astype(int)
    last = np.ceil(y.max(axis=1) - 0.5).clip(0, height).astype(int)  # exclusive
    triangle, offset = counted(last - first)
    row = first[triangle] + offset
    # An edge crosses the row's middle line where its ends lie on different sides; a triangle has two such edges.
    level = row[:, None] + 0.5
    x_a, y_a = x[triangle], y[triangle]  # (R, 3)
    x_b, y_b = np.roll(x_a, -1, axis=1), np.roll(y_a, -1, axis=1)
    crosses = (y_a <= level) != (y_b <= level)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = x_a + (level - y_a) / (y_b - y_a) * (x_b - x_a)
    start = np.where(crosses, crossing, np.inf).min(axis=1)
    end = np.where(crosses, crossing, -np.inf).max(axis=1)
    start = np.ceil(start - 0.5).clip(0, width).astype(int)
    end = np.ceil(end - 0.5).clip(0, width).astype(int)  # exclusive

    span, offset = counted((end - start).clip(0))
    column, row, triangle = start[span] + offset, row[span], triangle[span]
    slope_x, slope_y, constant = planes(x, y, nearness)
    near = slope_x[triangle] * (column + 0.5) + slope_y[triangle] * (row + 0.5) + constant[triangle]
    pixel = row * width + column
    depth = np.zeros(height * width)
    np.maximum.at(depth, pixel, near)
    wins = near == depth[pixel]
    front = np.full(height * width, -1)
    front[pixel[wins]] = triangle[wins]
    return front.reshape(height, width), depth.reshape(height, width)


def counted(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each index repeated counts[index] times, and 0, 1, ... within each: [2, 0, 1] gives [0, 0, 2] and [0, 1, 0]."""
    index = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    return index, np.arange(len(index)) - starts[index]


def planes(x: np.ndarray, y: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a, b, c (T,) such that a x + b y + c is `value` at each triangle's corners (T, 3); 0 for a degenerate one."""
    (x_1, x_2), (y_1, y_2), (v_1, v_2) = ((p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]) for p in (x, y, value))
    area = x_1 * y_2 - x_2 * y_1
    inverse = np.divide(1, area, out=np.zeros_like(area), where=area != 0)
    slope_x, slope_y = (v_1 * y_2 - v_2 * y_1) * inverse, (v_2 * x_1 - v_1 * x_2) * inverse
    return slope_x, slope_y, value[:, 0] - slope_x * x[:, 0] - slope_y * y[:, 0]


def shades(triangles: np.ndarray) -> np.ndarray:
    """RGB (T, 3), 0 to 1, of triangles (T, 3, 3): pyrender's material, lit along the view, equal from both sides."""
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    length = np.linalg.norm(normal, axis=1)
    facing = np.divide(np.abs(normal[:, 2]), length, out=np.zeros_like(length), where=length > 0)[:, None]
    # Light and view have one direction, so that the half vector is the view: Fresnel's term is the reflectance, and the
    # highlight of a material of roughness 1 is even.
    diffuse = (1 - REFLECTANCE) * BASE_COLOUR / np.pi
    highlight = REFLECTANCE / (4 * np.pi) * facing
    return (AMBIENT * BASE_COLOUR + LIGHT * (facing * diffuse + highlight)).clip(0, 1) ** (1 / GAMMA)


def closed(mesh: Mesh) -> Mesh:
    """The mesh with its holes filled by a fan of triangles each: MANO's hand is open at the wrist."""
    edges = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    low, high = edges.min(axis=1).astype(np.int64), edges.max(axis=1).astype(np.int64)
    _, inverse, count = np.unique(low * len(mesh.vertices) + high, return_inverse=True, return_counts=True)
    rim = edges[count[inverse] == 1]
    if not len(rim):
        return mesh
    after = dict(rim.tolist())
    vertices, faces = [mesh.vertices], [mesh.faces]
    while after:
        loop = [next(iter(after))]
        while loop[-1] in after:
            loop.append(after.pop(loop[-1]))
        middle = sum(map(len, vertices))
        vertices.append(mesh.vertices[loop[1:]].mean(axis=0, keepdims=True))
        faces.append(np.array([[b, a, middle] for a, b in zip(loop, loop[1:])]))
    return Mesh(np.concatenate(vertices), np.concatenate(faces))
