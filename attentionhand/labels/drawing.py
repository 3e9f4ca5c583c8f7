"""From a label to a sample: the mesh of each hand, its checks, the mesh image, and the photo cut and resized alike."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from attentionhand.labels.checks import IMPLAUSIBLE, likely_cause, mesh_problem, problem_of
from attentionhand.labels.label import HandLabel, Label, file_name
from attentionhand.labels.mano import VERTICES, faces_of, mano_joints, mano_vertices
from attentionhand.labels.own import fitted
from core.hands.crops import Box
from core.hands.rasterizer import Camera, Mesh, closed, mesh_image
from core.runs.errors import UserError
from core.runs.photos import load_photo

INSIDE = 0.5  # share of a hand's joints that must lie inside the picture
JOINT_TO_MESH = 0.03  # metres: farthest that a hand's joints may lie from its vertices on average
JPEG_QUALITY = 95

NO_HAND, NO_MESH = "no valid hand", "neither joints nor, without MANO's files, a mesh"
SMALL, OUTSIDE, ONE_HAND = "a hand smaller than --min_hand", "a hand outside the picture", "not two hands"
APART = "joints that do not lie in the mesh"
NO_PHOTO, BAD_PHOTO, OTHER_SIZE = "no photo", "an unreadable photo", "a photo of another size than the label's"


class Options(NamedTuple):
    """What a sample's files depend on, beside its label."""

    output_dir: Path
    mano: Path | None
    size: int | None  # pixels of the longer side
    crop: float | None  # side of the cut in sizes of the hands
    min_hand: int  # pixels of the label's picture
    two_hands: bool
    with_photos: bool


class Hand(NamedTuple):
    """A hand that can be drawn, in the picture's camera."""

    handedness: str
    mesh: Mesh
    joints: np.ndarray | None  # (21, 3)
    drawn_from: str  # "vertices", "mano" or "joints"


def draw(label: Label, options: Options) -> dict[str, Any]:
    """Write a label's mesh image and photo; what is known of the sample, for JSON.

    The result has "left_out", a reason, instead of a sample where there is nothing to draw, and "hands_left_out", a
    list of reasons; "cause" says what is probably wrong with the label's format.
    """
    hands, problems, cause = usable_hands(label, options)
    entry: dict[str, Any] = {"source": label.source, "hands_left_out": problems, "cause": cause}
    if not hands:
        return {**entry, "left_out": problems[0] if problems else NO_HAND}
    if options.two_hands and {hand.handedness for hand in hands} != {"Left", "Right"}:
        return {**entry, "left_out": ONE_HAND}
    photo, size = None, label.size
    if label.rgb and options.with_photos:
        if not label.rgb.is_file():
            return {**entry, "left_out": NO_PHOTO, "photo": str(label.rgb)}
        try:
            photo = load_photo(label.rgb)
        except UserError as error:
            return {**entry, "left_out": BAD_PHOTO, "photo": str(error)}
        if size and photo.size != size:
            return {**entry, "left_out": OTHER_SIZE, "photo": f"{label.rgb} of {photo.size}, label of {size}"}
        size = photo.size
    if size is None:
        raise UserError(f"{label.source}: neither the label nor a photo says how large the picture is")

    window = crop_window(hands, label, size, options.crop) if options.crop else (0, 0, *size)
    target = resized(window, options.size)
    scale = target[0] / (window[2] - window[0]), target[1] / (window[3] - window[1])
    camera = label.camera.cropped(window[0], window[1], scale)
    picture = mesh_image([hand.mesh for hand in hands], camera, target)
    box = drawn_box(picture)
    if box is None:
        return {**entry, "left_out": OUTSIDE}
    name = file_name(label.source)
    Image.fromarray(picture).save(options.output_dir / "mesh" / f"{name}.png")
    if photo is not None and label.rgb:
        unchanged = window == (0, 0, *size) and target == size
        entry["rgb"] = save_photo(photo, label.rgb, options.output_dir / "rgb" / name, window, target, unchanged)
    return {
        **entry,
        "name": name,
        "bbox": box,
        "size": target,
        "focal": camera.focal,
        "princpt": camera.center,
        "hands": [hand_entry(hand, camera) for hand in hands],
    }


def hand_entry(hand: Hand, camera: Camera) -> dict[str, Any]:
    joints = hand.joints
    flat = None if joints is None else camera.project(joints).astype(np.float32).tolist()
    solid = None if joints is None else joints.astype(np.float32).tolist()
    return {"handedness": hand.handedness, "drawn_from": hand.drawn_from, "joints_2d": flat, "joints_3d": solid}


# Which hands


def usable_hands(label: Label, options: Options) -> tuple[list[Hand], list[str], str]:
    """The hands that can be drawn, why the others can't, and what is probably wrong with the label's format ("")."""
    size = label.size or (np.inf, np.inf)
    hands, problems, cause = [], [], ""
    for one in label.hands:
        hand = hand_of(one, label, options.mano)
        if isinstance(hand, str):
            problems.append(hand)
            if hand in IMPLAUSIBLE and not cause:
                cause = cause_of(one, label)
            continue
        points = label.camera.project(hand.mesh.vertices if hand.joints is None else hand.joints)
        is_inside = ((points >= 0) & (points < size)).all(axis=1)
        if is_inside.mean() < INSIDE:
            problems.append(OUTSIDE)
        elif np.ptp(points, axis=0).max() < options.min_hand:
            problems.append(SMALL)
        else:
            hands.append(hand)
    return hands, problems, cause


