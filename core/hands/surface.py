"""A hand's surface around its 21 joints: a smooth union of tapered capsules along the bones, and its picture.

Drawn by sphere tracing in torch. Camera frame: x to the right, y up, z towards the camera, orthographic or pinhole; a
picture of `size` pixels shows 2 x `half_height` palm lengths (wrist to middle knuckle).
"""

from typing import NamedTuple

import numpy as np
import torch

WRIST, THUMB_ROOT, INDEX_KNUCKLE, MIDDLE_KNUCKLE, PINKY_KNUCKLE = 0, 1, 5, 9, 17  # MediaPipe's numbers
STEPS, CLOSE_ENOUGH = 48, 2e-3  # of sphere tracing; palm lengths
PALM_BLEND, FINGER_BLEND = 0.07, 0.022  # palm lengths over which capsules melt into each other


class Capsules(NamedTuple):
    """Tapered capsules of a hand: ends (P, 3) in the camera's frame and radii (P,)."""

    start: torch.Tensor
    end: torch.Tensor
    start_radius: torch.Tensor
    end_radius: torch.Tensor


class Hit(NamedTuple):
    """Where the rays of a picture of S x S pixels meet the hand."""

    mask: torch.Tensor  # (S, S) bool
    point: torch.Tensor  # (S, S, 3) palm lengths; its z is the depth, larger is nearer; 0 where nothing is met
    normal: torch.Tensor  # (S, S, 3)
    part: torch.Tensor  # (S, S) long: index of the nearest capsule
    along: torch.Tensor  # (S, S) 0 to 1: where along it


# From which joint to which, with their radii; joints 0 to 20, and 21 on the thumb's side of the wrist, 22 on the
# other, 23 where the forearm ends, 24 where the sleeve begins.
PALM_PARTS = (
    [(0, 5, 0.19, 0.155), (0, 9, 0.20, 0.155), (0, 13, 0.19, 0.15), (0, 17, 0.18, 0.14)]
    + [(5, 9, 0.15, 0.15), (9, 13, 0.15, 0.145), (13, 17, 0.145, 0.135), (21, 2, 0.17, 0.15), (22, 17, 0.15, 0.14)]
    + [(21, 5, 0.13, 0.13), (0, 23, 0.25, 0.27)]
)
FINGER_PARTS = (
    [(1, 2, 0.17, 0.145), (2, 3, 0.135, 0.12), (3, 4, 0.12, 0.095)]
    + [(5, 6, 0.125, 0.112), (6, 7, 0.112, 0.1), (7, 8, 0.1, 0.08)]
    + [(9, 10, 0.128, 0.115), (10, 11, 0.115, 0.103), (11, 12, 0.103, 0.083)]
    + [(13, 14, 0.122, 0.108), (14, 15, 0.108, 0.097), (15, 16, 0.097, 0.078)]
    + [(17, 18, 0.108, 0.093), (18, 19, 0.093, 0.084), (19, 20, 0.084, 0.068)]
)
SLEEVE_PARTS = [(24, 23, 0.29, 0.34)]
PARTS = PALM_PARTS + FINGER_PARTS + SLEEVE_PARTS
SLEEVE, ARM_END = len(PARTS) - 1, 23  # a part, and a point
# Points 21 to 24: the joint that each of them is beside, and its distance from it in a right hand's own frame.
SUPPORTED = [THUMB_ROOT, WRIST, WRIST, WRIST]
SUPPORT = [(-0.08, -0.06, -0.02), (-0.16, 0.12, 0.04), (0, -3.2, 0), (0, -0.62, 0)]
MESH_GREY, MESH_LIGHT = 0.78, (0.0, 0.2, 1.0)  # of a mesh image: brightness, and where its light comes from
WRIST_LENGTH = 0.1  # palm lengths of the forearm that count as hand


def support_points(joints: np.ndarray, frame: np.ndarray | None = None) -> np.ndarray:
    """The 21 joints of a hand and four points that carry the palm and the arm, (25, 3) palm lengths.

    Args:
        frame: (3, 3), its columns the hand's own axes as `hand_frame` gives them; None where those are x, y and z.
    """
    offsets = np.array(SUPPORT) if frame is None else np.array(SUPPORT) @ frame.T
    return np.concatenate([joints, joints[SUPPORTED] + offsets])


def hand_frame(joints: np.ndarray) -> np.ndarray:
    """A hand's own axes as the columns of a (3, 3): towards the thumb's side, along the palm, out of the palm."""
    up = joints[MIDDLE_KNUCKLE] - joints[WRIST]
    up = up / np.linalg.norm(up)
    aside = joints[INDEX_KNUCKLE] - joints[PINKY_KNUCKLE]
    aside = aside - (aside @ up) * up
    aside = aside / max(np.linalg.norm(aside), 1e-9)
    return np.stack([aside, up, np.cross(aside, up)], axis=1)


def capsules_of(points: torch.Tensor, thickness: float = 1) -> Capsules:
    """Capsules of a hand, from (25, 3) points in the camera's frame and a factor for all radii."""
    start, end, *radii = map(list, zip(*PARTS))
    return Capsules(points[start], points[end], *(thickness * torch.tensor(r, device=points.device) for r in radii))


