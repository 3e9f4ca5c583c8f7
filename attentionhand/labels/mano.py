"""MANO (Romero et al. 2017) by smplx, from the user's own model files: vertices, joints and triangles."""

import contextlib
import functools
import importlib.util
import io
from pathlib import Path

import numpy as np

from attentionhand.labels.label import LEFT, RIGHT, Mano
from attentionhand.labels.pickles import load_arrays
from core.runs.errors import UserError

FILES = {RIGHT: "MANO_RIGHT.pkl", LEFT: "MANO_LEFT.pkl"}
SITE = "https://mano.is.tue.mpg.de (research only)"
VERTICES, FACES = 778, 1538
NEEDED = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
NEEDED += ("hands_mean", "hands_components")
TIPS = (744, 320, 443, 554, 671)  # vertices at the tips of thumb, index, ... (smplx/vertex_ids.py)
# MediaPipe's 21 among MANO's 16 joints and the five tips: wrist, thumb, index, middle, ring, pinky.
TO_MEDIAPIPE = [0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20]
SAME_SHAPES = 1.0  # sum of absolute differences below which the x of left and right shape directions are alike


def check_mano(folder: Path, *, with_parameters: bool) -> None:
    """Refuse a folder without usable model files, and a missing smplx, before anything is made.

    Args:
        with_parameters: whether hands are to be made of MANO's parameters, which smplx does.

    Raises:
        UserError
    """
    for side in FILES:
        model_arrays(folder, side)
    if with_parameters and importlib.util.find_spec("smplx") is None:
        raise UserError("--mano needs smplx: pip install smplx (its licence: research only)")


@functools.cache
def model_arrays(folder: Path, side: str) -> dict:
    """The arrays of a hand's model file.

    In the published files the left hand's shape directions are the right hand's, not mirrored, so that left hands of
    other than the mean shape come out wrong (github.com/vchoutas/smplx/issues/48): where their x are alike, the left
    hand's are multiplied by -1.

    Raises:
        UserError: the file is missing, or is not MANO's.
    """
    arrays = _read(folder, side)
    if side == LEFT:
        right = _read(folder, RIGHT)["shapedirs"][:, 0, :]
        if np.abs(arrays["shapedirs"][:, 0, :] - right).sum() < SAME_SHAPES:
            arrays["shapedirs"] = arrays["shapedirs"].copy()
            arrays["shapedirs"][:, 0, :] *= -1
    return arrays


def _read(folder: Path, side: str) -> dict:
    path = folder / FILES[side]
    if not path.is_file():
        raise UserError(f"{path}: no such file; --mano is the folder of {' and '.join(FILES.values())} from {SITE}")
    arrays = load_arrays(path)
    missing = [name for name in NEEDED if name not in arrays]
    if missing:
        raise UserError(f"{path}: not MANO's model, it has no {missing[0]}")
    if arrays["v_template"].shape != (VERTICES, 3) or arrays["f"].shape != (FACES, 3):
        raise UserError(f"{path}: not MANO's model, which has {VERTICES} vertices and {FACES} triangles")
    return arrays


def faces_of(folder: Path, side: str) -> np.ndarray:
    """MANO's triangles, (1538, 3)."""
    return np.asarray(model_arrays(folder, side)["f"], dtype=int)


@functools.cache
def _layer(folder: Path, side: str):
    """smplx's model with axis angles, to which nothing is added."""
    from smplx import MANO
    from smplx.utils import Struct

    model = Struct(**model_arrays(folder, side))
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a warning that MANO has 10 shapes, as it should
        return MANO(str(folder), is_rhand=side == RIGHT, data_struct=model, use_pca=False, flat_hand_mean=True)


def mano_vertices(folder: Path, side: str, mano: Mano) -> np.ndarray:
    """Vertices (778, 3) in the camera's frame, metres."""
    import torch

    arrays = model_arrays(folder, side)
    angles = mano.pose[3:]
    if mano.kind == "pca":
        angles = angles @ arrays["hands_components"][: len(angles)]
    if mano.kind != "flat":
        angles = angles + arrays["hands_mean"]
    numbers = (mano.pose[:3], angles, mano.shape, mano.translation)
    wrist, fingers, shape, place = (torch.tensor(np.asarray(n), dtype=torch.float32)[None] for n in numbers)
    with torch.no_grad():
        hand = _layer(folder, side)(global_orient=wrist, hand_pose=fingers, betas=shape, transl=place)
    vertices = hand.vertices[0].numpy().astype(float)
    return vertices @ mano.rotation_to_camera.T + mano.translation_to_camera


def mano_joints(folder: Path, side: str, vertices: np.ndarray) -> np.ndarray:
    """The 21 joints (MediaPipe's order) of MANO's vertices, as the label sets' loaders regress them."""
    joints = np.concatenate([model_arrays(folder, side)["J_regressor"] @ vertices, vertices[list(TIPS)]])
    return joints[TO_MEDIAPIPE]
