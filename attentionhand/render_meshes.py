"""Mesh images and bounding boxes from 3D labels: 21 joints, or triangle meshes. No MANO licence needed.

Joints (.npy or .npz, MediaPipe's order) get a hand's surface around their bones. An .npz holds `joints_3d` (N, 21, 3)
or (N, hands, 21, 3), NaN where a hand is missing, and for their place in the picture `joints_2d` in pixels (the same
shape, but 2 numbers). Without those, or with a triangle mesh (.obj, .ply, .glb; MANO's vertices saved as such), the
hand fills the picture. Meshes need `pip install trimesh embreex`.

Examples:
  python -m attentionhand.render_meshes --input meshes/joints.npz --image_size 64 --output_dir rendered
  python -m attentionhand.render_meshes --input hand.obj --axes opencv --output_dir rendered
"""

import json
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python attentionhand/render_meshes.py`

from core.runs.command_line import argument_parser, command_line, positive_int
from core.runs.errors import UserError, reason_of
from core.runs.files import atomic_folder, check_writable, write_lines
from core.runs.processes import progress, say

# torch is imported inside functions: --help and a wrong path answer at once.

MARGIN = 1.25  # of the picture around a hand whose place is not known
SUPERSAMPLE = 2  # a picture is drawn so many times larger and averaged
MESHES = (".obj", ".ply", ".glb", ".stl", ".off")
OPENCV = np.array([1, -1, -1])  # turns OpenCV's axes into OpenGL's


class Hands(NamedTuple):
    """The hands of one picture, y up and z towards the camera."""

    joints: np.ndarray  # (H, 21, 3), NaN where a hand is missing
    places: np.ndarray | None  # (H, 21, 2), where the joints are in the picture, in pixels; None if not known


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--input", type=Path, nargs="+", required=True, help=".npy or .npz of joints, or mesh files")
    parser.add_argument("--output_dir", type=Path, required=True, help="new folder: mesh/, text/, modalities.json")
    parser.add_argument(
        "--axes",
        choices=("opengl", "opencv"),
        default="opengl",
        help="y up and z towards the camera, or y down and z away (most data sets)",
    )
    parser.add_argument("--image_size", type=positive_int, default=512, help="pixels a side that joints_2d refer to")
    parser.add_argument("--size", type=positive_int, help="pixels a side to draw (default: --image_size)")
    parser.add_argument("--text", default="a photo of a hand", help="text of every picture")
    args = parser.parse_args(argv)
    for path in args.input:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        if path.suffix.lower() not in (".npy", ".npz", *MESHES):
            raise UserError(f"{path}: neither .npy / .npz joints nor a mesh ({', '.join(MESHES)})")
    if args.output_dir.exists():
        raise UserError(f"{args.output_dir}: exists already; choose another --output_dir")
    check_writable(args.output_dir)
    size = args.size or args.image_size

    shapes = [
        (path, shape)
        for path in args.input
        for shape in read_shapes(path, opencv=args.axes == "opencv", scale=size / args.image_size)
    ]
    with atomic_folder(args.output_dir) as folder:
        (folder / "mesh").mkdir()
        (folder / "text").mkdir()
        lines = []
        for number, (path, shape) in enumerate(progress(shapes, desc="Drawing", unit="picture")):
            if isinstance(shape, Hands):
                picture = draw_hands(shape.joints, shape.places, size)
            else:
                picture = draw_triangles(shape, size)
            rows, columns = ((picture[..., 0] > 0).any(axis=axis).nonzero()[0] for axis in (1, 0))
            if not len(rows):
                raise UserError(f"{path}: the hand of picture {number} lies outside the picture")
            box = [int(side) for side in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]
            names = {"mesh": f"mesh/{number:08}.png", "text": f"text/{number:08}.txt"}
            Image.fromarray(picture).save(folder / names["mesh"])
            write_lines(folder / names["text"], [args.text])
            lines.append(json.dumps({**names, "bbox": box}))
        write_lines(folder / "modalities.json", lines)
    say(f"{args.output_dir}: mesh images drawn: {len(shapes)}")


def read_shapes(path: Path, *, opencv: bool, scale: float) -> list[Any]:
    """What is to be drawn from one file: `Hands` for each picture, or a single triangle mesh (of trimesh).

    Args:
        opencv: the file's y points down and its z away from the camera.
        scale: drawn pixels for each pixel of joints_2d.

    Raises:
        UserError: the file is not what its name promises.
    """
    flip = OPENCV if opencv else np.ones(3)
    if path.suffix.lower() in MESHES:
        mesh = load_mesh(path)
        mesh.vertices = mesh.vertices * flip
        return [mesh]
    joints, places = load_joints(path)
    return [
        Hands(hands * flip, None if places is None else places[index] * scale) for index, hands in enumerate(joints)
    ]


def load_joints(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """`joints_3d` (N, hands, 21, 3) and `joints_2d` (N, hands, 21, 2) or None.

    Raises:
        UserError: not such a file, or arrays of other shapes.
    """
    try:
        content = np.load(path)
        joints = content if isinstance(content, np.ndarray) else content["joints_3d"]
        places = None if isinstance(content, np.ndarray) or "joints_2d" not in content else content["joints_2d"]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: holds no joints_3d ({reason_of(error)})") from None
    for name, array, numbers in (("joints_3d", joints, 3), ("joints_2d", places, 2)):
        if array is not None and (array.ndim not in (3, 4) or array.shape[-2:] != (21, numbers)):
            raise UserError(f"{path}: {name} is {array.shape}, not (N, 21, {numbers}) or (N, hands, 21, {numbers})")
    if places is not None and places.shape[:-1] != joints.shape[:-1]:
        raise UserError(f"{path}: joints_2d {places.shape} and joints_3d {joints.shape} do not belong together")
    if joints.ndim == 3:
        joints, places = joints[:, None], None if places is None else places[:, None]
    return joints.astype(float), None if places is None else places.astype(float)


# Joints


def draw_hands(hands: np.ndarray, places: np.ndarray | None, size: int) -> np.ndarray:
    """(size, size, 3) uint8: the hands (H, 21, 3) in light grey on black, y up and z towards the camera.

    `places` (H, 21, 2) are their joints in pixels; each hand is drawn as if far away from the camera (orthographic),
    scaled and moved by least squares so that its joints come to lie there.

    Raises:
        UserError: all joints are NaN.
    """
    import torch

    from core.hands.surface import (
        MIDDLE_KNUCKLE,
        WRIST,
        average,
        capsules_of,
        hand_frame,
        mesh_shading,
        openness_of,
        support_points,
        trace,
    )

    present = [index for index in range(len(hands)) if np.isfinite(hands[index]).all()]
    if not present:
        raise UserError("a sample without any hand: all its joints are NaN")
    if places is None:
        places = filling_places(hands, hands[present], size)
    large = size * SUPERSAMPLE
    picture, depth = np.zeros((large, large)), np.full((large, large), -np.inf)
    for index in present:
        joints, pixels = hands[index], places[index] * SUPERSAMPLE
        palm = np.linalg.norm(joints[MIDDLE_KNUCKLE] - joints[WRIST])
        flat = joints[:, :2] * (1, -1)
        centred, target = flat - flat.mean(axis=0), pixels - pixels.mean(axis=0)
        scale = (centred * target).sum() / (centred**2).sum()  # pixels a unit: least squares
        half_height = large / 2 / (scale * palm)
        middle = (np.full(2, large / 2) - pixels.mean(axis=0)) / scale + flat.mean(axis=0)
        moved = (joints - [middle[0], -middle[1], joints[WRIST, 2]]) / palm
        points = support_points(moved, hand_frame(moved))
        capsules = capsules_of(torch.tensor(points, dtype=torch.float32))
        hit = trace(capsules, large, half_height)
        shade, is_hand = mesh_shading(hit, points, openness_of(hit, capsules))
        nearness = hit.point[..., 2].numpy() * palm + joints[WRIST, 2]
        front = is_hand & (nearness > depth)
        picture[front], depth[front] = shade[front], nearness[front]
    return average(255 * picture[..., None].repeat(3, axis=-1), SUPERSAMPLE).clip(0, 255).astype(np.uint8)


def filling_places(hands: np.ndarray, present: np.ndarray, size: int) -> np.ndarray:
    """Places (H, 21, 2) in pixels at which the hands that are present fill the picture."""
    low, high = present[..., :2].min(axis=(0, 1)), present[..., :2].max(axis=(0, 1))
    scale = size / ((high - low).max() * MARGIN * 1.2)
    return scale * hands[..., :2] * (1, -1) + size / 2 - scale * (low + high) / 2 * (1, -1)


# Triangles


def load_mesh(path: Path):
    """A triangle mesh by trimesh.

    Raises:
        UserError: trimesh is not installed, or can't read the file, or it has no triangles.
    """
    try:
        import trimesh
    except ImportError:
        raise UserError(f"{path}: triangle meshes need trimesh: pip install trimesh embreex") from None
    try:
        mesh = trimesh.load(path, force="mesh")
    except Exception as error:  # trimesh's loaders raise their own
        raise UserError(f"{path}: trimesh can't read it ({type(error).__name__}: {reason_of(error)})") from None
    if not len(getattr(mesh, "faces", [])):
        raise UserError(f"{path}: has no triangles")
    return mesh


def draw_triangles(mesh, size: int) -> np.ndarray:
    """(size, size, 3) uint8: the mesh in light grey on black, filling the picture, by orthographic rays along z."""
    from core.hands.surface import MESH_GREY, average

    large = size * SUPERSAMPLE
    low, high = mesh.bounds
    half = (high - low)[:2].max() * MARGIN / 2
    steps = ((np.arange(large) + 0.5) / large * 2 - 1) * half
    y, x = np.meshgrid(-steps, steps, indexing="ij")
    middle = (low + high) / 2
    start = np.stack([x + middle[0], y + middle[1], np.full_like(x, high[2] + half)], axis=-1).reshape(-1, 3)
    ray = np.tile([0.0, 0.0, -1.0], (len(start), 1))
    where, pixels, triangles = mesh.ray.intersects_location(start, ray, multiple_hits=False)
    weights = _barycentric(mesh.triangles[triangles], where)
    normals = (mesh.vertex_normals[mesh.faces[triangles]] * weights[..., None]).sum(axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-9)
    picture = np.zeros(large * large)
    picture[pixels] = MESH_GREY * (0.3 + 0.7 * np.abs(normals @ np.array([0.0, 0.2, 0.98])))
    return average(255 * picture.reshape(large, large, 1).repeat(3, axis=-1), SUPERSAMPLE).clip(0, 255).astype(np.uint8)


def _barycentric(triangles: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Weights (N, 3) of the corners of triangles (N, 3, 3) at points (N, 3)."""
    import trimesh

    return trimesh.triangles.points_to_barycentric(triangles, points)


if __name__ == "__main__":
    main()