def part_distances(where: torch.Tensor, capsules: Capsules) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances (N, P) of points (N, 3) to every capsule, and how far along each (0 to 1) they are."""
    start, axis = capsules.start, capsules.end - capsules.start
    # |offset - along * axis|^2 multiplied out: matrix products instead of (N, P, 3) tensors, several times faster.
    length = (axis * axis).sum(1)
    shadow = where @ axis.T - (start * axis).sum(1)
    along = (shadow / length).clamp(0, 1)
    offset = (where * where).sum(1, keepdim=True) - 2 * where @ start.T + (start * start).sum(1)
    gap = (offset - along * (2 * shadow - along * length)).clamp(min=0).sqrt()
    return gap - torch.lerp(capsules.start_radius, capsules.end_radius, along), along


def distance(where: torch.Tensor, capsules: Capsules) -> torch.Tensor:
    """Signed distance (N,) to the hand: palm parts melt together broadly, fingers hardly."""
    parts, _ = part_distances(where, capsules)
    palm = -PALM_BLEND * torch.logsumexp(-parts[:, : len(PALM_PARTS)] / PALM_BLEND, dim=1, keepdim=True)
    rest = torch.cat([palm, parts[:, len(PALM_PARTS) :]], dim=1)
    return -FINGER_BLEND * torch.logsumexp(-rest / FINGER_BLEND, dim=1)


def trace(capsules: Capsules, size: int, half_height: float, focal: float | None = None) -> Hit:
    """Where the rays through the pixels meet the hand.

    Args:
        half_height: palm lengths from the picture's middle to its edge (at z = 0).
        focal: distance of a pinhole camera in palm lengths; None is orthographic.
    """
    device = capsules.start.device
    steps = ((torch.arange(size, device=device) + 0.5) / size * 2 - 1) * half_height
    y, x = torch.meshgrid(-steps, steps, indexing="ij")
    where = torch.stack([x, y, torch.zeros_like(x)], dim=-1).view(-1, 3)
    ray = torch.tensor([0.0, 0.0, -1.0], device=device).expand_as(where)
    if focal is not None:
        ray = torch.nn.functional.normalize(where - torch.tensor([0.0, 0.0, focal], device=device), dim=-1)
    ends = torch.stack([capsules.start, capsules.end])
    reach = max(capsules.start_radius.max(), capsules.end_radius.max()) + PALM_BLEND * 3
    nearest, farthest = ends[..., 2].max() + reach, ends[..., 2].min() - reach
    where = where + ray * ((nearest - where[:, 2]) / ray[:, 2])[:, None]

    hit = torch.zeros(len(where), dtype=torch.bool, device=device)
    active = torch.arange(len(where), device=device)
    for _ in range(STEPS):
        step = distance(where[active], capsules)
        moved = where[active] + 0.95 * step[:, None] * ray[active]
        where[active] = moved
        done = step < CLOSE_ENOUGH
        hit[active[done]] = True
        active = active[~done & (moved[:, 2] > farthest)]
        if not len(active):
            break

    found = hit.nonzero()[:, 0]
    distances, positions = part_distances(where[found], capsules)
    part = torch.zeros(len(where), dtype=torch.long, device=device)
    along, normal = torch.zeros(len(where), device=device), torch.zeros_like(where)
    part[found] = distances.argmin(dim=1)
    along[found] = positions.gather(1, part[found, None])[:, 0]
    normal[found] = surface_normals(where[found], capsules)
    where[~hit] = 0
    return Hit(hit.view(size, size), *(t.view(size, size, -1).squeeze(-1) for t in (where, normal, part, along)))


def surface_normals(where: torch.Tensor, capsules: Capsules) -> torch.Tensor:
    """Unit gradients (N, 3) of the distance, from four points around each."""
    corners = torch.tensor([[1.0, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], device=where.device)
    gradient = sum(corner * distance(where + 5e-3 * corner, capsules)[:, None] for corner in corners)
    return torch.nn.functional.normalize(gradient, dim=-1)


# Shading


def shading(hit: Hit, light: np.ndarray, openness: np.ndarray) -> np.ndarray:
    """Brightness (S, S): soft light from one side, darker in the hollows, a little gloss."""
    light = light / np.linalg.norm(light)
    towards = hit.normal.numpy() @ light
    half = light + [0, 0, 1]
    gloss = (hit.normal.numpy() @ (half / np.linalg.norm(half))).clip(0, 1) ** 24
    return (0.36 + 0.62 * ((towards + 0.25) / 1.25).clip(0, 1)) * (0.5 + 0.5 * openness) + 0.10 * gloss


def openness_of(hit: Hit, capsules: Capsules) -> np.ndarray:
    """(S, S) 0 to 1: how free the space in front of each point is."""
    free = torch.zeros_like(hit.along)
    points, normals = hit.point[hit.mask], hit.normal[hit.mask]
    taps = (0.06, 0.16, 0.3)
    if len(points):
        free[hit.mask] = sum((distance(points + tap * normals, capsules) / tap).clamp(0, 1) for tap in taps) / len(taps)
    return free.cpu().numpy()


def mesh_shading(hit: Hit, points: np.ndarray, openness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A mesh image's brightness (S, S), 0 to 1, and its mask: the hand without forearm and sleeve, lit from the front.

    `points` (25, 3) are those from which the hit's capsules were made.
    """
    arm = points[ARM_END] - points[WRIST]
    below_wrist = (hit.point.numpy() - points[WRIST]) @ arm / np.linalg.norm(arm)
    is_hand = hit.mask.numpy() & (below_wrist < WRIST_LENGTH)
    return MESH_GREY * shading(hit, np.array(MESH_LIGHT), openness) * is_hand, is_hand


def average(picture: np.ndarray, times: int) -> np.ndarray:
    """(S, S, C) from (S * times, S * times, C): the mean of each square."""
    size = len(picture) // times
    return picture.reshape(size, times, size, times, -1).mean(axis=(1, 3))