def hand_of(hand: HandLabel, label: Label, mano: Path | None) -> Hand | str:
    """A hand with its mesh (the set's vertices, else MANO's, else the surface around its joints), or why not."""
    camera = hand.camera or label.camera
    vertices, faces, joints, drawn_from = hand.vertices, hand.faces, hand.joints_3d, "vertices"
    if vertices is not None and faces is None and mano and len(vertices) == VERTICES:
        faces = faces_of(mano, hand.handedness)
    if vertices is None or faces is None:
        vertices, drawn_from = None, "joints"
        if hand.mano and mano:
            vertices, faces = mano_vertices(mano, hand.handedness, hand.mano), faces_of(mano, hand.handedness)
            drawn_from = "mano"
    has_joints = joints is not None and np.isfinite(joints).all()
    if not has_joints and vertices is not None and mano and len(vertices) == VERTICES:
        joints, has_joints = mano_joints(mano, hand.handedness, vertices), True
    if vertices is None and joints is None:
        return NO_MESH
    if vertices is not None and label.is_camera_known and (problem := mesh_problem(vertices)):
        return problem
    if joints is not None and (has_joints or vertices is None):
        if problem := problem_of(joints, hand.joints_2d, camera, metric=label.is_camera_known):
            return problem
        if vertices is not None and label.is_camera_known and not joints_lie_in(joints, vertices):
            return APART
        if hand.joints_2d is not None and not label.is_camera_known:
            joints = onto(joints, hand.joints_2d, camera)
    else:
        joints = None
    if vertices is None or faces is None:
        from core.hands.joint_mesh import joint_mesh  # brings torch, which --help does not need

        assert joints is not None
        vertices, faces = joint_mesh(joints, hand.handedness)
    else:
        vertices, faces = closed(Mesh(vertices, faces))
    if hand.camera:
        vertices = seen_by(vertices, hand.camera, label.camera)
        joints = None if joints is None else seen_by(joints, hand.camera, label.camera)
    return Hand(hand.handedness, Mesh(vertices, faces), joints, drawn_from)


def joints_lie_in(joints: np.ndarray, vertices: np.ndarray) -> bool:
    distances = np.linalg.norm(joints[:, None] - vertices[None], axis=-1).min(axis=1)
    return bool(distances.mean() <= JOINT_TO_MESH)


def onto(joints: np.ndarray, places: np.ndarray, camera: Camera) -> np.ndarray:
    """Joints moved sideways so that they project to `places`, where those are known; their distance stays."""
    sideways = (places - camera.center) / camera.focal * joints[:, 2:]
    return np.where(np.isfinite(places).all(axis=1, keepdims=True), np.c_[sideways, joints[:, 2]], joints)


def seen_by(points: np.ndarray, own: Camera, camera: Camera) -> np.ndarray:
    """Points that `camera` sees where `own` saw them, as large as before: distances change with the focal length."""
    distance = points[:, 2:] * (camera.focal[0] / own.focal[0])
    return np.c_[(own.project(points) - camera.center) / camera.focal * distance, distance]


def cause_of(hand: HandLabel, label: Label) -> str:
    """What is probably wrong with an implausible hand."""
    joints, places = hand.joints_3d, hand.joints_2d
    if joints is None or not np.isfinite(joints).all():
        return "another axis or another unit than OpenCV's and metres"
    camera = hand.camera or label.camera

    def place(points: np.ndarray) -> np.ndarray:
        return points if label.is_camera_known or places is None else fitted(points, places, camera)

    return likely_cause(joints, places, camera, place, metric=label.is_camera_known)


# Pictures


def crop_window(hands: list[Hand], label: Label, size: tuple[int, int], context: float) -> Box:
    """A square around the hands, `context` times as large as they are, as far as the picture reaches."""
    points = np.concatenate([label.camera.project(hand.mesh.vertices) for hand in hands])
    if label.box:
        points = np.concatenate([points, np.reshape(label.box, (2, 2))])
    points = points.clip(0, size)
    low, high = points.min(axis=0), points.max(axis=0)
    side = np.minimum(np.ceil((high - low).max() * context), size).astype(int)
    start = np.clip(((low + high - side) / 2).round(), 0, np.array(size) - side).astype(int)
    return int(start[0]), int(start[1]), int(start[0] + side[0]), int(start[1] + side[1])


def resized(window: Box, longest: int | None) -> tuple[int, int]:
    """Width and height of a window's picture, its longer side `longest` pixels (None: as it is)."""
    width, height = window[2] - window[0], window[3] - window[1]
    if longest is None:
        return width, height
    scale = longest / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def drawn_box(picture: np.ndarray) -> Box | None:
    """The box around all that is not black."""
    drawn = picture.any(axis=2)
    rows, columns = drawn.any(axis=1).nonzero()[0], drawn.any(axis=0).nonzero()[0]
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if len(rows) else None


def save_photo(
    photo: Image.Image, source: Path, target: Path, window: Box, size: tuple[int, int], unchanged: bool
) -> str:
    """Write a photo's window in this size; a JPEG stays one, anything else becomes PNG. Returns the file's name."""
    is_jpeg = source.suffix.lower() in (".jpg", ".jpeg")
    path = target.parent / f"{target.name}{'.jpg' if is_jpeg else '.png'}"
    with Image.open(source) as stored:
        keep = unchanged and is_jpeg and stored.size == photo.size and stored.mode == "RGB" and not stored.getexif()
    if keep:
        path.write_bytes(source.read_bytes())
        return path.name
    if not unchanged:
        photo = photo.resize(size, Image.Resampling.LANCZOS, box=window)
    photo.save(path, **({"quality": JPEG_QUALITY, "subsampling": 0} if is_jpeg else {}))
    return path.name
