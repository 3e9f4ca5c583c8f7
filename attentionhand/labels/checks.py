"""Is this a hand? Wrong axes, units and orders of joints are found out here, and named, before anything is drawn."""

from collections.abc import Callable

import numpy as np

from attentionhand.labels.interhand import TO_MEDIAPIPE as FROM_INTERHAND
from attentionhand.labels.mano import TO_MEDIAPIPE as FROM_MANO
from core.hands.rasterizer import Camera

MIDDLE_KNUCKLE = 9  # MediaPipe's number
# Which bones (MediaPipe's numbers), and how long they may be in palm lengths (wrist to middle knuckle). Generous: hands
# of children and of cartoons pass, a wrong order of joints does not.
PARENTS = np.array([0, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19])
SHORTEST = np.array([0, 0.15, 0.15, 0.1, 0.08] + [0.6, 0.2, 0.1, 0.08] * 4)
LONGEST = np.array([0, 0.8, 0.8, 0.65, 0.6] + [1.5, 0.85, 0.6, 0.55] * 4)
WRONG_BONES = 2  # so many are no longer noise
PALM = (0.03, 0.16)  # metres
EXTENT = (0.05, 0.4)  # metres: the longest side of a mesh's box
MISFIT = 0.25  # root mean square between projected 3D and 2D joints, in sizes of the hand
SMALLEST = 8.0  # pixels that a hand counts as at least, when misfits are measured: tiny ones are labelled coarsely

NOT_FINITE, BEHIND = "joints that are not finite", "behind the camera"
BONES, SIZE = "bones that are not a hand's", "not of a hand's size"
DISAGREE = "3D joints that do not fit the 2D joints"
IMPLAUSIBLE = (BEHIND, BONES, SIZE, DISAGREE)  # what a wrong format looks like


def problem_of(joints: np.ndarray, places: np.ndarray | None, camera: Camera, *, metric: bool = True) -> str | None:
    """Why 21 joints are not a hand in front of the camera; None if they are.

    Args:
        joints: (21, 3) in the camera's frame.
        places: (21, 2) in pixels, NaN where not known, or None.
        metric: whether the unit must be metres.
    """
    if not np.isfinite(joints).all():
        return NOT_FINITE
    if (joints[:, 2] <= 0).any():
        return BEHIND
    bones = np.linalg.norm(joints - joints[PARENTS], axis=1)
    palm = bones[MIDDLE_KNUCKLE]
    if not palm or ((bones < SHORTEST * palm) | (bones > LONGEST * palm)).sum() >= WRONG_BONES:
        return BONES
    if metric and not PALM[0] <= palm <= PALM[1]:
        return SIZE
    return DISAGREE if places is not None and misfit(joints, places, camera) > MISFIT else None


def mesh_problem(vertices: np.ndarray) -> str | None:
    """Why vertices are not a hand's in front of the camera, metres; None if they are."""
    if not np.isfinite(vertices).all():
        return NOT_FINITE
    if (vertices[:, 2] <= 0).any():
        return BEHIND
    return None if EXTENT[0] <= np.ptp(vertices, axis=0).max() <= EXTENT[1] else SIZE


def misfit(joints: np.ndarray, places: np.ndarray, camera: Camera) -> float:
    """Root mean square distance of projected joints from `places`, in sizes of the hand; 0 where none is known."""
    known = np.isfinite(places).all(axis=1)
    if known.sum() < 2:
        return 0.0
    errors = camera.project(joints[known]) - places[known]
    return float(np.sqrt((errors**2).sum(axis=1).mean()) / max(np.ptp(places[known], axis=0).max(), SMALLEST))


def likely_cause(
    joints: np.ndarray,
    places: np.ndarray | None,
    camera: Camera,
    place: Callable[[np.ndarray], np.ndarray],
    *,
    metric: bool = True,
) -> str:
    """What would make a hand of joints that are none: the first guess with which they pass all checks.

    Args:
        place: puts changed joints where the 2D joints are, if the camera is not known.
    """
    flipped = np.array([1.0, -1, -1])
    axes = "its axes are OpenGL's (y up, z towards the camera), not OpenCV's, or the other way round"
    guesses: list[tuple[str, Callable[[np.ndarray], np.ndarray]]] = [
        (axes, lambda points: points * flipped),
        ("its unit is the millimetre", lambda points: points / 1000),
        ("both its axes are OpenGL's and its unit the millimetre", lambda points: points * flipped / 1000),
        ("it is mirrored left to right", lambda points: points * (-1.0, 1, 1)),
    ]
    for cause, change in guesses:
        if problem_of(place(change(joints)), places, camera, metric=metric) is None:
            return cause
    for name, order in (("InterHand2.6M", FROM_INTERHAND), ("MANO", FROM_MANO)):
        for flat in (places, None if places is None else places[order]):
            if problem_of(place(joints)[order], flat, camera, metric=metric) is None:
                return f"its joints are in {name}'s order, not MediaPipe's"
    if places is not None and problem_of(joints, None, camera, metric=metric) is None:
        known = np.isfinite(places).all(axis=1)
        seen, there = camera.project(joints[known]), places[known]
        scale = (np.ptp(seen, axis=0) / np.ptp(there, axis=0).clip(1e-9)).mean()
        if misfit(joints, places * scale, camera) < MISFIT:
            return f"its 2D joints belong to a picture of another size (1/{scale:.3g} of the camera's)"
        if misfit(joints, places[:, ::-1], camera) < MISFIT:
            return "x and y of its 2D joints are exchanged"
        return "its camera or its 2D joints belong to another picture"
    return "another order of joints, other axes or another unit than MediaPipe's, OpenCV's and metres"
