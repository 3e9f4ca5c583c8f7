"""HO-3D (Hampali et al. 2020), versions 2 and 3: right hands with objects.

{split}/{sequence}/meta/{frame}.pkl is a pickle with handJoints3D (21, 3) m, handPose (48), handTrans, handBeta and
camMat, in OpenGL's axes (y up, z towards the camera) and MANO's order of joints (jointsMapManoToSimple of vis_HO3D.py,
github.com/shreyashampali/ho3d). The evaluation split has evaluation_verts.json, a list in the order of evaluation.txt.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from attentionhand.labels.camera import camera_of, finite
from attentionhand.labels.json_stream import stream_list
from attentionhand.labels.label import RIGHT, HandLabel, Label, Mano
from attentionhand.labels.mano import TO_MEDIAPIPE
from attentionhand.labels.pickles import load_arrays
from core.runs.errors import UserError
from core.runs.files import read_lines

FROM_OPENGL = np.diag([1.0, -1.0, -1.0])
SIZE = 640, 480
NUMBERS = ("handPose", "handBeta", "handTrans")


def read(root: Path, split: str) -> Iterator[Label]:
    """Sequence by sequence, frame by frame; frames without a label have no hand."""
    if split == "evaluation":
        names = read_lines(root / "evaluation.txt")
        vertices = stream_list(root / "evaluation_verts.json")
    else:
        found = sorted((root / split).glob("*/meta/*.pkl"))
        names = [f"{path.parts[-3]}/{path.stem}" for path in found]
        vertices = iter(lambda: None, 0)
    for name, points in zip(names, vertices):
        sequence, frame = name.split("/")
        folder = root / split / sequence
        meta = folder / "meta" / f"{frame}.pkl"
        label = load_arrays(meta)
        if label.get("camMat") is None:  # version 2's frames without annotation
            hands, camera = (), camera_of([[SIZE[0], 0, SIZE[0] / 2], [0, SIZE[0], SIZE[1] / 2], [0, 0, 1]], "")
        else:
            camera = camera_of(label["camMat"], f"{meta}: camMat")
            hands = (evaluation_hand(points),) if points else training_hand(label, meta)
        pictures = [folder / "rgb" / f"{frame}{suffix}" for suffix in (".jpg", ".png")]
        rgb = next((picture for picture in pictures if picture.is_file()), pictures[0])
        yield Label(f"{split}_{sequence}_{frame}", rgb, camera, hands, SIZE)


def training_hand(label: dict, meta: Path) -> tuple[HandLabel, ...]:
    if label.get("handJoints3D") is None:
        return ()
    joints = finite(label["handJoints3D"], (21, 3), f"{meta}: handJoints3D") @ FROM_OPENGL
    try:
        pose, shape, place = (np.array(label[name], dtype=float).ravel() for name in NUMBERS)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{meta}: has no usable {error}") from None
    mano = Mano(pose, shape, place, "flat", FROM_OPENGL)
    return (HandLabel(RIGHT, joints[TO_MEDIAPIPE], mano=mano),)


def evaluation_hand(vertices: list) -> HandLabel:
    return HandLabel(RIGHT, vertices=np.array(vertices, dtype=float) @ FROM_OPENGL)
