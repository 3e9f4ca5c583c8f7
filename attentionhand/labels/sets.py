"""The table of label sets: how each is read, which files it has, and where its site offers them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attentionhand.labels import coco, dexycb, freihand, hic, ho3d, interhand, own, reinterhand
from attentionhand.labels.label import Label
from core.runs.errors import UserError, reason_of


class LabelSet(NamedTuple):
    """A set that can be had from its site."""

    read: Callable[[Path, str], Iterator[Label]]
    splits: tuple[str, ...]  # the first one is the default
    files: tuple[str, ...]  # under the root; {split} is the split, * any name
    site: str
    without_mano: str  # what is drawn without MANO's files; "" for nothing
    has_parameters: bool = True  # MANO's; else only its triangles and joints are of use


SURFACE = "the surface around the joints"
MESHES = "the meshes that the set ships"
SETS = {
    "freihand": LabelSet(
        freihand.read,
        ("training", "evaluation"),
        ("{split}_K.json", "{split}_xyz.json", "{split}_verts.json", "{split}/rgb"),
        "https://lmb.informatik.uni-freiburg.de/projects/freihand",
        f"{SURFACE} (the set ships vertices, but MANO's triangles are not in it)",
        has_parameters=False,
    ),
    "interhand": LabelSet(
        interhand.read,
        ("train", "test", "val"),
        (
            "annotations/{split}/InterHand2.6M_{split}_data.json",
            "annotations/{split}/InterHand2.6M_{split}_camera.json",
            "annotations/{split}/InterHand2.6M_{split}_joint_3d.json",
            "images/{split}",
        ),
        "https://mks0601.github.io/InterHand2.6M",
        SURFACE,
    ),
    "reinterhand": LabelSet(
        reinterhand.read,
        ("train", "test", "all"),
        ("m--*/Mugsy_cameras/cam_params.json", "m--*/Mugsy_cameras/envmap_*/images"),
        "https://mks0601.github.io/ReInterHand",
        MESHES,
        has_parameters=False,
    ),
    "hic": LabelSet(
        hic.read,
        ("all",),
        ("HIC.json",),
        "https://files.is.tue.mpg.de/dtzionas/Hand-Object-Capture (HIC.json: github.com/facebookresearch/InterWild)",
        f"{MESHES} (their joints are not in the set, and are left out)",
        has_parameters=False,
    ),
    "coco": LabelSet(
        coco.read,
        ("train",),
        ("annotations/coco_wholebody_{split}_v1.0.json", "annotations/MSCOCO_{split}_MANO_NeuralAnnot.json"),
        "https://github.com/jin-s13/COCO-WholeBody and https://github.com/mks0601/NeuralAnnot_RELEASE",
        "",
    ),
    "ho3d": LabelSet(
        ho3d.read,
        ("train", "evaluation"),
        ("{split}/*/meta/*.pkl", "{split}/*/rgb"),
        "https://www.tugraz.at/index.php?id=40231",
        SURFACE,
    ),
    "dexycb": LabelSet(
        dexycb.read,
        ("train", "val", "test", "all"),
        ("*-subject-*/*/meta.yml", "calibration/intrinsics/*_640x480.yml", "calibration/mano_*/mano.yml"),
        "https://dex-ycb.github.io",
        SURFACE,
    ),
}
OWN = {"joints": own.read_joints, "meshes": own.read_meshes}


def check_root(name: str, root: Path, split: str) -> None:
    """Refuse a folder that is not the root of this set, naming the file that is missing and where it is offered.

    Raises:
        UserError
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; --root is the folder of {name}, from {SETS[name].site}")
    missing = _missing(name, root, split)
    if missing:
        others = [other for other in SETS if other != name and not _missing(other, root, SETS[other].splits[0])]
        hint = f"it looks like {others[0]}: try --labels {others[0]}" if others else f"from {SETS[name].site}"
        raise UserError(f"{root}: has no {missing}, so it is not the root of {name}; {hint}")


def _missing(name: str, root: Path, split: str) -> str | None:
    patterns = [pattern.format(split=split) for pattern in SETS[name].files]
    return next((pattern for pattern in patterns if next(root.glob(pattern), None) is None), None)


def annotation_files(name: str, root: Path, split: str) -> list[Path]:
    """The single files that the labels are read from, by which a data set remembers what it was made of."""
    patterns = [pattern.format(split=split) for pattern in SETS[name].files]
    return [root / pattern for pattern in patterns if "*" not in pattern and (root / pattern).is_file()]


def read_labels(name: str, root: Path, split: str) -> Iterator[Label]:
    """The labels of a set, one after another.

    Raises:
        UserError: an annotation that is not in the set's format.
    """
    try:
        for label in SETS[name].read(root, split):
            check_shapes(label)
            yield label
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{root}: an annotation is not in the format of {name} ({type(error).__name__}: {reason_of(error)})"
        ) from None


def check_shapes(label: Label) -> None:
    """Refuse arrays of other shapes than `HandLabel` and `Mano` say.

    Raises:
        ValueError
    """
    for hand in label.hands:
        arrays: list[tuple[str, np.ndarray | None, tuple[int, ...]]]
        arrays = [("3D joints", hand.joints_3d, (21, 3)), ("2D joints", hand.joints_2d, (21, 2))]
        if hand.vertices is not None:
            arrays.append(("vertices", hand.vertices, (len(hand.vertices), 3)))
        if hand.mano:
            pose, shape, translation, *_ = hand.mano
            arrays += [("MANO's pose", pose, (48,)), ("shape", shape, (10,)), ("translation", translation, (3,))]
        for name, array, expected in arrays:
            if array is not None and array.shape != expected:
                raise ValueError(f"{label.source}: {name} {array.shape}, not {expected}")
