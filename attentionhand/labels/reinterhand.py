"""Re:InterHand (Moon et al. 2023): two relighted hands from the Mugsy cameras; the ego cameras' fisheye is left out.

{capture}/Mugsy_cameras/cam_params.json has R, t (mm), focal and princpt by camera; pictures lie in
Mugsy_cameras/{envmap}/images/{camera}/%06d.png; orig_fits/{side}/Keypoints/keypoint-%06d.json are 24 joints (mm,
world) of a hand, mano_fits/meshes/{frame}_{side}.ply its MANO mesh (mm, world). As in data/ReInterHand/ReInterHand.py
of github.com/facebookresearch/InterWild.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from attentionhand.labels.camera import finite, pinhole
from attentionhand.labels.json_stream import load_object
from attentionhand.labels.label import SIDES, HandLabel, Label
from attentionhand.labels.mesh_files import load_mesh
from core.runs.errors import UserError, reason_of

TO_MEDIAPIPE = [0, *range(2, 18), *range(19, 23)]  # without the thumb's and the little finger's roots, and the forearm
MM = 1e-3
LIGHTS = ("envmap_per_frame", "envmap_per_segment")
TEST_CAPTURES = (
    "m--20221215--0949--RNS217--pilot--ProjectGoliathScript--Hands--two-hands",
    "m--20221216--0953--NKC880--pilot--ProjectGoliathScript--Hands--two-hands",
    "m--20230317--1130--QZX685--pilot--ProjectGoliath--Hands--two-hands",
)


def read(root: Path, split: str) -> Iterator[Label]:
    """Capture by capture, camera by camera, frame by frame."""
    for capture in sorted(path for path in root.glob("m--*") if path.is_dir()):
        if split != "all" and (capture.name in TEST_CAPTURES) != (split == "test"):
            continue
        cameras = capture / "Mugsy_cameras" / "cam_params.json"
        for name, camera in sorted(load_object(cameras).items()):
            for light in LIGHTS:
                for picture in sorted((cameras.parent / light / "images" / name).glob("*.png")):
                    yield label_of(capture, f"{cameras}: camera {name}", camera, picture, f"{light}_{name}")


def label_of(capture: Path, where: str, camera: dict, picture: Path, view: str) -> Label:
    try:
        rotation = finite(camera["R"], (3, 3), f"{where}: R")
        translation = finite(camera["t"], (3,), f"{where}: t") * MM
        own = pinhole(camera["focal"], camera["princpt"], where)
    except KeyError as missing:
        raise UserError(f"{where}: has no {missing}") from None
    hands = []
    for side, handedness in sorted(SIDES.items(), reverse=True):
        joints = capture / "orig_fits" / side / "Keypoints" / f"keypoint-{picture.stem}.json"
        mesh = capture / "mano_fits" / "meshes" / f"{int(picture.stem)}_{side}.ply"
        points = vertices = faces = None
        if joints.is_file():
            try:
                points = finite(json.loads(joints.read_text()), (24, 3), str(joints))[TO_MEDIAPIPE]
            except ValueError as error:
                raise UserError(f"{joints}: damaged ({reason_of(error)})") from None
            points = points * MM @ rotation.T + translation
        if mesh.is_file():
            vertices, faces = load_mesh(mesh)
            vertices = vertices * MM @ rotation.T + translation
        if points is not None or vertices is not None:
            faces = faces if faces is not None and len(faces) else None
            hands.append(HandLabel(handedness, points, vertices=vertices, faces=faces))
    return Label(f"{capture.name}_{view}_{picture.stem}", picture, own, tuple(hands))
