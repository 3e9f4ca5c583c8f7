"""HIC, Hands in Action (Tzionas et al. 2016), with InterWild's annotations: one or two hands, MANO meshes as PLY.

HIC.json lists pictures and annotations as COCO does; an annotation names `right_mano_path` and `left_mano_path` (or
null), meshes in metres in the camera's frame. One camera for all. As in data/HIC/HIC.py of
github.com/facebookresearch/InterWild.
"""

from collections.abc import Iterator
from pathlib import Path

from attentionhand.labels.json_stream import stream_list
from attentionhand.labels.label import SIDES, HandLabel, Label
from attentionhand.labels.mesh_files import load_mesh
from core.hands.rasterizer import Camera

CAMERA = Camera((525.0, 525.0), (319.5, 239.5))


def read(root: Path, split: str) -> Iterator[Label]:
    """The annotations of HIC.json.

    Raises:
        UserError: a mesh that one of them names is missing or damaged.
    """
    pictures = {picture["id"]: picture for picture in stream_list(root / "HIC.json", "images")}
    for annotation in stream_list(root / "HIC.json", "annotations"):
        picture = pictures[annotation["image_id"]]
        hands = []
        for side, handedness in sorted(SIDES.items(), reverse=True):
            name = annotation.get(f"{side}_mano_path")
            if name is not None:
                mesh = load_mesh(root / name)
                hands.append(
                    HandLabel(handedness, vertices=mesh.vertices, faces=mesh.faces if len(mesh.faces) else None)
                )
        size = int(picture["width"]), int(picture["height"])
        yield Label(f"{annotation['id']}", root / picture["file_name"], CAMERA, tuple(hands), size)
