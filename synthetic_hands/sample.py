"""One synthetic photo of a hand with everything that is known about it: picture, mesh image, mask, depth, joints, text.

All variation (skin, sleeve, wall, light, view, size, left or right, small changes of the pose) comes from one seed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from core.hands.surface import (
    PALM_PARTS,
    SLEEVE,
    Hit,
    average,
    capsules_of,
    mesh_shading,
    openness_of,
    shading,
    support_points,
    trace,
)
from synthetic_hands.hand import POSES, joints_of, malformed, rotation

SKINS = {"light": (240, 200, 176), "tanned": (206, 154, 120), "brown": (150, 102, 74), "dark": (92, 62, 48)}
SLEEVES = {"red": (176, 40, 44), "green": (52, 120, 66), "blue": (44, 72, 150), "grey": (112, 114, 120)}
SLEEVES |= {"yellow": (214, 176, 60), "black": (40, 40, 44), "white": (228, 228, 224)}
WALLS = {"white": (226, 226, 220), "yellow": (228, 214, 150), "blue": (150, 176, 206)}
WALLS |= {"green": (160, 190, 160), "grey": (150, 152, 156)}
TEXTURES = ("plain", "striped", "dotted")
POSE_NOISE = 4  # degrees
TIP_PARTS = [len(PALM_PARTS) + 3 * finger + 2 for finger in range(5)]  # thumb first


class Sample(NamedTuple):
    """A picture of S x S pixels and its labels."""

    rgb: np.ndarray  # (S, S, 3) uint8
    mesh: np.ndarray  # (S, S, 3) uint8: the hand in light grey on black, as AttentionHand's mesh images
    mask: np.ndarray  # (S, S) bool: the hand without forearm and sleeve
    depth: np.ndarray  # (S, S) float32: z in palm lengths, larger is nearer; 0 off the hand and the arm
    box: tuple[int, int, int, int]  # of the mask: left, top, right, bottom in pixels; right and bottom are outside
    joints_2d: np.ndarray  # (21, 2) float32: x to the right, y down, in pixels
    joints_3d: np.ndarray  # (21, 3) float32: x to the right, y up, z towards the camera, in palm lengths
    handedness: str  # "Left" or "Right" hand of the person
    gesture: str
    caption: str  # names everything but the gesture


def draw_sample(
    gesture: str,
    seed: int | Sequence[int],
    *,
    size: int = 64,
    supersample: int = 2,
    handedness: str = "both",
    is_malformed: bool = False,
    device: torch.device | str = "cpu",
) -> Sample:
    """The sample of a gesture and a seed: always the same one.

    Args:
        size: pixels per side.
        supersample: the picture is drawn so many times larger and averaged.
        handedness: "Right" or "Left" hands only, instead of half and half.
        is_malformed: with fingers missing, doubled, melted or of a wrong length; view, colours and text stay.

    Raises:
        KeyError: no such gesture.
    """
    entropy = [*np.atleast_1d(seed), sorted(POSES).index(gesture)]
    rng = np.random.default_rng(entropy)
    pose, large = POSES[gesture], size * supersample
    joints = joints_of(pose, noise=POSE_NOISE, rng=rng)
    if is_malformed:
        joints = malformed(joints, np.random.default_rng([*entropy, 1]))  # its own, so that the rest stays the same
    points = support_points(joints)
    dorsal = _backs_of_tips(points)
    coin = rng.random() < 0.5  # always thrown, so that the rest stays the same
    is_right = bool(coin) if handedness == "both" else handedness == "Right"
    mirror = np.diag([1.0 if is_right else -1.0, 1, 1])
    sign = 1 if is_right else -1
    turn = rotation(
        sign * pose.roll + rng.normal(0, 9), pose.pitch + rng.normal(0, 8), sign * pose.yaw + rng.normal(0, 10)
    )
    points, dorsal, palm = points @ mirror @ turn.T, dorsal @ mirror @ turn.T, turn[:, 2]
    half_height = rng.uniform(1.7, 2.1)
    points[:, :2] += rng.normal(0, 0.1, 2) - (points[:21, :2].max(axis=0) + points[:21, :2].min(axis=0)) / 2

    capsules = capsules_of(torch.tensor(points, dtype=torch.float32, device=device), rng.uniform(0.94, 1.12))
    hit = trace(capsules, large, half_height)
    skin, sleeve, wall = rng.random(), *(rng.choice(list(colours)) for colours in (SLEEVES, WALLS))
    light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(0.1, 0.8), rng.uniform(0.6, 1.0)])
    openness = openness_of(hit, capsules)
    hit = Hit(*(tensor.cpu() for tensor in hit))
    texture = rng.choice(TEXTURES)
    rgb = _wall(wall, texture, large, rng)
    colours = _surface(hit, skin, SLEEVES[sleeve], palm, dorsal, rng)
    rgb[hit.mask] = (colours * shading(hit, light, openness)[..., None])[hit.mask.numpy()]
    rgb += rng.normal(0, 4, rgb.shape)
    shade, is_hand = mesh_shading(hit, points, openness)
    mesh = (255 * shade)[..., None].repeat(3, axis=-1)

    mask = average(is_hand[..., None].astype(float), supersample)[..., 0] >= 0.5
    rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    scale = size / 2 / half_height
    joints = points[:21]
    skin_name = list(SKINS)[min(int(skin * len(SKINS)), len(SKINS) - 1)]
    pattern = "" if texture == "plain" else f"{texture} "
    return Sample(
        rgb=average(rgb, supersample).clip(0, 255).astype(np.uint8),
        mesh=average(mesh, supersample).clip(0, 255).astype(np.uint8),
        mask=mask,
        depth=hit.point[supersample // 2 :: supersample, supersample // 2 :: supersample, 2].numpy(),
        box=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
        joints_2d=np.stack([size / 2 + scale * joints[:, 0], size / 2 - scale * joints[:, 1]], 1).astype(np.float32),
        joints_3d=joints.astype(np.float32),
        handedness="Right" if is_right else "Left",
        gesture=gesture,
        caption=f"a {skin_name} hand with a {sleeve} sleeve in front of a {pattern}{wall} wall",
    )


# Colours


def skin_colour(tone: float) -> np.ndarray:
    """RGB of a skin tone from 0 (light) to 1 (dark)."""
    anchors = np.array(list(SKINS.values()), dtype=float)
    middles = (np.arange(len(anchors)) + 0.5) / len(anchors)
    return np.array([np.interp(tone, middles, anchors[:, channel]) for channel in range(3)])


def _surface(hit: Hit, tone: float, sleeve, palm: np.ndarray, dorsal: np.ndarray, rng) -> np.ndarray:
    """Colours (S, S, 3) without light: skin, paler palms, nails, creases at the joints, sleeve."""
    normal, part, along = hit.normal.numpy(), hit.part.numpy(), hit.along.numpy()
    skin = skin_colour(tone)
    facing_palm = (normal @ palm).clip(0, 1)
    colours = skin + (0.35 * tone * facing_palm)[..., None] * (np.array([225, 175, 150]) - skin)
    is_finger = (part >= len(PALM_PARTS)) & (part < SLEEVE)
    at_joint = is_finger & ((along < 0.09) | (along > 0.93)) & ~np.isin(part, TIP_PARTS)
    colours = colours * np.where(at_joint, 0.84 + 0.08 * (facing_palm < 0.3), 1)[..., None]
    colours[np.isin(part, TIP_PARTS)] += (6, -4, -4)  # fingertips are a little redder
    for tip, back in zip(TIP_PARTS, dorsal):
        nail = (part == tip) & (along > 0.45) & (normal @ back > 0.72)
        colours[nail] = 0.55 * colours[nail] + 0.45 * np.array([250, 214, 206])
        rim = (part == tip) & (along > 0.38) & (normal @ back > 0.6) & ~nail
        colours[rim] *= 0.86
    colours[part == SLEEVE] = np.array(sleeve) * (1 + 0.06 * np.sin(60 * along[part == SLEEVE]))[:, None]
    colours *= 1 + rng.normal(0, 0.015, part.shape)[..., None]
    return colours


def _wall(name: str, texture: str, size: int, rng) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    brightness = 1 + rng.uniform(-0.12, 0.12) * (x - 0.5) + rng.uniform(-0.12, 0.12) * (y - 0.5)
    period = rng.uniform(0.12, 0.2)
    if texture == "striped":
        angle = rng.uniform(0, np.pi)
        brightness *= 1 - 0.16 * (((x * np.cos(angle) + y * np.sin(angle)) / period) % 1 < 0.4)
    elif texture == "dotted":
        brightness *= 1 - 0.2 * (((x / period) % 1 - 0.5) ** 2 + ((y / period) % 1 - 0.5) ** 2 < 0.06)
    return np.array(WALLS[name], dtype=float) * brightness[..., None]


def _backs_of_tips(points: np.ndarray) -> np.ndarray:
    """Which way the nails of thumb, index, ... face, in the hand's frame: (5, 3) unit vectors."""
    backs = []
    for finger in range(5):
        tip = points[4 + 4 * finger] - points[3 + 4 * finger]
        tip = tip / np.linalg.norm(tip)
        if finger == 0:
            back = np.array([0.6, 0.3, -0.6])
        else:  # across the finger's own plane of bending
            root = points[2 + 4 * finger] - points[1 + 4 * finger]
            back = np.cross(tip, np.array([np.hypot(root[0], root[1]), 0, 0]) + 1e-6)
        back = back - (back @ tip) * tip
        backs.append(back / np.linalg.norm(back))
    return np.array(backs)
