"""A triangle mesh of the hand's surface around 21 joints: no MANO licence needed.

The signed distance of `core.hands.surface` is sampled on a grid and turned into triangles by surface nets (Gibson
1998): a vertex in each cell that the surface passes, the mean of where it crosses the cell's edges.
"""

import itertools

import numpy as np
import torch

from core.hands.rasterizer import Mesh
from core.hands.surface import (
    ARM_END,
    MIDDLE_KNUCKLE,
    WRIST,
    WRIST_LENGTH,
    Capsules,
    capsules_of,
    distance,
    hand_frame,
    support_points,
)

CELL = 0.04  # of the grid; palm lengths
BLOCK = 4  # cells a side of the blocks of which only those near the surface are sampled finely
MARGIN = 0.45  # of the grid around the joints, palm lengths; the surface reaches 0.33 beyond them
CORNERS = list(itertools.product((0, 1), repeat=3))  # of a cell
EDGES = [
    (a, b) for a, b in itertools.combinations(range(8), 2) if np.abs(np.subtract(CORNERS[a], CORNERS[b])).sum() == 1
]


def joint_mesh(joints: np.ndarray, handedness: str, *, cell: float = CELL) -> Mesh:
    """The surface around 21 joints in any unit, in a right-handed frame such as OpenCV's, down to just below the wrist.

    Args:
        joints: (21, 3), MediaPipe's order.
        handedness: "Left" or "Right" hand of the person.
        cell: side of the grid's cells, palm lengths; triangles are about as large.
    """
    palm = np.linalg.norm(joints[MIDDLE_KNUCKLE] - joints[WRIST])
    own = (joints - joints[WRIST]) / palm
    frame = hand_frame(own)
    if handedness == "Left":
        frame = frame * (1, 1, -1)  # the thumb is on the other side of the same palm
    points = support_points(own, frame)
    capsules = capsules_of(torch.tensor(points, dtype=torch.float32))
    arm = points[ARM_END] / np.linalg.norm(points[ARM_END])
    low, high = own.min(axis=0) - MARGIN, own.max(axis=0) + MARGIN
    values = grid_values(capsules, torch.tensor(arm, dtype=torch.float32), low, high, cell)
    mesh = surface_net(values)
    return Mesh((mesh.vertices * cell + low) * palm + joints[WRIST], mesh.faces)


def grid_values(capsules: Capsules, arm: torch.Tensor, low: np.ndarray, high: np.ndarray, cell: float) -> np.ndarray:
    """Signed distances (X, Y, Z) on a grid of spacing `cell` from `low`; far from the surface only the sign is right.

    Args:
        arm: unit vector from the wrist, at 0, along the forearm, which ends WRIST_LENGTH from it.
    """

    def signed_distance(cells: torch.Tensor) -> torch.Tensor:
        where = cells * cell + torch.tensor(low, dtype=torch.float32)
        return torch.maximum(distance(where, capsules), where @ arm - WRIST_LENGTH)

    blocks = np.ceil(((high - low) / cell + 1) / BLOCK).astype(int)  # the last points lie at `high` or beyond
    corner = torch.cartesian_prod(*(BLOCK * torch.arange(int(count), dtype=torch.float32) for count in blocks))
    middle = signed_distance(corner + (BLOCK - 1) / 2)
    # Every value less than a cell from the surface is needed exactly; half a block's diagonal is how far it may lie.
    near = middle.abs() < cell * (1 + (BLOCK - 1) * 3**0.5 / 2)
    offsets = torch.cartesian_prod(*3 * [torch.arange(BLOCK, dtype=torch.float32)])
    values = middle[:, None].repeat(1, len(offsets))
    fine = corner[near][:, None] + offsets
    values[near] = signed_distance(fine.view(-1, 3)).view(-1, len(offsets))
    x, y, z = (int(count) for count in blocks)
    values = values.view(x, y, z, BLOCK, BLOCK, BLOCK).permute(0, 3, 1, 4, 2, 5)
    values = values.reshape(x * BLOCK, y * BLOCK, z * BLOCK).numpy()
    for axis in range(3):  # no surface reaches the grid's own sides, whatever the joints: it stays closed
        sides = np.moveaxis(values, axis, 0)
        sides[[0, -1]] = sides[[0, -1]].clip(min=cell)
    return values


def surface_net(values: np.ndarray) -> Mesh:
    """The surface where `values` (X, Y, Z) are 0, negative inside, in units of cells; triangles face outwards."""
    inside = values < 0
    cells = np.array(values.shape) - 1
    count = sum(inside[tuple(slice(c, c + n) for c, n in zip(corner, cells))].astype(np.int8) for corner in CORNERS)
    place = np.argwhere((count > 0) & (count < 8))  # (V, 3): one vertex in each cell that the surface passes
    corner_values = np.stack([values[tuple((place + corner).T)] for corner in CORNERS])  # (8, V)
    total, crossings = np.zeros((len(place), 3)), np.zeros((len(place), 1))
    for a, b in EDGES:
        crosses = (corner_values[a] < 0) != (corner_values[b] < 0)
        share = corner_values[a][crosses] / (corner_values[a] - corner_values[b])[crosses]
        total[crosses] += CORNERS[a] + share[:, None] * np.subtract(CORNERS[b], CORNERS[a])
        crossings[crosses] += 1

    number = np.full(tuple(cells), -1)
    number[tuple(place.T)] = np.arange(len(place))
    faces = []
    for axis in range(3):
        # Each edge of the grid along `axis` that the surface crosses gets the quad of the four cells around it.
        step = np.eye(3, dtype=int)
        along, second, third = step[axis], step[(axis + 1) % 3], step[(axis + 2) % 3]
        end = tuple(slice(n, None) for n in along)
        start = tuple(slice(None, -1 if n else None) for n in along)
        edge = np.argwhere(inside[start] != inside[end])
        leaves = inside[tuple(edge.T)]  # the surface: inside at the edge's start, outside at its end
        quad = np.stack([number[tuple((edge - back).T)] for back in (second + third, third, 0 * third, second)], axis=1)
        quad[~leaves] = quad[~leaves, ::-1]
        faces += [quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]]
    return Mesh(place + total / crossings, np.concatenate(faces))
